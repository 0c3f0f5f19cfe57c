"""A caller at a terminal: what a program prints is harmless; `--tty` gives it one of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.callers import PYTHON, Caller
from tests.support.cli import COMMAND

SIZE = (37, 91)


@dataclass
class Screen:
    """A terminal with a person in front of it."""

    person: int
    program: int
    seen: bytes = b""

    def run(self, caller: Caller, *arguments: str, **more: object) -> subprocess.Popen[bytes]:
        """Start a command at this terminal, as its session's leader."""
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), self.program) | more
        run: subprocess.Popen[bytes] = subprocess.Popen(
            [*COMMAND, "exec", "-q", "--profile", caller.profile, *arguments],
            env=caller.environment(),
            cwd=caller.work,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(self.program, termios.TIOCSCTTY, 0),
            **caller.identity(),
            **streams,  # type: ignore[call-overload]
        )
        caller.started.append(run)
        return run

    def read(self, until: bytes | None = None, seconds: float = 20) -> bytes:
        """Give all that was shown until something was; without `until`, what is there now."""
        deadline = time.monotonic() + seconds
        while until is None or until not in self.seen:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self.person], [], [], 0.1 if until is None else left)
            if not ready:
                assert until is None, (until, self.seen)
                break
            self.seen += os.read(self.person, 65536)
        return self.seen

    def type(self, keys: bytes) -> None:
        os.write(self.person, keys)


@pytest.fixture
def screen() -> Iterator[Screen]:
    """A terminal of a known size."""
    person, program = pty.openpty()
    fcntl.ioctl(program, termios.TIOCSWINSZ, struct.pack("HHHH", *SIZE, 0, 0))
    os.fchmod(program, 0o666)
    yield Screen(person, program)
    os.close(person)
    os.close(program)


def test_output_to_a_terminal_does_nothing_there(caller: Caller, screen: Screen) -> None:
    script = r"printf 'a\033]0;title\007\033[2J\302\233x\342\200\256y\tz\n\377'; printf '\033c' >&2"
    run = screen.run(caller, "--", "sh", "-c", script)
    run.wait(timeout=30)
    shown = screen.read()
    for byte in (b"\x1b", b"\x07", b"\xc2\x9b", b"\xe2\x80\xae", b"\xff"):
        assert byte not in shown, shown
    assert rb"a\x1b]0;title\x07\x1b[2J\x9bx\u202ey" in shown
    assert rb"\x1bc" in shown
    said = caller.predicate()["streams"]["stdout"]
    assert said["bytes"] == said["writtenBytes"], "the receipt is of what the program wrote"


def test_raw_is_what_the_program_wrote(caller: Caller, screen: Screen) -> None:
    run = screen.run(caller, "--raw", "--", "printf", r"\033[2J")
    run.wait(timeout=30)
    assert b"\x1b[2J" in screen.read()


def test_it_has_no_terminal_unless_asked(caller: Caller, screen: Screen) -> None:
    code = (
        "import os\nprint([os.isatty(n) for n in (0, 1, 2)])\n"
        "try: os.open('/dev/tty', os.O_RDWR); print('TTY')\n"
        "except OSError as e: print('none')"
    )
    run = screen.run(caller, "--", PYTHON, "-c", code)
    run.wait(timeout=30)
    shown = screen.read()
    assert b"[False, False, False]" in shown
    assert b"none" in shown


def test_a_terminal_of_its_own(caller: Caller, screen: Screen) -> None:
    before = termios.tcgetattr(screen.program)
    code = (
        "import os\n"
        "print([os.isatty(n) for n in (0, 1, 2)], tuple(os.get_terminal_size()), os.ttyname(0))\n"
        "os.open('/dev/tty', os.O_RDWR)\n"
        "print('got ' + input('ready? '))"
    )
    run = screen.run(caller, "--tty", "--", PYTHON, "-c", code)
    screen.read(b"ready? ")
    assert termios.tcgetattr(screen.program)[3] & (termios.ICANON | termios.ECHO) == 0, "raw"
    screen.type(b"yes\r")
    screen.read(b"got yes")
    assert run.wait(timeout=30) == 0
    shown = screen.read().decode()
    assert f"[True, True, True] ({SIZE[1]}, {SIZE[0]}) /dev/pts/0" in shown
    assert termios.tcgetattr(screen.program) == before, "as it was"


