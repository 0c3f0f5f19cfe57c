"""A program tries to have or win back a right; the same calls work, or get further, outside."""

from __future__ import annotations

import errno
import os
import platform
from typing import Any

import pytest

from beddel_cli.process.filter import FORBIDDEN, MISSING, NUMBERS
from tests.security.process.conftest import Person, Run
from tests.support.capabilities import give_up, require

ARM = platform.machine() == "aarch64"
HERE = {name: pair[ARM] for name, pair in NUMBERS.items() if pair[ARM] is not None}

STATUS = """
lines = [line.partition(":") for line in open("/proc/self/status")]
print(json.dumps({name: value.strip() for name, _, value in lines}))
"""


def test_it_has_no_capability_no_way_to_one_and_an_id_that_owns_nothing(
    probe: Run, control: Run, person: Person
) -> None:
    found = probe(STATUS)
    sets = {name: int(found[name], 16) for name in found if name.startswith("Cap")}
    assert sets == dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), 0)
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
    assert found["Uid"].split() == ["1000"] * 4
    outside = control(STATUS)
    assert int(outside["CapBnd"], 16) != 0
    assert outside["NoNewPrivs"] == "0"


def test_the_supervisor_sees_the_same_from_outside(behind: Run, person: Person) -> None:
    answer = behind(["/bin/true"])
    seen, walls = answer["observed"], answer["walls"]
    assert (seen["no_new_privs"], seen["seccomp_mode"], seen["seccomp_filters"]) == (1, 2, 1)
    sets = ("effective", "permitted", "inheritable", "bounding", "ambient")
    assert [seen[name] for name in sets] == [0] * 5
    (identity,) = set(seen["user_ids"])
    if os.geteuid() == 0 and person.user is None:
        assert 1879048192 <= identity <= 2013265919
        assert walls["identity"] == f"throw-away id {identity}"
    else:
        assert identity == (person.user or os.geteuid())
        assert walls["identity"] == "own id"
    done = ("no_new_privs", "capabilities", "rlimits", "seccomp")
    assert [walls[name] for name in done] == [0] * 4


def test_two_programs_of_root_get_different_ids(behind: Run, person: Person) -> None:
    if os.geteuid() != 0 or person.user is not None:
        pytest.skip("an ordinary user has one id")
    first, second = (behind(["/bin/true"])["walls"]["identity"] for _ in range(2))
    assert first != second


def test_landlock_is_shown_to_bite(behind: Run) -> None:
    require("landlock")
    walls = behind(["/bin/true"])["walls"]
    assert walls["landlock"] == 0
    assert walls["landlock_abi"] > 0
    assert walls["landlock_probe"] == errno.EACCES


EVERY_CALL = """
numbers = json.loads(sys.argv[1])
# Arguments that no call accepts: what is not refused by number fails otherwise, or does nothing.
answers({name: (lambda nr=nr: call(nr, -1, -1, -1, -1, -1, -1)) for name, nr in numbers.items()})
"""


def test_every_forbidden_call_is_refused_whatever_its_arguments(probe: Run, control: Run) -> None:
    import json

    numbers = {name: HERE[name] for name in (*FORBIDDEN, *MISSING) if name in HERE}
    found = probe(EVERY_CALL, json.dumps(numbers))
    wanted: dict[str, Any] = {name: errno.EPERM for name in FORBIDDEN if name in HERE}
    wanted |= {name: errno.ENOSYS for name in MISSING if name in HERE}
    assert found == wanted
    # Only these outside: others would act on the machine of whoever runs the tests as root.
    harmless = ("bpf", "ptrace", "open_tree", "userfaultfd", "kcmp", "clone3", "openat2", "keyctl")
    outside = control(EVERY_CALL, json.dumps({name: HERE[name] for name in harmless}))
    assert not set(outside.values()) & {errno.EPERM, 0}
    assert outside["openat2"] != errno.ENOSYS


