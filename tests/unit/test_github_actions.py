"""What a step's log and summary hold, against the rules by which GitHub's runner reads them."""

from __future__ import annotations

import base64
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beddel_cli import github_actions
from beddel_cli.errors import JobError, Place
from beddel_cli.github_actions import (
    MAX_SUMMARY_FILE_BYTES,
    ONLY_THIS_RUN,
    annotation,
    between_tokens,
    for_step_log,
    note_of_error,
    summary_of_errors,
    summary_of_run,
)
from beddel_cli.outcome import ConsoleLine, JobFailure, Outcome
from tests.support.cli import Home
from tests.support.github_runner import REGISTERED, Command, commands, parse_line
from tests.support.values import finished, place

FORGERIES = (
    "::error::forged",
    "  ::set-output name=a::forged",
    "##[error]forged",
    "x ##[add-mask]forged",
    "a\n::error::forged",
    "a\r::error::forged",
    "a\r\n##[warning]forged\n",
    "::stop-commands::mine\n::mine::\n::error::forged",
    "%0A::error::forged",
)
TEXT = st.text() | st.sampled_from(FORGERIES)


def test_the_model_of_the_runner_obeys_what_a_runner_obeys() -> None:
    assert parse_line("::error file=a%2Cb,line=1::m%0An%25", REGISTERED) == Command(
        "error", {"file": "a,b", "line": "1"}, "m\nn%"
    )
    assert parse_line("text ##[error]m", REGISTERED) == Command("error", {}, "m")
    for line in ("text ::error::m", "::nonsense::m", "::error", "##[error", "##[nonsense]m"):
        assert parse_line(line, REGISTERED) is None
    stopped = b"::stop-commands::t\n::error::no\n::x::\n::t::\n::error::yes\n"
    assert [command.data for command in commands(stopped)] == ["yes"]
    assert len(commands(b"a\r::error::1\n::error::2\r\n")) == 2


CODES = (
    "console.log(input); return input",
    "throw new Error(input)",
    "const e = new Error(input); e.name = input; throw e",
)
MODES: tuple[tuple[str, ...], ...] = ((), ("-q",), ("-v",), ("--json",), ("--log-format", "json"))
# Every text in every place, and one that tries everything in every mode.
SAYINGS: list[tuple[str, str, tuple[str, ...]]] = [
    (text, code, ()) for text in FORGERIES for code in CODES
]
SAYINGS += [("\n".join(FORGERIES), code, mode) for code in CODES for mode in MODES]


@pytest.mark.parametrize(("text", "code", "mode"), SAYINGS)
def test_a_job_makes_the_runner_do_nothing(
    home: Home, text: str, code: str, mode: tuple[str, ...]
) -> None:
    job = home.job(code, input=text)
    summary = home.work / "summary.md"
    summary.write_text("")
    environment = home.environment(GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(summary))
    result = home.run("run", job, *mode, env=environment)
    obeyed = [*commands(result.stdout), *commands(result.stderr)]
    failed = [] if "console" in code or "--log-format" in mode else ["error"]
    made = [] if "--log-format" in mode else ["notice"]
    assert [command.name for command in obeyed] == failed + made
    assert [command.data for command in obeyed if command.data.startswith("forged")] == []
    lines = result.message.splitlines()
    if "--log-format" not in mode and ("-q" not in mode or failed):
        assert lines[0].startswith("::stop-commands::")
        assert f"::{lines[0].rpartition(':')[2]}::" in lines
    # What was said is still there, and the output is the same value.
    assert summary.read_text().count("<table>") == 1
    if "console" in code:
        document = json.loads(result.stdout)
        assert (document["output"] if "--json" in mode else document) == text


def test_without_github_nothing_is_added(home: Home) -> None:
    summary = home.work / "summary.md"
    summary.write_text("")
    job = home.job("return '##[error]x'")
    home.run("run", job)
    for value in ("", "false", "1"):
        environment = home.environment(GITHUB_ACTIONS=value, GITHUB_STEP_SUMMARY=str(summary))
        result = home.run("run", job, env=environment)
        assert result.stdout == b'"##[error]x"\n'
        assert b"::" not in result.stderr
    assert summary.read_text() == ""


