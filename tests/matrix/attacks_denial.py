"""Attacks on what others need: memory, processors, processes, disk, output, tables of the kernel.

Each takes a little more than `LIMITS` allow and says so; all are bounded, so that they hurt nobody
where nothing holds them. Each has a run of its own, which may end it. Probes run inside, with
`inside_kit` before them.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import pty
import signal
import socket
import struct
import subprocess
import threading
import time

from tests.matrix.attack import accepted, floods, reaches
from tests.matrix.inside_kit import (
    BROKE,
    LIBC,
    Facts,
    HeldError,
    call,
    read,
    spin,
    start_child,
    write_much,
    write_out,
)

# What a reader of beddel-cli would give such a program. The others cannot be told.
LIMITS = (
    *("--memory", "48MiB", "--processes", "16", "--disk", "8MiB", "--inodes", "500"),
    *("--open-files", "64", "--max-output", "128KiB", "--timeout", "2s", "--cpu-time", "400ms"),
)


@reaches
def memory_of_a_heap(w: Facts) -> str:
    """Use 80 MiB of memory where 48 are allowed."""
    kept = [bytearray(b"x") * (1 << 20) for _ in range(80)]
    time.sleep(0.4)
    return BROKE if len(kept) == 80 else ""


@reaches
def memory_shared(w: Facts) -> str:
    """Use as much that is shared with children."""
    page = mmap.mmap(-1, 80 << 20)
    for place in range(0, 80 << 20, 4096):
        page[place] = 1
    time.sleep(0.4)
    return BROKE


@reaches
def memory_of_children(w: Facts) -> str:
    """Use it spread over ten children."""
    started = []
    for _ in range(10):
        child = os.fork()
        if child == 0:
            kept = bytearray(b"x") * (8 << 20)
            time.sleep(0.8)
            os._exit(0 if kept else 1)
        started.append(child)
    return BROKE if all(os.waitpid(each, 0)[1] == 0 for each in started) else ""


@reaches
def memory_of_a_nameless_file(w: Facts) -> str:
    """Use it in a file without a name (memfd)."""
    descriptor = call("memfd_create", b"x\0", 0)
    for _ in range(80):
        os.write(descriptor, bytes(1 << 20))
    time.sleep(0.3)
    return BROKE


@reaches
def memory_of_a_segment(w: Facts) -> str:
    """Use it in a System V segment that no process shows."""
    segment = call("shmget", 0, 80 << 20, 0o1600)
    try:
        ctypes.memset(call("shmat", segment, 0, 0), 1, 80 << 20)
        time.sleep(0.3)
    finally:
        call("shmctl", segment, 0, 0)
    return BROKE


@reaches
def memory_of_shm(w: Facts) -> str:
    """Use it in /dev/shm."""
    descriptor = os.open(f"/dev/shm/{w['token']}-much", os.O_RDWR | os.O_CREAT)
    os.unlink(f"/dev/shm/{w['token']}-much")
    for _ in range(80):
        os.write(descriptor, bytes(1 << 20))
    time.sleep(0.3)
    return BROKE


@reaches
def memory_of_pipes(w: Facts) -> str:
    """Use it in pipes that nobody reads, held by two processes."""

    def fill() -> None:
        for _ in range(26):
            _, into = os.pipe()
            fcntl.fcntl(into, 1031, 1 << 20)
            os.set_blocking(into, False)
            os.write(into, bytes(1 << 20))
        time.sleep(0.4)

    children = [start_child(fill) for _ in range(2)]
    statuses = [os.waitpid(each, 0)[1] for each in children]
    if any(statuses):
        raise HeldError("one of them was ended")
    return BROKE


@reaches
def memory_kept_in_place(w: Facts) -> str:
    """Lock it, so that it is never swapped."""
    page = mmap.mmap(-1, 80 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if LIBC.mlockall(1):
        raise OSError(1, "mlockall")
    page[0] = 1
    time.sleep(0.3)
    return BROKE


@reaches
def time_of_one(w: Facts) -> str:
    """Compute for 0.7 s where 0.4 are allowed."""
    spin(0.7)
    return BROKE


@reaches
def time_of_threads(w: Facts) -> str:
    """Compute for as long with four threads."""
    threads = [threading.Thread(target=spin, args=(0.7,)) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return BROKE


@reaches
def time_of_children(w: Facts) -> str:
    """Compute with three children at once, each for less than is allowed."""
    children = [start_child(lambda: spin(0.3)) for _ in range(3)]
    return BROKE if all(os.waitpid(each, 0)[1] == 0 for each in children) else ""


@reaches
def time_of_children_in_turn(w: Facts) -> str:
    """Compute with children one after the other, each for a moment."""
    for _ in range(7):
        if os.waitpid(start_child(lambda: spin(0.1)), 0)[1]:
            raise HeldError("one of them was ended")
    return BROKE


@reaches
def time_that_passes(w: Facts) -> str:
    """Sleep for 2.6 s where 2 are allowed, deaf to what tells it to end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(2.6)
    return BROKE


