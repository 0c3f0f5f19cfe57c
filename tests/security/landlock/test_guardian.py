"""Nothing of a program outlives it on the landlock rung, whoever is killed, and nothing is left."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.security.landlock.conftest import Rung
from tests.support.callers import PYTHON
from tests.support.processes import children, is_alive, status, wait_for

# Three daemons: forked twice, in sessions of their own, deaf to what can be ignored. They tell
# that they live through a file they hold open, whose name everybody can see from outside.
DAEMONS = """
import os, signal, sys, time
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        for number in range(1, 32):
            if number not in (signal.SIGKILL, signal.SIGSTOP):
                signal.signal(number, signal.SIG_IGN)
        os.close(1)
        os.close(2)
        while True:
            time.sleep(0.05)
time.sleep(0.2)
print("ready", flush=True)
if sys.argv[2] == "stay":
    time.sleep(100)
"""


@pytest.fixture
def tag() -> Iterator[str]:
    """A word for the command line of daemons; none of them outlives the test, even if it fails."""
    word = f"tag-{os.urandom(6).hex()}"
    yield word
    for pid in tagged(word):
        with suppress(ProcessLookupError):  # it ended by itself meanwhile
            os.kill(pid, signal.SIGKILL)


def tagged(tag: str) -> list[int]:
    """Give the live processes with a word in their command line, other than ours."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                line = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if tag.encode() in line and b"exec" not in line and is_alive(int(name)):
                found.append(int(name))
    return found


def command(tag: str, then: str) -> list[str]:
    return ["--", PYTHON, "-c", DAEMONS, tag, then]


def started(rung: Rung, tag: str) -> subprocess.Popen[bytes]:
    """Start daemons and their parent; gives the running command once all are there."""
    run = rung.start(*command(tag, "stay"))
    wait_for(lambda: tagged(tag) if len(tagged(tag)) == 4 else None, what="daemons")
    return run


def watchers(run: subprocess.Popen[bytes]) -> dict[str, int]:
    """Give keeper and guardian of a running command."""
    return {status(pid)["Name"]: pid for pid in children(run.pid) if "Name" in status(pid)}


def nothing_is_left(rung: Rung, tag: str, before: set[Path]) -> None:
    wait_for(lambda: True if not tagged(tag) else None, what="the death of all")
    wait_for(lambda: True if rung.scratch_folders() <= before else None, what="an empty /tmp")


def test_the_control_daemons_outlive_their_parent(rung: Rung, tag: str) -> None:
    subprocess.run(command(tag, "go")[1:], check=True, capture_output=True)
    left = tagged(tag)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert len(left) == 3


def test_nothing_outlives_a_program_that_ends(rung: Rung, tag: str) -> None:
    before = rung.scratch_folders()
    done = rung.exec(*command(tag, "go"))
    assert (done.returncode, done.stdout) == (0, b"ready\n"), done.message
    # Not waited for: all are dead when the command returns, and the folder is gone.
    assert tagged(tag) == []
    assert rung.scratch_folders() <= before


@pytest.mark.parametrize("option", [("--timeout", "1s"), ("--cpu-time", "1s")])
def test_nothing_outlives_a_limit(rung: Rung, tag: str, option: tuple[str, str]) -> None:
    # Each process forks the next and ends, so that there is never one to be found twice.
    chain = (
        "import os, sys\n"
        "print('ready', flush=True)\n"
        "os.close(1); os.close(2)\n"
        "while True:\n"
        "    try:\n"
        "        if os.fork():\n"
        "            os._exit(0)\n"
        "    except OSError:\n"
        "        pass  # too many wait to be reaped\n"
    )
    before = rung.scratch_folders()
    forever = f"import os, time\nif os.fork(): time.sleep(100)\n{chain}"
    done = rung.exec(*option, "--processes", "20", "--", PYTHON, "-c", forever, tag)
    assert done.returncode == 124, done.message
    assert tagged(tag) == []
    assert rung.scratch_folders() <= before


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_nothing_outlives_the_command(rung: Rung, tag: str, number: int, code: int) -> None:
    before = rung.scratch_folders()
    run = started(rung, tag)
    run.send_signal(number)
    run.communicate(timeout=30)
    assert run.returncode == code
    nothing_is_left(rung, tag, before)


@pytest.mark.parametrize(
    "victims",
    [
        ("beddel-guardian",),
        pytest.param(("beddel-keeper",), marks=pytest.mark.slow),
        ("beddel-keeper", "beddel-guardian"),
        ("us", "beddel-guardian"),
        pytest.param(("beddel-guardian", "us"), marks=pytest.mark.slow),
        ("us", "beddel-keeper"),
    ],
    ids="+".join,
)
def test_nothing_outlives_the_death_of_its_watchers(
    rung: Rung, tag: str, victims: tuple[str, ...]
) -> None:
    before = rung.scratch_folders()
    run = started(rung, tag)
    found = watchers(run) | {"us": run.pid}
    for name in victims:
        os.kill(found[name], signal.SIGKILL)
    if victims == ("beddel-keeper",):
        # The run goes on without it; whoever ends it removes what the keeper would have.
        assert len(tagged(tag)) == 4
        run.send_signal(signal.SIGTERM)
    _, err = run.communicate(timeout=30)
    if "us" not in victims:
        wanted = 143 if victims == ("beddel-keeper",) else 125
        assert run.returncode == wanted, err
        if "beddel-guardian" in victims:
            assert b"the guardian of the program died before it could say" in err
    wait_for(lambda: True if not tagged(tag) else None, what="the death of all")
    if victims != ("us", "beddel-keeper"):
        nothing_is_left(rung, tag, before)
    else:
        # Unless the keeper was quick nobody was left to remove the folder: the next run does.
        left = rung.scratch_folders() - before
        assert len(left) <= 1
        assert rung.exec("--", "true").returncode == 0
        assert not left & rung.scratch_folders()


def test_a_folder_of_a_run_that_lives_is_not_swept(rung: Rung, tag: str) -> None:
    before = rung.scratch_folders()
    run = started(rung, tag)
    (mine,) = rung.scratch_folders() - before
    assert rung.exec("--", "true").returncode == 0
    assert mine in rung.scratch_folders()
    run.terminate()
    run.communicate(timeout=30)
    nothing_is_left(rung, tag, before)


def test_watchers_hold_nothing_of_the_callers(rung: Rung, tag: str) -> None:
    secret = f"secret-{os.urandom(6).hex()}"
    os.environ["CALLERS_SECRET"] = secret
    try:
        run = started(rung, tag)
    finally:
        del os.environ["CALLERS_SECRET"]
    found = watchers(run)
    assert set(found) == {"beddel-keeper", "beddel-guardian"}
    if os.geteuid() == 0:  # nobody else may look into a process that is not dumpable
        assert secret.encode() in Path(f"/proc/{run.pid}/environ").read_bytes()
    for pid in found.values():
        try:
            text = Path(f"/proc/{pid}/environ").read_bytes()
        except PermissionError:
            continue  # not even we may look: it is not dumpable
        assert text.strip(b"\0") == b""
    for pid in tagged(tag):
        assert re.search(rb"^NoNewPrivs:\s*1$", Path(f"/proc/{pid}/status").read_bytes(), re.M)
    run.kill()
    run.communicate(timeout=30)
