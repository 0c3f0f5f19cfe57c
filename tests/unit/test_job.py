"""Job files: what is read, and for everything else the exact message and place."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from beddel_cli.errors import BeddelError, JobError, NotFoundError, RefusedError, UsageError
from beddel_cli.job import (
    Job,
    input_bytes,
    parse_job,
    read_job,
    snippet_job,
    with_input,
    with_setting,
)
from beddel_cli.limits import Limits
from tests.support.named_files import load_job
from tests.support.values import JOB

HEAD = "beddel: 1\nid: one\nruntime: javascript\n"
GOOD = HEAD + "code: return 42\n"


def parse(text: str) -> Job:
    return parse_job(text.encode(), "job.yaml")


def error_of(text: str) -> JobError:
    with pytest.raises(JobError) as caught:
        parse(text)
    return caught.value


def test_a_job_has_what_its_file_says() -> None:
    text = (
        "beddel: 1\nid: order-totals\nname: Orders\ndescription: adds up\nversion: '2'\n"
        "runtime: javascript\ncode: |\n  return input\ninput: {a: [1, null, x]}\n"
        "limits: {memory: 1MiB, timeout: 2s, fuel: 9, max_output: 1KiB, max_console: 2B}\n"
        "network: none\ndeterministic: true\n"
    )
    job = parse(text)
    assert job.source == text.encode()
    assert (job.id, job.name, job.description, job.version) == (
        "order-totals",
        "Orders",
        "adds up",
        "2",
    )
    assert (job.runtime, job.code, job.code_file) == ("javascript", b"return input\n", None)
    assert job.input == {"a": [1, None, "x"]}
    assert job.limits == Limits(1 << 20, 2_000_000_000, 9, 1024, 2)
    assert str(dict(job.limit_places)["wall_ns"]) == "job.yaml:10:33"
    assert job.deterministic is True


def test_a_word_that_older_yaml_takes_for_false_is_an_id() -> None:
    assert parse(GOOD.replace("one", "no")).id == "no"


def test_what_a_job_leaves_out_is_none() -> None:
    job = parse(GOOD)
    assert (job.name, job.description, job.version, job.input) == (None, None, None, None)
    assert (job.limits, job.limit_places, job.deterministic) == (Limits(), (), False)


# A job -> the whole first line of its error, and its hint.
BAD: list[tuple[str, str, str | None]] = [
    ("[]", "job.yaml:1:1: the document is a list", None),
    ("just text", "job.yaml:1:1: the document is text", None),
    ("---\n", "job.yaml:2:1: the document is nothing", None),
    ("true", "job.yaml:1:1: the document is true or false", None),
    ("id: one\n", "job.yaml:1:1: missing key 'beddel'", "add `beddel: 1`"),
    ("beddel: 1\nruntime: x\n", "job.yaml:1:1: missing key 'id'", "add `id: …`"),
    ("beddel: 1\nid: one\ncode: x\n", "job.yaml:1:1: missing key 'runtime'", "add `runtime: …`"),
    (GOOD.replace("1", "2", 1), "job.yaml:1:9: format 2 is not known", None),
    (GOOD.replace("1", "'1'", 1), "job.yaml:1:9: beddel is text", None),
    (GOOD.replace("1", "true", 1), "job.yaml:1:9: beddel is true or false", None),
    (GOOD.replace("1", "1.0", 1), "job.yaml:1:9: beddel is a number", None),
    (GOOD.replace("one", "One"), "job.yaml:2:5: not a valid id: 'One'", None),
    (GOOD.replace("one", "-one"), "job.yaml:2:5: not a valid id: '-one'", None),
    (GOOD.replace("one", '"a\\n"'), "job.yaml:2:5: not a valid id: 'a\\n'", None),
    (GOOD.replace("one", "a" * 64), f"job.yaml:2:5: not a valid id: {'a' * 64!r}", None),
    (GOOD.replace("one", "../x"), "job.yaml:2:5: not a valid id: '../x'", None),
    (GOOD.replace("one", "12"), "job.yaml:2:5: id is a whole number", None),
    (
        GOOD.replace("javascript", "javascrpt"),
        "job.yaml:3:10: runtime is 'javascrpt'",
        "did you mean 'javascript'?",
    ),
    (GOOD.replace("javascript", "[javascript]"), "job.yaml:3:10: runtime is a list", None),
    (
        GOOD.replace("javascript", "python"),
        "job.yaml:3:10: runtime 'python' is not available in this version",
        None,
    ),
    (
        GOOD.replace("javascript", "wasm"),
        "job.yaml:3:10: runtime 'wasm' is not available in this version",
        None,
    ),
    (
        GOOD.replace("javascript", "process"),
        "job.yaml:1:1: missing key 'command'",
        "add `command: …`",
    ),
    (GOOD + "inputs: 1\n", "job.yaml:5:1: unknown key 'inputs'", "did you mean 'input'?"),
    (GOOD + "zzz: 1\n", "job.yaml:5:1: unknown key 'zzz'", None),
    (GOOD + '"a\\e[1m": 1\n', "job.yaml:5:1: unknown key 'a\\x1b[1m'", None),
    *(
        (
            f"{GOOD}{key}: x\n",
            f"job.yaml:5:1: {key!r} is not enforced by this version, "
            "so a job that asks for it is not run",
            f"remove {key!r}",
        )
        for key in ("modules", "max_concurrent")
    ),
    *(
        (
            f"{GOOD}{key}: {value}\n",
            f"job.yaml:5:1: {key!r} is for programs; an isolate cannot use it",
            f"remove {key!r}",
        )
        for key, value in (
            ("env", "{A: b}"),
            ("mounts", "[]"),
            ("workspace", "{source: .}"),
            ("command", "[x]"),
        )
    ),
    (HEAD, "job.yaml:1:1: a job has `code` or `file`, and here is neither", None),
    (HEAD + "code:\n", "job.yaml:4:6: code is nothing", None),
    (
        GOOD + "file: x.js\n",
        "job.yaml:5:1: a job has `code` or `file`, and here are both",
        "remove 'file'",
    ),
    (HEAD + "code: 12\n", "job.yaml:4:7: code is a whole number", None),
    (HEAD + "code: [a]\n", "job.yaml:4:7: code is a list", None),
    (HEAD + "file: {a: b}\n", "job.yaml:4:7: file is a mapping", None),
    (HEAD + 'code: "\\ud800"\n', "job.yaml:4:10: not valid YAML: ", None),
    (GOOD + "name: [x]\n", "job.yaml:5:7: name is a list", None),
    (GOOD + "version: 1.0\n", "job.yaml:5:10: version is a number", None),
    (GOOD + "deterministic: yes\n", "job.yaml:5:16: deterministic is text", None),
    (GOOD + "network: all\n", "job.yaml:5:10: network is 'all'", None),
    (GOOD + "network: null\n", "job.yaml:5:10: network is nothing", None),
    (GOOD + "network: [none]\n", "job.yaml:5:10: network is a list", None),
    (GOOD + "limits: 1MiB\n", "job.yaml:5:9: limits is text", None),
    (
        GOOD + "limits:\n  memroy: 1MiB\n",
        "job.yaml:6:3: unknown key 'memroy' in limits",
        "did you mean 'memory'?",
    ),
    (
        GOOD + "limits:\n  cpus: 1\n",
        "job.yaml:6:3: limits.cpus is for programs; an isolate cannot use it",
        "remove 'cpus'",
    ),
    (
        GOOD + "limits:\n  memory: 2MB\n",
        "job.yaml:6:11: memory has no known unit: '2MB'",
        "write 2MiB",
    ),
    (GOOD + "limits: {timeout: 5}\n", "job.yaml:5:19: timeout has no known unit: 5", "write 5s"),
    (GOOD + "limits: {timeout: null}\n", "job.yaml:5:19: timeout is not a quantity: None", None),
    (GOOD + "limits: {fuel: -1}\n", "job.yaml:5:16: fuel is out of range: -1", None),
    (
        GOOD + "input:\n  a:\n  - 1\n  - 9007199254740992\n",
        "job.yaml:8:5: input.a[1]: a whole number that JavaScript cannot hold exactly",
        "write it in quotes and use BigInt(…) in the code",
    ),
    (GOOD + "input: 1e999\n", "job.yaml:5:8: a number outside the range of JSON: 1e999", None),
]


@pytest.mark.parametrize(("text", "line", "hint"), BAD, ids=range(len(BAD)))
def test_a_bad_job_is_told_where_and_why(text: str, line: str, hint: str | None) -> None:
    error = error_of(text)
    shown = f"{error.place}: {error.message}"
    assert shown.startswith(line) if line.endswith(": ") else shown == line
    assert error.exit_code == 125
    if hint is not None or not line.endswith(": "):
        assert error.hint == hint


def test_an_error_says_what_was_expected_and_what_there_was() -> None:
    error = error_of(GOOD.replace("1", "'1'", 1))
    assert (error.expected, error.got) == ("a whole number", "'1'")
    error = error_of(GOOD.replace("1", "2", 1))
    assert error.expected == "beddel: 1"
    error = error_of(GOOD.replace("javascript", "python"))
    assert error.expected == "javascript or process"
    error = error_of(HEAD + f"code: [{'x' * 100}]\n")
    assert error.got is not None
    assert len(error.got) == 60


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("ls -l", 'command: ["ls", "-l"]'),
        ("seq 5", 'command: ["seq", "5"]'),
        ("ls | wc", 'command: ["sh", "-c", "ls | wc"]'),
        ("echo 'a  b'", """command: ["sh", "-c", "echo 'a  b'"]"""),
        ("x" * 200, "a list of the program and its arguments"),
        ("", "a list of the program and its arguments"),
        ("[", 'command: ["sh", "-c", "["]'),
    ],
)
def test_a_command_that_is_one_text_is_written_as_a_list(command: str, hint: str) -> None:
    head = HEAD.replace("javascript", "process")
    error = error_of(f"{head}command: {json.dumps(command)}\n")
    assert error.message == "command is text"
    assert (error.expected, error.hint) == ("a list", hint)
    if hint.startswith("command: "):
        assert parse(f"{head}{hint}\n").command


@pytest.mark.parametrize("number", [9007199254740991, -9007199254740991, 0.1, 1e300])
def test_numbers_that_javascript_holds_arrive(number: float) -> None:
    assert parse(f"{GOOD}input: {number!r}\n").input == number


def test_the_input_is_handed_over_as_utf8_json() -> None:
    job = parse(GOOD + 'input: {b: [1, "é\\0"], a: null}\n')
    assert input_bytes(job) == '{"b":[1,"é\\u0000"],"a":null}'.encode()


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_code_file_beside_the_job_is_read(tmp_path: Path) -> None:
    write(tmp_path, "lib/x.js", "return 1")
    path = write(tmp_path, "job.yaml", HEAD + "file: lib/x.js\n")
    job = load_job(str(path))
    assert (job.code, job.code_file) == (b"return 1", "lib/x.js")
    assert str(job.code_place.locate(3, 4)) == f"{tmp_path}/lib/x.js:3:4"


def outside(folder: Path) -> dict[str, str]:
    """Give names that lead out of the job's folder to a file that is there."""
    write(folder, "secret.js", "return 'secret'")
    (folder / "jobs").mkdir()
    (folder / "jobs" / "link.js").symlink_to("../secret.js")
    (folder / "jobs" / "abs.js").symlink_to(folder / "secret.js")
    (folder / "jobs" / "up").symlink_to("..")
    return {
        "dots": "../secret.js",
        "absolute": str(folder / "secret.js"),
        "link": "link.js",
        "absolute link": "abs.js",
        "folder link": "up/secret.js",
        "there and back": "../jobs/../secret.js",
        "proc": "/proc/self/environ",
    }


