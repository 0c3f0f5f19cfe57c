"""Every file of the public JSON test suite: what must be read is, what must not be is not.

`json-test-suite.md` lists the answer to each. To run, and to publish again:

    git clone https://github.com/nst/JSONTestSuite /tmp/JSONTestSuite
    BEDDEL_JSON_TEST_SUITE=/tmp/JSONTestSuite BEDDEL_WRITE_SUITE_RESULTS=1 \\
        pytest tests/conformance/test_json_suite.py
"""

from __future__ import annotations

import json
from pathlib import Path

from beddel_cli.errors import JobError
from beddel_cli.json_strict import UnportableError, find_inexact, parse_json
from tests.support.suites import check_published, digest, suite_folder, table

SOURCE = "https://github.com/nst/JSONTestSuite"
COMMIT = "1ef36fa01286573e846ac449e8683f8833c5b26a"
PUBLISHED = Path(__file__).with_name("json-test-suite.md")
HEAD = f"""# The JSON test suite, file by file

{SOURCE}, folder `test_parsing`, commit `{COMMIT}`;
SHA-256 over its files `%s`.
Made by `tests/conformance/test_json_suite.py`, which fails when an answer changes; its first lines
say how to run it. Names that begin with `y` must be read, with `n` refused, with `i` may be either.

- **agree**: as the suite wants it; what is read has the value that Python's own reader gives.
- **refused by design**: JSON by its grammar, but readers do not agree on its value.
- **read**, **refused**: where the suite leaves the choice.
"""


def answer(file: Path) -> tuple[str, str]:
    """Judge one file: how it was answered, and with what words or value."""
    data, kind = file.read_bytes(), file.name[0]
    try:
        value = parse_json(data, "in.json")
        inexact = find_inexact(value)
        if inexact:
            raise UnportableError(inexact[1])
    except JobError as error:
        shown = f"{error.place}: {error.message}" if error.place else error.message
        if kind == "y":
            return ("refused by design" if isinstance(error, UnportableError) else "wrong"), shown
        return "agree" if kind == "n" else "refused", shown
    assert kind != "n", f"{file.name}: read, and must not be"
    # The sign of -0 is kept, which Python drops from whole numbers.
    assert repr(value).replace("-0.0", "0") == repr(json.loads(data)).replace("-0.0", "0")
    shown = json.dumps(value)
    return "agree" if kind == "y" else "read", shown if len(shown) <= 60 else f"{shown[:60]}…"


def test_every_file_is_answered_as_it_must_be_and_listed() -> None:
    root = suite_folder("BEDDEL_JSON_TEST_SUITE", SOURCE)
    files = sorted((root / "test_parsing").glob("*.json"))
    rows = [(file.name, *answer(file)) for file in files]
    assert len(rows) == 318
    assert "wrong" not in {answered for _, answered, _ in rows}
    refused = {name for name, answered, _ in rows if answered == "refused by design"}
    assert refused == {"y_object_duplicated_key.json", "y_object_duplicated_key_and_value.json"}
    text = table(HEAD % digest(files, root), ("file", "answer", "with"), rows)
    check_published(PUBLISHED, text)