def test_a_file_and_raw_get_the_bytes_the_receipt_digests(home: Home) -> None:
    job = home.job("return '##[error]x'")
    environment = home.environment(GITHUB_ACTIONS="true")
    piped = home.run("run", job, env=environment).stdout
    assert piped == b'"##\\u005berror]x"\n'
    assert home.run("run", job, "--raw", env=environment).stdout == b'"##[error]x"\n'
    with (home.work / "out.json").open("wb") as file:
        home.run("run", job, env=environment, stdout=file)
    assert (home.work / "out.json").read_bytes() == b'"##[error]x"\n'
    public = home.home / "keys" / "signing.pub.pem"
    receipt = home.receipts()[-1]
    checked = home.run("verify", receipt, "--key", public, "--output", home.work / "out.json")
    assert checked.returncode == 0, checked.message


@given(value=st.recursive(TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner)))
def test_output_for_a_step_log_is_the_same_value_and_no_command(value: object) -> None:
    written = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    shown = for_step_log(written.encode("utf-8", "surrogatepass"))
    assert json.loads(shown.decode("utf-8", "surrogatepass")) == json.loads(written)
    assert commands(shown) == []


@given(text=TEXT)
def test_whatever_stands_between_tokens_is_text(text: str) -> None:
    data = (between_tokens(text) + "::notice::after\n").encode("utf-8", "surrogatepass")
    assert [command.data for command in commands(data)] == ["after"]


def test_each_token_is_new_and_has_128_bits() -> None:
    tokens = {between_tokens("x").splitlines()[0] for _ in range(50)}
    assert len(tokens) == 50
    assert all(re.fullmatch(r"::stop-commands::[0-9a-f]{32}", token) for token in tokens)


@given(file=TEXT, title=TEXT, message=TEXT)
def test_an_annotation_is_one_command_whatever_it_says(file: str, title: str, message: str) -> None:
    data = annotation("error", title, message, Place(file, 3, 4)).encode("utf-8", "surrogatepass")
    (command,) = commands(data)
    assert command.name == "error"
    assert set(command.properties) <= {"file", "line", "col", "title"}
    assert data.count(b"\n") == 1
    if file.isprintable() and file.isascii() and file and not file.startswith("<"):
        assert command.properties["file"] == file.replace("##[", "##\\x5b")
        assert (command.properties["line"], command.properties["col"]) == ("3", "4")


PLACES: tuple[tuple[Place | None, dict[str, str]], ...] = (
    (Place("/w/repo/jobs/a.yaml", 3, 7), {"file": "jobs/a.yaml", "line": "3", "col": "7"}),
    (Place("/w/repo/a.yaml", 3), {"file": "a.yaml", "line": "3"}),
    (Place("/w/repo/a.yaml"), {"file": "a.yaml"}),
    (Place("/w/repository/a.yaml", 1, 1), {"file": "/w/repository/a.yaml"}),
    (Place("/w/repo/../b.yaml", 1, 1), {"file": "/w/repo/../b.yaml"}),
    (Place("<stdin>", 1, 1), {}),
    (None, {}),
)


@pytest.mark.parametrize(("where", "properties"), PLACES)
def test_a_place_is_named_as_the_repository_knows_it(
    where: Place | None, properties: dict[str, str]
) -> None:
    written = annotation("error", "t", "m", where, {"GITHUB_WORKSPACE": "/w/repo/"})
    (command,) = commands(written.encode())
    found = {key: value for key, value in command.properties.items() if key != "title"}
    assert properties.items() <= found.items()
    assert ("file" in found) == ("file" in properties)


