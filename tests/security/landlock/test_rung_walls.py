"""What the landlock rung stops, each by a probe that works without it, and what it does not."""

from __future__ import annotations

import errno
import json
import os
import platform
import subprocess
from collections.abc import Iterator

import pytest

from beddel_cli.process.landlock_terms import NOT_WALLED
from tests.security.landlock.conftest import Rung
from tests.support.callers import PYTHON

EPERM, EACCES, ENOSYS = errno.EPERM, errno.EACCES, errno.ENOSYS


@pytest.fixture
def victim(rung: Rung) -> Iterator[subprocess.Popen[bytes]]:
    """A process of theirs outside, which can be signalled and looked at."""
    process = subprocess.Popen(["sleep", "100"], **rung.caller.identity())
    yield process
    process.kill()
    process.wait()


FILES = """
import fcntl, socket
folder, own = sys.argv[1], os.getcwd()
canary = folder + "/canary"
def opened(path, flags): return attempt(lambda: os.close(os.open(path, flags)))
def renamed():
    code = attempt(lambda: os.rename(canary, folder + "/moved"))
    if not code: os.rename(folder + "/moved", canary)
    return code
def linked():
    code = attempt(lambda: os.link(canary, folder + "/linked"))
    if not code: os.unlink(folder + "/linked")
    return code
def linked_here():
    code = attempt(lambda: os.link(canary, own + "/linked"))
    if not code: os.unlink(own + "/linked")
    return code
def made(make, remove):
    code = attempt(lambda: make(folder + "/new"))
    if not code: remove(folder + "/new")
    return code
def opened_or_raise(path): os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
def socket_made(path):
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    one.bind(path)
answers({
    "read a file": lambda: opened(canary, os.O_RDONLY),
    "list a folder": lambda: attempt(lambda: os.listdir(folder)),
    "write a file": lambda: opened(canary, os.O_WRONLY),
    "truncate by opening": lambda: opened(canary + "2", os.O_RDWR | os.O_TRUNC),
    "truncate by name": lambda: attempt(lambda: os.truncate(canary, 12)),
    "make a file": lambda: made(opened_or_raise, os.unlink),
    "make a folder": lambda: made(os.mkdir, os.rmdir),
    "make a FIFO": lambda: made(os.mkfifo, os.unlink),
    "make a link": lambda: made(lambda p: os.symlink("x", p), os.unlink),
    "make a socket": lambda: made(socket_made, os.unlink),
    "rename": renamed,
    "link": linked,
    "link into its own folder": linked_here,
    "execute": lambda: attempt(lambda: os.execv(canary, [canary])),
    "read /etc/passwd": lambda: opened("/etc/passwd", os.O_RDONLY),
    "list /": lambda: attempt(lambda: os.listdir("/")),
    "list /tmp": lambda: attempt(lambda: os.listdir("/tmp")),
    "list /proc": lambda: attempt(lambda: os.listdir("/proc")),
    "read /proc/self/mountinfo": lambda: opened("/proc/self/mountinfo", os.O_RDONLY),
    "read /proc/1/cmdline": lambda: opened("/proc/1/cmdline", os.O_RDONLY),
    "read /proc/net/tcp": lambda: opened("/proc/net/tcp", os.O_RDONLY),
    "read /sys": lambda: attempt(lambda: os.listdir("/sys")),
    "write /dev/shm": lambda: attempt(lambda: (os.mkdir("/dev/shm/b-%d" % os.getpid()),
                                               os.rmdir("/dev/shm/b-%d" % os.getpid()))),
    "write /tmp": lambda: attempt(lambda: (os.mkdir("/tmp/b-%d" % os.getpid()),
                                           os.rmdir("/tmp/b-%d" % os.getpid()))),
    "change the mode": lambda: attempt(lambda: os.chmod(canary, 0o755)),
    "change the times": lambda: attempt(lambda: os.utime(canary, (1, 1))),
    "change the owner": lambda: attempt(lambda: os.chown(canary, os.getuid(), -1)),
    "set an attribute": lambda: attempt(lambda: os.setxattr(canary, "user.a", b"1")),
    "read an attribute": lambda: attempt(lambda: os.getxattr(canary, "user.b")),
    "list attributes": lambda: attempt(lambda: os.listxattr(canary)),
})
"""
# What is answered by the filter and not by Landlock, or by the rights of an id that owns nothing.
BY_NAME = {
    "change the mode": EPERM,
    "change the times": EPERM,
    "change the owner": EPERM,
    "set an attribute": errno.EOPNOTSUPP,
    "read an attribute": errno.EOPNOTSUPP,
    "list attributes": errno.EOPNOTSUPP,
}


