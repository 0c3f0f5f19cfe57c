"""What the program sees of files: an empty root, system folders, a workspace, named mounts.

Everything is built in the init's own mount namespace, below a fresh tmpfs that is the current
folder, and only then made the root, so that no path of the host is ever resolved by anything but
this code. Whatever is copied from the host is copied as a detached mount and put in place by
descriptor. Names that a workspace could hold links under are never resolved: `place` walks them
one by one and refuses a link.

First `build_root`, which depends on no job; then `show_program`; then `enter`.

Sources: open_tree(2), move_mount(2), mount_setattr(2), pivot_root(2), tmpfs(5), devpts in
mount(8), Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import errno
import os

from beddel_cli.process import kernel
from beddel_cli.process.kernel import NO_DEVICES, NO_EXEC, NO_SUID, READ_ONLY
from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from beddel_cli.process.messages import Request, Shown

SYSTEM_FOLDERS = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
# Of /etc: what programs read that is no secret and says nothing of users, hosts or services.
ETC_SHOWN = (
    *("alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "os-release"),
    *("ssl/certs", "ssl/openssl.cnf", "pki/tls/certs", "pki/tls/openssl.cnf", "pki/java"),
    *("pki/ca-trust/extracted", "crypto-policies", "mime.types", "protocols", "services"),
    *("fonts", "perl"),
)
ETC_SHOWN_PREFIXES = ("python3", "java")
ETC_MADE = {
    "passwd": "sandbox:x:1000:1000:sandbox:/tmp:/bin/sh\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "group": "sandbox:x:1000:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "hostname": "sandbox\n",
}
DEVICES = ("null", "zero", "full", "random", "urandom")
_DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "fd/0",
    "stdout": "fd/1",
    "stderr": "fd/2",
    "ptmx": "pts/ptmx",
}
# Of a fresh /proc: what tells of the host's hardware, memory or keys, or acts on it.
PROC_HIDDEN_FILES = (
    *("kcore", "keys", "key-users", "timer_list", "sched_debug", "kallsyms", "config.gz", "iomem"),
    *("kmsg", "latency_stats", "sysrq-trigger", "cmdline", "kpagecount", "kpageflags"),
    *("kpagecgroup", "slabinfo", "vmallocinfo", "pagetypeinfo", "ioports", "mtrr", "modules"),
    *("swaps", "partitions", "diskstats", "interrupts", "locks", "dynamic_debug/control"),
    # The same random number for everybody on the machine until it is started again.
    "sys/kernel/random/boot_id",
)
PROC_HIDDEN_FOLDERS = ("acpi", "scsi", "asound", "driver", "bus", "fs", "irq", "pressure")
# Targets on which nothing may be mounted.
RESERVED_TARGETS = ("/proc", "/dev", "/var/empty")

MOST_TERMINALS = 64

# Room for what we make in the store before it is counted: its folders, and those of an overlay,
# which takes more to be mounted than it keeps.
_BUILDING_INODES = 64
_EMPTY, _VAR_TMP = "./var/empty", "./var/tmp"
_LOWER, _MADE, _STORE = "./.lower", "./.made", "./.store"
# Hidden by the new root while it is built; nobody mounts from these.
_BUILDING_SITES = ("/sys", "/mnt", "/srv", "/media", "/run")
_FORMAT, _FOLDER, _LINK = 0o170000, 0o040000, 0o120000


@record
class Built:
    """What `show_program` made.

    Attributes:
        upper: descriptor of the folder that takes what the program writes to its workspace.
        writable: the places the program may write to, for Landlock.
    """

    upper: int
    writable: tuple[str, ...]


class PlaceError(OSError):
    """A mount could not be put in its place; says which."""


def build_root() -> bool:
    """Build all that is the same for every program, in a new folder that becomes the current one.

    Gives whether /proc is an own one; where the kernel refuses that, it is empty.

    Raises:
        OSError: refused.
    """
    kernel.make_all_private()
    links, copies = _system_folders()
    etc_links, etc_copies = _etc_entries()
    devices = [(name, _copy(f"/dev/{name}", NO_SUID | NO_EXEC)) for name in DEVICES]
    _start_root()
    for name, target in links:
        os.symlink(target, f"./{name}")
    for path, tree, is_folder in (*copies, *etc_copies):
        _attach_new(tree, f"./{path}", folder=is_folder)
    for path, target in etc_links:
        os.makedirs(os.path.dirname(f"./{path}"), exist_ok=True)
        os.symlink(target, f"./{path}")
    for name, text in ETC_MADE.items():
        _write(f"./etc/{name}", text)
    for name, tree in devices:
        _attach_new(tree, f"./dev/{name}", folder=False)
    for name, target in _DEVICE_LINKS.items():
        os.symlink(target, f"./dev/{name}")
    # The kernel has a few thousand terminals for all, and charges their buffers to nobody.
    options = f"newinstance,ptmxmode=0666,mode=600,max={MOST_TERMINALS}"
    kernel.mount("devpts", "./dev/pts", "devpts", NO_SUID | NO_EXEC, options)
    return _own_proc()


def _start_root() -> None:
    site = next(path for path in _BUILDING_SITES if os.path.isdir(path))
    options = "size=4m,nr_inodes=2k,mode=755"
    kernel.mount("tmpfs", site, "tmpfs", NO_SUID | NO_DEVICES, options)
    os.chdir(site)
    for name in ("etc", "proc", "dev", "dev/pts", "dev/shm", "run", "var", "tmp"):
        os.mkdir(name, 0o755)
    os.mkdir(_EMPTY, 0o555)
    os.symlink("../tmp", _VAR_TMP)
    os.symlink("/proc/self/mounts", "./etc/mtab")


def _system_folders() -> tuple[list[tuple[str, str]], list[tuple[str, int, bool]]]:
    links, copies = [], []
    for name in SYSTEM_FOLDERS:
        path = f"/{name}"
        if os.path.islink(path):
            links.append((name, os.readlink(path)))
        elif os.path.isdir(path):
            copies.append((name, _copy(path, NO_SUID | NO_DEVICES), True))
    return links, copies


def etc_names(present: list[str]) -> list[str]:
    """Give what is shown of /etc, given the names that are in it (pure)."""
    prefixed = [name for name in sorted(present) if name.startswith(ETC_SHOWN_PREFIXES)]
    return [name for name in ETC_SHOWN if name.partition("/")[0] in present] + prefixed


def _etc_entries() -> tuple[list[tuple[str, str]], list[tuple[str, int, bool]]]:
    links, copies = [], []
    for name in etc_names(os.listdir("/etc")):
        path = f"/etc/{name}"
        if os.path.islink(path):
            links.append((f"etc/{name}", os.readlink(path)))
        elif os.access(path, os.R_OK):
            tree = _copy(path, NO_SUID | NO_DEVICES)
            copies.append((f"etc/{name}", tree, os.path.isdir(path)))
    return links, copies


def _copy(path: str, attributes: int) -> int:
    tree = kernel.clone_tree(path)
    # Read-only binds even a device node: who owns it on the host could change its mode otherwise.
    kernel.restrict_tree(tree, attributes | READ_ONLY)
    return tree


def _attach_new(tree: int, path: str, *, folder: bool) -> None:
    """Put a detached mount at a new place below our own root."""
    if folder:
        os.makedirs(path, 0o755, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        _write(path, "")
    kernel.attach_tree(tree, path)
    os.close(tree)


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _own_proc() -> bool:
    """Mount a /proc of the new PID namespace, without what is the host's."""
    flags = NO_SUID | NO_DEVICES | NO_EXEC | READ_ONLY
    try:
        # Processes one may not look into, such as the init, are not listed at all.
        kernel.mount("proc", "./proc", "proc", flags, "hidepid=2")
    except PermissionError:
        # Where parts of the host's own /proc are covered, as in containers.
        return False
    present = set(os.listdir("./proc"))
    for path in (*PROC_HIDDEN_FILES, *PROC_HIDDEN_FOLDERS):
        if path.partition("/")[0] in present and os.path.lexists(f"./proc/{path}"):
            cover = _EMPTY if path in PROC_HIDDEN_FOLDERS else "./dev/null"
            tree = kernel.clone_tree(cover, recursive=False)
            kernel.restrict_tree(tree, NO_SUID | NO_EXEC | READ_ONLY)
            kernel.attach_tree(tree, f"./proc/{path}")
            os.close(tree)
    return True


