"""Attacks on a whole run through the command line, each as root and as an ordinary user."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.security.process.conftest import Person
from tests.support import processes
from tests.support.capabilities import require

MIB = 1 << 20


class Command:
    """`beddel-cli exec` as a person, with a home of their own in `place`."""

    def __init__(self, person: Person, place: Path) -> None:
        self._options = person.options() | {
            "cwd": place,
            "env": {
                "PATH": "/usr/bin:/bin",
                "HOME": str(place / "nothing"),
                "BEDDEL_HOME": str(place / "beddel-home"),
                "BEDDEL_CACHE_DIR": str(place / "beddel-cache"),
            },
        }

    def _line(self, program: Sequence[str], options: Sequence[str]) -> list[str]:
        command = [sys.executable, "-P", "-m", "beddel_cli", "exec", "--profile", "high-security"]
        return [*command, *options, "--", *program]

    def start(self, program: Sequence[str], *options: str) -> subprocess.Popen[bytes]:
        """Start a program and leave it running."""
        return subprocess.Popen(
            self._line(program, options),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **self._options,
        )

    def run(self, program: Sequence[str], *options: str) -> tuple[int, bytes, str]:
        """Run a program to its end; gives the exit code, standard output and standard error."""
        process = self.start(program, *options)
        out, err = process.communicate(timeout=60)
        assert b"beddel_cli/" not in err, err
        return process.returncode, out, err.decode()

    def outcome(self, program: Sequence[str], *options: str) -> dict[str, Any]:
        """Run a program with --json; gives how it ended."""
        document = json.loads(self.run(program, "--json", *options)[1])
        found: dict[str, Any] = document["outcome"]
        return found


@pytest.fixture
def command(person: Person, place: Path) -> Command:
    return Command(person, place)


def owned(person: Person, path: Path) -> Path:
    if person.user is not None:
        os.chown(path, person.user, person.user)
    return path


def folder(person: Person, path: Path) -> Path:
    path.mkdir()
    return owned(person, path)


def python(code: str) -> list[str]:
    return ["/usr/bin/python3", "-c", code]


@pytest.mark.parametrize("shown", ["workspace", "ro", "rw", "itself", "through a link"])
def test_the_signing_key_is_never_shown(
    command: Command, person: Person, place: Path, shown: str
) -> None:
    assert command.run(["/bin/true"])[0] == 0  # makes a key
    work, elsewhere = folder(person, place / "work"), folder(person, place / "elsewhere")
    inner = folder(person, work / "inner")
    for target in (inner / "key.pem", elsewhere / "key.pem"):
        shutil.copy(place / "beddel-home/keys/signing.pem", target)
        owned(person, target)
    named = str(inner / "key.pem")
    if shown == "through a link":
        (place / "link.pem").symlink_to(inner / "key.pem")
        named = str(place / "link.pem")
    options = {
        "workspace": ("--workspace", str(work)),
        "ro": ("--mount", f"{work}:/d"),
        "rw": ("--mount", f"{work}:/d:rw"),
        "itself": ("--mount", f"{inner}/key.pem:/d"),
        "through a link": ("--workspace", str(work)),
    }[shown]
    code, out, err = command.run(["/bin/echo", "ran"], "--signing-key", named, *options)
    assert (code, out) == (126, b"")
    assert "it is the signing key" in err or "the signing key lies in it" in err
    if shown != "itself":
        free = ("--signing-key", str(elsewhere / "key.pem"))
        (inner / "key.pem").unlink()
        assert command.run(["/bin/echo", "ran"], *free, *options)[:2] == (0, b"ran\n")


@pytest.mark.parametrize("flag", ["--receipt", "--bundle", "--predicate"])
@pytest.mark.parametrize("way", ["below", "directly", "through a link"])
def test_nothing_of_ours_is_written_where_the_program_can_lead_it(
    command: Command, person: Person, place: Path, flag: str, way: str
) -> None:
    shared, victim = folder(person, place / "shared"), folder(person, place / "victim")
    folder(person, shared / "inner")
    (place / "link").symlink_to(shared / "inner")
    path = {
        "below": shared / "inner/out.json",
        "directly": shared / "out.json",
        "through a link": place / "link/out.json",
    }[way]
    swap = ["/bin/sh", "-c", f"rm -r /d/inner && ln -s {victim} /d/inner"]
    mount = ("--mount", f"{shared}:/d:rw")
    code, _, err = command.run(swap, *mount, flag, str(path))
    assert code == 125
    assert f"{flag} {str(path)!r} lies in {str(shared)!r}, which the program may change" in err
    assert (shared / "inner").is_dir(), "the program did not run"
    outside = place / "outside.json"
    assert command.run(swap, *mount, flag, str(outside))[0] == 0
    assert outside.stat().st_size > 0
    assert (shared / "inner").is_symlink()
    assert list(victim.iterdir()) == []


def test_what_is_written_back_does_not_cost_the_receipt(
    command: Command, person: Person, place: Path
) -> None:
    work = folder(person, place / "work")
    make = ["/bin/mkdir", "r.json"]
    options = ("--workspace", str(work), "--receipt", str(work / "r.json"))
    code, _, err = command.run(make, "--write-back", *options)
    assert code == 125
    assert "which the program may change" in err
    assert list(work.iterdir()) == [], "the program did not run"
    assert command.run(make, *options)[0] == 0
    assert (work / "r.json").is_file()


BREAK_THE_INIT = """
import os, resource, signal, sys
for number in range(1, 65):
    try:
        os.kill(1, number)
    except OSError:
        pass