def test_keys_pass_raw(caller: Caller, screen: Screen) -> None:
    code = (
        "import os, sys, tty\ntty.setraw(0)\nprint('ready', end='', flush=True)\n"
        "print(os.read(0, 1) + os.read(0, 1) + os.read(0, 1), end='', flush=True)"
    )
    run = screen.run(caller, "--tty", "--", PYTHON, "-c", code)
    screen.read(b"ready")
    for key in (b"\x03", b"\x1a", b"\x00"):
        screen.type(key)
    screen.read(rb"b'\x03\x1a\x00'")
    assert run.wait(timeout=30) == 0


# `read` is the shell's own, so that the signal meets the shell alone.
CAUGHT = "trap 'echo hit; exit 5' INT; echo up; read x"


def test_control_c_is_a_key_for_the_programs_own_terminal(caller: Caller, screen: Screen) -> None:
    run = screen.run(caller, "--tty", "--", "sh", "-c", CAUGHT)
    screen.read(b"up")
    screen.type(b"\x03")
    assert run.wait(timeout=30) == 5
    assert b"hit" in screen.read()
    assert caller.predicate()["outcome"]["reason"] == "exit"


def test_without_a_terminal_of_its_own_control_c_ends_the_run(
    caller: Caller, screen: Screen
) -> None:
    run = screen.run(caller, "--", "sh", "-c", "echo up; sleep 60")
    screen.read(b"up")
    screen.type(b"\x03")
    assert run.wait(timeout=30) == 130
    assert caller.predicate()["outcome"]["reason"] == "interrupted"


def test_a_new_size_is_passed_on(caller: Caller, screen: Screen) -> None:
    code = (
        "import os, signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGWINCH})\n"
        "print('up', flush=True)\nsignal.sigwait({signal.SIGWINCH})\n"
        "print(tuple(os.get_terminal_size()))"
    )
    run = screen.run(caller, "--tty", "--", PYTHON, "-c", code)
    screen.read(b"up")
    fcntl.ioctl(screen.program, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 20, 0, 0))
    screen.read(b"(20, 10)")
    assert run.wait(timeout=30) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_terminal_is_restored_whatever_ends_it(
    caller: Caller, screen: Screen, number: signal.Signals
) -> None:
    before = termios.tcgetattr(screen.program)
    run = screen.run(caller, "--tty", "--", "sh", "-c", "stty raw -echo; echo up; sleep 60")
    screen.read(b"up")
    run.send_signal(number)
    assert run.wait(timeout=30) == 143
    assert termios.tcgetattr(screen.program) == before


def test_answers_to_the_program_are_not_left_for_the_shell(caller: Caller, screen: Screen) -> None:
    """It asks the terminal what it is; the answer comes late and would be typed into the shell."""
    run = screen.run(caller, "--tty", "--", "printf", r"\033[c up")
    screen.read(b"\x1b[c up")
    screen.type(b"\x1b[?1;2c")
    assert run.wait(timeout=30) == 0
    os.set_blocking(screen.program, False)
    with pytest.raises(BlockingIOError):
        os.read(screen.program, 100)


@pytest.mark.parametrize(
    ("arguments", "redirected", "message"),
    [
        (("--tty",), "stdin", "--tty needs standard input and output to be a terminal"),
        (("--tty",), "stdout", "--tty needs standard input and output to be a terminal"),
        (("--tty", "--json"), "stderr", "--tty and --json cannot go together"),
    ],
)
def test_it_is_refused_where_there_is_none(
    caller: Caller, screen: Screen, arguments: tuple[str, ...], redirected: str, message: str
) -> None:
    stderr = subprocess.PIPE
    run = screen.run(
        caller, *arguments, "--", "true", **{redirected: subprocess.PIPE, "stderr": stderr}
    )
    _, said = run.communicate(timeout=30)
    assert run.returncode == 125, said
    assert re.search(re.escape(message.encode()), said), said
    assert caller.home.receipts() == []


def test_results_come_out_of_a_terminal_too(caller: Caller, screen: Screen) -> None:
    results = caller.work / "results"
    run = screen.run(caller, "--tty", "--results", str(results), "--", "sh", "-c", "echo x > y")
    assert run.wait(timeout=30) == 0, screen.read()
    assert (results / "y").read_bytes() == b"x\n"