NAMESPACES = """
numbers = json.loads(sys.argv[1])
user, net, mounts = 1 << 28, 1 << 30, 1 << 17
def mount():
    # Never in the namespace of whoever runs the tests: root's mount would be there for everybody.
    refused = call(numbers["unshare"], user | mounts)
    if outside and refused:
        return refused
    return call(numbers["mount"], b"none", b"/tmp", b"tmpfs", 0, 0)
outside = sys.argv[2] == "outside"
answers({
    "unshare": lambda: call(numbers["unshare"], user),
    "clone": lambda: forks(numbers["clone"], 17 | user, 0, 0, 0, 0),
    "clone, network": lambda: forks(numbers["clone"], 17 | user | net, 0, 0, 0, 0),
    "clone, upper half set": lambda: forks(numbers["clone"], 17 | user | 1 << 40, 0, 0, 0, 0),
    "fork": lambda: forks(numbers["clone"], 17, 0, 0, 0, 0),
    "mount": mount,
    "setns": lambda: call(numbers["setns"], os.open("/proc/self/ns/user", 0), 0),
    "chroot": lambda: attempt(lambda: os.chroot("/tmp")),
})
"""


def test_it_cannot_nest_a_namespace_or_mount(probe: Run, control: Run) -> None:
    import json

    numbers = json.dumps({name: HERE[name] for name in ("unshare", "clone", "mount", "setns")})
    found = probe(NAMESPACES, numbers, "inside")
    assert found.pop("fork") == 0
    assert set(found.values()) == {errno.EPERM}
    outside = control(NAMESPACES, numbers, "outside")
    worked = ("unshare", "clone", "clone, network", "clone, upper half set", "fork", "mount")
    assert [outside[name] for name in worked] == [0] * len(worked)


FILES = """
numbers = json.loads(sys.argv[1])
os.chdir(sys.argv[2])
open("plain", "w").close()
os.mkdir("folder")
FLAG = os.O_CREAT | os.O_WRONLY
tmpfile = 0o20200000 if os.uname().machine == "x86_64" else 0o20040000
probes = {
    "chmod": lambda: attempt(lambda: os.chmod("plain", 0o4755)),
    "chmod, setgid": lambda: attempt(lambda: os.chmod("plain", 0o2755)),
    "chmod, upper half set": lambda: call(
        numbers["fchmodat"], -100, b"plain", 0o4755 | 1 << 40, 0),
    "chmod, bits beyond a mode": lambda: call(
        numbers["fchmodat"], -100, b"plain", 0o4755 | 1 << 20, 0),
    "fchmod": lambda: attempt(lambda: os.fchmod(os.open("plain", os.O_RDWR), 0o4755)),
    "fchmodat2": lambda: call(numbers["fchmodat2"], -100, b"plain", 0o4755, 0),
    "open": lambda: attempt(lambda: os.open("new", FLAG, 0o4755)),
    "open of an unnamed file": lambda: call(
        numbers["openat"], -100, b".", tmpfile | 2, 0o4755),
    "mkdirat": lambda: call(numbers["mkdirat"], -100, b"other", 0o2755),
    "mknodat": lambda: call(numbers["mknodat"], -100, b"node", 0o104755, 0),
    "whiteout": lambda: call(numbers["mknodat"], -100, b"white", 0o020644, 0),
    "block device": lambda: call(numbers["mknodat"], -100, b"disk", 0o060644, 0x800),
    "plain chmod": lambda: attempt(lambda: os.chmod("plain", 0o755)),
    "plain open": lambda: attempt(lambda: os.open("plain2", FLAG, 0o755)),
    "sticky folder": lambda: attempt(lambda: os.chmod("folder", 0o1777)),
    "fifo": lambda: attempt(lambda: os.mkfifo("fifo", 0o600)),
    "mode of a file only opened": lambda: call(
        numbers["openat"], -100, b"plain", 0, 0o4755),
}
answers(probes)
"""
CONTROLS = ("plain chmod", "plain open", "sticky folder", "fifo", "mode of a file only opened")


def test_it_cannot_leave_a_setuid_file_or_a_device(
    probe: Run, control: Run, person: Person, place: Any
) -> None:
    import json

    names = ("fchmodat", "fchmodat2", "openat", "mkdirat", "mknodat")
    numbers = json.dumps({name: HERE[name] for name in names})
    found = probe(FILES, numbers, "/workspace")
    assert {name: found.pop(name) for name in CONTROLS} == dict.fromkeys(CONTROLS, 0)
    assert set(found.values()) == {errno.EPERM}, found
    outside = control(FILES, numbers, str(place))
    unlike = {"block device", "fchmodat2"} if person.user or os.geteuid() else set()
    assert {n: e for n, e in outside.items() if e and n not in unlike} == {}