@pytest.mark.parametrize(
    "way",
    ["dots", "absolute", "link", "absolute link", "folder link", "there and back", "proc"],
)
def test_no_way_leads_a_job_to_a_file_outside_its_folder(tmp_path: Path, way: str) -> None:
    name = outside(tmp_path)[way]
    assert (tmp_path / "jobs" / name).is_file(), "the control: the name leads to a file"
    path = write(tmp_path / "jobs", "job.yaml", f"{HEAD}file: {name}\n")
    with pytest.raises(RefusedError) as caught:
        load_job(str(path))
    refusal = caught.value
    message = f"the code file {name!r} lies outside of where this job may name files"
    assert (refusal.message, refusal.reason) == (message, "files")
    assert (refusal.needs, refusal.found) == (f"file {name!r}", "allowed: the job's folder")
    assert "--allow-path DIR" in refusal.fix
    assert str(refusal.place) == f"{path}:4:7"
    job, same = read_job(str(path))
    assert (job.code, job.code_file) == (b"", name)
    assert isinstance(same, RefusedError)


@pytest.mark.parametrize(
    "way", ["dots", "absolute", "link", "absolute link", "folder link", "there and back"]
)
def test_an_allowed_folder_lets_a_job_out_into_it(tmp_path: Path, way: str) -> None:
    name = outside(tmp_path)[way]
    path = write(tmp_path / "jobs", "job.yaml", f"{HEAD}file: {name}\n")
    job = load_job(str(path), [str(tmp_path)])
    assert (job.code, job.code_file) == (b"return 'secret'", name)
    assert job.code_place.file == str(tmp_path / "jobs" / name)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with pytest.raises(RefusedError) as caught:
        load_job(str(path), [str(elsewhere)])
    assert caught.value.found == f"allowed: the job's folder, {str(elsewhere)!r}"