def test_each_kind_of_ending_is_annotated_where_its_cause_is(home: Home) -> None:
    thrown = home.work / "thrown.yaml"
    thrown.write_text("beddel: 1\nid: a\nruntime: javascript\ncode: |\n  throw new Error('no')\n")
    endless = home.work / "endless.yaml"
    endless.write_text(
        "beddel: 1\nid: b\nruntime: javascript\ncode: for(;;);\nlimits:\n  timeout: 50ms\n"
    )
    wrong = home.work / "wrong.yaml"
    wrong.write_text("beddel: 1\nid: [\n")
    environment = home.environment(GITHUB_ACTIONS="true", GITHUB_WORKSPACE=str(home.work))
    home.run("run", home.job("return 1"))  # makes the key
    cases: tuple[tuple[tuple[object, ...], dict[str, str], str], ...] = (
        ((thrown,), {"file": "thrown.yaml", "line": "5"}, "a: Error: no\nat: "),
        ((endless,), {"file": "endless.yaml", "line": "6"}, "b: timeout limit of 50ms"),
        ((endless, "--timeout", "40ms"), {}, "b: timeout limit of 40ms"),
        ((thrown, "--memory", "64MiB"), {}, "a: "),
        ((wrong,), {"file": "wrong.yaml", "line": "3"}, ""),
        (("none.yaml",), {}, "no job at 'none.yaml'"),
        ((thrown, "--nope"), {}, "no such option: --nope"),
    )
    for arguments, properties, message in cases:
        result = home.run("run", *map(str, arguments), env=environment)
        (command,) = commands(result.stderr)
        assert command.name == "error", arguments
        assert properties.items() <= command.properties.items(), arguments
        assert ("file" in command.properties) == bool(properties), arguments
        assert command.data.startswith(message), (arguments, command.data)


def test_warnings_and_new_keys_are_annotated() -> None:
    run = finished(Outcome("success", "ok", 0, output=b"1"), warnings=("one\n::x::", "two"))
    note = github_actions.note_of_run(run, "note\n", {})
    found = commands(note.encode())
    said = [(command.name, command.data) for command in found]
    assert said == [("warning", "one\n::x::"), ("warning", "two")]
    assert commands(github_actions.note_of_run(run, "", {}, quiet=True).encode()) == []


def test_all_errors_of_a_job_are_annotated_up_to_ten() -> None:
    first = JobError("wrong 0", place=Place("a.yaml", 1, 1))
    first.more = tuple(
        JobError(f"wrong {n}", place=Place("a.yaml", n, 1), hint="h") for n in range(1, 12)
    )
    found = commands(note_of_error(first, "beddel-cli: all of them\n", {}).encode())
    assert [command.data for command in found] == [
        "wrong 0",
        *(f"wrong {n}\nhint: h" for n in range(1, 10)),
    ]
    assert [command.properties["line"] for command in found][2:] == [str(n) for n in range(2, 10)]
    assert "2 more, all in the log" in summary_of_errors([first, *first.more])


def test_a_job_with_three_mistakes_has_three_annotations(home: Home) -> None:
    (home.work / "a.yaml").write_text(
        "beddel: 1\nid: UPPER\nruntime: javascript\ncode: return 1\n"
        "limits: {memory: 2MB}\nnonsense: 1\n"
    )
    found = commands(home.run("run", "a.yaml", env=home.environment(GITHUB_ACTIONS="true")).stderr)
    assert {command.name for command in found} == {"error"}
    lines = sorted(command.properties["line"] for command in found)
    assert lines == ["2", "5", "6"]


