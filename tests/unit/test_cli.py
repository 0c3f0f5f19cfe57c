"""The command line as a whole: every mistake is one clear message, never a traceback or a hang."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from beddel_cli import cli, profile
from beddel_cli.options import OPTIONS
from tests.support.cli import COMMAND, Home, Result, has_traceback

HIDDEN = {"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"}
NOBODY = 65534
GOOD = "beddel: 1\nid: one\nruntime: javascript\ncode: return 42\n"


def check_message(result: Result, code: int, start: str) -> None:
    """Hold an error against its exit code and first words; it must be shown safely."""
    assert not has_traceback(result), result.message
    assert result.returncode == code, result.message
    lines = result.message.splitlines()
    assert lines[0].startswith(f"beddel-cli: {start}"), result.message
    for line in lines[1:]:
        more = f"beddel-cli: {start.partition(':')[0]}:"
        assert line.startswith(("  expected  ", "  got       ", "  hint      ", more)), line
    shown = result.stderr.decode("utf-8").replace("\n", "")
    assert not {unicodedata.category(char) for char in shown} & HIDDEN


def make_files(work: Path) -> None:
    """Lay out everything that somebody could name by mistake."""
    (work / "good.yaml").write_text(GOOD)
    (work / "empty.yaml").write_bytes(b"")
    (work / "binary.yaml").write_bytes(bytes(range(256)) * 100)
    (work / "elf.yaml").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(500))
    (work / "utf16.yaml").write_bytes(GOOD.encode("utf-16"))
    (work / "bom.yaml").write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    (work / "list.yaml").write_text("- 1\n")
    (work / "typo.yaml").write_text(GOOD.replace("runtime", "runtme"))
    (work / "units.yaml").write_text(GOOD + "limits: {memory: 2MB}\n")
    (work / "more.yaml").write_text(GOOD + "limits: {memory: 3MiB}\n")
    (work / "python.yaml").write_text(GOOD.replace("javascript", "python"))
    (work / "env.yaml").write_text(GOOD + "env: {A: b}\n")
    (work / "file.yaml").write_text(GOOD.replace("code: return 42", "file: gone.js"))
    (work / "huge.yaml").write_bytes(b"a: 1\n" * 300_000)
    (work / "deep.yaml").write_bytes(b"[" * 100_000)
    (work / "laughs.yaml").write_text(
        "- &a [1,1,1,1,1,1,1,1,1]\n"
        + "".join(f"- &{y} [{', '.join([f'*{x}'] * 9)}]\n" for x, y in pairwise("abcdefg"))
    )
    (work / "bad.json").write_text('{"a": 1, "a": 2}')
    (work / "deep.json").write_text("[" * 100_000)
    (work / "nan.json").write_text("NaN")
    (work / "profile.yaml").write_text("beddel: 1\nname: ultra-secure\nlevel: ultra\nisolate: {}\n")
    (work / "folder").mkdir()
    (work / "folder" / "x.yaml").mkdir()
    os.mkfifo(work / "fifo.yaml")
    (work / "loop.yaml").symlink_to("loop.yaml")
    (work / "zero.yaml").symlink_to("/dev/zero")
    (work / "no\nsuch\x1b[31m\u202e.yaml").write_text("id: [\n")
    (work / "::error::x.yaml").write_text("id: [\n")


JAVASCRIPT = ("exec", "--runtime", "javascript")
# A command line -> its exit code and the first words of its error.
MISTAKES: list[tuple[list[str], int, str]] = [
    # Files that are no job.
    (["run", "gone.yaml"], 127, "no job at 'gone.yaml'"),
    (["run", "good.yaml/x"], 127, "no job at 'good.yaml/x'"),
    (["run", "empty.yaml"], 125, "empty.yaml: the file is empty"),
    (["run", "/dev/null"], 125, "the job '/dev/null' is not a regular file"),
    (["run", "binary.yaml"], 125, "binary.yaml:3:115: not valid UTF-8"),
    (["run", "elf.yaml"], 125, "elf.yaml:1:1: character U+007F is not allowed"),
    (["run", "utf16.yaml"], 125, "utf16.yaml:1:1: not valid UTF-8"),
    (["run", "bom.yaml"], 125, "bom.yaml:1:1: character U+FEFF is not allowed"),
    (["run", "list.yaml"], 125, "list.yaml:1:1: the document is a list"),
    (["run", "huge.yaml"], 125, "huge.yaml: larger than 1048576 bytes"),
    (["run", "deep.yaml"], 125, "deep.yaml:1:33: nested deeper than 32"),
    (["run", "laughs.yaml"], 125, "laughs.yaml:"),
    (["run", "folder"], 125, "the job 'folder' is not a regular file"),
    (["run", "folder/x.yaml"], 125, "the job 'folder/x.yaml' is not a regular file"),
    (["run", "fifo.yaml"], 125, "the job 'fifo.yaml' is not a regular file"),
    (["run", "zero.yaml"], 125, "the job 'zero.yaml' is not a regular file"),
    (["run", "/dev/zero"], 125, "the job '/dev/zero' is not a regular file"),
    (["run", "loop.yaml"], 125, "cannot read the job 'loop.yaml': Too many levels"),
    (["run", "n" * 300], 125, f"cannot read the job {'n' * 300!r}: File name too long"),
    (["run", "-"], 125, "<stdin>: the file is empty"),
    (
        ["run", "no\nsuch\x1b[31m\u202e.yaml"],
        125,
        "no\\nsuch\\x1b[31m\\u202e.yaml:2:1: not valid YAML",
    ),
    (["run", "::error::x.yaml"], 125, "::error::x.yaml:2:1: not valid YAML"),
    (["run", "gone\n\x1b]0;t\x07.yaml"], 127, "no job at 'gone\\n\\x1b]0;t\\x07.yaml'"),
    (["run", "gone\udcff.yaml"], 127, "no job at 'gone\\udcff.yaml'"),
    # Jobs that are not valid.
    (["run", "typo.yaml"], 125, "typo.yaml:3:1: unknown key 'runtme'"),
    (["run", "units.yaml"], 125, "units.yaml:5:18: memory has no known unit: '2MB'"),
    (["run", "python.yaml"], 125, "python.yaml:3:10: runtime 'python' is not available"),
    (["run", "env.yaml"], 125, "env.yaml:5:1: 'env' is for programs; an isolate"),
    (["run", "file.yaml"], 127, "file.yaml:4:7: no code file at 'gone.js'"),
    (["run", "good.yaml", "--allow-path", "gone"], 125, "--allow-path 'gone' cannot be opened"),
    # Options.
    (["run", ""], 127, "no job at ''"),
    (["run", "good.yaml", "--profile", "ultra"], 127, "no profile 'ultra'"),
    (["run", "good.yaml", "--profile", "./gone.yaml"], 127, "no profile at './gone.yaml'"),
    (["run", "good.yaml", "--profile", "profile.yaml"], 125, "profile.yaml:2:7: the name"),
    (["run", "good.yaml", "--profile", "./folder"], 125, "the profile './folder' is not a"),
    (["run", "good.yaml", "--profile", "fifo.yaml"], 125, "the profile 'fifo.yaml' is not a"),
    (["run", "good.yaml", "--input", "gone.json"], 127, "no input at 'gone.json'"),
    (["run", "good.yaml", "--input", "fifo.yaml"], 125, "the input 'fifo.yaml' is not a regular"),
    (["run", "good.yaml", "--input", "/dev/zero"], 125, "the input '/dev/zero' is not a regular"),
    (["run", "good.yaml", "--input", "bad.json"], 125, "bad.json:1:10: duplicate key 'a'"),
    (["run", "good.yaml", "--input", "deep.json"], 125, "deep.json:1:257: nested deeper than 256"),
    (
        ["run", "good.yaml", "--input", "nan.json"],
        125,
        "nan.json:1:1: JSON has no such number: NaN",
    ),
    (["run", "good.yaml", "--input", "deep.yaml"], 125, "deep.yaml:1:33: nested deeper than 32"),
    (["run", "good.yaml", "--input", "-"], 125, "<stdin>:1:1: not valid JSON: expecting value"),
    (["run", "-", "--input", "-"], 125, "the job and its input cannot both come from"),
    (["run", "good.yaml", "--set", "x=1"], 125, "--set 'x=1' is not a setting"),
    (["run", "good.yaml", "--set", "input.a=Ann"], 125, "--set:1:1: not valid JSON"),
    (["run", "good.yaml", "--set", f"input{'.a' * 9999}=1"], 125, "--set leads deeper"),
    (["run", "good.yaml", "--signing-key", "gone.pem"], 125, "key file 'gone.pem' does not exist"),
    (["run", "good.yaml", "--signing-key", "fifo.yaml"], 125, "'fifo.yaml' is not a regular"),
    (["run", "good.yaml", "--signing-key", "folder"], 125, "'folder' is not a regular file"),
    (["run", "good.yaml", "--signing-key", "binary.yaml"], 125, "key file 'binary.yaml' has mode"),
    (["run", "good.yaml", "--receipt", "folder"], 125, "'folder' exists and is a folder"),
    (["run", "good.yaml", "--receipt", "gone/r.json"], 125, "folder 'gone' does not exist"),
    (["run", "good.yaml", "--receipt", "fifo.yaml"], 125, "'fifo.yaml' exists and is a named"),
    (["run", "good.yaml", "--bundle", "folder"], 125, "'folder' exists and is a folder"),
    (["run", "good.yaml", "--heap-snapshot", "folder"], 125, "'folder' exists and is a folder"),
    # Other commands.
    ([*JAVASCRIPT, "gone.js"], 127, "no code file at 'gone.js'"),
    ([*JAVASCRIPT, "folder"], 125, "the code file 'folder' is not a regular file"),
    ([*JAVASCRIPT, "fifo.yaml"], 125, "the code file 'fifo.yaml' is not a regular file"),
    ([*JAVASCRIPT, "binary.yaml"], 125, "binary.yaml:2: the code is not valid UTF-8"),
    (["profiles", "show", "./binary.yaml"], 2, "./binary.yaml:"),
    (["keys", "show"], 2, "there is no signing key in "),
    (["keys", "export", "--out", "folder"], 2, "there is no signing key in "),
]
# The same for what is wrong before any file is looked at, which needs no process of its own.
MISSPELLINGS: list[tuple[list[str], int, str]] = [
    (["run"], 125, "missing argument 'JOB|-'"),
    (["run", "good.yaml", "extra"], 125, "got unexpected extra argument"),
    (["run", "good.yaml", "--memroy", "1MiB"], 125, "no such option: --memroy"),
    (["run", "good.yaml", "--memory"], 125, "option '--memory' requires an argument"),
    (["run", "good.yaml", "--memory", "2MB"], 125, "--memory: memory has no known unit: '2MB'"),
    (["run", "good.yaml", "--timeout", "-1s"], 125, "--timeout: timeout has no known unit: '-1s'"),
    (["run", "good.yaml", "--fuel", "many"], 125, "--fuel: fuel is not a whole number: 'many'"),
    (["run", "good.yaml", "--max-output", "0B"], 125, "--max-output: max_output is out of range"),
    (["run", "good.yaml", "--color", "red"], 125, "invalid value for '--color'"),
    (["run", "good.yaml", "--log-format", "xml"], 125, "invalid value for '--log-format'"),
    (["run", "good.yaml", "--json=yes"], 125, "option '--json' does not take a value"),
    (["run", "good.yaml", "--tenant", "a/../b"], 125, "not a valid tenant: 'a/../b'"),
    (["run", "good.yaml", "--tenant", "\x1b[1m"], 125, "not a valid tenant: '\\x1b[1m'"),
    (["exec"], 125, "missing argument 'COMMAND...'"),
    (["exec", "--runtime", "cobol", "--", "x"], 125, "invalid value for '--runtime': 'cobol'"),
    (["frobnicate"], 2, "no such command 'frobnicate'"),
    (["a\n::error::\x1b[1m"], 2, "no such command 'a\\n::error::\\x1b[1m'"),
    (["--nope"], 2, "no such option: --nope"),
    (["profiles", "show"], 2, "missing argument"),
    (["profiles", "show", "nope"], 2, "no profile 'nope'"),
    (["keys", "nope"], 2, "no such command 'nope'"),
    (["audit", "list", "--last", "x"], 2, "invalid value for '--last': 'x'"),
    (["audit", "list", "--last", "0"], 2, "invalid value for '--last': 0"),
    (["keys", "trust", "--countersigners", "1.5"], 2, "invalid value for '--countersigners': '1.5"),
]


@pytest.mark.parametrize(("arguments", "code", "start"), MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_is_one_safe_message(
    home: Home, arguments: list[str], code: int, start: str
) -> None:
    make_files(home.work)
    result = home.run(*arguments, timeout=20)
    check_message(result, code, start)
    assert result.stdout == b""
    # Only what is written after the receipt can fail with one there, which tells of the run.
    assert len(home.receipts()) == len({"--bundle", "--heap-snapshot"} & set(arguments))


@pytest.mark.parametrize(("arguments", "code", "start"), MISSPELLINGS, ids=range(len(MISSPELLINGS)))
def test_a_misspelt_command_line_is_one_safe_message(
    capfdbinary: pytest.CaptureFixture[bytes], arguments: list[str], code: int, start: str
) -> None:
    result = cli.run_app(arguments, started_ns=0)
    out, err = capfdbinary.readouterr()
    check_message(Result(result, out, err), code, start)
    assert out == b""


def test_a_near_miss_is_suggested(home: Home) -> None:
    make_files(home.work)
    assert "did you mean 'runtime'?" in home.run("run", "typo.yaml").message
    assert "write 2MiB" in home.run("run", "units.yaml").message


def test_what_was_probably_meant_is_said(home: Home) -> None:
    make_files(home.work)
    (home.work / "a b.js").write_text("return 1")
    meant = "hint      code without a job: beddel-cli exec --runtime javascript 'a b.js'\n"
    for command in ("run", "explain"):
        assert meant in home.run(command, "a b.js").message
    for text in ('{"a":1}', "[1]", '"text"', '{"a": "' + 300 * "x" + '"}'):
        result = home.run("run", "good.yaml", "--input", text)
        assert (
            "hint      --input names a file: --input - reads JSON from standard input"
            in result.message
        )
    assert "hint" not in home.run("run", "good.yaml", "--input", "gone.json").message


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ("run", "run"),
        ("exec --runtime cobol x", "exec"),
        ("verify", "verify"),
        ("verify r.json --nope", "verify"),
        ("profiles show", "profiles show"),
        ("audit list --last 0", "audit list"),
        ("keys revoke", "keys revoke"),
        ("keys nope", "keys"),
        ("nope", ""),
    ],
)
def test_a_usage_error_points_to_the_help_of_its_own_command(
    arguments: str, command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    cli.run_app(arguments.split(), started_ns=0)
    hint = " ".join(filter(None, ("beddel-cli", command, "--help")))
    assert f"  hint      {hint}\n" in capfd.readouterr().err
    assert cli.run_app(hint.split()[1:], started_ns=0) == 0


def test_a_number_that_is_none_is_told_in_words(capfd: pytest.CaptureFixture[str]) -> None:
    for last, expected in (
        ("audit list --last x", ", at least 1"),
        ("verify r --least-serial x", ""),
    ):
        cli.run_app(last.split(), started_ns=0)
        said = capfd.readouterr().err
        assert f"  expected  a whole number{expected}\n" in said
        assert " int" not in said


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["run", "gone.yaml", "--json"], 127, "not-found"),
        (["run", "typo.yaml", "--json"], 125, "invalid-input"),
        (["run", "good.yaml", "--json", "--memory", "x"], 125, "usage"),
        (["run", "--json"], 125, "usage"),
        (["run", "good.yaml", "--json", "--nope"], 125, "usage"),
        (["exec", "--json", "--runtime", "cobol", "x"], 125, "usage"),
    ],
)
def test_with_json_a_mistake_is_a_document_too(
    home: Home, arguments: list[str], code: int, reason: str
) -> None:
    make_files(home.work)
    result = home.run(*arguments)
    assert result.returncode == code
    assert result.json["outcome"]["reason"] == reason
    assert result.json["outcome"]["exit_code"] == code
    assert result.json["error"]["message"] in result.message
    assert result.json["receipt"] is None


def test_with_json_a_refusal_is_a_document_with_a_receipt(home: Home) -> None:
    make_files(home.work)
    result = home.run("run", "more.yaml", "--json")
    assert result.returncode == 126
    assert result.json["outcome"]["reason"] == "limits"
    assert result.json["error"]["line"] == 5
    assert result.json["time"]["wall_ns"] is None
    assert Path(result.json["receipt"]["path"]) == home.receipts()[0]


def test_with_a_json_log_a_mistake_is_one_line(home: Home) -> None:
    result = home.run("run", "gone.yaml", "--log-format", "json")
    assert result.stderr.count(b"\n") == 1
    assert json.loads(result.stderr)["error"] == "no job at 'gone.yaml'"


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A folder for the user nobody, who is who the command runs as."""
    if os.geteuid() != 0:
        pytest.skip("only root can act as another user")
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, NOBODY, NOBODY)
        yield Path(folder)


