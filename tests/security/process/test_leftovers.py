"""A program leaves things behind: memory segments, queues, keys, files, mounts. None remains."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.security.process.conftest import Person, Run, command

LEAVE = """
answers({
    "segment": lambda: call(int(sys.argv[1]), 0x5eed, 1 << 16, 0o1666),
    "semaphores": lambda: call(int(sys.argv[2]), 0x5eed, 4, 0o1666),
    "messages": lambda: call(int(sys.argv[3]), 0x5eed, 0o1666),
    "queue": lambda: call(int(sys.argv[4]), b"walls-left", 0o102, 0o666, 0),
    "shm": lambda: attempt(lambda: open("/dev/shm/walls-left", "w").write("x")),
    "tmp": lambda: attempt(lambda: open("/tmp/walls-left", "w").write("x")),
})
"""
NUMBERS = (
    ("194", "190", "186", "180")
    if os.uname().machine == "aarch64"
    else (*("29", "64", "68", "240"),)
)


def _state() -> dict[str, object]:
    own = {path: Path(path).read_text() for path in ("/proc/sysvipc/shm", "/proc/sysvipc/sem")}
    return {
        "mounts": Path("/proc/self/mountinfo").read_text(),
        "shm": [name for name in os.listdir("/dev/shm") if "walls" in name],
        "tmp": [name for name in os.listdir("/tmp") if "walls-left" in name],
        "messages": Path("/proc/sysvipc/msg").read_text(),
        "keys": sum("walls" in line for line in Path("/proc/keys").read_text().splitlines()),
        **{path: text for path, text in own.items() if "5eed" in text or "24301" in text},
    }


def test_nothing_is_left_after_it(probe: Run) -> None:
    before = _state()
    found = probe(LEAVE, *NUMBERS)
    # Landlock knows no place a queue could be in; without it there may be one, in its namespace.
    assert found.pop("queue") in (errno.EACCES, errno.ENOSYS, 0)
    assert set(found.values()) == {0}, "the control: inside, each could be made"
    assert _state() == before


def test_nothing_is_left_when_it_is_refused_or_never_started(person: Person, place: Path) -> None:
    before = _state()
    code = """
import sys
sys.path.append(sys.argv[1])
from beddel_cli.process.launch import Launcher
import os
first = Launcher.start()
first.finish()
first.close()
assert first.pid is not None
for pid in (first.pid,):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        continue
    raise SystemExit("still there")
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    pass
else:
    raise SystemExit("a child is left")
print(sorted(os.listdir("/proc/self/fd")))
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, ""],
        capture_output=True,
        text=True,
        check=False,
        **person.options(),
    )
    assert done.returncode == 0, done.stderr
    # 3 is the listing's own.
    assert done.stdout == "['0', '1', '2', '3']\n"
    assert _state() == before


@pytest.mark.parametrize("step", ["target", "source"])
def test_nothing_is_left_when_a_step_fails(person: Person, place: Path, step: str) -> None:
    before = _state()
    target = "/proc/x" if step == "target" else "/data"
    mounts = [{"source": str(place), "target": target, "writable": False}]
    asked = {"arguments": ["/bin/true"], "mounts": mounts, "disk_bytes": 1 << 20}
    done = subprocess.run(
        command(), input=json.dumps(asked), capture_output=True, text=True, check=True,
        **person.options(),
    )  # fmt: skip
    failed = json.loads(done.stdout)["walls"]["failed_step"]
    assert failed == ("mounts" if step == "target" else None)
    assert _state() == before