def show_program(request: Request, descriptors: list[int]) -> Built:
    """Add the program's own folders to the root that is being built.

    Args:
        descriptors: of workspace and mounts, in the order of the request; they are closed.

    Raises:
        PlaceError: a mount could not be shown; says which.
        OSError: refused.
    """
    _make_store(request)
    upper = os.open(f"{_STORE}/upper", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    _show_part_of_store("tmp", "./tmp")
    _show_part_of_store("shm", "./dev/shm")
    writable = ["/tmp", "/dev/shm", "/dev/null", "/dev/full", "/dev/pts"]  # noqa: S108
    if request.counts_memory:
        # A shared mapping of it is memory that need not be in any process.
        writable.append("/dev/zero")
    if request.terminal is not None:
        tree = kernel.clone_tree("/dev/tty")
        kernel.restrict_tree(tree, NO_SUID | NO_EXEC | READ_ONLY)
        _attach_new(tree, "./dev/tty", folder=False)
        writable.append("/dev/tty")
    targets = (request.workspace_target, *(shown.target for shown in request.mounts))
    if any(f"{target}/".startswith("/var/tmp/") for target in targets):  # noqa: S108
        # Nothing can be mounted on a link, or beyond one.
        os.unlink(_VAR_TMP)
        os.mkdir(_VAR_TMP, 0o755)
    left = list(descriptors)
    # Only here may folders be made to mount on; elsewhere they would be made on the host.
    ours = {os.stat(".").st_dev, os.stat(_STORE).st_dev}
    _show_workspace(request, left, ours)
    if request.workspace_writable or request.workspace is None:
        writable.append(request.workspace_target)
    pairs = sorted(zip(request.mounts, left, strict=True), key=lambda pair: pair[0].target)
    for shown, descriptor in pairs:
        _show(shown, descriptor, ours)
        if shown.writable:
            writable.append(shown.target)
    _cap_store(request)
    kernel.unmount(_STORE)
    for name in (_STORE, _LOWER, _MADE):
        os.rmdir(name)
    return Built(upper=upper, writable=tuple(writable))


def _make_store(request: Request) -> None:
    """Mount the one file system that takes all the program writes, with one cap for all of it."""
    for name in (_LOWER, _MADE, _STORE):
        os.mkdir(name, 0o755)
    options = f"size={request.disk_bytes},nr_inodes={_BUILDING_INODES},mode=755"
    kernel.mount("tmpfs", _STORE, "tmpfs", NO_SUID | NO_DEVICES, options)
    for name, mode in (("upper", 0o755), ("work", 0o755), ("tmp", 0o1777), ("shm", 0o1777)):
        os.mkdir(f"{_STORE}/{name}")
        os.chmod(f"{_STORE}/{name}", mode)


def _cap_store(request: Request) -> None:
    """Leave exactly as many inodes as the program may have beside those that are ours."""
    store = os.statvfs(_STORE)
    most = store.f_files - store.f_ffree + request.inodes
    options = f"size={request.disk_bytes},nr_inodes={most}"
    kernel.mount("tmpfs", _STORE, "tmpfs", kernel.REMOUNT | NO_SUID | NO_DEVICES, options)


def _show_part_of_store(name: str, path: str) -> None:
    tree = kernel.clone_tree(f"{_STORE}/{name}")
    kernel.attach_tree(tree, path)
    os.close(tree)


def _show_workspace(request: Request, left: list[int], ours: set[int]) -> None:
    shown = request.workspace
    if shown is None:
        _at(request.workspace_target, kernel.clone_tree(f"{_STORE}/upper"), True, ours)
        return
    if not request.workspace_writable:
        _show(shown, left.pop(0), ours)
        return
    source = _detached(shown, left.pop(0), NO_SUID | NO_DEVICES | READ_ONLY)
    options = f"lowerdir={_LOWER},upperdir={_STORE}/upper,workdir={_STORE}/work,userxattr"
    ours.add(_at(request.workspace_target, _overlay(shown, source, options, 0), True, ours))


def _show(shown: Shown, descriptor: int, ours: set[int]) -> None:
    """Show a mount: writable as it is, a read-only folder through an overlay, a file as it is.

    Through an overlay sockets and FIFOs of the host are other ones, at which nobody listens.
    """
    attributes = NO_SUID | NO_DEVICES | (0 if shown.writable else READ_ONLY)
    tree = _detached(shown, descriptor, attributes)
    if shown.folder and not shown.writable:
        tree = _overlay(shown, tree, f"lowerdir={_LOWER}:{_EMPTY},userxattr", READ_ONLY)
    _at(shown.target, tree, shown.folder, ours)


def _detached(shown: Shown, descriptor: int, attributes: int) -> int:
    """Give a detached mount of exactly the file or folder that a descriptor says."""
    try:
        if shown.ready_made:
            return descriptor
        again = kernel.open_without_links(-100, shown.source, os.O_PATH)
        try:
            meant, found = os.fstat(descriptor), os.fstat(again)
            if (meant.st_dev, meant.st_ino) != (found.st_dev, found.st_ino):
                raise OSError(errno.ESTALE, "replaced by another one meanwhile")
            tree = kernel.clone_tree("", folder=again)
        finally:
            os.close(again)
            os.close(descriptor)
        kernel.restrict_tree(tree, attributes)
    except OSError as error:
        raise _misplaced(shown.source, error) from error
    return tree


def _overlay(shown: Shown, source: int, options: str, flags: int) -> int:
    """Give a detached overlay over a detached mount, which is closed."""
    try:
        kernel.attach_tree(source, _LOWER)
        os.close(source)
        kernel.mount("overlay", _MADE, "overlay", NO_SUID | NO_DEVICES | flags, options)
        kernel.unmount(_LOWER)
        tree = kernel.clone_tree(_MADE, recursive=False)
        kernel.unmount(_MADE)
    except OSError as error:
        raise _misplaced(shown.source, error) from error
    return tree


def _at(target: str, tree: int, folder: bool, ours: set[int]) -> int:
    """Put a detached mount at a place inside, by descriptor. Gives the mount's device number."""
    try:
        spot = place(target, folder=folder, ours=ours)
        try:
            kernel.attach_tree(tree, spot)
        finally:
            os.close(spot)
        return os.fstat(tree).st_dev
    except OSError as error:
        raise _misplaced(target, error) from error
    finally:
        os.close(tree)


def _misplaced(path: str, error: OSError) -> PlaceError:
    return PlaceError(error.errno, error.strerror, path)


def target_parts(target: str) -> tuple[str, ...]:
    """Give the names of a target's path (pure).

    Raises:
        OSError: EINVAL: not an absolute path to mount on.
    """
    parts = tuple(target.split("/")[1:])
    plain = target.startswith("/") and all(part not in ("", ".", "..") for part in parts)
    reserved = any(target == path or target.startswith(f"{path}/") for path in RESERVED_TARGETS)
    if not plain or reserved:
        raise OSError(errno.EINVAL, "not a place to mount on")
    return parts


def place(target: str, *, folder: bool, ours: set[int]) -> int:
    """Give an O_PATH descriptor of a place below the current folder; made where it is missing.

    Args:
        ours: device numbers of the file systems in which it may be made.

    Raises:
        OSError: ELOOP for a link on the way; ENOENT where nothing may be made.
    """
    parts = target_parts(target)
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for index, part in enumerate(parts):
        try:
            inner = _step_into(here, part, folder or index + 1 < len(parts), ours)
        finally:
            os.close(here)
        here = inner
    return here


def _step_into(here: int, part: str, folder: bool, ours: set[int]) -> int:
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        inner = os.open(part, flags, dir_fd=here)
    except FileNotFoundError:
        if os.fstat(here).st_dev not in ours:
            raise
        if folder:
            os.mkdir(part, 0o755, dir_fd=here)
        else:
            creating = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            os.close(os.open(part, creating, 0o644, dir_fd=here))
        inner = os.open(part, flags, dir_fd=here)
    kind = os.fstat(inner).st_mode & _FORMAT
    if kind == _LINK or (kind == _FOLDER) != folder:
        os.close(inner)
        code = errno.ELOOP if kind == _LINK else errno.ENOTDIR if folder else errno.EISDIR
        raise OSError(code, os.strerror(code))
    return inner


def enter() -> None:
    """Make what was built the root, let go of the host's, and leave the root read-only.

    Raises:
        OSError: refused.
    """
    kernel.pivot_here()
    kernel.restrict_mount("/", READ_ONLY | NO_SUID | NO_DEVICES)