def test_an_allowed_folder_has_to_be_one(tmp_path: Path) -> None:
    path = write(tmp_path, "job.yaml", HEAD + "code: return 1\n")
    for name, why in (
        (str(tmp_path / "nope"), "No such file or directory"),
        (str(path), "Not a directory"),
        ("a\0b", "a NUL character in it"),
    ):
        with pytest.raises(UsageError) as caught:
            load_job(str(path), [str(tmp_path), name])
        assert caught.value.message == f"--allow-path {name!r} cannot be opened: {why}"
    assert load_job(str(path), [str(tmp_path)]).code == b"return 1"


def test_a_link_inside_the_folder_is_followed(tmp_path: Path) -> None:
    write(tmp_path, "a/x.js", "return 5")
    (tmp_path / "y.js").symlink_to("a/x.js")
    path = write(tmp_path, "job.yaml", HEAD + "file: y.js\n")
    assert load_job(str(path)).code == b"return 5"


def test_a_code_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.js")
    (tmp_path / "folder.js").mkdir()
    (tmp_path / "bad.js").write_bytes(b"a\n\xff")
    cases: dict[str, tuple[type[BeddelError], str]] = {
        "nope.js": (NotFoundError, "no code file at 'nope.js'"),
        '""': (NotFoundError, "no code file at ''"),
        "fifo.js": (JobError, "the code file 'fifo.js' is not a regular file"),
        "folder.js": (JobError, "the code file 'folder.js' is not a regular file"),
        "bad.js": (JobError, "the code is not valid UTF-8"),
        '"a\\0b"': (JobError, "no file can have the name of the code file: 'a\\x00b'"),
        f'"{"n" * 300}"': (
            JobError,
            f"cannot read the code file {'n' * 300!r}: File name too long",
        ),
    }
    for name, (kind, message) in cases.items():
        path = write(tmp_path, "job.yaml", f"{HEAD}file: {name}\n")
        with pytest.raises(kind) as caught:
            load_job(str(path))
        assert str(caught.value).startswith(message[:60]), name
        wanted = f"{tmp_path}/bad.js:2" if name == "bad.js" else f"{path}:4:7"
        assert str(caught.value.place) == wanted