def test_a_file_that_may_not_be_read_is_an_error(as_nobody: Path) -> None:
    secret = as_nobody / "secret.yaml"
    secret.write_text(GOOD)
    secret.chmod(0o600)
    drop = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    home = Home(as_nobody / "home", as_nobody / "cache", as_nobody)
    control = home.run("--help", command=(*drop, *COMMAND))
    if control.returncode != 0:
        pytest.skip("nobody can run no Python here that has this package")
    result = home.run("run", "secret.yaml", command=(*drop, *COMMAND))
    check_message(result, 125, "cannot read the job 'secret.yaml': Permission denied")
    assert home.run("run", "secret.yaml", "-q").stdout == b"42\n", "the control: root may read it"


def without(home: Home, closed: str, *arguments: str) -> Result:
    """Run a command that is started with some standard descriptors closed or redirected."""
    script = f'exec "$0" "$@" {closed}'
    return home.run(*arguments, env=buffered(home), command=("/bin/sh", "-c", script, *COMMAND))


def buffered(home: Home) -> dict[str, str]:
    """Give an environment in which Python writes as it does for users: late, and all at once."""
    return home.environment(PYTHONUNBUFFERED="")


@pytest.mark.parametrize(
    ("closed", "arguments", "code"),
    [
        ("<&-", ["run", "good.yaml"], 0),
        ("<&-", ["run", "-"], 125),
        (">&-", ["run", "good.yaml"], 125),
        ("2>&-", ["run", "good.yaml"], 0),
        ("<&- >&- 2>&-", ["run", "good.yaml"], 125),
        ("2>&-", ["run", "gone.yaml"], 127),
        ("2>&-", ["nope"], 2),
        (">&-", ["profiles", "show", "ultra-secure", "--json"], 0),
        ("<&- >&- 2>&-", ["--help"], 0),
    ],
)
def test_closed_descriptors_change_no_exit_code_but_that_of_lost_output(
    home: Home, closed: str, arguments: list[str], code: int
) -> None:
    make_files(home.work)
    result = without(home, closed, *arguments)
    assert result.returncode == code
    assert not has_traceback(result)
    ran = arguments == ["run", "good.yaml"]
    assert len(home.receipts()) == int(ran)


