"""Attacks on the kernel's surface: calls, sockets and devices that a plain program has no use for.

Each is reached or not; whether there is a hole behind it is another matter. Probes run inside, with
`inside_kit` before them; `w["name"]` is a probe's own name, `w["mark"]`
what it leaves to be known by.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import pty
import socket
import struct
import time

from tests.matrix.attack import reaches
from tests.matrix.inside_kit import (
    BROKE,
    NR,
    Facts,
    HeldError,
    buffer,
    call,
    in_child,
    machine_code,
    or_raise,
    read,
)


@reaches
def no_filter(w: Facts) -> str:
    """Run with no filter of system calls at all."""
    line = next(each for each in read("/proc/self/status").splitlines() if "Seccomp:" in each)
    if line.split()[1] == "2":
        raise HeldError(line)
    return BROKE


@reaches
def new_rights(w: Facts) -> str:
    """Run without the promise that no program started gives new rights."""
    line = next(each for each in read("/proc/self/status").splitlines() if "NoNewPrivs" in each)
    if line.split()[1] == "1":
        raise HeldError(line)
    return BROKE


@reaches
def programs_in_the_kernel(w: Facts) -> str:
    """Make a map for programs in the kernel (bpf)."""
    attribute, address = buffer(128)
    attribute.raw = struct.pack("<IIII", 2, 4, 4, 1).ljust(128, b"\0")
    call("bpf", 0, address, 128)
    return BROKE


@reaches
def performance_counters(w: Facts) -> str:
    """Open a performance counter."""
    attribute, address = buffer(128)
    # PERF_TYPE_SOFTWARE, of its own code alone
    attribute.raw = struct.pack("<IIQQQQQ", 1, 128, 0, 0, 0, 0, 1 << 5 | 1 << 6).ljust(128, b"\0")
    call("perf_event_open", address, 0, -1, -1, 0)
    return BROKE


@reaches
def rings_of_requests(w: Facts) -> str:
    """Set up a ring of requests that go around the filter (io_uring)."""
    _, address = buffer(120)
    call("io_uring_setup", 1, address)
    return BROKE


@reaches
def faults_in_own_hands(w: Facts) -> str:
    """Handle page faults itself, to stop the kernel where it likes (userfaultfd)."""
    call("userfaultfd", 1)
    return BROKE


@reaches
def keyring_of_its_own(w: Facts) -> str:
    """Make a keyring."""
    return or_raise(in_child(lambda: call("keyctl", 1, 0)))


@reaches
def key_of_its_own(w: Facts) -> str:
    """Add a key."""
    name = w["name"].encode() + b"\0"
    return or_raise(in_child(lambda: call("add_key", b"user\0", name, b"x", 1, -2)))


@reaches
def watch_for_everybody(w: Facts) -> str:
    """Start to watch files for the whole machine (fanotify)."""
    call("fanotify_init", 0x200, 0)
    return BROKE


@reaches
def handles_of_files(w: Facts) -> str:
    """Learn the number by which a file can be opened without a path."""
    name, address = buffer(8 + 128)
    name.raw = struct.pack("<Ii", 128, 0) + bytes(128)
    _, place = buffer(8)
    call("name_to_handle_at", -100, b"/usr/bin/env\0", address, place, 0)
    return BROKE


@reaches
def compare_kernel_objects(w: Facts) -> str:
    """Learn in which order the kernel keeps things (kcmp)."""
    call("kcmp", os.getpid(), os.getpid(), 1, 0, 0)
    return BROKE


@reaches
def debug_a_child(w: Facts) -> str:
    """Be debugged."""
    return or_raise(in_child(lambda: call("ptrace", 0, 0, 0, 0)))


@reaches
def advise_on_memory_of_others(w: Facts) -> str:
    """Advise on the memory of a process by its descriptor."""
    page = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    page[:] = bytes(4096)
    child = os.fork()
    if child == 0:
        time.sleep(20)
        os._exit(0)
    vector, address = buffer(16)
    place = ctypes.addressof(ctypes.c_char.from_buffer(page))
    vector.raw = struct.pack("<QQ", place, 4096)
    try:
        # MADV_COLD
        call("process_madvise", call("pidfd_open", child, 0), address, 1, 20, 0)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    return BROKE


@reaches
def a_copy_of_the_tree(w: Facts) -> str:
    """Make a copy of the whole tree of mounts."""
    call("open_tree", -100, b"/\0", 1)
    return BROKE


@reaches
def file_system_by_descriptor(w: Facts) -> str:
    """Set up a file system by descriptor."""
    call("fsopen", b"tmpfs\0", 0)
    return BROKE


@reaches
def list_of_mounts(w: Facts) -> str:
    """List the mounts by call."""
    question, address = buffer(24)
    question.raw = struct.pack("<IIQQ", 24, 0, (1 << 64) - 1, 0)
    _, found = buffer(8 * 64)
    call("listmount", address, found, 64, 0)
    return BROKE


@reaches
def security_modules(w: Facts) -> str:
    """List the kernel's security modules."""
    _, found = buffer(256)
    size, address = buffer(8)
    size.raw = struct.pack("<Q", 256)
    call("lsm_list_modules", found, address, 0)
    return BROKE