@contextmanager
def on_standard_input(text: str) -> Iterator[None]:
    """Have a job on descriptor 0."""
    read, write_end = os.pipe()
    os.write(write_end, text.encode())
    os.close(write_end)
    saved = os.dup(0)
    try:
        os.dup2(read, 0)
        yield
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        os.close(read)


def test_a_job_from_standard_input_has_no_folder_for_a_relative_name(tmp_path: Path) -> None:
    with (
        on_standard_input(HEAD + "file: x.js\n"),
        pytest.raises(JobError, match="no folder to find its code file in") as caught,
    ):
        load_job("-", [str(tmp_path)])
    assert str(caught.value.place) == "<stdin>:4:7"


def test_a_job_from_standard_input_may_name_a_file_in_an_allowed_folder(tmp_path: Path) -> None:
    path = write(tmp_path, "x.js", "return 7")
    text = f"{HEAD}file: {path}\n"
    with on_standard_input(text):
        assert load_job("-", [str(tmp_path)]).code == b"return 7"
    with on_standard_input(text), pytest.raises(RefusedError) as caught:
        load_job("-")
    assert caught.value.found == "allowed: no folder"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("dir/My Code (2).js", "my-code-2"),
        ("x.tar.gz", "x-tar"),
        ("ÄÖ.js", "snippet"),
        ("<stdin>", "stdin"),
        ("-" + "y" * 99 + ".js", "y" * 63),
        ("a" * 62 + "--b.js", "a" * 62),
        ("\x1b[1m\n.js", "1m"),
    ],
)
def test_a_snippet_is_a_job_with_an_id_made_of_its_name(file: str, name: str) -> None:
    job = snippet_job(b"return 1", file, "javascript")
    assert job.id == name
    assert (job.code, job.source, job.input, job.limits) == (
        b"return 1",
        b"return 1",
        None,
        Limits(),
    )
    assert str(job.code_place.locate(2, 3)) == f"{file}:2:3"


