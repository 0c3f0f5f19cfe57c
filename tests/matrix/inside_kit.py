"""What attacks run with: sent in as text with them, the same bytes to every sandbox and to none.

A probe is a function of `w`, the facts that an attacker may know (paths, ports, process ids; never
a canary). It gives what it got hold of, or raises OSError: something refused it. The harness
outside judges, and by what it sees itself wherever an attack leaves a trace. Some modules are
imported for the probes alone.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import glob
import json
import mmap
import os
import pty  # noqa: F401
import resource  # noqa: F401
import select
import signal
import socket
import stat  # noqa: F401
import struct
import subprocess  # noqa: F401
import sys
import termios  # noqa: F401
import threading
import time
from collections.abc import Callable
from typing import Any

Facts = dict[str, Any]
BROKE = "broke"
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
ARM = os.uname().machine == "aarch64"
# x86-64, aarch64: arch/x86/entry/syscalls/syscall_64.tbl, scripts/syscall.tbl
_NUMBERS = {
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "ptrace": (101, 117),
    "semget": (64, 190), "semctl": (66, 191), "semtimedop": (220, 192), "msgget": (68, 186),
    "msgsnd": (69, 189), "msgrcv": (70, 188), "clone": (56, 220), "fork": (57, None),
    "iopl": (172, None), "ioperm": (173, None), "modify_ldt": (154, None), "mount": (165, 40),
    "umount2": (166, 39), "swapon": (167, 224), "reboot": (169, 142), "acct": (163, 89),
    "sethostname": (170, 161), "setdomainname": (171, 162), "adjtimex": (159, 171),
    "syslog": (103, 116), "chroot": (161, 51), "pivot_root": (155, 41), "personality": (135, 92),
    "quotactl": (179, 60), "io_setup": (206, 0), "add_key": (248, 217), "request_key": (249, 218),
    "keyctl": (250, 219), "ioprio_set": (251, 30), "ioprio_get": (252, 31),
    "inotify_init1": (294, 26), "inotify_add_watch": (254, 27), "unshare": (272, 97),
    "move_pages": (279, 239), "perf_event_open": (298, 241), "fanotify_init": (300, 262),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "setns": (308, 268),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "sched_setattr": (314, 274), "memfd_create": (319, 279), "bpf": (321, 280),
    "userfaultfd": (323, 282), "mq_open": (240, 180), "mq_timedsend": (242, 182),
    "mq_timedreceive": (243, 183), "mincore": (27, 232), "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138), "migrate_pages": (256, 238), "finit_module": (313, 273),
    "io_uring_setup": (425, 425), "open_tree": (428, 428), "fsopen": (430, 430),
    "clone3": (435, 435), "openat2": (437, 437), "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438), "process_madvise": (440, 440),
    "mount_setattr": (442, 442), "memfd_secret": (447, 447), "cachestat": (451, 451),
    "statmount": (457, 457), "listmount": (458, 458), "lsm_list_modules": (461, 461),
    "fspick": (433, 433), "vmsplice": (278, 75), "fchmodat": (268, 53), "mknodat": (259, 33),
    "mlock": (149, 228), "ustat": (136, None), "sysfs": (139, None), "uselib": (134, None),
}  # fmt: skip
NR = {name: at for name, pair in _NUMBERS.items() if (at := pair[ARM]) is not None}


# What a planted thing needs to stay, and what removes what would outlast its maker.
KEPT: list[Any] = []
UNDO: list[Callable[[], object]] = []


class HeldError(Exception):
    """What the attack looked for is not there, though no call was refused."""


def call(name: str, *arguments: object) -> int:
    """Make a system call by its number.

    Raises:
        OSError: with its errno.
    """
    words = [
        each if isinstance(each, bytes | type(None)) else ctypes.c_long(int(str(each)))
        for each in arguments
    ]
    ctypes.set_errno(0)
    found = int(LIBC.syscall(ctypes.c_long(NR[name]), *words))
    if found < 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return found


def reached(name: str, *arguments: object, beyond: tuple[int, ...]) -> str:
    """Call something so that only what stands behind the first check can answer.

    `beyond` are the errnos that only code behind the check for rights gives.
    """
    try:
        call(name, *arguments)
    except OSError as error:
        if error.errno in beyond:
            return BROKE
        raise
    return BROKE


def read(path: str, most: int = 1 << 20) -> str:
    """Read a file, or of a special one what it has, as text."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        parts = []
        while part := os.read(descriptor, most):
            parts.append(part)
            most -= len(part)
            if most <= 0:
                break
        return b"".join(parts).decode("latin-1")
    finally:
        os.close(descriptor)