def test_files_of_the_host_are_out_of_reach(rung: Rung) -> None:
    folder = rung.caller.folder("theirs", canary=b"#!/bin/true\n", canary2=b"secret")
    for each in (folder, *folder.iterdir()):
        # To everybody, so that nothing but the walls is in the way.
        each.chmod(0o777)
    os.setxattr(folder / "canary", "user.b", b"1")
    found = rung.probe(FILES, str(folder))
    wanted = dict.fromkeys(found, EACCES) | BY_NAME | {"make a socket": EPERM}
    # Between two folders with unequal rights Landlock answers as between two file systems.
    wanted["link into its own folder"] = errno.EXDEV
    assert found == wanted
    assert (folder / "canary").read_bytes() == b"#!/bin/true\n"
    assert (folder / "canary2").read_bytes() == b"secret"
    control = rung.control(FILES, str(folder))
    # Executed, its end is the probe's, which then says nothing.
    assert control == dict.fromkeys(found, 0) | {"execute": "no answer"}


SOCKETS = """
import socket, threading
def of(family, kind, protocol=0):
    return attempt(lambda: socket.socket(family, kind, protocol).close())
def pair(kind): return attempt(lambda: [s.close() for s in socket.socketpair(socket.AF_UNIX, kind)])
def talk():
    one, other = socket.socketpair()
    one.sendall(b"hello")
    return 0 if other.recv(5) == b"hello" else -1
def through_pair():
    return attempt(lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(
        b"x", sys.argv[1]))
answers({
    "unix": lambda: of(socket.AF_UNIX, socket.SOCK_STREAM),
    "unix datagrams": lambda: of(socket.AF_UNIX, socket.SOCK_DGRAM),
    "internet": lambda: of(socket.AF_INET, socket.SOCK_STREAM),
    "internet datagrams": lambda: of(socket.AF_INET, socket.SOCK_DGRAM),
    "internet 6": lambda: of(socket.AF_INET6, socket.SOCK_STREAM),
    "netlink": lambda: of(socket.AF_NETLINK, socket.SOCK_RAW),
    "a pair of datagram sockets": lambda: pair(socket.SOCK_DGRAM),
    "a datagram through a pair": through_pair,
    "a pair of streams": lambda: pair(socket.SOCK_STREAM),
    "a pair of packets": lambda: pair(socket.SOCK_SEQPACKET),
    "a pair talks": talk,
})
"""


def test_there_are_no_sockets_but_connected_pairs(rung: Rung) -> None:
    import socket

    place = rung.caller.work / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(place))
        place.chmod(0o777)
        control = rung.control(SOCKETS, str(place))
        assert listening.recv(10) == b"x"
        found = rung.probe(SOCKETS, str(place))
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.recv(10)
    assert control == dict.fromkeys(control, 0)
    works = {"a pair of streams": 0, "a pair of packets": 0, "a pair talks": 0}
    assert found == dict.fromkeys(found, EPERM) | works


