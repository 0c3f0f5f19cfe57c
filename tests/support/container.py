"""Start a command in something like a container: `container.py CONDITION,… [OPTION…] -- COMMAND…`.

Docker and Podman do each of these; here every one can be had alone, so that what a machine lacks is
known by its cause. All of it happens in mount, process and user namespaces of our own. Started by
root it is as Docker's daemon makes it (no user namespace), by anybody else as rootless Podman does
(`one-id`). Options: --user ID to run the command as, --volume FOLDER to show as it is.

Sources: moby/profiles/seccomp/default_linux.go, moby/oci/defaults.go (masked and read-only paths,
capabilities, mounts), containers/common/pkg/seccomp.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import os
import signal
import struct
import tempfile
from collections.abc import Callable, Sequence

from beddel_cli.process.filter import NUMBERS

_LIBC = ctypes.CDLL(None, use_errno=True)
_NEW_MOUNTS, _NEW_USERS, _NEW_PIDS = 0x20000, 0x10000000, 0x20000000
_READ_ONLY, _REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 1, 32, 4096, 16384, 1 << 18
_NO_SUID, _NO_DEVICES, _NO_EXEC = 2, 4, 8
_DETACH = 2
_SET_NO_NEW_PRIVS, _SET_SECCOMP, _DROP_FROM_BOUNDING = 38, 22, 24

MASKED = (
    *("asound", "acpi", "interrupts", "kcore", "keys", "latency_stats", "timer_list"),
    *("timer_stats", "sched_debug", "scsi"),
)
READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")
# CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW,
# SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP
KEPT_CAPABILITIES = (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31)
# What the default filter denies to who has none of CAP_SYS_ADMIN and its like.
DENIED = (
    *("acct", "add_key", "bpf", "clock_adjtime", "clock_settime", "create_module"),
    *("delete_module", "fanotify_init", "finit_module", "fsconfig", "fsmount", "fsopen", "fspick"),
    *("get_kernel_syms", "init_module", "io_uring_enter", "io_uring_register", "io_uring_setup"),
    *("ioperm", "iopl", "kexec_file_load", "kexec_load", "keyctl", "lookup_dcookie", "mount"),
    *("mount_setattr", "move_mount", "nfsservctl", "open_by_handle_at", "open_tree"),
    *("perf_event_open", "pivot_root", "query_module", "quotactl", "quotactl_fd", "reboot"),
    *("request_key", "sethostname", "setdomainname", "setns", "settimeofday", "swapoff", "swapon"),
    *("sysfs", "syslog", "umount2", "unshare", "uselib", "userfaultfd", "ustat", "vhangup"),
)
_NAMESPACES = 0x7E020000
_AT = 0 if os.uname().machine == "x86_64" else 1


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount, or say what could not be."""
    words = [each.encode() or None for each in (source, target, kind)]
    if _LIBC.mount(*words, ctypes.c_ulong(flags), data.encode() or None):
        raise OSError(ctypes.get_errno(), f"mount {source} on {target}")


def bind(source: str, target: str, *, read_only: bool = False) -> None:
    """Show a file or folder in a second place."""
    mount(source, target, flags=_BIND | _RECURSIVE)
    if read_only:
        make_read_only(target)


def make_read_only(target: str) -> None:
    """Make one mount read-only, keeping what else it denies."""
    found = os.statvfs(target).f_flag
    kept = found & (_NO_SUID | _NO_DEVICES | _NO_EXEC) | found & 0x1400
    # The flags for access times are other bits here than there.
    times = (1024 if kept & 1024 else 0) | (1 << 21 if found & 4096 else 0)
    flags = _BIND | _REMOUNT | _READ_ONLY | kept & 14 | times
    mount("none", target, flags=flags)


def unshare(flags: int) -> None:
    """Leave namespaces."""
    if _LIBC.unshare(flags):
        raise OSError(ctypes.get_errno(), "unshare")


def masked_proc() -> None:
    """Cover what Docker covers of /proc, and make the rest of the machine's settings read-only."""
    for name in MASKED:
        path = f"/proc/{name}"
        if os.path.isdir(path):
            mount("tmpfs", path, "tmpfs", _READ_ONLY)
        elif os.path.exists(path):
            bind("/dev/null", path)
    for name in READ_ONLY:
        if os.path.exists(f"/proc/{name}"):
            bind(f"/proc/{name}", f"/proc/{name}", read_only=True)