TERMINAL = """
import fcntl, pty
numbers = json.loads(sys.argv[1])
master, slave = pty.openpty()
def request(value):
    buffer = ctypes.create_string_buffer(b"x", 64)
    return call(numbers["ioctl"], slave, value, ctypes.addressof(buffer))
def own():
    os.setsid()
    fcntl.ioctl(slave, 0x540E, 0)
def within(value):
    own()
    return request(value)
answers({
    "TIOCSTI": lambda: within(0x5412),
    "TIOCSTI, upper half set": lambda: within(0x5412 | 1 << 32),
    "TIOCSETD": lambda: within(0x5423),
    "TIOCLINUX": lambda: within(0x541C),
    "TIOCGWINSZ": lambda: within(0x5413),
} | ({} if sys.argv[2] == "outside" else {
    # Root's would take the machine's console.
    "TIOCCONS": lambda: within(0x541D),
}))
"""


def test_it_cannot_type_into_a_terminal(probe: Run, control: Run) -> None:
    import json

    numbers = json.dumps({"ioctl": HERE["ioctl"]})
    found = probe(TERMINAL, numbers, "inside")
    assert found.pop("TIOCGWINSZ") == 0
    assert set(found.values()) == {errno.EPERM}
    outside = control(TERMINAL, numbers, "outside")
    assert outside["TIOCGWINSZ"] == 0
    # EIO: kernels may have it switched off for those without rights (dev.tty.legacy_tiocsti).
    assert outside["TIOCSTI"] in (0, errno.EIO)
    assert outside["TIOCSETD"] != errno.EPERM
    assert outside["TIOCLINUX"] == errno.ENOTTY


SOCKETS = """
import socket
def make(*arguments):
    return attempt(lambda: socket.socket(*arguments).close())
# Outside, trying a family may load a module of the machine.
families = range(3, 46) if sys.argv[1] == "inside" else ()
probes = {f"family {number}": (lambda number=number: make(number, 1, 0)) for number in families}
probes |= {f"packets {number}": (lambda number=number: make(number, 3, 0)) for number in (17, 40)}
probes |= {
    "tcp": lambda: make(2, 1, 0),
    "tcp6": lambda: make(10, 1, 0),
    "udp": lambda: make(2, 2, 17),
    "unix": lambda: make(1, 1, 0),
    "pair": lambda: attempt(lambda: socket.socketpair()),
    "pair of another family": lambda: attempt(lambda: socket.socketpair(30, 1)),
    "route": lambda: make(16, 3, 0),
    "netlink, audit": lambda: make(16, 3, 9),
    "netlink, netfilter": lambda: make(16, 3, 12),
    "netlink, generic": lambda: make(16, 3, 16),
    "raw": lambda: make(2, 3, 1),
    "sctp": lambda: make(2, 1, 132),
    "mptcp": lambda: make(2, 1, 262),
    "seqpacket": lambda: make(2, 5, 0),
    "dccp": lambda: make(2, 6, 33),
    "udplite": lambda: make(2, 2, 136),
}
outside = ("tcp", "unix", "pair", "route", "netlink, generic")
answers(probes if families else {name: probes[name] for name in outside})
"""


def test_only_plain_sockets_are_to_be_had(probe: Run, control: Run) -> None:
    found = probe(SOCKETS, "inside")
    for name in ("tcp", "tcp6", "udp", "unix", "pair", "route", "family 10"):
        assert found.pop(name) == 0, name
    netlink_stream = found.pop("family 16")
    assert netlink_stream == errno.ESOCKTNOSUPPORT
    for name in ("netlink, audit", "netlink, netfilter", "netlink, generic"):
        assert found.pop(name) == errno.EPROTONOSUPPORT, name
    for name in ("sctp", "mptcp", "udplite"):
        assert found.pop(name) == errno.EPROTONOSUPPORT, name
    for name in ("raw", "seqpacket", "dccp"):
        assert found.pop(name) == errno.EPERM, name
    assert set(found.values()) == {errno.EAFNOSUPPORT}
    assert set(control(SOCKETS, "outside").values()) == {0}


