"""Our interpreter and an independent validator agree, and what we print fits our own schema."""

from __future__ import annotations

import base64
import copy
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

import beddel_cli
from beddel_cli import shape
from beddel_cli.checked_yaml import READERS
from beddel_cli.errors import JobError
from beddel_cli.job import parse_job
from beddel_cli.json_strict import find_inexact
from beddel_cli.profile import parse_profile
from beddel_cli.schema_document import FORMATS, Definitions, standalone, whole
from beddel_cli.yaml_safe import parse_yaml
from tests.support.capabilities import require
from tests.support.cli import COMMAND, Home

ROOT = Path(__file__).parents[2]
PACKAGE = Path(beddel_cli.__file__).parent
DEFINITIONS = Definitions()
SAMPLES = sorted((PACKAGE / "samples").glob("*.yaml"))
PROFILES = sorted((PACKAGE / "profiles").glob("*.yaml"))
EXAMPLES = re.findall(r"```yaml\n(beddel: .*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)


def _whole_pattern(
    validator: object, pattern: str, value: object, schema: object
) -> Iterator[ValidationError]:
    """Match as ECMA-262 does, where `$` is the very end; Python's lets one newline follow."""
    if isinstance(value, str) and not re.search(pattern[:-1] + r"\Z", value):
        yield ValidationError(f"{value!r} does not match")


# As our interpreter, 1.0 is no whole number.
_TYPES = Draft202012Validator.TYPE_CHECKER.redefine(
    "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
)
Validator: Any = extend(Draft202012Validator, {"pattern": _whole_pattern}, type_checker=_TYPES)
STANDALONE = {kind: json.loads(standalone(kind)) for kind in FORMATS}
VALIDATORS = {kind: Validator(STANDALONE[kind]) for kind in FORMATS}


def their_paths(kind: str, value: Any) -> set[tuple[str | int, ...]]:
    return {tuple(error.absolute_path) for error in VALIDATORS[kind].iter_errors(value)}


def our_paths(kind: str, value: Any) -> set[tuple[str | int, ...]]:
    """Give where our interpreter finds something, as JSON Schema has it.

    It reports an unknown, missing or repeated member at what holds it.
    """
    found = set()
    for item in shape.find_problems(value, DEFINITIONS(kind), DEFINITIONS, {}):
        unknown = item.message.startswith("unknown key ") and item.where == "key"
        held = item.where == "missing" or unknown or " stands twice in " in item.message
        found.add(item.path[:-1] if held else item.path)
    return found


def read(path: Path) -> Any:
    return parse_yaml(path.read_bytes(), path.name).value


DOCUMENTS: list[tuple[str, Any]] = [
    *(("job", read(path)) for path in SAMPLES),
    *(("job", parse_yaml(text.encode(), "README.md").value) for text in EXAMPLES),
    *(("profile", read(path)) for path in PROFILES),
]


@pytest.mark.parametrize("kind", FORMATS)
def test_the_schema_is_a_valid_schema(kind: str) -> None:
    for document in (json.loads(whole()), STANDALONE[kind]):
        Draft202012Validator.check_schema(document)
        # Older editors hold every schema against draft 7.
        Draft7Validator.check_schema(document)


def test_the_whole_document_takes_each_format() -> None:
    validator = Validator(json.loads(whole()))
    for _, document in DOCUMENTS:
        assert validator.is_valid(document)
    assert not validator.is_valid({"beddel": 1})


def test_every_sample_profile_and_example_in_the_readme_fits() -> None:
    assert len(SAMPLES) >= 6
    assert len(PROFILES) >= 3
    assert len(EXAMPLES) >= 1
    for kind, document in DOCUMENTS:
        assert their_paths(kind, document) == our_paths(kind, document) == set()
    for text in EXAMPLES:
        parse_job(text.encode(), "README.md")


def test_the_examples_in_the_schema_fit_what_they_are_examples_of() -> None:
    seen = 0
    waiting: list[Any] = [json.loads(whole())["$defs"]]
    while waiting:
        item = waiting.pop()
        waiting.extend(x for x in (item.values() if isinstance(item, dict) else item) if x)
        waiting = [x for x in waiting if isinstance(x, dict | list)]
        for example in item.get("examples", ()) if isinstance(item, dict) else ():
            assert shape.find_problems(example, item, DEFINITIONS, {}) == []
            assert Validator({**json.loads(whole()), "anyOf": [item]}).is_valid(example), example
            seen += 1
    assert seen >= 15


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from((1.0, 1.5, 1 << 53, (1 << 53) - 1, 1 << 70, 1e300)),
    st.sampled_from(
        ("", "x", "a\n", "1MiB", "1MiB\n", "2MB", "5s", "0s", "70MiB", "1_0", "none", "javascript")
    ),
    st.sampled_from(("process", "ultra", "real", "seccomp", "frozen", "-a", "a" * 64, "\u0661s")),
)
KEYS = st.sampled_from(
    (
        *("beddel", "id", "name", "runtime", "code", "file", "input", "limits", "network", "env"),
        *("memory", "timeout", "fuel", "cpus", "isolate", "level", "required", "clock", "zzz"),
    )
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)
)


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, Any]:
    """A document that fits, changed in up to four places."""
    kind, document = draw(st.sampled_from(DOCUMENTS))
    value = copy.deepcopy(document)
    for _ in range(draw(st.integers(0, 4))):
        holder = value
        while True:
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            inner = [key for key in keys if isinstance(holder[key], dict | list)]
            if not inner or draw(st.booleans()):
                break
            holder = holder[draw(st.sampled_from(inner))]
        deed = draw(st.sampled_from(("change", "remove", "add", "twice")))
        if deed in ("change", "remove", "twice") and keys:
            key = draw(st.sampled_from(keys))
            if deed == "change":
                holder[key] = draw(VALUES)
            elif deed == "remove":
                del holder[key]
            elif isinstance(holder, list):
                holder.append(copy.deepcopy(holder[key]))
        elif isinstance(holder, dict):
            holder[draw(KEYS)] = draw(VALUES)
        else:
            holder.append(draw(VALUES))
    return kind, value


