"""A program's standard input, output and error: byte for byte, apart, as they come."""

from __future__ import annotations

import hashlib
import os
import select
import subprocess
import sys
import time
from typing import IO

import pytest

from tests.support.callers import PYTHON, Caller

EVERY_BYTE = bytes(range(256))
ROOMY = ("--max-output", "256KiB")


def test_standard_input_arrives_byte_for_byte(caller: Caller) -> None:
    sent = os.urandom(1 << 20)
    result = caller.exec("--", "sha256sum", input=sent)
    assert result.stdout.split()[0].decode() == hashlib.sha256(sent).hexdigest(), result.message


@pytest.mark.parametrize("sent", [b"", b"no line end", EVERY_BYTE, EVERY_BYTE * 512])
def test_standard_input_comes_back_byte_for_byte(caller: Caller, sent: bytes) -> None:
    result = caller.exec(*ROOMY, "--", "cat", input=sent)
    assert (result.returncode, result.stdout) == (0, sent), result.message
    said = caller.predicate()["streams"]["stdout"]
    assert said["digest"]["sha256"] == hashlib.sha256(sent).hexdigest()
    assert (said["bytes"], said["writtenBytes"]) == (len(sent), len(sent))


def test_input_from_a_file_and_none_at_all(caller: Caller) -> None:
    path = caller.folder("in", file=b"from a file") / "file"
    with path.open("rb") as file:
        result = _fed(caller, file)
    assert result.stdout == b"from a file", result.stderr
    result = _fed(caller, subprocess.DEVNULL)
    assert (result.returncode, result.stdout) == (0, b""), result.stderr


def _fed(
    caller: Caller, stdin: IO[bytes] | int, command: tuple[str, ...] = ("cat",)
) -> subprocess.CompletedProcess[bytes]:
    run = caller.start("--", *command, stdin=stdin)
    stdout, stderr = run.communicate(timeout=60)
    return subprocess.CompletedProcess(run.args, run.returncode, stdout, stderr)


# What the caller has closed, what the program writes, and what comes of it.
CLOSED = {
    "input": ("<&-", "cat; echo out", 0, b"out\n"),
    "error, unused": ("2>&-", "echo out", 0, b"out\n"),
    "error, lost": ("2>&-", "echo out; echo err >&2", 125, b"out\n"),
    "output, unused": (">&-", "exit 3", 3, b""),
    "output, lost": (">&-", "echo out", 125, b""),
    "all, unused": ("<&- >&- 2>&-", "cat; exit 3", 3, b""),
}


@pytest.mark.parametrize("name", CLOSED)
def test_closed_descriptors(caller: Caller, name: str) -> None:
    """The program finds three open and uncrossed; only what is lost changes the exit code."""
    closed, script, code, stdout = CLOSED[name]
    result = caller.home.run(
        *("-c", f'exec "$0" "$@" {closed}', sys.executable, "-m", "beddel_cli", "exec", "-q"),
        *("--profile", caller.profile, "--", "sh", "-c", script),
        command=("sh",),
        env=caller.environment(),
        **caller.identity(),
    )
    assert (result.returncode, result.stdout) == (code, stdout), result.message
    assert b"Traceback" not in result.stderr


def test_output_and_error_are_apart_and_exact(caller: Caller) -> None:
    code = (
        "import os\nfor i in range(256):\n os.write(1, bytes([i])); os.write(2, bytes([255 - i]))"
    )
    result = caller.python(code, "-q")
    assert result.returncode == 0
    assert result.stdout == EVERY_BYTE
    assert result.stderr == EVERY_BYTE[::-1]
    said = caller.predicate()["streams"]
    for name, data in (("stdout", EVERY_BYTE), ("stderr", EVERY_BYTE[::-1])):
        assert said[name]["digest"]["sha256"] == hashlib.sha256(data).hexdigest()


def test_output_is_there_before_the_program_ends(caller: Caller) -> None:
    run = caller.start("--", "sh", "-c", "printf 1; read x; printf 2", stdin=subprocess.PIPE)
    assert run.stdout is not None
    assert run.stdin is not None
    ready, _, _ = select.select([run.stdout], [], [], 30)
    assert ready, "nothing came while the program waits for us"
    assert os.read(run.stdout.fileno(), 10) == b"1"
    run.stdin.write(b"go\n")
    run.stdin.flush()
    stdout, stderr = run.communicate(timeout=30)
    assert (run.returncode, stdout) == (0, b"2"), stderr


def test_a_reader_that_goes_away_ends_the_program_by_sigpipe(caller: Caller) -> None:
    run = caller.start("--", "yes")
    assert run.stdout is not None
    assert os.read(run.stdout.fileno(), 2) == b"y\n"
    run.stdout.close()
    run.wait(timeout=60)
    assert run.stderr is not None
    assert run.returncode == 141, run.stderr.read()
    run.stderr.close()
    said = caller.predicate()["outcome"]
    assert (said["status"], said["reason"], said["signal"]) == ("failure", "signal", 13)


def test_a_slow_reader_gets_everything(caller: Caller) -> None:
    run = caller.start(*ROOMY, "--", "head", "-c", "200000", "/dev/zero")
    assert run.stdout is not None
    total = 0
    while piece := os.read(run.stdout.fileno(), 30_000):
        total += len(piece)
        time.sleep(0.05)
    _, stderr = run.communicate(timeout=30)
    assert (run.returncode, total) == (0, 200_000), stderr