QUEUES = """
x86 = os.uname().machine == "x86_64"
def shared(make, remove, *arguments):
    result = LIBC.syscall(ctypes.c_long(make), *(ctypes.c_long(each) for each in arguments))
    if result < 0: return ctypes.get_errno()
    LIBC.syscall(ctypes.c_long(remove), ctypes.c_long(result), ctypes.c_long(0), ctypes.c_long(0))
    return 0
def semaphores():
    number = LIBC.syscall(ctypes.c_long(64 if x86 else 190), 0, 1, 0o600)
    if number < 0: return ctypes.get_errno()
    # semctl(id, 0, IPC_RMID)
    return call(66 if x86 else 191, number, 0, 0)
def queue():
    number = 240 if x86 else 180
    name = b"b-%d" % os.getpid()
    result = LIBC.syscall(ctypes.c_long(number), name, os.O_CREAT | os.O_RDWR, 0o600, None)
    if result < 0: return ctypes.get_errno()
    return call(241 if x86 else 181, name)
answers({
    "SysV memory": lambda: shared(29 if x86 else 194, 31 if x86 else 195, 0, 4096, 0o600),
    "SysV semaphores": semaphores,
    "SysV messages": lambda: shared(68 if x86 else 186, 71 if x86 else 187, 0, 0o600),
    "POSIX queue": queue,
    # Of somebody else's: what is not there is told from what may not be asked for.
    "attach": lambda: call(30 if x86 else 196, 2**30, 0, 0),
    "receive": lambda: call(70 if x86 else 188, 2**30, 0, 0, 0, 0),
    "operate": lambda: call(65 if x86 else 193, 2**30, b"", 0),
})
"""


def test_there_are_no_queues_or_shared_memory_of_the_hosts(rung: Rung) -> None:
    found = rung.probe(QUEUES)
    control = rung.control(QUEUES)
    assert found == dict.fromkeys(found, ENOSYS)
    theirs = {"attach", "receive", "operate"}
    assert {name: code for name, code in control.items() if name not in theirs} == (
        dict.fromkeys(set(control) - theirs, 0)
    )
    assert {control[name] for name in theirs} == {errno.EINVAL}


PROCESSES = """
import resource, struct
x86 = os.uname().machine == "x86_64"
other = int(sys.argv[1])
def affinity():
    return attempt(lambda: os.sched_setaffinity(other, os.sched_getaffinity(other)))
def priority():
    now = os.getpriority(os.PRIO_PROCESS, other)
    return attempt(lambda: os.setpriority(os.PRIO_PROCESS, other, now))
def scheduler():
    return attempt(lambda: os.sched_setscheduler(other, os.SCHED_OTHER, os.sched_param(0)))
def by_descriptor():
    import signal
    number = os.pidfd_open(other)
    return attempt(lambda: signal.pidfd_send_signal(number, 0))
def limit():
    return attempt(lambda: resource.prlimit(other, resource.RLIMIT_CORE))
answers({
    "signal": lambda: attempt(lambda: os.kill(other, 0)),
    "signal to a thread": lambda: call(234 if x86 else 131, other, other, 0),
    "queued signal": lambda: call(129 if x86 else 138, other, 0, struct.pack("<iii116x", 0, 0, -1)),
    "signal by descriptor": by_descriptor,
    "limits": limit,
    "affinity": affinity,
    "priority": priority,
    "scheduler": scheduler,
    "io priority": lambda: call(251 if x86 else 30, 1, other, 0),
    "trace": lambda: call(101 if x86 else 117, 16, other, 0, 0) and
             call(101 if x86 else 117, 17, other, 0, 0) and
             call(101 if x86 else 117, 16, other, 0, 0),
    "read its memory": lambda: call(310 if x86 else 270, other, 0, 0, 0, 0, 0),
})
"""


def test_other_processes_are_out_of_reach(rung: Rung, victim: subprocess.Popen[bytes]) -> None:
    found = rung.probe(PROCESSES, str(victim.pid))
    assert found == dict.fromkeys(found, EPERM)
    control = rung.control(PROCESSES, str(victim.pid))
    assert {name: code for name, code in control.items() if name != "trace"} == (
        dict.fromkeys(set(control) - {"trace"}, 0)
    )