@reaches
def state_of_the_cache(w: Facts) -> str:
    """Ask how much of one of the system's files lies in memory, which tells who uses it."""
    question, address = buffer(16)
    question.raw = struct.pack("<QQ", 0, 1 << 20)
    _, answer = buffer(64)
    call("cachestat", os.open("/usr/bin/env", os.O_RDONLY), address, answer, 0)
    return BROKE


@reaches
def secret_memory(w: Facts) -> str:
    """Take memory that nobody else can see, the kernel neither (memfd_secret)."""
    call("memfd_secret", 0)
    return BROKE


@reaches
def executable_memory_by_default(w: Facts) -> str:
    """Make all memory that is readable executable too."""
    return or_raise(in_child(lambda: call("personality", 0x400000)))


@reaches
def memory_at_known_places(w: Facts) -> str:
    """Switch off that memory lies at random places."""
    return or_raise(in_child(lambda: call("personality", 0x40000)))


@reaches
def segments_of_the_processor(w: Facts) -> str:
    """Read the table of the processor's segments (modify_ldt)."""
    if "modify_ldt" not in NR:
        raise HeldError("no such call here")
    _, address = buffer(64)
    call("modify_ldt", 0, address, 64)
    return BROKE


@reaches
def table_of_32_bits(w: Facts) -> str:
    """Call the kernel by the table for programs of 32 bits (int 0x80)."""
    if os.uname().machine != "x86_64":
        raise HeldError("no such table here")
    # mov eax, 20 (getpid); int 0x80; ret
    return BROKE if machine_code("b814000000cd80c3") > 0 else "refused"


@reaches
def types_into_a_terminal(w: Facts) -> str:
    """Type into a terminal as if its user did."""

    def act() -> None:
        _, slave = pty.openpty()
        os.setsid()
        fcntl.ioctl(slave, 0x540E, 0)
        fcntl.ioctl(slave, 0x5412, b"x")

    return or_raise(in_child(act))


@reaches
def line_discipline(w: Facts) -> str:
    """Put a terminal under another line discipline, such as a network's."""

    def act() -> None:
        _, slave = pty.openpty()
        fcntl.ioctl(slave, 0x5423, struct.pack("<i", 0))

    return or_raise(in_child(act))


@reaches
def whiteout(w: Facts) -> str:
    """Make the device by which an overlay hides files."""
    os.mknod("/tmp/" + w["token"] + "-whiteout", 0o020644, 0)
    return BROKE


@reaches
def character_device(w: Facts) -> str:
    """Make a device of its own (of the kernel's memory log)."""
    os.mknod("/tmp/" + w["token"] + "-device", 0o020600, os.makedev(1, 11))
    return BROKE


@reaches
def set_id_bit(w: Facts) -> str:
    """Make a file that lends its id."""
    os.close(os.open("lending", os.O_CREAT | os.O_WRONLY, 0o755))
    os.chmod("lending", 0o4755)
    return BROKE


