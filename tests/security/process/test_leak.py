"""A program looks for what it was not told: the caller's environment, files, names, processes."""

from __future__ import annotations

import errno
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from beddel_cli.process.filter import NUMBERS
from tests.security.process.conftest import Person, Run, command, source

EVERYTHING = """
def read(path):
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20).decode("latin-1")
    except OSError as error:
        return f"errno {error.errno}"
names = ["cmdline", "environ", "comm", "cwd", "mountinfo", "maps", "auxv", "stat", "cgroup"]
found = {name: read(f"/proc/1/{name}") for name in names}
found["own environ"] = read("/proc/self/environ")
found["environment"] = dict(os.environ)
found["mountinfo"] = read("/proc/self/mountinfo")
def lead(number):
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except FileNotFoundError:
        return None
found["descriptors"] = {n: lead(n) for n in range(4096) if lead(n) is not None}
found["hostname"] = os.uname().nodename
found["parent"] = os.getppid()
found["session"] = os.getsid(0) == os.getpid()
found["keys"] = read("/proc/keys")
found["kernel command"] = read("/proc/cmdline")
print(json.dumps(found))
"""


def test_nothing_of_the_caller_is_to_be_found(person: Person, place: Path) -> None:
    secret = f"secret{secrets.token_hex(8)}"
    (place / secret).mkdir()
    (place / secret / "work").mkdir()
    kept = os.open(place / secret, os.O_RDONLY)
    os.set_inheritable(kept, True)
    done = subprocess.run(
        [*command(), secret],
        input=json.dumps(
            {
                "arguments": ["/usr/bin/python3", "-c", source(EVERYTHING)],
                "workspace": str(place / secret / "work"),
                "environment": [["MODE", "fast"], ["LANG", "C.UTF-8"]],
            }
        ),
        capture_output=True,
        text=True,
        check=True,
        pass_fds=[kept],
        env={"CALLER_SECRET": secret, "PATH": os.environ["PATH"]},
        **person.options(),
    )
    os.close(kept)
    answer = json.loads(done.stdout)
    assert answer["code"] == 0, answer
    assert secret not in answer["stdout"]
    found = json.loads(answer["stdout"])
    # Process 1 is not listed at all, since nobody may look into it.
    hidden = ("cmdline", "environ", "comm", "maps", "auxv", "stat", "cgroup")
    assert {found[name] for name in hidden} == {"errno 2"}
    assert found["environment"] == {"MODE": "fast", "LANG": "C.UTF-8"}
    assert found["own environ"] == "MODE=fast\0LANG=C.UTF-8\0"
    streams = {name: target.partition(":")[0] for name, target in found["descriptors"].items()}
    assert streams == dict.fromkeys("012", "pipe")
    assert found["hostname"] == "sandbox" != socket.gethostname()
    assert found["parent"] == 1
    assert found["session"] is True
    assert found["keys"] == found["kernel command"] == ""


def test_the_init_has_wiped_what_it_inherited(person: Person, place: Path) -> None:
    """What is kept from the program is not there to begin with: root outside reads nothing."""
    from tests.support import processes

    secret = f"secret{secrets.token_hex(8)}"
    process = subprocess.Popen(
        [*command(), secret],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={"CALLER_SECRET": secret, "PATH": os.environ["PATH"]},
        **person.options(),
    )
    assert process.stdin is not None
    json.dump({"arguments": ["/bin/sleep", "30"]}, process.stdin)
    process.stdin.close()
    try:
        init = processes.wait_for(lambda: processes.confined_child(process.pid), what="the init")
        assert secret in Path(f"/proc/{process.pid}/cmdline").read_text()
        assert Path(f"/proc/{init}/cmdline").read_bytes().strip(b"\0") == b""
        assert Path(f"/proc/{init}/comm").read_text() == "beddel-init\n"
        if os.geteuid() == 0:
            assert Path(f"/proc/{init}/environ").read_bytes().strip(b"\0") == b""
    finally:
        process.kill()
        process.wait()