MOVED = """
shown, temporary = sys.argv[1], os.environ.get("TMPDIR", "/var/tmp")
for each in ("from", "to"):
    os.mkdir(each)
os.mkdir("from/folder")
for each in ("from/one", "from/two", "from/three"):
    open(each, "w").close()
def away(path): return temporary + "/away-%d" % os.getpid() + path
def to_temporary():
    os.rename("from/three", away("3"))
    os.unlink(away("3"))
answers({
    "a file": lambda: attempt(lambda: os.rename("from/one", "to/one")),
    "a folder": lambda: attempt(lambda: os.rename("from/folder", "to/folder")),
    "a second name": lambda: attempt(lambda: os.link("from/two", "to/two")),
    "to TMPDIR": lambda: attempt(to_temporary),
    "a name for what is only shown": lambda: attempt(lambda: os.link(shown + "/canary", "to/c")),
    "away with what is only shown": lambda: attempt(lambda: os.rename(shown + "/gone", "to/g")),
    "into what is only shown": lambda: attempt(lambda: os.rename("to/two", shown + "/new")),
    "over what is only shown": lambda: attempt(lambda: os.rename("from/two", shown + "/over")),
})
"""


def test_names_move_between_folders_of_its_own_and_no_others(rung: Rung) -> None:
    """Domains that only keep signals in forbade it too, and git mv, ln and cp -al failed."""
    folder = rung.caller.folder("shown", canary=b"c", gone=b"g", over=b"o")
    for each in (folder, *folder.iterdir()):
        # To everybody, so that nothing but the walls is in the way.
        each.chmod(0o777)
    source = rung.source(MOVED)
    done = rung.exec("--mount", f"{folder}:{folder}", "--", PYTHON, "-c", source, str(folder))
    own = ("a file", "a folder", "a second name", "to TMPDIR")
    wanted = dict.fromkeys(own, 0) | {
        # Between two folders with unequal rights Landlock answers as between two file systems.
        "a name for what is only shown": errno.EXDEV,
        "away with what is only shown": EACCES,
        "into what is only shown": EACCES,
        "over what is only shown": EACCES,
    }
    assert json.loads(done.stdout) == wanted, done.message
    assert sorted(each.name for each in folder.iterdir()) == ["canary", "gone", "over"]
    assert rung.control(MOVED, str(folder)) == dict.fromkeys(wanted, 0)
    assert sorted(each.name for each in folder.iterdir()) == ["canary", "new", "over"]


INSTANT = """
file = os.open("file", os.O_CREAT | os.O_RDWR, 0o600)
def by_the_library():
    os.posix_fallocate(file, 0, 1 << 20)
    if os.fstat(file).st_blocks * 512 < 1 << 20:
        raise OSError(9, "no block was taken")
answers({
    "the call": lambda: call(285 if os.uname().machine == "x86_64" else 47, file, 0, 0, 1 << 16),
    "the library": lambda: attempt(by_the_library),
})
"""


def test_disk_is_taken_by_writing_alone(rung: Rung) -> None:
    """Two GiB were taken in half a millisecond, between two looks at what is there."""
    assert rung.probe(INSTANT) == {"the call": errno.EOPNOTSUPP, "the library": 0}
    assert rung.control(INSTANT) == {"the call": 0, "the library": 0}


def test_the_program_cannot_end_who_would_end_it(rung: Rung) -> None:
    code = (
        "import json, os, signal\n"
        "found = {}\n"
        "for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM):\n"
        "    for name, pid in (('guardian', os.getppid()), ('keeper', os.getppid() - 1)):\n"
        "        try:\n"
        "            os.kill(pid, number)\n"
        "        except OSError as error:\n"
        "            found[f'{name} {int(number)}'] = error.errno\n"
        "try:\n"
        "    os.kill(-1, signal.SIGKILL)\n"
        "except OSError as error:\n"
        "    found['all'] = error.errno\n"
        "print(json.dumps(found))"
    )
    found = rung.probe(code)
    # A keeper that was not born right before it is somebody else, or nobody.
    assert {code for name, code in found.items() if name.startswith("guardian")} == {EPERM}
    assert {code for name, code in found.items() if name.startswith("keeper")} <= {
        *(EPERM, errno.ESRCH),
    }


