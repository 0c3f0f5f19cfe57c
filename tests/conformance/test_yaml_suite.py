"""Every case of the public YAML test suite: agreed with or refused, never read as another value.

`yaml-test-suite.md` lists the answer to each case. To run, and to publish again:

    git clone -b data https://github.com/yaml/yaml-test-suite /tmp/yaml-test-suite
    BEDDEL_YAML_TEST_SUITE=/tmp/yaml-test-suite BEDDEL_WRITE_SUITE_RESULTS=1 \\
        pytest tests/conformance/test_yaml_suite.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from beddel_cli.errors import JobError
from beddel_cli.yaml_safe import parse_yaml
from tests.support.suites import check_published, digest, suite_folder, table

SOURCE = "https://github.com/yaml/yaml-test-suite"
COMMIT = "6ad3d2c62885d82fc349026c136ef560838fdf3d"
PUBLISHED = Path(__file__).with_name("yaml-test-suite.md")
HEAD = f"""# The YAML test suite, case by case

{SOURCE}, branch `data`, commit `{COMMIT}`;
SHA-256 over its inputs `%s`.
Made by `tests/conformance/test_yaml_suite.py`, which fails when an answer changes; its first lines
say how to run it.

- **agree**: the same value as the suite's JSON, or an error where the suite wants one.
- **agree, no JSON**: a value; the suite has no JSON for it.
- **refused by design**: valid YAML with something that a job has no use for, or that libyaml would
  read as another value: the rule is named.
- **not read by libyaml**: valid YAML 1.2 that PyYAML's parser takes for a mistake.
- **accepted**: an error to the suite that libyaml reads; the value is the one that was meant.
"""
LIBYAML = "not valid YAML: "
# Errors of the suite that we read: white space or a comment in the wrong place, no other value.
ACCEPTED = {
    "9C9N": {"flow": ["a", "b", "c"]},
    "CVW2": ["a", "b", "c"],
    "DK95/01": {"foo": "bar baz"},
    "MUS6/00": None,
    "QB6E": {"quoted": "a b c"},
    "S98Z": {"empty block scalar": ""},
    "Y79Y/003": [["foo", "foo"]],
}
NO_JSON = {"UKK6/02": ""}


def same(left: Any, right: Any) -> bool:
    """Tell whether two values are one to JSON: 1 is not true, and 1 is 1.0 only by name."""
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


def documents(text: str) -> list[Any]:
    """Read JSON values that stand one after the other."""
    values, decoder = [], json.JSONDecoder()
    while text := text.lstrip():
        value, end = decoder.raw_decode(text)
        values.append(value)
        text = text[end:]
    return values


def answer(case: Path, name: str) -> tuple[str, str]:
    """Judge one case: how it was answered, and with what words or value."""
    is_error, wanted = (case / "error").exists(), case / "in.json"
    try:
        value = parse_yaml((case / "in.yaml").read_bytes(), "in.yaml").value
    except JobError as error:
        shown = f"{error.place}: {error.message}"
        if is_error:
            return "agree", shown
        of_libyaml = error.message.startswith(LIBYAML)
        return "not read by libyaml" if of_libyaml else "refused by design", shown
    shown = json.dumps(value, ensure_ascii=False)
    shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
    if is_error:
        assert name in ACCEPTED, f"{name}: accepted, and the suite calls it an error: {shown}"
        assert same(value, ACCEPTED[name])
        return "accepted", shown
    if not wanted.exists():
        assert name in NO_JSON, f"{name}: no JSON to compare with: {shown}"
        assert same(value, NO_JSON[name])
        return "agree, no JSON", shown
    assert same([value], documents(wanted.read_text(encoding="utf-8"))), f"{name}: {shown}"
    return "agree", shown


def test_every_case_is_agreed_with_or_refused_and_listed() -> None:
    root = suite_folder("BEDDEL_YAML_TEST_SUITE", f"-b data {SOURCE}")
    # The folders `name` and `tags` hold links to the same cases.
    files = sorted(file for file in root.glob("**/in.yaml") if not {"name", "tags"} & {*file.parts})
    rows = []
    for file in files:
        name = file.parent.relative_to(root).as_posix()
        title = (file.parent / "===").read_text(encoding="utf-8").strip()
        rows.append((name, *answer(file.parent, name), title))
    assert len(rows) == 402
    text = table(HEAD % digest(files, root), ("case", "answer", "with", "about"), rows)
    check_published(PUBLISHED, text)


def test_what_is_published_adds_up() -> None:
    lines = PUBLISHED.read_text(encoding="utf-8").splitlines()
    cells = [line.split(" | ") for line in lines if line.startswith("| ")]
    totals = {
        row[0][2:]: int(row[1][:-2]) for row in cells if len(row) == 2 and row[1][0].isdigit()
    }
    cases = [row[1] for row in cells if len(row) > 2][2:]
    assert totals.pop("all") == len(cases) == 402
    assert totals == {answered: cases.count(answered) for answered in {*cases}}