@given(mutated() | st.tuples(st.sampled_from(FORMATS), VALUES))
@settings(max_examples=500, deadline=None)
def test_ours_and_theirs_find_the_same_places(case: tuple[str, Any]) -> None:
    kind, value = case
    assert our_paths(kind, value) == their_paths(kind, value)


@given(mutated())
@settings(max_examples=300, deadline=None)
def test_a_file_is_read_where_theirs_takes_it_and_its_limits_are_in_range(
    case: tuple[str, Any],
) -> None:
    kind, value = case
    text = json.dumps(value).encode()
    problems = shape.find_problems(value, DEFINITIONS(kind), DEFINITIONS, READERS)
    fits = not their_paths(kind, value) and not problems
    if kind == "job":
        inexact = isinstance(value, dict) and find_inexact(value.get("input")) is not None
        fits = fits and not inexact
        accepted = _accepts(lambda: parse_job(text, "f"))
    else:
        # The samples carry names and sizes that a file of one's own cannot have.
        fits = fits and value["name"] not in {path.stem for path in PROFILES}
        fits = fits and "70MiB" not in value["isolate"]["limits"].values()
        accepted = _accepts(lambda: parse_profile(text, "f", built_in=False))
    assert accepted == fits


def _accepts(act: Callable[[], object]) -> bool:
    try:
        act()
    except JobError:
        return False
    return True