def test_sockets_by_name_are_gone_where_a_folder_of_the_host_is_writable(
    probe: Run, place: Any
) -> None:
    code = """
import socket
answers({
    "unix": lambda: attempt(lambda: socket.socket(1, 1, 0)),
    "pair": lambda: attempt(lambda: socket.socketpair()),
})
"""
    mounts = [{"source": str(place), "target": "/data", "writable": True}]
    assert probe(code, mounts=mounts) == {"unix": errno.EPERM, "pair": 0}


PERSONALITIES = """
answers({
    hex(value): (lambda value=value: call(int(sys.argv[1]), value))
    for value in (0, 8, 0x20000, 0x20008, 0xffffffff, 0x40000, 0x400000, 0x100000, 6, 1)
})
"""


def test_a_personality_cannot_weaken_memory(probe: Run, control: Run) -> None:
    found = probe(PERSONALITIES, str(HERE["personality"]))
    allowed = {"0x0", "0x8", "0x20000", "0x20008", "0xffffffff"}
    assert {name for name, number in found.items() if number == 0} == allowed
    assert {number for name, number in found.items() if name not in allowed} == {errno.EPERM}
    assert control(PERSONALITIES, str(HERE["personality"]))["0x40000"] == 0


# mov eax, N; int 0x80; ret and mov eax, 0x40000000 | 39; syscall; ret
FOREIGN = """
answers({
    "i386 getpid": lambda: machine_code("b814000000cd80c3"),
    "i386 unshare": lambda: machine_code("bb00000010b836010000cd80c3"),
    "x32 getpid": lambda: machine_code("b8270000400f05c3"),
    "x32 unshare": lambda: machine_code("bf00000010b8100100400f05c3"),
    "getpid": lambda: machine_code("b8270000000f05c3"),
    "beyond the table": lambda: call(470),
    "far beyond": lambda: call(100000),
    "in the gap": lambda: call(400),
    "minus one": lambda: call(-1),
    "upper half of the number set": lambda: call(39 | 1 << 32),
})
"""


def test_no_other_table_of_calls_leads_around_the_filter(probe: Run, control: Run) -> None:
    require("x86-64")
    found = probe(FOREIGN)
    assert found["getpid"] == 0
    assert found["i386 getpid"] == found["i386 unshare"] == "SIGSYS"
    unknown = ("x32 getpid", "x32 unshare", "beyond the table", "far beyond", "in the gap")
    assert [found[name] for name in unknown] == [errno.ENOSYS] * 5
    assert found["minus one"] == errno.ENOSYS
    outside = control(FOREIGN)
    if outside["i386 getpid"] != 0:
        pytest.skip("this kernel has no i386 calls, so that refusing them proves nothing")
    assert outside["i386 getpid"] == 0


ELSEWHERE = """
def write(path):
    return attempt(lambda: os.close(os.open(path, os.O_WRONLY)))
answers({path: (lambda path=path: write(path)) for path in sys.argv[1:]})
"""


def test_the_kernels_settings_cannot_be_opened_for_writing(
    probe: Run, control: Run, person: Person
) -> None:
    paths = ("/proc/sys/kernel/core_pattern", "/proc/sys/vm/overcommit_memory")
    found = probe(ELSEWHERE, *paths, "/proc/self/oom_score_adj", "/dev/null")
    assert found.pop("/dev/null") == 0
    assert set(found.values()) <= {errno.EROFS, errno.EACCES}
    if os.geteuid() == 0 and person.user is None:
        assert control(ELSEWHERE, *paths) == dict.fromkeys(paths, 0)
    assert control(ELSEWHERE, "/proc/self/oom_score_adj")["/proc/self/oom_score_adj"] == 0


RLIMITS = """
import resource
names = ("CORE", "NOFILE", "NPROC", "FSIZE", "MEMLOCK", "CPU", "AS")
print(json.dumps({n: resource.getrlimit(getattr(resource, "RLIMIT_" + n)) for n in names}))
"""


def test_the_rlimits_are_those_of_the_program(probe: Run) -> None:
    found = probe(RLIMITS, open_files=77, processes=33, disk_bytes=5 << 20, cpu_ns=3_500_000_000)
    assert found["CORE"] == [0, 0]
    assert found["NOFILE"] == [77, 77]
    assert found["NPROC"] == [34, 34]
    assert found["FSIZE"] == [(5 << 20) + 4096] * 2
    assert found["CPU"] == [5, 5]
    assert found["AS"] == [-1, -1], "reserving addresses is not using memory"