def test_a_closed_standard_input_is_not_taken_for_a_job(home: Home) -> None:
    result = without(home, "<&-", "run", "-")
    check_message(result, 125, "cannot read the job from standard input: Bad file descriptor")


def test_a_full_disk_behind_standard_output_is_said(home: Home) -> None:
    make_files(home.work)
    for arguments, code in (
        (["profiles"], 2),
        (["profiles", "show", "ultra-secure", "--json"], 2),
        (["--help"], 2),
        (["run", "--help"], 125),
        (["run", "good.yaml", "-q"], 125),
    ):
        result = without(home, ">/dev/full", *arguments)
        assert not has_traceback(result), result.message
        assert result.returncode == code, (arguments, result.message)
        assert "standard output" in result.message
        assert result.message.count("\n") == 1


def test_a_reader_that_goes_away_is_no_crash(home: Home) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*COMMAND, "profiles"],
        stdout=write,
        stderr=subprocess.PIPE,
        env=buffered(home),
        cwd=home.work,
        check=False,
    )
    os.close(write)
    assert done.returncode == 2
    assert done.stderr == b"beddel-cli: cannot write to standard output: Broken pipe\n"


def test_an_ascii_only_stream_gets_every_page_of_help(home: Home) -> None:
    plain = home.environment(PYTHONIOENCODING="ascii", LC_ALL="C")
    for arguments in (["--help"], ["run", "--help"], ["verify", "--help"], ["profiles"]):
        result = home.run(*arguments, env=plain)
        assert result.returncode == 0, result.message
        assert result.stdout