BY_NAME_HERE = """
import shutil, threading
outside = sys.argv[1]
open("file", "w").close()
os.mkdir("folder")
open("folder/inner", "w").close()
os.symlink(outside, "out")
os.symlink("file", "in")
def mode(path, **more):
    code = attempt(lambda: os.chmod(path, 0o751, **more))
    return code or (0 if os.stat(path, **more).st_mode & 0o7777 == 0o751 else -1)
def times(path, value, wanted, **more):
    code = attempt(lambda: os.utime(path, ns=value, **more))
    return code or (0 if os.stat(path, **more).st_mtime_ns == wanted else -1)
folder = os.open("folder", os.O_RDONLY)
def swapped():
    # While one thread exchanges a file for a link to the outside, another changes modes.
    os.mkdir("race")
    stop = []
    def swap():
        while not stop:
            open("race/a", "w").close()
            os.unlink("race/a")
            os.symlink(outside, "race/a")
            os.unlink("race/a")
    thread = threading.Thread(target=swap)
    thread.start()
    codes = {attempt(lambda: os.chmod("race/a", 0o777)) for _ in range(300)}
    stop.append(1)
    thread.join()
    return 0 if codes <= {0, 1, 2} else str(codes)
answers({
    "mode": lambda: mode("file"),
    "mode by full path": lambda: mode(os.getcwd() + "/file"),
    "mode through ..": lambda: mode("folder/../file"),
    "mode through a link": lambda: mode("in"),
    "mode in a folder": lambda: mode("inner", dir_fd=folder),
    "mode in TMPDIR": lambda: (open(os.environ["TMPDIR"] + "/t", "w").close(),
                               mode(os.environ["TMPDIR"] + "/t"))[1],
    "times": lambda: times("file", (5, 7_000_000_123), 7_000_000_123),
    "times in a folder": lambda: times("inner", (5, 9), 9, dir_fd=folder),
    "copied whole": lambda: attempt(lambda: shutil.copytree("folder", "copy")),
    "not there": lambda: attempt(lambda: os.chmod("nothing", 0o700)) - 2,
    "of a link": lambda: attempt(lambda: os.utime("out", (1, 1), follow_symlinks=False)),
    "bad address": lambda: call(268 if os.uname().machine == "x86_64" else 53, -100, 1, 0o700) - 14,
    "swapped": swapped,
    # And what must not be.
    "mode outside": lambda: attempt(lambda: os.chmod(outside, 0o777)) - 1,
    "mode outside through a link": lambda: attempt(lambda: os.chmod("out", 0o777)) - 1,
    "times outside": lambda: attempt(lambda: os.utime("out", (1, 1))) - 1,
    "mode of what is above": lambda: attempt(lambda: os.chmod("..", 0o777)) - 1,
    "mode through /proc": lambda: 0 if attempt(lambda: os.chmod("/proc/self/cwd/file", 0o777)) in
                          (1, 13, 40) else -1,
    "setuid": lambda: attempt(lambda: os.chmod("file", 0o4755)) - 1,
})
"""


def test_mode_and_times_change_in_the_scratch_folder_and_nowhere_else(rung: Rung) -> None:
    folder = rung.caller.folder("theirs", canary=b"secret")
    (folder / "canary").chmod(0o600)
    before = (folder / "canary").stat()
    found = rung.probe(BY_NAME_HERE, str(folder / "canary"))
    if not rung.own_id:
        # As nobody's id it may not even look through /proc, and needs nobody to do it.
        found.pop("mode through /proc")
    assert {name: code for name, code in found.items() if code != 0} == {}
    after = (folder / "canary").stat()
    assert (after.st_mode, after.st_mtime_ns, after.st_ctime_ns) == (
        *(before.st_mode, before.st_mtime_ns),
        before.st_ctime_ns,
    )