def _cgroup_mounts() -> list[str]:
    with open("/proc/self/mountinfo", encoding="ascii") as file:
        points = [line.split()[4] for line in file]
    return [point for point in points if point.startswith("/sys/fs/cgroup")]


def read_only_cgroups() -> None:
    """Let nobody make a cgroup."""
    for point in _cgroup_mounts():
        make_read_only(point)


def no_cgroups() -> None:
    """Show no cgroups at all."""
    for point in reversed(_cgroup_mounts()):
        if _LIBC.umount2(point.encode(), _DETACH):
            # Mounts that came from another user namespace stay; covered is as good.
            mount("tmpfs", "/sys/fs/cgroup", "tmpfs", _READ_ONLY)
            return


def read_only_root() -> None:
    """Make the root read-only; mounts on it stay as they are."""
    make_read_only("/")


def tiny_dev() -> None:
    """Show a /dev of its own with as few devices as there can be, without /dev/shm."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        mount("tmpfs", folder, "tmpfs", _NO_SUID, "mode=755,size=64k")
        for name in ("null", "zero", "full", "random", "urandom"):
            with open(f"{folder}/{name}", "wb"):
                bind(f"/dev/{name}", f"{folder}/{name}")
        mount(folder, "/dev", flags=_BIND | _RECURSIVE)
        _LIBC.umount2(folder.encode(), _DETACH)


def no_shm() -> None:
    """Let /dev/shm not be there to write to."""
    if os.path.isdir("/dev/shm"):
        mount("tmpfs", "/dev/shm", "tmpfs", _READ_ONLY, "size=4k")


def no_run() -> None:
    """Empty /run."""
    mount("tmpfs", "/run", "tmpfs", _READ_ONLY, "size=4k")


def default_capabilities() -> None:
    """Keep the capabilities that Docker leaves to root."""
    for capability in range(64):
        if capability not in KEPT_CAPABILITIES:
            _LIBC.prctl(_DROP_FROM_BOUNDING, capability, 0, 0, 0)
    mask = sum(1 << each for each in KEPT_CAPABILITIES)
    header = struct.pack("<Ii", 0x20080522, 0)
    halves = [mask & 0xFFFFFFFF, mask >> 32]
    sets = struct.pack("<6I", *(word for half in halves for word in (half, half, 0)))
    if _LIBC.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")


def default_seccomp() -> None:
    """Put a filter in force that denies what Docker's default one denies."""
    program = [(0x20, 0, 0, 0)]
    for name in DENIED:
        number = NUMBERS[name][_AT]
        if number is not None:
            program += [(0x15, 0, 1, number), (0x06, 0, 0, 0x00050000 | errno.EPERM)]
    clone, clone3 = NUMBERS["clone"][_AT], NUMBERS["clone3"][_AT]
    assert clone is not None
    assert clone3 is not None
    program += [(0x15, 0, 1, clone3), (0x06, 0, 0, 0x00050000 | errno.ENOSYS)]
    program += [(0x15, 0, 3, clone), (0x20, 0, 0, 16), (0x45, 0, 1, _NAMESPACES)]
    program += [(0x06, 0, 0, 0x00050000 | errno.EPERM), (0x06, 0, 0, 0x7FFF0000)]
    code = b"".join(struct.pack("<HBBI", *step) for step in program)
    held = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("<HxxxxxxQ", len(program), ctypes.addressof(held))
    pointer = ctypes.create_string_buffer(header, len(header))
    if _LIBC.prctl(_SET_SECCOMP, 2, ctypes.c_ulong(ctypes.addressof(pointer)), 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_SECCOMP")


def no_new_privileges() -> None:
    """Be as with --security-opt no-new-privileges."""
    if _LIBC.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")


def overlay_root(volumes: Sequence[str], *, in_users: bool) -> None:
    """Be in a root of one's own: an overlay over the machine's, with /proc, /sys and /dev anew."""
    place = "/mnt"
    mount("tmpfs", place, "tmpfs", 0, "mode=755")
    root = f"{place}/root"
    os.mkdir(root, 0o755)
    if in_users:
        _root_in_parts(place, root)
    else:
        _overlay(place, "/", root, "")
    with open(f"{root}/.dockerenv", "wb"):
        pass
    for folder in ("/sys", "/dev", *volumes):
        bind(folder, root + folder)
    flags = _NO_SUID | _NO_DEVICES | _NO_EXEC
    mount("proc", f"{root}/proc", "proc", flags)
    os.chdir(root)
    if _LIBC.syscall(NUMBERS["pivot_root"][_AT], b".", b"."):
        raise OSError(ctypes.get_errno(), "pivot_root")
    _LIBC.umount2(b".", _DETACH)
    os.chdir("/")


def _overlay(place: str, lower: str, target: str, more: str) -> None:
    layer = f"{place}/layer{lower.replace('/', '-')}"
    for name in ("upper", "work"):
        os.makedirs(f"{layer}/{name}", 0o755)
    layers = f"lowerdir={lower},upperdir={layer}/upper,workdir={layer}/work{more}"
    mount("overlay", target, "overlay", 0, layers)


def _root_in_parts(place: str, root: str) -> None:
    """Overlay /usr and /etc, show the rest as it is.

    In a user namespace the machine's root cannot be a layer: what is mounted on it may not be
    taken off.
    """
    mount("tmpfs", root, "tmpfs", 0, "mode=755")
    for name in os.listdir("/"):
        if os.path.islink(f"/{name}"):
            os.symlink(os.readlink(f"/{name}"), f"{root}/{name}")
        elif os.path.isdir(f"/{name}"):
            os.mkdir(f"{root}/{name}", 0o755)
            if name in ("usr", "etc"):
                _overlay(place, f"/{name}", f"{root}/{name}", ",userxattr")
            elif name not in ("proc", "sys", "dev", "mnt"):
                bind(f"/{name}", f"{root}/{name}")


# In the order in which they are done; the last ones take away what the others need.
CONDITIONS: dict[str, Callable[[], None]] = {
    "masked-proc": masked_proc,
    "read-only-cgroups": read_only_cgroups,
    "no-cgroups": no_cgroups,
    "tiny-dev": tiny_dev,
    "no-shm": no_shm,
    "no-run": no_run,
    "read-only-root": read_only_root,
    "capabilities": default_capabilities,
    "seccomp": default_seccomp,
    "no-new-privileges": no_new_privileges,
}
SPECIAL = ("pid-1", "overlay-root", "one-id")
DOCKER = (
    *("pid-1", "overlay-root", "masked-proc", "read-only-cgroups", "capabilities", "seccomp"),
)
PODMAN = (
    *("one-id", "pid-1", "overlay-root", "masked-proc", "no-cgroups", "tiny-dev", "no-run"),
    "read-only-root",
)


def _one_id() -> None:
    """Be root of a user namespace in which there is nobody else."""
    user, group = os.getuid(), os.getgid()
    unshare(_NEW_USERS)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"0 {user} 1"),
        ("gid_map", f"0 {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _be_first() -> None:
    """Go on as process 1 of a namespace; who started us waits and ends as that did."""
    unshare(_NEW_PIDS)
    child = os.fork()
    if child:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda got, _: os.kill(child, got))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os._exit(code if code >= 0 else 128 - code)