COMMANDS = (
    *(["run"], ["exec"], ["verify"], ["profiles"], ["profiles", "show"]),
    *(["keys", name] for name in ("show", "export", "init", "list", "rotate", "revoke", "trust")),
    *(["countersign"], ["timestamp"]),
    *(["explain"], ["profiles", "check"], ["profiles", "diff"]),
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example_that_names_it(
    command: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run_app([*command, "--help"], started_ns=0) == 0
    shown = " ".join(capfd.readouterr().out.split())
    assert "Example: " in shown
    assert " ".join(["beddel-cli", command[0]]) in shown.split("Example: ")[1]


def test_help_of_run_and_exec_lists_every_option(capfd: pytest.CaptureFixture[str]) -> None:
    for command in ("run", "exec"):
        assert cli.run_app([command, "--help"], started_ns=0) == 0
        shown = capfd.readouterr().out
        for option in OPTIONS:
            assert option.spellings[0] in shown
        words = " ".join(shown.split())
        assert "a built-in name or a file. [default: ultra-secure]" in words
        assert words.count("[default: ") == (3 if command == "run" else 4)


def test_without_a_command_there_is_help_and_a_usage_code(
    capfd: pytest.CaptureFixture[str],
) -> None:
    for arguments in ([], ["keys"]):
        assert cli.run_app(arguments, started_ns=0) == 2
        assert capfd.readouterr().err.startswith("Usage: beddel-cli")


def test_versions_are_named(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run_app(["--version"], started_ns=0) == 0
    first, engine, guest = capfd.readouterr().out.splitlines()
    assert first.startswith("beddel-cli ")
    assert engine.startswith("wasmtime ")
    assert "sha256:" in guest


def test_profiles_are_listed_and_shown(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run_app(["profiles"], started_ns=0) == 0
    listed = capfd.readouterr().out
    assert listed.startswith("ultra-secure (default)")
    assert listed.count("\n") == 3
    assert cli.run_app(["profiles", "show", "high-security", "--json"], started_ns=0) == 0
    shown = json.loads(capfd.readouterr().out)
    assert (shown["name"], shown["limits"]["memory"]) == ("high-security", "4MiB")
    assert shown["built_in"] is True
    assert cli.run_app(["profiles", "show", "high-security"], started_ns=0) == 0
    text = capfd.readouterr().out
    assert "memory 4MiB, timeout 10s" in text
    assert "built_in          true\n" in text
    assert "memory 256MiB, timeout 2min" in text
    assert shown["process"] == {
        "limits": {
            **{"memory": "256MiB", "timeout": "2min", "max_output": "1MiB", "cpu_time": "1min"},
            **{"cpus": "0.5", "processes": "64", "disk": "64MiB", "inodes": "4000"},
            "open_files": "256",
        },
        "network": "none",
        "required": [
            *("capabilities", "landlock", "namespaces", "no-new-privs", "rlimits", "seccomp"),
        ],
    }
    assert [line.split("  ")[0] for line in text.splitlines()][-4:] == [
        *("required", "process limits", "process network", "process required"),
    ]


def test_a_profile_that_grants_programs_nothing_is_shown_so(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    mine = tmp_path / "mine.yaml"
    text = Path(profile.folder(), "high-security.yaml").read_text()
    mine.write_text(text.replace("name: high-security", "name: mine").partition("process:")[0])
    assert cli.run_app(["profiles", "show", str(mine)], started_ns=0) == 0
    shown = capfd.readouterr().out.splitlines()[-1]
    assert shown.split(maxsplit=1) == ["process", "not granted: it has no `process` part"]
    assert cli.run_app(["profiles", "show", str(mine), "--json"], started_ns=0) == 0
    assert json.loads(capfd.readouterr().out)["process"] is None


def test_both_ways_in_give_the_same_result(home: Home) -> None:
    make_files(home.work)
    short = home.run("run", "good.yaml", "--memory", "1MiB")
    # Typer alone knows this way to say where the options end.
    long = home.run("run", "--memory", "1MiB", "--", "good.yaml")
    assert (short.returncode, short.stdout) == (long.returncode, long.stdout) == (0, b"42\n")


def test_the_tenant_of_the_environment_is_checked_like_the_option(home: Home) -> None:
    make_files(home.work)
    env = home.environment(BEDDEL_TENANT="../x")
    check_message(home.run("run", "good.yaml", env=env), 125, "not a valid tenant: '../x'")
    good = home.environment(BEDDEL_TENANT="acme")
    assert home.run("run", "good.yaml", "--json", env=good).json["tenant"] == "acme"
    given = home.run("run", "good.yaml", "--json", "--tenant", "other", env=good)
    assert given.json["tenant"] == "other"
