"""Attacks on what is nobody's business: the caller's secrets, other processes, the machine.

Probes run inside, with `inside_kit` before them; `w["name"]` is a probe's own name, `w["mark"]`
what it leaves to be known by.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import glob
import json
import os
import socket
import struct

from tests.matrix.attack import reaches, reveals
from tests.matrix.inside_kit import (
    BROKE,
    LIBC,
    Facts,
    HeldError,
    any_of,
    buffer,
    call,
    everybody,
    of_everybody,
    read,
)


@reveals("environment")
def own_environment(w: Facts) -> str:
    """Find the caller's secrets in its own environment."""
    return any_of(lambda: json.dumps(dict(os.environ)), lambda: read("/proc/self/environ"))


@reveals("environment")
def environment_of_others(w: Facts) -> str:
    """Find them in the environment of any other process."""
    return of_everybody("environ")


@reveals("argument")
def arguments_of_others(w: Facts) -> str:
    """Read the arguments of other processes."""
    return of_everybody("cmdline")


@reveals("comm")
def names_of_others(w: Facts) -> str:
    """Read the names of other processes."""
    return any_of(lambda: of_everybody("comm"), lambda: of_everybody("status"))


@reveals("path")
def path_of_workspace(w: Facts) -> str:
    """Find out where on the host its workspace lies, from links in /proc."""
    return any_of(
        os.getcwd, lambda: os.readlink("/proc/self/cwd"), lambda: os.path.realpath("link")
    )


@reveals("path")
def path_in_mounts(w: Facts) -> str:
    """Find that in the list of its mounts or among anybody's arguments."""
    return any_of(os.getcwd, lambda: read("/proc/self/mountinfo"), lambda: of_everybody("cmdline"))


@reveals("memory")
def memory_of_another(w: Facts) -> str:
    """Read another process's memory through /proc."""
    descriptor = os.open(f"/proc/{w['witness']}/mem", os.O_RDONLY)
    return os.pread(descriptor, 64, w["memory_of_witness"]).decode("latin-1")


@reveals("memory")
def memory_of_another_by_call(w: Facts) -> str:
    """Read it with process_vm_readv."""
    text, here = buffer(64)
    own, own_address = buffer(16)
    own.raw = struct.pack("<QQ", here, 64)
    far, far_address = buffer(16)
    far.raw = struct.pack("<QQ", w["memory_of_witness"], 64)
    call("process_vm_readv", w["witness"], own_address, 1, far_address, 1, 0)
    return str(text.raw.decode("latin-1"))


@reveals("memory")
def memory_of_another_as_debugger(w: Facts) -> str:
    """Attach to it as a debugger and read it word by word."""
    call("ptrace", 16, w["witness"], 0, 0)
    os.waitpid(w["witness"], 0x40000000)
    found = b""
    for offset in range(0, 64, 8):
        word, address = buffer(8)
        call("ptrace", 2, w["witness"], w["memory_of_witness"] + offset, address)
        found += word.raw
    call("ptrace", 17, w["witness"], 0, 0)
    return found.decode("latin-1")


@reveals("gone")
def deleted_file_of_another(w: Facts) -> str:
    """Read a deleted file that another process has open."""
    return read(f"/proc/{w['witness']}/fd/{w['gone']}")


@reveals("gone")
def descriptor_of_another(w: Facts) -> str:
    """Take that descriptor from the process."""
    descriptor = call("pidfd_getfd", call("pidfd_open", w["witness"], 0), w["gone"], 0)
    return os.pread(descriptor, 4096, 0).decode()


@reveals("cwd")
def folder_of_another(w: Facts) -> str:
    """Read a file in the folder that another process is in."""
    return read(f"/proc/{w['witness']}/cwd/here.txt")


@reveals("secret")
def inherited_file(w: Facts) -> str:
    """Read a file that the caller left open, by the number of its descriptor."""
    return os.pread(w["inherited"][0], 4096, 0).decode()


@reveals("secret")
def inherited_folder(w: Facts) -> str:
    """Read a file beneath a folder that the caller left open."""
    descriptor = os.open("secret.txt", os.O_RDONLY, dir_fd=w["inherited"][1])
    return os.read(descriptor, 4096).decode()


@reveals("home")
def ssh_key(w: Facts) -> str:
    """Read the caller's SSH key where HOME says, or where it is known to be."""
    try:
        return read(os.path.expanduser("~/.ssh/id_ed25519"))
    except OSError:
        return read(f"{w['home']}/.ssh/id_ed25519")


@reveals("key")
def signing_key(w: Facts) -> str:
    """Read the key that the receipts are signed with."""
    return read(f"{w['beddel']}/keys/signing.pem")


@reveals("host")
def name_of_host(w: Facts) -> str:
    """Learn the machine's name."""
    return any_of(lambda: os.uname().nodename, lambda: read("/proc/sys/kernel/hostname"))


@reveals("machine")
def id_of_machine(w: Facts) -> str:
    """Learn the machine's id."""
    return read("/etc/machine-id")


@reveals("users")
def users_of_host(w: Facts) -> str:
    """Learn who has an account on the machine."""
    return read("/etc/passwd")


@reveals("shadow")
def passwords_of_host(w: Facts) -> str:
    """Read the file with their passwords."""
    return read("/etc/shadow")


@reveals("boot")
def id_of_boot(w: Facts) -> str:
    """Learn the number of this boot, which is the same for everybody on the machine."""
    return read("/proc/sys/kernel/random/boot_id")


@reveals("command_line")
def command_line_of_kernel(w: Facts) -> str:
    """Read what the kernel was started with."""
    return read("/proc/cmdline")