OPEN_FOR_READING = """
import fcntl, struct
folder = sys.argv[1]
file, above = os.open(folder + "/canary", os.O_RDONLY), os.open(folder, os.O_RDONLY)
def fsetxattr():
    return call(190 if os.uname().machine == "x86_64" else 7, file, b"user.a", b"1", 1, 0)
def flags():
    word = bytearray(8)
    fcntl.ioctl(file, 0x80086601, word)
    fcntl.ioctl(file, 0x40086602, word)
answers({
    "mode": lambda: attempt(lambda: os.fchmod(file, 0o666)),
    "mode of a folder": lambda: attempt(lambda: os.fchmod(above, 0o777)),
    "owner": lambda: attempt(lambda: os.fchown(file, -1, os.getgid())),
    "times": lambda: attempt(lambda: os.utime(file, (5, 5))),
    "attribute": fsetxattr,
    "flags": lambda: attempt(flags),
    "lock": lambda: attempt(lambda: fcntl.flock(file, fcntl.LOCK_SH)),
})
"""


def test_what_may_only_be_read_is_not_changed_through_a_descriptor(rung: Rung) -> None:
    folder = rung.caller.folder("shown", canary=b"as it was")
    for each in (folder, folder / "canary"):
        each.chmod(0o755)

    def states() -> list[tuple[int, ...]]:
        found = (each.stat() for each in (folder, folder / "canary"))
        return [(each.st_mode, each.st_mtime_ns, each.st_ctime_ns) for each in found]

    before = states()
    source = rung.source(OPEN_FOR_READING)
    done = rung.exec("--mount", f"{folder}:{folder}", "--", PYTHON, "-c", source, str(folder))
    assert json.loads(done.stdout) == {
        **dict.fromkeys(("mode", "mode of a folder", "owner", "times"), EPERM),
        "attribute": errno.EOPNOTSUPP,
        "flags": errno.ENOTTY,
        "lock": 0,
    }
    assert states() == before
    control = rung.control(OPEN_FOR_READING, str(folder))
    # Not every file system has flags.
    assert control | {"flags": 0} == dict.fromkeys(control, 0)
    assert states() != before


NETWORK_OF_A_PAIR = """
import fcntl, socket, struct
one, other = socket.socketpair()
# SIOCGIFCONF without room asks how long the list is; SIOCGIFFLAGS, SIOCGIFMTU of loopback
answers({
    "interfaces": lambda: attempt(lambda: fcntl.ioctl(one, 0x8912, struct.pack("iL", 0, 0))),
    "flags": lambda: attempt(lambda: fcntl.ioctl(one, 0x8913, b"lo".ljust(40, b"\\0"))),
    "size": lambda: attempt(lambda: fcntl.ioctl(one, 0x8921, b"lo".ljust(40, b"\\0"))),
})
"""


def test_a_pair_does_not_tell_of_the_hosts_network(rung: Rung) -> None:
    found = rung.probe(NETWORK_OF_A_PAIR)
    assert found == dict.fromkeys(found, errno.ENOTTY)
    assert rung.control(NETWORK_OF_A_PAIR) == dict.fromkeys(found, 0)


ITS_GUARDIAN = """
guardian = os.getppid()
x86 = os.uname().machine == "x86_64"
answers({
    "affinity": lambda: attempt(lambda: os.sched_setaffinity(guardian, {0})),
    "scheduler": lambda: attempt(
        lambda: os.sched_setscheduler(guardian, os.SCHED_IDLE, os.sched_param(0))),
    "priority": lambda: attempt(lambda: os.setpriority(os.PRIO_PROCESS, guardian, 19)),
    "priority of its group": lambda: attempt(
        lambda: os.setpriority(os.PRIO_PGRP, os.getpgid(guardian), 19)),
    "io priority": lambda: call(251 if x86 else 30, 1, guardian, 0),
    "limits": lambda: call(302 if x86 else 261, guardian, 7, 0, 0),
    "signal": lambda: attempt(lambda: os.kill(guardian, 0)),
})
"""