OWNERLESS = """
import mmap
numbers = json.loads(sys.argv[1])
def mapping(flags, path=None):
    def make():
        file = -1 if path is None else os.open(path, os.O_RDWR)
        mmap.mmap(file, 4096, flags=flags)
    return attempt(make)
answers({
    "memfd": lambda: attempt(lambda: os.memfd_create("x")),
    "segment": lambda: call(numbers["shmget"], 0, 4096, 0o1600),
    "semaphores": lambda: call(numbers["semget"], 0, 4, 0o1600),
    "messages": lambda: call(numbers["msgget"], 0, 0o1600),
    "shared": lambda: mapping(mmap.MAP_SHARED | mmap.MAP_ANONYMOUS),
    "shared, validated": lambda: mapping(3 | mmap.MAP_ANONYMOUS),
    "shared zeros": lambda: mapping(mmap.MAP_SHARED, "/dev/zero"),
    "private": lambda: mapping(mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS),
    "a file": lambda: open("/tmp/x", "wb").write(bytes(4096)) and mapping(1, "/tmp/x"),
})
"""


def test_memory_of_no_process_is_gone_where_nothing_counts_it(probe: Run) -> None:
    import json

    numbers = json.dumps({name: HERE[name] for name in ("shmget", "semget", "msgget")})
    counted = probe(OWNERLESS, numbers, counts_memory=True)
    # MAP_SHARED_VALIDATE is for files alone.
    assert counted.pop("shared, validated") == errno.EINVAL
    assert set(counted.values()) == {0}
    assert probe(OWNERLESS, numbers, counts_memory=False) == {
        **dict.fromkeys(("memfd", "segment", "semaphores", "messages"), errno.ENOSYS),
        **dict.fromkeys(("shared", "shared, validated"), errno.EPERM),
        "shared zeros": errno.EACCES,
        "private": 0,
        "a file": 0,
    }


INIT = """
import resource, time
ioprio_set = json.loads(sys.argv[1])
child = os.fork()
if child == 0:
    time.sleep(20)
    os._exit(0)
def limit(pid, value):
    return attempt(lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, value))
answers({
    "of itself": lambda: limit(0, (9, 9)),
    "of the init": lambda: limit(1, (0, 0)),
    "processors of itself": lambda: attempt(lambda: os.sched_setaffinity(0, {0})),
    "processors of the init": lambda: attempt(lambda: os.sched_setaffinity(1, {0})),
    "class of the init": lambda: attempt(
        lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0))
    ),
    "priority of itself": lambda: attempt(lambda: os.setpriority(os.PRIO_PROCESS, 0, 5)),
    "priority of a child": lambda: attempt(
        lambda: os.setpriority(os.PRIO_PROCESS, child, 5)
    ),
    "priority of its group": lambda: attempt(lambda: os.setpriority(os.PRIO_PGRP, 0, 6)),
    "priority of the init": lambda: attempt(lambda: os.setpriority(os.PRIO_PROCESS, 1, 19)),
    "priority of the init's group": lambda: attempt(
        lambda: os.setpriority(os.PRIO_PGRP, 1, 19)
    ),
    "priority of all": lambda: attempt(lambda: os.setpriority(os.PRIO_USER, 0, 19)),
    "the disk for itself": lambda: call(ioprio_set, 1, 0, 3 << 13),
    "the disk for a child": lambda: call(ioprio_set, 1, child, 3 << 13),
    "the disk for its group": lambda: call(ioprio_set, 2, 0, 3 << 13),
    "the disk for the init": lambda: call(ioprio_set, 1, 1, 3 << 13),
    "the disk for all": lambda: call(ioprio_set, 3, os.getuid(), 3 << 13),
})
os.kill(child, 9)
"""


def test_it_cannot_take_from_the_init_what_that_needs(probe: Run) -> None:
    found = probe(INIT, str(HERE["ioprio_set"]))
    assert {name for name, number in found.items() if number} == {
        "of the init",
        "processors of the init",
        "class of the init",
        "priority of the init",
        "priority of the init's group",
        "priority of all",
        "the disk for the init",
        "the disk for all",
    }
    assert set(found.values()) == {0, errno.EPERM}