def write(path: str, text: str, flags: int = os.O_WRONLY) -> None:
    """Write to something with the flags given."""
    descriptor = os.open(path, flags, 0o644)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def write_new(path: str, text: str) -> None:
    """Write a file that may not be there yet."""
    write(path, text, os.O_WRONLY | os.O_CREAT)


def same_again(path: str) -> str:
    """Write to a setting of the machine what it says already."""
    text = read(path)
    # A choice is shown with its list, the one in force in brackets.
    chosen = text[text.index("[") + 1 : text.index("]")] if "[" in text else text
    write(path, chosen)
    return BROKE


def any_of(*actions: Callable[[], str]) -> str:
    """Give what can be had of several things.

    Raises:
        OSError: there is nothing of any; the last one's.
    """
    found, error = [], None
    for action in actions:
        try:
            found.append(action())
        except OSError as refused:
            error = refused
    if error is not None and not "".join(found):
        raise error
    return "\n".join(each for each in found if each)


def everybody() -> list[int]:
    """Give the ids of all processes that /proc shows, but for one's own."""
    return [
        int(each) for each in os.listdir("/proc") if each.isdigit() and int(each) != os.getpid()
    ]


def of_everybody(name: str) -> str:
    """Read one file of every process in /proc that lets us."""
    found = []
    for pid in everybody():
        try:
            found.append(read(f"/proc/{pid}/{name}"))
        except OSError:
            continue
    return "\n".join(found)


def buffer(size: int) -> tuple[Any, int]:
    """Give memory and its address."""
    made = ctypes.create_string_buffer(size)
    return made, ctypes.addressof(made)


def in_child(action: Callable[[], object]) -> int:
    """Do something in a child; gives 0 or the errno it met. A signal that ended it is 128 + it."""
    child = os.fork()
    if child == 0:
        code = 255
        try:
            action()
            code = 0
        except OSError as error:
            code = error.errno or 254
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return 128 - status if status < 0 else status


def terminals_to_try() -> list[int]:
    """Give the standard streams, and the terminal of the session if there is one."""
    try:
        return [0, 1, 2, os.open("/dev/tty", os.O_RDWR)]
    except OSError:
        return [0, 1, 2]


def leave_behind(mark: str, session: bool = True) -> int:
    """Start a program that goes on after us, with a mark for a name; gives its id."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        if session:
            os.setsid()
        grandchild = os.fork()
        if grandchild:
            os.write(into, str(grandchild).encode())
            os._exit(0)
        nothing = os.open("/dev/null", os.O_RDWR)
        for each in (0, 1, 2):
            os.dup2(nothing, each)
        # All others are closed by this, and so whoever reads them sees that it has happened.
        os.execv("/bin/sleep", [mark, "60"])
    os.waitpid(child, 0)
    os.close(into)
    told = os.read(out, 20)
    while os.read(out, 20):
        continue
    return int(told)


def sorted_programs() -> list[str]:
    """Give sixteen files of the system's, the same ones for everybody."""
    paths = sorted(glob.glob("/usr/bin/*"))
    return [path for path in paths if not os.path.islink(path)][:16]


def _range(kind: int, bit: int) -> bytes:
    # struct flock: a byte for each bit
    return struct.pack("hhqqi4x", kind, 0, 1000 + bit, 1, 0)


def lock_bits(path: str, number: int) -> int:
    """Hold a lock for each bit of a number that is set; gives the descriptor."""
    descriptor = os.open(path, os.O_RDONLY)
    for bit in range(16):
        if number >> bit & 1:
            fcntl.fcntl(descriptor, 37, _range(fcntl.F_RDLCK, bit))
    return descriptor


def locked_bits(path: str) -> int:
    """Give the number whose bits somebody else holds."""
    descriptor, found = os.open(path, os.O_RDONLY), 0
    for bit in range(16):
        answer = fcntl.fcntl(descriptor, 36, _range(fcntl.F_WRLCK, bit))
        found |= (struct.unpack("hhqqi4x", answer)[0] != fcntl.F_UNLCK) << bit
    return found


def serve(server: socket.socket, place: Any, text: str) -> None:
    """Tell a text to whoever connects."""
    server.bind(place)
    server.listen()

    def answer() -> None:
        while True:
            client, _ = server.accept()
            client.sendall(text.encode())
            client.close()

    threading.Thread(target=answer, daemon=True).start()


def ask(client: socket.socket, place: Any) -> str:
    """Connect and give what one is told."""
    with client:
        client.settimeout(2)
        client.connect(place)
        return client.recv(200).decode()