@reaches
def children_at_once(w: Facts) -> str:
    """Have 40 processes at once where 16 are allowed."""
    started: list[int] = []
    try:
        started.extend(start_child(lambda: time.sleep(5)) for _ in range(40))
    finally:
        for each in started:
            os.kill(each, signal.SIGKILL)
            os.waitpid(each, 0)
    return BROKE


@reaches
def children_in_a_chain(w: Facts) -> str:
    """Have as many, each the child of the last."""
    out, into = os.pipe()
    for depth in range(40):
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            if depth:
                os._exit(0)
            os.close(into)
            return BROKE if os.read(out, 1) else "it broke off"
    os.write(into, b"x")
    os._exit(0)


@reaches
def children_of_nobody(w: Facts) -> str:
    """Have as many that are no one's children, in sessions of their own."""

    def leave_one() -> None:
        os.setsid()
        start_child(lambda: time.sleep(1))

    for _ in range(40):
        if os.waitpid(start_child(leave_one), 0)[1]:
            raise HeldError("one could not be started")
    return BROKE


@reaches
def threads_at_once(w: Facts) -> str:
    """Have 40 threads at once."""
    done = threading.Event()
    try:
        for _ in range(40):
            threading.Thread(target=done.wait, args=(2,), daemon=True).start()
    except RuntimeError as error:
        raise HeldError(str(error)) from None
    finally:
        done.set()
    return BROKE


@reaches
def bytes_in_workspace(w: Facts) -> str:
    """Write 16 MiB into the workspace where 8 are allowed."""
    return write_much("much")


@reaches
def bytes_in_tmp(w: Facts) -> str:
    """Write as much into /tmp."""
    return write_much(f"/tmp/{w['token']}-much")


@reaches
def bytes_over_places(w: Facts) -> str:
    """Write as much in parts of 2 MiB to workspace, /tmp and /dev/shm in turn."""
    for number in range(8):
        for place in ("part", f"/tmp/{w['token']}-part", f"/dev/shm/{w['token']}-part"):
            write_much(f"{place}{number}", 1)
    return BROKE


@reaches
def bytes_of_holes(w: Facts) -> str:
    """Make a file that says it has 64 MiB."""
    with open("holes", "wb") as file:
        file.truncate(64 << 20)
    return BROKE


@reaches
def bytes_deleted_but_open(w: Facts) -> str:
    """Keep as much in a file that is deleted and still open."""
    descriptor = os.open("gone", os.O_RDWR | os.O_CREAT)
    os.unlink("gone")
    for _ in range(16):
        os.write(descriptor, bytes(1 << 20))
    return BROKE


@reaches
def files(w: Facts) -> str:
    """Make 700 files where 500 are allowed."""
    os.mkdir("files")
    for number in range(700):
        os.close(os.open(f"files/{number}", os.O_CREAT | os.O_WRONLY))
    return BROKE