def closed(schema: Any) -> Any:
    """Give a schema that takes no member it does not name, to find what it leaves out."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    # A condition asks about single members and says nothing of the others.
    inner = {key: item if key == "if" else closed(item) for key, item in schema.items()}
    named = isinstance(schema.get("properties"), dict) and "type" in schema
    return {**inner, "additionalProperties": False} if named else inner


CLOSED = {kind: Validator(closed(STANDALONE[kind])) for kind in ("receipt", "json-output")}
ENDINGS: dict[str, tuple[str, dict[str, Any], tuple[str, ...], int]] = {
    "success": ("console.log('x'); return input", {"input": [1, {"a": None}]}, (), 0),
    "failure": ("null.x", {}, (), 1),
    "limit": ("for (;;);", {"limits": {"fuel": 1000000}}, (), 124),
    "memory": ("const a = []; for (;;) a.push(new Uint8Array(4096))", {}, (), 137),
    "refusal": ("return 1", {"limits": {"memory": "1GiB"}}, (), 126),
    "heap": ("return 1", {}, ("--heap-snapshot", "heap"), 0),
    "salted": (
        "console.log(1); return input",
        {"input": 1},
        ("--salt", "salt", "--capture", "--heap-snapshot", "heap", "--set", "input=2"),
        0,
    ),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_what_a_run_prints_and_signs_fits_the_schema(name: str, home: Home) -> None:
    code, more, arguments, exit_code = ENDINGS[name]
    done = home.run("run", home.job(code, **more), "--json", *arguments)
    assert done.returncode == exit_code
    assert list(CLOSED["json-output"].iter_errors(done.json)) == []
    shown = home.run("verify", home.receipts()[-1], "--json").json
    assert list(CLOSED["receipt"].iter_errors(shown["statement"])) == []


LOWER = ("--workspace", "lower")
SALTED = ("--salt", "salt", "--capture", "--workspace", "lower/sub", "--results", "made")
# What a program does -> options, exit code and reason.
PROGRAM_ENDINGS: dict[str, tuple[str, tuple[str, ...], int, str]] = {
    "success": ("echo out; echo err >&2", (), 0, "ok"),
    "bytes": (r"printf '\377\000'", (), 0, "ok"),
    "code": ("exit 7", (), 7, "exit"),
    "signal": ("kill -SEGV $$", (), 139, "signal"),
    "wall": ("sleep 60", ("--timeout", "300ms"), 124, "wall"),
    "cpu": ("while :; do :; done", ("--cpu-time", "100ms"), 124, "cpu"),
    "output": ("while :; do echo xxxxxxxx; done", ("--max-output", "4KiB"), 124, "output"),
    "disk": ("head -c 2000000 /dev/zero > x", ("--disk", "1MiB"), 124, "disk"),
    "refusal": ("exit 0", ("--memory", "1GiB"), 126, "limits"),
    "not-shown": ("exit 0", ("--mount", "/proc:/data"), 126, "files"),
    "results": ("mkdir d; echo x > d/a; ls", (*LOWER, "--results", "made"), 0, "ok"),
    "write-back": ("echo x > 'a\\b'", (*LOWER, "--write-back"), 0, "ok"),
    "shown": (
        "cat /data/in",
        ("--mount", "lower:/data", "--env", "A=b", "--tier", "free"),
        0,
        "ok",
    ),
    "salted": ("cat /in; echo x > a", ("--mount", "lower/in:/in", *SALTED), 0, "ok"),
    "file": ("cat /in", ("--mount", "lower/in:/in:rw", "--workspace", "lower/sub:/w:ro"), 0, "ok"),
}
# Of this machine root can make one without cgroups; most others may make no cgroup anyway.
NO_CGROUP = ("unshare", "-m", "--propagation", "private", "sh", "-ec")
UNMOUNT = 'umount -l -a -t cgroup,cgroup2; exec "$@"'
MACHINES: dict[str, tuple[str, ...]] = {"as-it-is": COMMAND}
if os.geteuid() == 0:
    MACHINES["without-cgroup"] = (*NO_CGROUP, UNMOUNT, "sh", *COMMAND)


def signed(home: Home) -> Any:
    """Give the statement of the newest receipt, once its signature is verified."""
    return home.run("verify", home.receipts()[-1], "--json").json["statement"]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", PROGRAM_ENDINGS)
def test_what_a_run_of_a_program_prints_and_signs_fits_the_schema(
    name: str, machine: str, home: Home
) -> None:
    require("user-namespaces")
    script, options, exit_code, reason = PROGRAM_ENDINGS[name]
    (home.work / "lower" / "sub").mkdir(parents=True)
    (home.work / "lower" / "in").write_text("in")
    words = ("exec", "--profile", "high-security", "--json", *options, "--", "sh", "-c", script)
    done = home.run(*words, command=MACHINES[machine])
    assert (done.returncode, done.json["outcome"]["reason"]) == (exit_code, reason), done.message
    assert list(CLOSED["json-output"].iter_errors(done.json)) == []
    statement = signed(home)
    assert list(CLOSED["receipt"].iter_errors(statement)) == []
    assert statement["predicate"]["runtime"]["name"] == "process"
    assert our_paths("receipt", statement) == our_paths("json-output", done.json) == set()
    sandbox = statement["predicate"]["runtime"]["sandbox"]
    if machine == "without-cgroup" and sandbox is not None:
        assert sandbox["cgroup"] == "none", "the control: there was no cgroup"


def test_each_runtime_has_its_own_members_and_none_of_the_others(home: Home) -> None:
    require("user-namespaces")
    assert home.run("run", home.job("return 1"), "-q").returncode == 0
    isolate = signed(home)
    done = home.run("exec", "--profile", "high-security", "-q", "--", "true")
    assert done.returncode == 0, done.message
    program = signed(home)
    for statement, other in ((isolate, "process"), (program, "javascript")):
        assert CLOSED["receipt"].is_valid(statement)
        for member in ("plan", "runtime"):
            word = "runtime" if member == "plan" else "name"
            wrong = copy.deepcopy(statement)
            wrong["predicate"][member][word] = other
            assert not VALIDATORS["receipt"].is_valid(wrong)
    for one, another in ((isolate, program), (program, isolate)):
        for member in ("plan", "runtime", "usage", "console"):
            mixed = copy.deepcopy(one)
            mixed["predicate"][member] = another["predicate"][member]
            assert not VALIDATORS["receipt"].is_valid(mixed), member


def test_a_list_of_trusted_keys_fits_the_schema(home: Home) -> None:
    root = ("--root-key", str(home.work / "root.pem"))
    assert home.run("keys", "init", *root).returncode == 0
    listed = json.loads(home.run("keys", "list", "--json").stdout)
    done = home.run("keys", "revoke", listed["keys"][0]["key_id"], "--reason", "lost", *root)
    assert done.returncode == 0, done.message
    envelope = json.loads((home.home / "trust.json").read_bytes())
    document = json.loads(base64.b64decode(envelope["payload"]))
    assert document["keys"][0]["revoked"]["reason"] == "lost"
    assert list(VALIDATORS["trust"].iter_errors(document)) == []
    assert our_paths("trust", document) == set()
    for member in ("serial", "keys", "expires"):
        wrong = {name: value for name, value in document.items() if name != member}
        assert our_paths("trust", wrong) == their_paths("trust", wrong) == {()}


def test_errors_in_json_fit_the_schema_and_tell_everything_at_once(home: Home) -> None:
    (home.work / "bad.yaml").write_text(
        "beddel: 1\nid: Bad\nruntime: javascript\ncodes: x\nlimits: {memory: 2MB, timeot: 1s}\n"
    )
    for job in ("bad.yaml", "nowhere.yaml", "two", "--no-such-flag"):
        done = home.run("run", job, "--json")
        assert done.returncode in (125, 127)
        assert list(CLOSED["json-output"].iter_errors(done.json)) == []
    done = home.run("run", "bad.yaml", "--json")
    error = done.json["error"]
    told = [(item["line"], item["column"], item["message"]) for item in (error, *error["more"])]
    assert told == [
        (1, 1, "a job has `code` or `file`, and here is neither"),
        (2, 5, "not a valid id: 'Bad'"),
        (4, 1, "unknown key 'codes'"),
        (5, 18, "memory has no known unit: '2MB'"),
        (5, 23, "unknown key 'timeot' in limits"),
    ]
    assert [item["hint"] for item in error["more"]] == [
        None,
        "did you mean 'code'?",
        "write 2MiB",
        "did you mean 'timeout'?",
    ]
    heads = [line for line in done.message.splitlines() if not line.startswith(" ")]
    assert heads == [f"beddel-cli: bad.yaml:{line}:{column}: {text}" for line, column, text in told]


def test_the_closed_schema_sees_a_member_that_nobody_described(home: Home) -> None:
    done = home.run("run", home.job("return 1"), "--json")
    document = done.json
    assert CLOSED["json-output"].is_valid(document)
    document["outcome"]["colour"] = 1
    assert not CLOSED["json-output"].is_valid(document)
    assert VALIDATORS["json-output"].is_valid(document), "readers pass over what they do not know"