def enter(names: Sequence[str], user: int | None, volumes: Sequence[str]) -> None:
    """Put conditions in force for this process."""
    unknown = set(names) - set(CONDITIONS) - set(SPECIAL)
    if unknown:
        raise SystemExit(f"no such condition: {', '.join(sorted(unknown))}")
    if "one-id" in names:
        _one_id()
    unshare(_NEW_MOUNTS)
    mount("none", "/", flags=_RECURSIVE | _PRIVATE)
    if "pid-1" in names:
        _be_first()
    if "overlay-root" in names:
        overlay_root(volumes, in_users="one-id" in names)
    else:
        # A mount of their own, which stays as it is whatever becomes of the root.
        for folder in volumes:
            bind(folder, folder)
    if "pid-1" in names and "overlay-root" not in names:
        mount("proc", "/proc", "proc", _NO_SUID | _NO_DEVICES | _NO_EXEC)
    for name, condition in CONDITIONS.items():
        if name == "capabilities" and "seccomp" in names:
            # The filter takes a right that goes with these, and denies nothing that is still done.
            default_seccomp()
        if name in names and not (name == "seccomp" and "capabilities" in names):
            condition()
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)


def main() -> None:
    """Enter and become the command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("conditions")
    parser.add_argument("--user", type=int)
    parser.add_argument("--volume", action="append", default=[])
    parser.add_argument("command", nargs="+")
    chosen = parser.parse_args()
    enter([name for name in chosen.conditions.split(",") if name], chosen.user, chosen.volume)
    os.execvp(chosen.command[0], chosen.command)


if __name__ == "__main__":
    main()