for limit in range(16):
    try:
        resource.prlimit(1, limit, (0, 0))
    except (OSError, ValueError):
        pass
if os.fork() == 0:
    os._exit(0)
os.wait()
sys.exit(3)
"""


def test_the_ending_is_told_as_it_was_whatever_the_init_was_sent(command: Command) -> None:
    outcome = command.outcome(python(BREAK_THE_INIT))
    assert (outcome["status"], outcome["reason"], outcome["exit_code"]) == ("failure", "exit", 3)


FLOOD = """
import os, time
print("ready", flush=True)
until = time.monotonic() + 2
while time.monotonic() < until:
    for _ in range(20):
        os.kill(1, 17)
        time.sleep(0.00002)
"""


def test_signals_to_the_init_do_not_make_it_work_for_the_program(command: Command) -> None:
    """Otherwise the program has a processor beside its share, which no cgroup counts."""
    process = command.start(python(FLOOD), "-q")
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        (init,) = (
            child
            for child in processes.children(process.pid)
            if processes.status(child).get("Name") == "beddel-init"
        )
        before = processes.spent_ticks(init)
        time.sleep(1.5)
        spent = (processes.spent_ticks(init) - before) / os.sysconf("SC_CLK_TCK")
        assert process.communicate(timeout=60)[1] == b""
    finally:
        process.kill()
        process.wait()
    # A fifth of the time and more if it answers each; three hundred short looks otherwise.
    assert spent < 0.12


STREAMS = """
echo out > /dev/stdout
echo err > /dev/stderr
cat /dev/stdin
"""


def test_streams_can_be_opened_by_name(command: Command) -> None:
    code, out, err = command.run(["/bin/sh", "-c", STREAMS], "-q")
    assert (code, out, err) == (0, b"out\n", "err\n")


QUEUED = """
import socket
held = []
for _ in range(60):
    to = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    to.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 23)
    to.bind(("127.0.0.1", 0))
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for _ in range(70):
        sender.sendto(bytes(60000), to.getsockname())
    held.append(to)
lines = open("/proc/net/udp").read().splitlines()[1:]
print(sum(int(line.split()[4].split(":")[1], 16) for line in lines))
"""


def test_what_sockets_hold_is_bounded_where_a_cgroup_counts(
    command: Command, person: Person
) -> None:
    require("cgroup")
    if person.user is not None:
        return  # has no cgroup; that kernel memory is not counted then is documented
    code, out, err = command.run(python(QUEUED), "--memory", "64MiB", "-q")
    # Version 2 counts it as memory, and may end the program for it.
    if code != 137:
        assert code == 0, err
        assert MIB < int(out) < 16 * MIB
    assert command.run(python(QUEUED.replace("range(60)", "range(1)")), "-q")[0] == 0


HOLD = "import time\nb = b'x' * (1 << 27)\ntime.sleep(1)"


def test_who_ended_a_run_for_memory(command: Command, person: Person) -> None:
    """Without a cgroup it is never the kernel."""
    code, _, err = command.run(python(HOLD), "--memory", "32MiB", "-v")
    assert code == 137
    kernel = person.user is None and "cgroup" in err.split("walls", 1)[1].split("access")[0]
    assert f"ended by the {'kernel' if kernel else 'supervisor'}" in err