def test_the_guardian_cannot_be_slowed_down(rung: Rung) -> None:
    # As root it has the program's effective id, which is what counts for most of these.
    found = rung.probe(ITS_GUARDIAN)
    assert found == dict.fromkeys(found, EPERM)
    control = rung.control(f"{CHILD}\n{ITS_GUARDIAN.replace('os.getppid()', 'child()')}")
    assert control == dict.fromkeys(found, 0)


CHILD = """
def child():
    pid = os.fork()
    if pid == 0:
        os.setsid()
        import time
        time.sleep(5)
        os._exit(0)
    while os.getpgid(pid) != pid: pass
    return pid
"""


def test_who_works_for_a_program_is_charged_to_it(rung: Rung) -> None:
    if not rung.own_id:
        pytest.skip("as root nobody has to")
    code = "import os\nopen('f', 'w').close()\nwhile True: os.chmod('f', 0o700)"
    done = rung.exec("--json", "--cpu-time", "1s", "--timeout", "20s", "--", "python3", "-c", code)
    assert done.json["outcome"]["reason"] == "cpu", done.json


NOT_STOPPED = """
import fcntl, platform
canary = sys.argv[1]
status = os.stat(canary)
json.dump({
    "size": status.st_size,
    "mtime": int(status.st_mtime),
    "link": os.readlink(sys.argv[2]),
    "absent": os.path.exists(canary + "-not-there"),
    "host": platform.node(),
    "pid taken": attempt(lambda: os.kill(int(sys.argv[3]), 0)),
    "pid free": attempt(lambda: os.kill(2**22 - 1, 0)),
    "lock": attempt(lambda: fcntl.flock(os.open("/usr/bin/env", os.O_RDONLY), fcntl.LOCK_SH)),
    "session": attempt(lambda: os.getsid(int(sys.argv[3]))),
    "deleted": deleted(),
}, sys.stdout)
"""
DELETED = """
def deleted():
    with open("x", "wb") as file:
        os.unlink("x")
        file.write(b"x" * 1000)
        return os.fstat(file.fileno()).st_nlink
"""


def test_what_is_said_not_to_be_stopped_is_not(rung: Rung, victim: subprocess.Popen[bytes]) -> None:
    folder = rung.caller.folder("theirs", canary=b"secret")
    (folder / "link").symlink_to("to somewhere")
    os.utime(folder / "canary", (12345, 12345))
    arguments = (str(folder / "canary"), str(folder / "link"), str(victim.pid))
    found = rung.probe(DELETED + NOT_STOPPED, *arguments)
    assert found == {
        "size": 6,
        "mtime": 12345,
        "link": "to somewhere",
        "absent": False,
        "host": platform.node(),
        "pid taken": EPERM,
        "pid free": errno.ESRCH,
        "lock": 0,
        "session": 0,
        "deleted": 0,
    }


def test_all_that_is_not_stopped_is_said(rung: Rung) -> None:
    done = rung.exec("--", "true")
    for words, _ in NOT_WALLED:
        assert words in done.message


def test_what_a_program_needs_is_there(rung: Rung) -> None:
    script = (
        'set -e; test "$HOME" = "$TMPDIR"; echo x > "$TMPDIR/x"; echo y > y; mkdir -p d/e; '
        "mv y d/e; cat d/e/y; cp /bin/true ./own; ./own; ( : > /dev/null ); head -c 4 /dev/urandom "
        "| wc -c; grep -c . /proc/cpuinfo > /dev/null; sleep 0 & wait; echo done | cat"
    )
    done = rung.sh(script)
    assert (done.returncode, done.stdout) == (0, b"y\n4\ndone\n"), done.message