def answer_datagram(place: Any, text: str) -> None:
    """Answer datagrams with a text."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(place)

    def answer() -> None:
        while True:
            server.sendto(text.encode(), server.recvfrom(200)[1])

    threading.Thread(target=answer, daemon=True).start()


def read_key(ring: int, name: str) -> str:
    """Search a keyring for a key and give what is in it."""
    text, address = buffer(256)
    call("keyctl", 11, call("keyctl", 10, ring, b"user\0", name.encode() + b"\0", 0), address, 256)
    return str(text.raw.decode("latin-1"))


def link_of(path: str) -> str:
    """Give where a link leads, or nothing."""
    try:
        return os.readlink(path)
    except OSError:
        return ""


def spin(seconds: float) -> None:
    """Use this much of a processor."""
    while time.process_time() < seconds:
        pass


def start_child(action: Callable[[], object]) -> int:
    """Do something in a child that starts at once; gives its id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    return child


def write_much(path: str, mebibytes: int = 16) -> str:
    """Write a file of so many MiB."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    for _ in range(mebibytes):
        os.write(descriptor, bytes(1 << 20))
    os.close(descriptor)
    return BROKE


def write_out(streams: tuple[int, ...]) -> str:
    """Write 512 KiB to standard streams in turn."""
    for number in range(64):
        text = b"flood\n" * 1400
        while text:
            text = text[os.write(streams[number % len(streams)], text) :]
    return BROKE


def or_raise(number: int) -> str:
    """Give the word for success, or raise the errno."""
    if number:
        raise OSError(number, os.strerror(number) if number < 128 else f"signal {number - 128}")
    return BROKE


def machine_code(hexadecimal: str) -> int:
    """Run instructions; gives what they returned."""
    every = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    page = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=every)
    page.write(bytes.fromhex(hexadecimal))
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    return int(function())


def try_probe(name: str, code: str, facts: Facts) -> dict[str, Any]:
    """Run one probe and tell what it got, or what stopped it."""
    space = dict(globals())
    before = set(space)
    try:
        exec(compile(code, name, "exec"), space)  # noqa: S102
        (probe,) = (space[each] for each in set(space) - before - {"__builtins__"})
        mine = {"name": name, "mark": f"{facts['token']}-{name}"}
        return {"said": str(probe(facts | mine | facts.get("pairs", {}).get(name, {})))}
    except HeldError as error:
        return {"held": str(error)}
    except OSError as error:
        return {
            "errno": errno.errorcode.get(error.errno or 0, str(error.errno)),
            "held": str(error),
        }
    except BaseException as error:  # noqa: BLE001
        # A probe that is broken must not look like one that was refused.
        return {"fault": f"{type(error).__name__}: {error}"}


def _answer(out: int, seconds: float) -> bytes:
    text, deadline = b"", time.monotonic() + seconds
    while not text.endswith(b"\n"):
        if not select.select([out], [], [], max(0.0, deadline - time.monotonic()))[0]:
            # It may only have been slow.
            return b'{"fault": "no answer in time"}\n'
        part = os.read(out, 1 << 16)
        if not part:
            break
        text += part
    return text


def run_probe(name: str, code: str, facts: Facts, seconds: float) -> dict[str, Any]:
    """Run one probe in a child of its own, which may die, hang or leave others behind."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(out)
        text = json.dumps(try_probe(name, code, facts)).encode() + b"\n"
        while text:
            text = text[os.write(into, text) :]
        os._exit(0)
    os.close(into)
    text = _answer(out, seconds)
    os.close(out)
    if not text:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return {"held": signal.Signals(-status).name if status < 0 else f"ended with {status}"}
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    # What a child of the probe's said after it is not asked for.
    answer: dict[str, Any] = json.loads(text.partition(b"\n")[0])
    return answer


def attack(task: dict[str, Any]) -> None:
    """Run every probe of a task and print a line for each."""
    for name, code in task["probes"].items():
        # What ends the whole run before that was no wall against this probe.
        print(f"begun {name}", flush=True)
        answer = run_probe(name, code, task["facts"], task["seconds"])
        print(json.dumps({"name": name, **answer}), flush=True)


def plant(task: dict[str, Any]) -> None:
    """Run every probe of a task in this process, which keeps what they made until it is told."""
    for name, code in task["probes"].items():
        answer = try_probe(name, code, task["facts"])
        print(json.dumps({"name": name, **answer}), flush=True)
    print("planted", flush=True)
    sys.stdin.readline()
    for action in UNDO:
        action()


def main(task: dict[str, Any]) -> None:
    """Do what a task says."""
    {"attack": attack, "plant": plant}[task["what"]](task)