@reaches
def folders(w: Facts) -> str:
    """Make as many folders, in /tmp."""
    for number in range(700):
        os.makedirs(f"/tmp/{w['token']}-folders/{number}")
    return BROKE


@reaches
def links(w: Facts) -> str:
    """Make as many links."""
    os.mkdir("links")
    for number in range(700):
        os.symlink("x", f"links/{number}")
    return BROKE


@reaches
def descriptors(w: Facts) -> str:
    """Open 100 files at once where 64 are allowed."""
    kept = [os.open("/dev/null", os.O_RDONLY) for _ in range(100)]
    return BROKE if len(kept) == 100 else ""


@floods
def output(w: Facts) -> str:
    """Write 512 KiB to standard output where 128 are allowed."""
    return write_out((1,))


@floods
def errors(w: Facts) -> str:
    """Write as much to standard error."""
    return write_out((2,))


@floods
def both_outputs(w: Facts) -> str:
    """Write as much to both in turn."""
    return write_out((1, 2))


@reaches
def terminals(w: Facts) -> str:
    """Take 100 of the kernel's terminals."""
    kept = [end for _ in range(100) for end in pty.openpty()]
    return BROKE if len(kept) == 200 else ""


@reaches
def requests_of_the_machine(w: Facts) -> str:
    """Take 2,000 of the requests that the kernel has for the whole machine (fs.aio-nr)."""
    before = int(read("/proc/sys/fs/aio-nr"))
    context = ctypes.c_ulong(0)
    call("io_setup", 2000, ctypes.addressof(context))
    return BROKE if int(read("/proc/sys/fs/aio-nr")) >= before + 2000 else ""


@reaches
def watches(w: Facts) -> str:
    """Take 300 watches for files, of which each user has a number."""
    queue = call("inotify_init1", 0)
    for path in [f"/usr/bin/{name}" for name in os.listdir("/usr/bin")[:300]]:
        call("inotify_add_watch", queue, path.encode() + b"\0", 2)
    return BROKE


@reaches
def lists_of_who_may(w: Facts) -> str:
    """Give 40 files lists of 60 KiB of who may read them, which no figure tells of."""
    path = f"/dev/shm/{w['token']}-lists"
    entries = [(1, -1), *[(2, os.getuid())] * 7600, (4, -1), (16, -1), (32, -1)]
    words = [struct.pack("<HHI", tag, 4, who & 0xFFFFFFFF) for tag, who in entries]
    kept = []
    for _ in range(40):
        kept.append(os.open(path, os.O_RDWR | os.O_CREAT))
        os.unlink(path)
        os.setxattr(kept[-1], "system.posix_acl_access", struct.pack("<I", 2) + b"".join(words))
    return BROKE


@reaches
def groups_of_a_network(w: Facts) -> str:
    """Join 20 groups on each of 20 sockets; to leave n of them takes the dying n² steps."""
    kept = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(20)]
    for number, each in enumerate(kept):
        for group in range(20):
            # Of loopback alone
            wanted = struct.pack("4B4xi", 239, 255, number, group, 1)
            each.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, wanted)
    return BROKE


@reaches
def a_program_that_never_reads(w: Facts) -> str:
    """Start a pipe of programs that wait for each other, beyond the time it has."""
    subprocess.run(["sh", "-c", "sleep 2.6 | cat"], check=True)
    return BROKE


memory_of_pipes = accepted(
    memory_of_pipes,
    "what the kernel keeps in pipes is in no process, and only a cgroup counts it",
    without_cgroup=True,
)

# Room for all of those that share a run.
LIMITS_TOGETHER = (*LIMITS[:-4], "--timeout", "10s", "--cpu-time", "4s")
# These end no run and use up nothing that the next one needs; the last leaves processes behind.
TOGETHER = (
    *(memory_kept_in_place, bytes_of_holes, descriptors, terminals, requests_of_the_machine),
    *(
        watches,
        lists_of_who_may,
        groups_of_a_network,
        children_at_once,
        threads_at_once,
        children_in_a_chain,
        children_of_nobody,
    ),
)