class Tags(HTMLParser):
    """The tags and the text of cells in a summary, with entities left as they are."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.tags: set[str] = set()
        self.raw = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert attrs == []
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.raw += data


MARKUP = (
    "<img src=x onerror=alert(1)>",
    "</code></td></tr></table>\n\n# heading",
    "<!-- ",
    "![x](https://evil.example/x.png) [l](javascript:alert(1))",
    "```\n```",
    "| a | b |\n|---|---|",
    "https://evil.example www.evil.example a@evil.example @octocat #1 octo/repo#2",
    "&lt;b&gt; &#60;i&#62;",
    "$\\href{https://evil.example}{x}$ ~~x~~ **b** _i_ \\",
    "\u202egnp.\x1b[31m",
)


@pytest.mark.parametrize("text", MARKUP)
def test_nothing_in_a_summary_is_markup(text: str) -> None:
    failure = JobFailure("E", text, text, place(1, 1, file=text))
    run = finished(
        Outcome(
            *("failure", "thrown", 1),
            message=text,
            failure=failure,
            console=(ConsoleLine("log", text),),
        ),
        receipt_path=text,
        bundle_path=text,
        warnings=(text,),
    )
    for summary in (
        summary_of_run(run),
        summary_of_errors([JobError(text, place=Place(text), hint=text, expected=text, got=text)]),
    ):
        head, table = summary.strip().split("\n\n")
        assert re.fullmatch(r"### beddel-cli: [a-z]+", head)
        # One block of HTML: no blank line, and every line begins with a tag of ours.
        assert all(re.match(r"</?(table|tr)>", line) for line in table.split("\n"))
        tags = Tags()
        tags.feed(table)
        assert tags.tags == {"table", "tr", "th", "td", "code"}
        values = re.findall(r"<code>(.*?)</code>", table)
        assert len(values) == table.count("<td>")
        for value in values:
            left = re.sub(r"&#\d+;", "", value)
            assert all(char.isalnum() or char in " -._/,+=%" for char in left), left
            assert "://" not in value
            assert "@" not in value


def test_a_summary_has_a_most_size() -> None:
    worst = "\U0001f4a3<" * 100_000
    run = finished(
        Outcome(
            *("failure", "thrown", 1),
            message=worst,
            console=tuple(ConsoleLine("log", worst) for _ in range(1000)),
        ),
        receipt_path=worst,
        warnings=(worst,) * 3,
    )
    assert len(summary_of_run(run).encode()) < 128 * 1024
    many = [JobError(worst, place=Place(worst)) for _ in range(1000)]
    assert len(summary_of_errors(many).encode()) < 128 * 1024


def test_a_key_made_by_the_run_is_called_what_it_is_worth(home: Home) -> None:
    summary = home.work / "summary.md"
    summary.write_text("before\n")
    environment = home.environment(GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(summary))
    job = home.job("return 1")
    first = home.run("run", job, env=environment)
    assert [command.name for command in commands(first.stderr)] == ["notice"]
    assert summary.read_text().startswith("before\n")
    assert summary.read_text().count(ONLY_THIS_RUN) == 1
    second = home.run("run", job, env=environment)
    assert commands(second.stderr) == []
    assert summary.read_text().count("### beddel-cli: success") == 2
    assert summary.read_text().count(ONLY_THIS_RUN) == 1


def test_a_summary_goes_into_regular_files_only_and_never_changes_the_ending(home: Home) -> None:
    target = home.work / "target"
    target.write_text("mine")
    (home.work / "link").symlink_to(target)
    os.mkfifo(home.work / "pipe")
    (home.work / "full").write_bytes(b"x" * (MAX_SUMMARY_FILE_BYTES - 100))
    job = home.job("return 1")
    home.run("run", job)
    cases = {
        "link": "Too many levels of symbolic links",
        "pipe": "No such device or address",
        "missing": "No such file or directory",
        ".": "Is a directory",
        "full": "the file would have more than 1,048,576 bytes",
    }
    for name, why in cases.items():
        path = str(home.work / name)
        environment = home.environment(GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=path)
        result = home.run("run", job, env=environment)
        assert (result.returncode, result.stdout) == (0, b"1\n"), name
        said = f"beddel-cli: no step summary in {path!r}: {why}\n"
        assert said in result.message, name
    assert target.read_text() == "mine"
    assert not (home.work / "missing").exists()
    reader = os.open(home.work / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    environment = home.environment(
        GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(home.work / "pipe")
    )
    result = home.run("run", job, env=environment)
    pipe = str(home.work / "pipe")
    said = f"no step summary in {pipe!r}: GITHUB_STEP_SUMMARY names no regular file"
    assert said in result.message
    assert os.read(reader, 10) == b""
    os.close(reader)


def test_the_predicate_is_the_statements_own(home: Home) -> None:
    predicate = home.work / "predicate.json"
    for job, code in (
        (home.job("return 1", name="good"), 0),
        (home.job("throw 1", name="bad"), 1),
        (home.job("return 1", name="greedy", limits={"memory": "64MiB"}), 126),
    ):
        receipt = home.work / "receipt.json"
        result = home.run("run", job, "--predicate", predicate, "--receipt", receipt, "--json")
        assert result.returncode == code
        assert result.json["receipt"]["predicate_path"] == str(predicate)
        assert home.predicate(receipt) == json.loads(predicate.read_bytes())
        statement = base64.b64decode(json.loads(receipt.read_bytes())["payload"])
        assert b'"predicate":' + predicate.read_bytes() + b',"predicateType"' in statement
        assert oct(predicate.stat().st_mode & 0o777) == "0o600"
    result = home.run("run", home.job("return 1"))
    assert "  predicate" not in result.message
    named = home.run("run", home.job("return 1"), "--predicate", Path("p.json"))
    assert "predicate  p.json" in named.message