def test_a_snippet_that_is_not_text_is_an_error() -> None:
    with pytest.raises(JobError, match="the code is not valid UTF-8") as caught:
        snippet_job(b"\x7fELF\n\xff", "a.out", "javascript")
    assert str(caught.value.place) == "a.out:2"


def test_another_input_replaces_the_jobs_own() -> None:
    assert with_input(JOB, {"a": 1}, "in.json").input == {"a": 1}
    with pytest.raises(JobError, match=r"^input\.a\[0\]: a whole number") as caught:
        with_input(JOB, {"a": [1 << 60]}, "in.json")
    assert str(caught.value.place) == "in.json"
    deep: Any = 1
    for _ in range(300):
        deep = [deep]
    with pytest.raises(JobError, match="nested deeper than 256"):
        with_input(JOB, deep, "in.json")


@pytest.mark.parametrize(
    ("before", "setting", "after"),
    [
        (None, "input=5", 5),
        (None, "input.a.b=[1]", {"a": {"b": [1]}}),
        ({"a": 1, "b": 2}, 'input.a="x=y"', {"a": "x=y", "b": 2}),
        ({"a": [1, {"b": 2}]}, "input.a.1.b=null", {"a": [1, {"b": None}]}),
        ({"a": {}}, "input.a.0=1", {"a": {"0": 1}}),
    ],
)
def test_a_setting_changes_one_value(before: Any, setting: str, after: Any) -> None:
    job = with_input(JOB, before, "f")
    assert with_setting(job, setting).input == after
    assert job.input == before


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("", "--set '' is not a setting"),
        ("input", "--set 'input' is not a setting"),
        ("inputs.a=1", "--set 'inputs.a=1' is not a setting"),
        ("input.=1", "--set 'input.=1' is not a setting"),
        ("input..a=1", "--set 'input..a=1' is not a setting"),
        ("input.a=x", "not valid JSON: expecting value"),
        ("input.a=", "not valid JSON: expecting value"),
        ("input.a=NaN", "JSON has no such number: NaN"),
        ("input.a=1e999", "a number outside the range of JSON: 1e999"),
        ("input.a=9007199254740993", "input.a: a whole number that JavaScript cannot hold exactly"),
        ("input.a=\udcff", "not valid UTF-8"),
        ("input.list.2=1", "--set input.list.2: there is no '2' to set"),
        ("input.list.-1=1", "--set input.list.-1: there is no '-1' to set"),
        ("input.list.\u0661=1", "--set input.list.\u0661: there is no '\u0661' to set"),
        ("input.list.x=1", "--set input.list.x: there is no 'x' to set"),
        ("input.text.x=1", "--set input.text.x: there is no 'x' to set"),
        (f"input.list.{'1' * 5000}=1", f"--set input.list.{'1' * 5000}: there is no "),
        (f"input{'.a' * 5000}=1", "--set leads deeper than 256 keys"),
        ("input.a=" + "[" * 50_000, "nested deeper than 256"),
    ],
)
def test_a_setting_that_cannot_be_is_an_error(setting: str, message: str) -> None:
    job = with_input(JOB, {"list": [1, 2], "text": "x"}, "f")
    with pytest.raises(JobError) as caught:
        with_setting(job, setting)
    assert caught.value.message.startswith(message)


def test_a_setting_that_is_not_json_shows_how_text_is_written() -> None:
    with pytest.raises(JobError) as caught:
        with_setting(JOB, "input.name=Ann")
    assert caught.value.hint == "text is written in quotes: --set 'input.name=\"Ann\"'"