def test_the_machines_terminals_are_not_for_one_program(probe: Run) -> None:
    code = """
held = []
try:
    while len(held) < 100:
        held.append(os.openpty())
except OSError as error:
    print(json.dumps({"made": len(held), "errno": error.errno}))
"""
    assert probe(code, open_files=256) == {"made": 64, "errno": errno.ENOSPC}


LISTS = """
import struct
number = json.loads(sys.argv[1])
name, acl = b"system.posix_acl_access", struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, 7, who) for tag, who in
    ((1, 2**32 - 1), (2, os.getuid()), (4, 2**32 - 1), (16, 2**32 - 1), (32, 2**32 - 1)))
path = f"/dev/shm/lists-{os.getpid()}"
file = os.open(path, os.O_CREAT | os.O_RDWR)
here = ctypes.create_string_buffer(acl, len(acl))
whole = struct.pack("<QII", ctypes.addressof(here), len(acl), 0)
answers({
    "by name": lambda: call(number["setxattr"], path.encode(), name, acl, len(acl), 0),
    "of a link": lambda: call(number["lsetxattr"], path.encode(), name, acl, len(acl), 0),
    "by descriptor": lambda: call(number["fsetxattr"], file, name, acl, len(acl), 0),
    "beneath a folder": lambda: call(
        number["setxattrat"], -100, path.encode(), 0, name, whole, len(whole)),
    "listed": lambda: attempt(lambda: os.listxattr(path)),
})
os.unlink(path)
"""


def test_files_take_no_attributes_that_nothing_counts(probe: Run, control: Run) -> None:
    """A thousand folders with two lists of 64 KiB were 125 MiB beside a limit of 64."""
    import json

    names = ("setxattr", "lsetxattr", "fsetxattr", "setxattrat")
    numbers = json.dumps({name: HERE[name] for name in names})
    outside = control(LISTS, numbers)
    assert outside.pop("beneath a folder") in (0, errno.ENOSYS)  # since Linux 6.13
    assert outside == dict.fromkeys(("by name", "of a link", "by descriptor", "listed"), 0)
    for counted in (True, False):
        assert probe(LISTS, numbers, counts_memory=counted) == {
            **dict.fromkeys((*outside, "beneath a folder"), errno.EOPNOTSUPP),
            "listed": 0,
        }


COPIES = """
mkdir -p /tmp/c/from/sub && cd /tmp/c && echo x > from/sub/a && ln -s sub/a from/l
cp -a from copied && cp --preserve=all from/sub/a b && install -p -m 755 b d && mv d /dev/shm/d
tar cf t.tar from && mkdir out && tar xpf t.tar -C out && cat out/from/l copied/l b /dev/shm/d
"""


def test_copies_are_made_where_files_take_no_attributes(behind: Run) -> None:
    answer = behind(["/bin/sh", "-ec", COPIES])
    assert (answer["code"], answer["stdout"], answer["stderr"]) == (0, "x\n" * 4, "")


OPTIONS = """
import mmap
number = json.loads(sys.argv[1])
page = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
place = ctypes.addressof(ctypes.c_char.from_buffer(page))
answers({
    "a name for a mapping": lambda: call(number, 0x53564D41, 0, place, 4096, b"x"),
    "a table of futexes": lambda: call(number, 78, 1, 4, 0, 0),
    "pages shared with anybody": lambda: call(number, 67, 1, 0, 0, 0),
    "a processor of its own": lambda: call(number, 62, 1, 0, 0, 0),
    "where its arguments are": lambda: call(number, 35, 15, place, 8, 0),
    "one that nobody knows": lambda: call(number, 1000, 0, 0, 0, 0),
    "upper half set": lambda: call(number, 78 | 1 << 32, 1, 4, 0, 0),
    "its name": lambda: call(number, 15, b"x", 0, 0, 0),
    "its parent's death": lambda: call(number, 1, 9, 0, 0, 0),
    "its timers": lambda: call(number, 29, 1000, 0, 0, 0),
    "its orphans": lambda: call(number, 36, 1, 0, 0, 0),
    "no new rights": lambda: call(number, 38, 1, 0, 0, 0),
    "no memory to look at": lambda: call(number, 4, 0, 0, 0, 0),
    "what it may never have": lambda: 0 if call(number, 23, 0, 0, 0, 0) == 0 else -1,
})
"""
_USUAL = (
    *("its name", "its parent's death", "its timers", "its orphans", "no new rights"),
    *("no memory to look at", "what it may never have"),
)