def test_the_root_of_the_old_tree_is_out_of_reach(probe: Run) -> None:
    code = """
def up():
    folder = os.open("/", os.O_RDONLY)
    for _ in range(30):
        folder = os.open("..", os.O_RDONLY, dir_fd=folder)
    return sorted(os.listdir(folder))
print(json.dumps({"up": up(), "root": sorted(os.listdir("/")),
                  "links": os.readlink("/proc/self/root")}))
"""
    found = probe(code)
    assert found["up"] == found["root"]
    assert found["links"] == "/"


def test_streams_are_exact_and_apart(behind: Run) -> None:
    every = bytes(range(256)).decode("latin-1")
    script = "import sys; d = sys.stdin.buffer.read(); sys.stdout.buffer.write(d * 999)"
    script += "; sys.stderr.buffer.write(d)"
    answer = behind(["/usr/bin/python3", "-c", script], stdin=every)
    assert answer["stdout"] == every * 999
    assert answer["stderr"] == every


def test_a_terminal_is_its_own(behind: Run) -> None:
    script = "tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo all; echo x > /dev/tty"
    answer = behind(["/bin/sh", "-c", script], terminal=[30, 90])
    assert answer["code"] == 0, answer
    assert answer["stdout"].split("\r\n") == ["/dev/pts/0", "30 90", "all", "x", ""]
    without = behind(["/bin/sh", "-c", "test -t 0 || test -t 1 || echo none; : > /dev/tty"])
    assert without["stdout"] == "none\n"
    assert without["code"] != 0


WATCH = """
import fcntl, select
number, folder = json.loads(sys.argv[1])
seen = []
signal.signal(40, lambda *_: seen.append("signal"))
def notice():
    watched = os.open(folder, os.O_RDONLY)
    fcntl.fcntl(watched, 10, 40)
    fcntl.fcntl(watched, 1026, 0x80000001)
def watch():
    # IN_OPEN | IN_ACCESS
    if call(number["inotify_add_watch"], queue, folder.encode() + b"\\0", 0x21):
        raise OSError(ctypes.get_errno(), "")
queue = LIBC.syscall(number["inotify_init1"], os.O_NONBLOCK)
made = 0 if queue >= 0 else ctypes.get_errno()
found = {"inotify": made or attempt(watch), "dnotify": attempt(notice)}
print("ready", flush=True)
sys.stdin.readline()
try:
    seen.append(os.read(queue, 4096).hex())
except OSError:
    pass
print(json.dumps({**found, "seen": seen}))
"""
READER = "import sys; open(sys.argv[1], 'rb').read(1)"


def test_it_does_not_see_what_others_start(person: Person) -> None:
    """The system's folders inside are the host's own."""
    column = int(os.uname().machine == "aarch64")
    numbers = {name: NUMBERS[name][column] for name in ("inotify_init1", "inotify_add_watch")}
    code = ["/usr/bin/python3", "-c", source(WATCH), json.dumps([numbers, "/usr/bin"])]
    behind = [sys.executable, "-P", "-m", "beddel_cli", "exec", "-q", "--profile", "high-security"]
    found = {}
    with tempfile.TemporaryDirectory(dir="/var/tmp") as home:
        if person.user is not None:
            os.chown(home, person.user, person.user)
        environ = {name: f"{home}/{name}" for name in ("BEDDEL_HOME", "BEDDEL_CACHE_DIR")}
        for where, line in (("outside", code), ("inside", [*behind, "--", *code])):
            process = subprocess.Popen(
                line,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={"PATH": "/usr/bin:/bin", **environ},
                cwd="/",
                **person.options(),
            )
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            subprocess.run(["/usr/bin/env", "true"], check=True)
            out, _ = process.communicate("\n", timeout=60)
            found[where] = json.loads(out)
    assert found["outside"]["inotify"] == 0
    assert b"env".hex() in found["outside"]["seen"][-1]
    assert found["inside"] == {"inotify": errno.ENOSYS, "dnotify": errno.EPERM, "seen": []}
