"""A program tries to outlive its run: daemons, stopped processes, ignored signals, a killed runner.

Every process inside carries a marker in its command line, by which the host's /proc shows it.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.security.process.conftest import Person, Run, command, source
from tests.support import processes

# The marker is an argument of every process; each writes a line once it is what it wants to be.
DAEMON = """
import time
def settle(how):
    if how == "daemon":
        if os.fork():
            os._exit(0)
        os.setsid()
        if os.fork():
            os._exit(0)
    if how == "deaf":
        for number in (1, 2, 15):
            signal.signal(number, signal.SIG_IGN)
    print(how, flush=True)
    if how == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(300)
for how in sys.argv[2].split(","):
    if os.fork() == 0:
        settle(how)
while sys.argv[3] == "stay":
    time.sleep(300)
time.sleep(float(sys.argv[3]))
"""


def marked(marker: str) -> list[int]:
    """Give the processes of the host that carry a marker, those that wait to be reaped left out."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                text = Path(f"/proc/{name}/cmdline").read_bytes()
            except OSError:
                continue
            if f"\0{marker}\0".encode() in text and processes.is_alive(int(name)):
                found.append(int(name))
    return found


@contextmanager
def running(person: Person, marker: str, kinds: str) -> Iterator[subprocess.Popen[str]]:
    """Start a program that stays, and wait until all its processes are what they want to be."""
    asked = {"arguments": ["/usr/bin/python3", "-c", source(DAEMON), marker, kinds, "stay"]}
    process = subprocess.Popen(
        command(),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        **person.options(),
    )
    assert process.stdin is not None
    json.dump(asked, process.stdin)
    process.stdin.close()
    try:
        expected = 1 + len(kinds.split(","))
        processes.wait_for(
            lambda: len(marked(marker)) == expected or None, 30, what="every process inside"
        )
        time.sleep(0.2)
        yield process
    finally:
        process.kill()
        process.wait()


def test_while_a_program_runs_there_is_only_its_init_and_that_holds_no_cgroup(
    person: Person,
) -> None:
    """The launcher, which keeps the way into the cgroup fast, is gone by then, and its file too."""
    marker = secrets.token_hex(8)
    with running(person, marker, "plain") as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == 1
        if os.geteuid() == 0:  # nobody else may look at them
            folder = f"/proc/{children[0]}/fd"
            held = [os.readlink(f"{folder}/{name}") for name in os.listdir(folder)]
            assert any(name.startswith("socket:") for name in held), "the control: its channel"
            assert not any("cgroup" in name for name in held)


@pytest.mark.parametrize("kinds", ["daemon", "deaf", "stopped", "daemon,deaf,stopped,plain"])
def test_nothing_outlives_the_program(behind: Run, kinds: str) -> None:
    marker = secrets.token_hex(8)
    arguments = ["/usr/bin/python3", "-c", source(DAEMON), marker, kinds, "0.5"]
    answer = behind(arguments)
    # They also held its stdout, whose end came all the same.
    assert answer["code"] == 0
    assert sorted(answer["stdout"].split()) == sorted(kinds.split(","))
    assert marked(marker) == []


def test_the_control_without_walls_does_leave_a_daemon(person: Person) -> None:
    marker = secrets.token_hex(8)
    process = subprocess.Popen(
        ["/usr/bin/python3", "-c", source(DAEMON), marker, "daemon", "0.3"],
        stdout=subprocess.DEVNULL,
        **person.options(),
    )
    process.wait()
    left = marked(marker)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert len(left) == 1


def test_killing_the_supervisor_kills_everything(person: Person) -> None:
    marker = secrets.token_hex(8)
    with running(person, marker, "daemon,deaf,stopped") as process:
        assert len(marked(marker)) == 4
        process.kill()
        process.wait()
        processes.wait_for(lambda: marked(marker) == [] or None, 5, what="everything inside to die")


@pytest.mark.parametrize("milliseconds", range(0, 40, 4))
def test_killing_the_supervisor_while_the_walls_are_built_leaves_nothing(
    person: Person, milliseconds: int
) -> None:
    process = subprocess.Popen(
        command(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, **person.options()
    )
    assert process.stdin is not None
    marker = secrets.token_hex(8)
    json.dump({"arguments": ["/bin/sleep", "300", "--", marker]}, process.stdin)
    process.stdin.close()
    children = processes.wait_for(lambda: processes.children(process.pid) or None, what="a child")
    time.sleep(milliseconds / 1000)
    children = [*children, *processes.children(process.pid)]
    process.kill()
    process.wait()
    processes.wait_for(
        lambda: not any(processes.is_alive(child) for child in children) or None,
        5,
        what="every child to die",
    )
    assert marked(marker) == []


def test_it_cannot_signal_or_see_what_is_outside(probe: Run) -> None:
    code = """
mine = {name for name in os.listdir("/proc") if name.isdigit()}
answers({
    "the supervisor": lambda: attempt(lambda: os.kill(int(sys.argv[1]), 0)),
    "the init": lambda: attempt(lambda: os.kill(1, 9)),
    "how many": lambda: len(mine),
    "the init's folder": lambda: attempt(lambda: os.listdir("/proc/1")),
    "alive": lambda: attempt(lambda: os.kill(os.getppid(), 0)),
})
"""
    found = probe(code, str(os.getpid()))
    assert found == {
        "the supervisor": 3,
        "the init": 0,  # answered, and without effect: nothing kills process 1 from inside
        "how many": 1,
        "the init's folder": 2,
        "alive": 0,
    }


def test_exit_codes_and_signals_are_exact(behind: Run) -> None:
    cases = {"exit 0": 0, "exit 41": 41, "exit 255": 255, "kill -9 $$": -9, "kill -SEGV $$": -11}
    found = {script: behind(["/bin/sh", "-c", script])["code"] for script in cases}
    assert found == cases


@pytest.mark.parametrize(
    ("arguments", "number"),
    [
        (["/nonexistent"], 2),
        (["no-such-program"], 2),
        (["/etc/passwd"], 13),
        (["/usr"], 13),
    ],
)
def test_a_program_that_cannot_start_says_why(
    behind: Run, arguments: list[str], number: int
) -> None:
    answer = behind(arguments)
    assert (answer["start_errno"], answer["code"], answer["fault"]) == (number, None, None)


def test_a_name_is_looked_for_in_the_path_inside(behind: Run) -> None:
    answer = behind(["env"], environment=[["PATH", "/nowhere:/usr/bin"], ["A", "b"]])
    assert answer["stdout"] == "PATH=/nowhere:/usr/bin\nA=b\n"