def test_a_reader_who_never_reads_stops_no_clock(caller: Caller) -> None:
    run = caller.start("--timeout", "700ms", "--", "head", "-c", "200000", "/dev/zero")
    run.wait(timeout=30)
    stdout, stderr = run.communicate()
    assert run.returncode == 124, stderr
    said = caller.predicate()["streams"]["stdout"]
    assert said["bytes"] == len(stdout), "the receipt says what was passed on"


def test_output_up_to_its_limit_is_passed_on(caller: Caller) -> None:
    result = caller.sh("yes | head -c 3000", "--max-output", "1000B")
    assert (result.returncode, result.stdout) == (124, b"y\n" * 500), result.message
    result = caller.sh("yes | head -c 1000", "--max-output", "1000B")
    assert (result.returncode, result.stdout) == (0, b"y\n" * 500), "the control"


def test_it_has_three_descriptors_whatever_the_command_inherits(caller: Caller) -> None:
    code = (
        "import os\nopen_ = []\nfor n in range(256):\n try: os.fstat(n); open_.append(n)\n"
        " except OSError: pass\nprint(open_)"
    )
    read, write = os.pipe()
    secret = os.open("/etc/passwd", os.O_RDONLY)
    try:
        run = caller.start("--", PYTHON, "-c", code, pass_fds=(read, write, secret))
        stdout, stderr = run.communicate(timeout=60)
    finally:
        for each in (read, write, secret):
            os.close(each)
    assert (run.returncode, stdout) == (0, b"[0, 1, 2]\n"), stderr
    # The control: without walls the same program has them.
    read, write = os.pipe()
    plain = subprocess.run(
        [PYTHON, "-c", code], pass_fds=(read, write), capture_output=True, check=True
    )
    os.close(read)
    os.close(write)
    assert str(read).encode() in plain.stdout


def test_an_orphan_that_holds_standard_output_does_not_delay_the_end(caller: Caller) -> None:
    run = caller.start("--timeout", "20s", "--", "sh", "-c", "(trap '' TERM; sleep 300) & echo up")
    stdout, stderr = run.communicate(timeout=15)
    assert (run.returncode, stdout) == (0, b"up\n"), stderr


def test_the_step_log_of_a_ci_runner_obeys_nothing(caller: Caller) -> None:
    """GitHub's runner takes `::` at the start of a line, and `##[` anywhere, for a command."""
    script = r"printf '::set-env name=A::b\n  ::debug::x\nfine :: here\n##[error]y\n'"
    sent = b"::set-env name=A::b\n  ::debug::x\nfine :: here\n##[error]y\n"
    environment = caller.environment(GITHUB_ACTIONS="true")
    shown = caller.sh(script, "-q", env=environment).stdout.decode()
    for line in shown.splitlines():
        assert not line.lstrip().startswith("::"), shown
        assert "##[" not in line
    assert "fine :: here" in shown
    assert caller.sh(script, "-q", "--raw", env=environment).stdout == sent
    path = caller.folder("out") / "log"
    with path.open("wb") as file:
        run = caller.start("-q", "--", "sh", "-c", script, env=environment, stdout=file)
        run.communicate(timeout=60)
    assert path.read_bytes() == sent, "a file is no log"


def test_no_byte_is_lost_where_both_streams_are_full(caller: Caller) -> None:
    code = (
        "import os, threading\n"
        "def fill(fd):\n for i in range(60): os.write(fd, bytes([fd]) * 2000)\n"
        "t = [threading.Thread(target=fill, args=(fd,)) for fd in (1, 2)]\n"
        "[x.start() for x in t]; [x.join() for x in t]"
    )
    result = caller.python(code, "-q", *ROOMY)
    assert result.returncode == 0
    assert result.stdout == b"\1" * 120_000
    assert result.stderr == b"\2" * 120_000


def test_the_stdin_of_a_job_is_its_input_and_not_the_callers(caller: Caller) -> None:
    job = caller.work / "job.yaml"
    job.write_text(
        '{"beddel": 1, "id": "j", "runtime": "process", "command": ["cat"]}', encoding="ascii"
    )
    result = caller.cli("run", "-q", "--profile", caller.profile, job, input=b"the caller's")
    assert (result.returncode, result.stdout) == (0, b""), result.message
    result = caller.cli("run", "-q", "--profile", caller.profile, job, "--set", 'input.a="é\\n"')
    assert (result.returncode, result.stdout) == (0, '{"a":"é\\n"}'.encode()), result.message


def test_input_and_settings_of_a_command_are_its_standard_input(caller: Caller) -> None:
    given = caller.folder("in", file__json=b'{"a": [1, 2]}') / "file.json"
    result = caller.exec("--input", given, "--set", "input.b=3", "--", "cat", input=b"not this")
    assert result.stdout == b'{"a":[1,2],"b":3}', result.message
    assert "input" in {item["name"] for item in caller.predicate()["resolvedDependencies"]}


def test_a_job_from_standard_input(caller: Caller) -> None:
    job = b'{"beddel": 1, "id": "j", "runtime": "process", "command": ["cat"], "input": [1]}'
    result = caller.cli("run", "-q", "--profile", caller.profile, "-", input=job)
    assert (result.returncode, result.stdout) == (0, b"[1]"), result.message