def test_what_a_kernel_may_learn_to_set_of_a_process_is_refused(probe: Run, control: Run) -> None:
    """One call took 512 MiB of the kernel's, and no figure told."""
    found = probe(OPTIONS, str(HERE["prctl"]))
    refused = set(found) - set(_USUAL)
    assert found == dict.fromkeys(_USUAL, 0) | dict.fromkeys(refused, errno.EINVAL)
    outside = control(OPTIONS, str(HERE["prctl"]))
    assert {name: outside[name] for name in _USUAL} == dict.fromkeys(_USUAL, 0)
    # Which of these a kernel knows depends on its version and how it was built.
    assert {outside[name] for name in refused} != {errno.EINVAL}
    assert outside["one that nobody knows"] == errno.EINVAL


PAGES = """
import mmap
page = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
answers({
    "shared with anybody's": lambda: attempt(lambda: page.madvise(12)),
    "not needed": lambda: attempt(lambda: page.madvise(mmap.MADV_DONTNEED)),
})
"""


def test_no_page_is_shared_with_others_by_its_contents(probe: Run, control: Run) -> None:
    found = probe(PAGES)
    assert found == {"shared with anybody's": errno.EINVAL, "not needed": 0}
    outside = control(PAGES)
    if outside["shared with anybody's"]:
        give_up("ksm: this kernel shares no pages")
    assert outside == dict.fromkeys(found, 0)


GROUPS = """
import socket, struct
loopback, group = 1, socket.inet_aton("239.255.7.7")
group6 = socket.inet_pton(socket.AF_INET6, "ff12::7:7")
address = struct.pack("=HH4s120x", socket.AF_INET, 0, group)
address6 = struct.pack("=HHI16s104x", socket.AF_INET6, 0, 0, group6)
source = struct.pack("=HH4s120x", socket.AF_INET, 0, socket.inet_aton("127.0.0.9"))
def of(family, level, option, value):
    def probe():
        one = socket.socket(family, socket.SOCK_DGRAM)
        return attempt(lambda: one.setsockopt(level, option, value))
    return probe
v4, v6 = socket.AF_INET, socket.AF_INET6
answers({
    "group": of(v4, 0, 35, group + bytes(4) + struct.pack("i", loopback)),
    "source": of(v4, 0, 39, group + socket.inet_aton("127.0.0.1") + socket.inet_aton("127.0.0.9")),
    "any group": of(v4, 0, 42, struct.pack("=I4x", loopback) + address),
    "any source": of(v4, 0, 46, struct.pack("=I4x", loopback) + address + source),
    "group 6": of(v6, 41, 20, group6 + struct.pack("i", loopback)),
    "anycast 6": of(v6, 41, 27, group6 + struct.pack("i", loopback)),
    "any group 6": of(v6, 41, 42, struct.pack("=I4x", loopback) + address6),
    "any source 6": of(v6, 41, 46, struct.pack("=I4x", loopback) + address6 + address6),
    "how far": of(v4, 0, 33, struct.pack("i", 2)),
    "without delay": lambda: attempt(lambda: socket.socket().setsockopt(6, 1, 1)),
})
"""


def test_no_socket_joins_groups(probe: Run, control: Run) -> None:
    """With thousands of them a killed process took 13 s to be gone."""
    groups = ("group", "source", "any group", "any source")
    groups6 = ("group 6", "anycast 6", "any group 6", "any source 6")
    works = dict.fromkeys(("how far", "without delay"), 0)
    for counted in (True, False):
        found = probe(GROUPS, counts_memory=counted)
        assert found == dict.fromkeys((*groups, *groups6), errno.ENODEV) | works
    outside = control(GROUPS)
    # Of its own loopback alone; not every machine has IPv6.
    assert {name: outside[name] for name in (*groups, *works)} == dict.fromkeys(groups, 0) | works