@reaches
def nested_user_namespace(w: Facts) -> str:
    """Make a user namespace with clone3, whose flags no filter can see."""
    arguments, address = buffer(88)
    arguments.raw = struct.pack("<QQQQQ", 1 << 28, 0, 0, 0, 17).ljust(88, b"\0")
    child = call("clone3", address, 88)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return BROKE


@reaches
def network_namespace(w: Facts) -> str:
    """Make a network of its own, with the rights to set it up."""
    return or_raise(in_child(lambda: call("unshare", 1 << 28 | 1 << 30)))


@reaches
def file_types_of_the_kernel(w: Facts) -> str:
    """Ask by an old call which file systems there are (sysfs)."""
    if "sysfs" not in NR:
        raise HeldError("no such call here")
    call("sysfs", 3)
    return BROKE


@reaches
def move_pages_of_memory(w: Facts) -> str:
    """Ask where its pages of memory lie."""
    text, here = buffer(4096)
    text.raw = bytes(4096)
    pages, address = buffer(8)
    pages.raw = struct.pack("<Q", here)
    _, answers = buffer(8)
    call("move_pages", 0, 1, address, 0, answers, 0)
    return BROKE


@reaches
def packets(w: Facts) -> str:
    """Read and send bare packets."""
    socket.socket(17, socket.SOCK_RAW, 0).close()
    return BROKE


@reaches
def raw_internet(w: Facts) -> str:
    """Send bare internet packets."""
    socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close()
    return BROKE


@reaches
def sockets_to_the_hypervisor(w: Facts) -> str:
    """Open a socket to the machine that this one runs on."""
    socket.socket(40, socket.SOCK_STREAM, 0).close()
    return BROKE


@reaches
def sockets_of_devices(w: Facts) -> str:
    """Hear of every device that comes and goes."""
    with socket.socket(16, socket.SOCK_RAW, 15) as listening:
        listening.bind((0, 1))
    return BROKE


@reaches
def sockets_of_families(w: Facts) -> str:
    """Talk to the kernel's generic netlink families."""
    socket.socket(16, socket.SOCK_RAW, 16).close()
    return BROKE


@reaches
def sockets_of_the_firewall(w: Facts) -> str:
    """Talk to the firewall."""
    socket.socket(16, socket.SOCK_RAW, 12).close()
    return BROKE


@reaches
def sockets_of_the_audit(w: Facts) -> str:
    """Talk to the kernel's audit."""
    socket.socket(16, socket.SOCK_RAW, 9).close()
    return BROKE


@reaches
def sockets_of_diagnosis(w: Facts) -> str:
    """Ask for the state of every socket."""
    socket.socket(16, socket.SOCK_RAW, 4).close()
    return BROKE


@reaches
def transport_of_many_paths(w: Facts) -> str:
    """Open a connection of many paths (MPTCP)."""
    socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262).close()
    return BROKE


@reaches
def light_datagrams(w: Facts) -> str:
    """Open UDP-Lite."""
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136).close()
    return BROKE


@reaches
def device_of_machines(w: Facts) -> str:
    """Open the device for virtual machines."""
    os.close(os.open("/dev/kvm", os.O_RDWR))
    return BROKE


@reaches
def device_of_networks(w: Facts) -> str:
    """Open the device for network cards in software."""
    os.close(os.open("/dev/net/tun", os.O_RDWR))
    return BROKE


@reaches
def device_of_file_systems(w: Facts) -> str:
    """Open the device for file systems in programs."""
    os.close(os.open("/dev/fuse", os.O_RDWR))
    return BROKE


@reaches
def device_of_loops(w: Facts) -> str:
    """Open the device that makes disks of files."""
    os.close(os.open("/dev/loop-control", os.O_RDWR))
    return BROKE


@reaches
def device_of_the_console(w: Facts) -> str:
    """Open the machine's console."""
    os.close(os.open("/dev/tty0", os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK))
    return BROKE


@reaches
def device_of_power(w: Facts) -> str:
    """Keep the machine's processors from resting."""
    os.close(os.open("/dev/cpu_dma_latency", os.O_WRONLY))
    return BROKE