@reveals("address")
def address_of_card(w: Facts) -> str:
    """Learn the hardware address of a network card, from /sys or by asking any kind of socket."""

    def ask_each(asking: socket.socket) -> str:
        found = []
        for index in range(1, 20):
            try:
                # SIOCGIFNAME, SIOCGIFHWADDR
                name = fcntl.ioctl(asking, 0x8910, struct.pack("16si20x", b"", index))[:16]
                answer = fcntl.ioctl(asking, 0x8927, name.ljust(40, b"\0"))
            except OSError as error:
                if error.errno != errno.ENODEV:
                    raise
                continue
            found.append(":".join(f"{byte:02x}" for byte in answer[18:24]))
        return " ".join(found)

    paths = glob.glob("/sys/class/net/*/address")
    return any_of(
        *(lambda path=path: read(path) for path in paths),
        lambda: ask_each(socket.socketpair()[0]),
        lambda: ask_each(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
    )


@reveals("abstract")
def names_of_sockets(w: Facts) -> str:
    """Read the names of the host's sockets."""
    return read("/proc/net/unix")


@reveals("port")
def ports_of_host(w: Facts) -> str:
    """Read which ports of the host somebody listens at."""
    return read("/proc/net/tcp")


@reveals("ipc")
def shared_segment(w: Facts) -> str:
    """Read a shared memory segment of the caller's."""
    LIBC.shmat.restype = LIBC.syscall.restype
    text, address = buffer(64)
    place = call("shmat", call("shmget", w["key"], 0, 0), 0, 0o10000)
    ctypes.memmove(address, place, 64)
    return str(text.raw.decode("latin-1"))


@reveals("ipc")
def message_for_others(w: Facts) -> str:
    """Read a message that waits in a queue of the caller's (a copy; it stays there)."""
    text, address = buffer(256)
    # MSG_COPY and IPC_NOWAIT: the first message, which stays.
    call("msgrcv", call("msgget", w["key"], 0), address, 200, 0, 0o44000)
    return str(text.raw.decode("latin-1"))


@reveals("number")
def count_of_semaphore(w: Facts) -> str:
    """Read the value of a semaphore of the caller's."""
    return str(call("semctl", call("semget", w["key"], 0, 0), 0, 12, 0))


@reveals("ipc")
def key_of_caller(w: Facts) -> str:
    """Read a key that the caller keeps in the kernel."""
    name = w["abstract"].lstrip("@").encode() + b"\0"
    text, address = buffer(256)
    # KEYCTL_SEARCH the user's keyring, KEYCTL_READ
    call("keyctl", 11, call("keyctl", 10, -4, b"user\0", name, 0), address, 256)
    return str(text.raw.decode("latin-1"))


@reveals("abstract")
def list_of_keys(w: Facts) -> str:
    """Read the list of keys that the kernel keeps."""
    return read("/proc/keys")


@reaches
def log_of_kernel(w: Facts) -> str:
    """Read the kernel's log."""
    _, address = buffer(65536)
    if call("syslog", 3, address, 65536) == 0:
        raise HeldError("it is empty")
    return BROKE


@reaches
def device_of_kernel_log(w: Facts) -> str:
    """Read it from its device."""
    return BROKE if os.read(os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK), 8192) else ""


@reaches
def addresses_of_kernel(w: Facts) -> str:
    """Learn where the kernel's functions lie."""
    if all(line.startswith("0" * 16) for line in read("/proc/kallsyms", 65536).splitlines()[:50]):
        raise HeldError("all are shown as zero")
    return BROKE


@reaches
def settings_of_kernel(w: Facts) -> str:
    """Read what the kernel was built with."""
    return BROKE if read("/proc/config.gz", 4096) else ""


@reaches
def pages_of_memory(w: Facts) -> str:
    """Learn what every page of the machine's memory is used for."""
    return BROKE if os.read(os.open("/proc/kpageflags", os.O_RDONLY), 64) else ""


@reaches
def locks_of_others(w: Facts) -> str:
    """Open the list of file locks that everybody holds."""
    descriptor = os.open("locked", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    if not read("/proc/locks"):
        raise HeldError("it is empty")
    return BROKE


@reaches
def disks_of_host(w: Facts) -> str:
    """Learn which disks the machine has, and how busy they are."""
    found = any_of(lambda: read("/proc/partitions"), lambda: read("/proc/diskstats"))
    if not found:
        raise HeldError("the lists are empty")
    return BROKE


@reaches
def hardware_of_host(w: Facts) -> str:
    """Learn of the machine's hardware below /sys."""
    return BROKE if os.listdir("/sys/devices") else ""


@reaches
def interrupts_of_host(w: Facts) -> str:
    """Count the machine's interrupts, which tell what others type and send."""
    return BROKE if read("/proc/interrupts") else ""


@reaches
def timers_of_host(w: Facts) -> str:
    """Read which timers others wait for."""
    return BROKE if read("/proc/timer_list", 4096) else ""


@reaches
def allocations_of_kernel(w: Facts) -> str:
    """Read what the kernel has allocated for whom."""
    places = ("/proc/slabinfo", "/proc/vmallocinfo")
    return BROKE if any_of(*(lambda path=path: read(path, 4096) for path in places)) else ""


@reaches
def processes_of_others(w: Facts) -> str:
    """See any process that was not started inside."""
    if w["witness"] not in everybody():
        raise HeldError("none")
    return BROKE


@reaches
def existence_of_another(w: Facts) -> str:
    """Tell whether a process of the caller's is there, by its number."""
    try:
        os.kill(w["witness"], 0)
    except PermissionError:
        return BROKE
    return BROKE


@reveals("size")
def size_of_anothers_file(w: Facts) -> str:
    """Learn how large a file of the caller's is, without opening it."""
    return str(os.stat(f"{w['private']}/sized").st_size)
