"""Which files and folders of the host a program may be shown, and where. Pure: values in,
a value or an error out; `mount_sources` opens what these rules then judge.

A mount is asked for on the command line, by the person whose files they are, or in a job, which may
have been written by an attacker. The rules below bind both, since nobody wants to hand out `/` or
the signing key by mistake. A job is bound further: what it names has to lie beneath its own folder
or one of `--allow-path`, and what it may write to beneath one of `--allow-path`: reading a job's
neighbours is what a job is for, changing them is more than whoever runs it has agreed to.

Rules on names alone are evaded by another name for the same folder, such as a bind mount. So a
source is judged by the name under which it was really opened and by the identity (device and
inode) of it and of all folders above it. What a bind mount of something beneath a refused folder
shows cannot be told from a folder of its own; only root can make one.
"""

from __future__ import annotations

from beddel_cli.errors import BeddelError, JobError, RefusedError, UsageError
from beddel_cli.process.program import DEFAULT_WORKSPACE
from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from beddel_cli.errors import Place

    Identity = tuple[int, int]
    Problem = tuple[str, str]  # what is wrong, and what helps

_MODES = ("ro", "rw")
_WORKSPACE_MODES = ("overlay", "ro")
_TARGET_BYTES = 1024
_NAME_BYTES = 255
# What the sandbox has of its own.
RESERVED_TARGETS = (
    *("/proc", "/sys", "/dev", "/usr", "/bin", "/sbin", "/etc", "/run", "/tmp"),  # noqa: S108
    *("/lib", "/lib32", "/lib64", "/libx32"),
    # What walls are built with.
    *("/var/empty", "/.lower", "/.made", "/.store"),
)
# One message carries them all, and no more than 253 descriptors: SCM_MAX_FD of the kernel.
MOST_SHOWN = 200
# Folders made to mount on; the root that is built holds two thousand files and folders.
_MOST_FOLDERS = 1000
_KERNEL_FOLDERS = ("/proc", "/sys", "/dev", "/run")
# Changing anything in these changes the machine; in the others only what is directly in them is
# everybody's, and a folder of one program beneath is that program's matter.
_SYSTEM_TREES = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/boot"),
)
_SYSTEM_FOLDERS = (
    *("/var", "/var/lib", "/var/log", "/var/cache", "/var/spool", "/var/tmp", "/opt"),  # noqa: S108
    *("/srv", "/mnt", "/media", "/home", "/root", "/tmp"),  # noqa: S108
)
# What helps, by what is wrong.
_ONE_BENEATH = "name the one folder beneath it that the program needs"
_COPY = "copy what the program needs of it into a folder, and name that"
_OWN_DEVICES = "leave it out: a program has /dev/null and the like of its own"
_NEVER = "no program is shown it: name another folder, with what the program needs"
_UNCHANGED = "mount it ro; as a workspace it is shown without --write-back"
_SHOWN_OF_THEIR_OWN = ("/proc", "/dev")
# Root's run is handed the rights of a source's owner: these would show the secrets in them.
_SECRETS_OF_ROOT = ("/etc", "/var")
# File systems that are views of the kernel, wherever they are mounted: statfs(2), linux/magic.h.
KERNEL_FILE_SYSTEMS = {
    0x9FA0: "proc",
    0x62656572: "sysfs",
    0x1CD1: "devpts",
    0x64626720: "debugfs",
    0x74726163: "tracefs",
    0x27E0EB: "cgroup",
    0x63677270: "cgroup2",
    0x73636673: "securityfs",
    0xCAFE4A11: "bpf",
    0x42494E4D: "binfmt_misc",
    0x62656570: "configfs",
    0xDE5E81E4: "efivarfs",
    0x19800202: "mqueue",
    0x6E736673: "nsfs",
}


@record
class MountRequest:
    """One mount, or the workspace, as it was asked for.

    Attributes:
        source: as it was written; relative to the working folder, or to the folder of the job.
        target: absolute, normalised path inside.
        writable: for a mount, whether changes reach the host. For a workspace, whether the program
            may write at all; what it writes goes to an overlay either way.
        place: where in the job it stands; None when it is from the command line.
    """

    source: str
    target: str
    writable: bool
    place: Place | None = None

    @property
    def by_job(self) -> bool:
        """Whether a job, which is not trusted, asks for it."""
        return self.place is not None


@record
class Protected:
    """A folder that is never shown: itself, and whatever has it inside.

    Attributes:
        what: for messages, such as `your home folder`.
        path: without links.
        chain: identities of it and of every folder above it, `/` last.
        tree: whether what lies inside of it is not shown either.
        may_be_read: whether only what may be changed is refused.
    """

    what: str
    path: str
    chain: tuple[Identity, ...]
    tree: bool
    may_be_read: bool = False


@record
class Source:
    """What was opened for a request.

    Attributes:
        path: where it really lies.
        chain: identities of it and of every folder above it, `/` last.
        kind: `folder`, `file`, or what else it is (`a socket`).
        file_system: the magic number of statfs(2).
        by_root: whether root runs this.
        mount_inside: where another file system is mounted beneath it, None where none is.
    """

    path: str
    chain: tuple[Identity, ...]
    kind: str
    file_system: int
    by_root: bool
    mount_inside: str | None = None


def parse_mount(text: str) -> MountRequest:
    """Read `HOST:GUEST[:ro|rw]` of `--mount`; `ro` unless told otherwise.

    The text is taken apart from its end, so HOST may hold colons, and GUEST holds none.

    Raises:
        UsageError: it has another form, or GUEST is no place for a mount.
    """
    head, colon, last = text.rpartition(":")
    mode = last if colon and last in _MODES else "ro"
    if mode == last and colon:
        text = head
    source, colon, target = text.rpartition(":")
    if not source or not colon:
        raise UsageError(
            f"--mount {text!r} does not say where the program sees it",
            expected="HOST:GUEST[:ro|rw], such as ./data:/data:ro",
            got=text,
        )
    if not target.startswith("/"):
        hint = f"write {text}:ro or {text}:rw" if _looks_like_mode(target) else None
        raise UsageError(
            f"--mount {text!r} ends in {target!r}, which is neither an absolute path nor a mode",
            expected="HOST:GUEST[:ro|rw], such as ./data:/data:ro",
            got=target,
            hint=hint and "the modes are ro and rw, after the GUEST path",
        )
    _check_source_text(source, None)
    _check_target(target, None)
    return MountRequest(source, target, mode == "rw")


def parse_workspace(text: str) -> MountRequest:
    """Read `DIR[:GUEST[:ro]]` of `--workspace`; an overlay at /workspace unless told otherwise.

    A DIR that holds a colon needs its GUEST written out.

    Raises:
        UsageError: it has another form, or GUEST is no place for a workspace.
    """
    form = "DIR[:GUEST[:ro]], such as .:/workspace:ro"
    head, colon, last = text.rpartition(":")
    read_only = bool(colon) and last == "ro"
    rest = head if read_only else text
    source, colon, target = rest.rpartition(":")
    if not colon and not read_only:
        source, target = rest, DEFAULT_WORKSPACE
    elif not target.startswith("/") or not source:
        hint = None
        if last == "rw":
            hint = "changes are collected with --results DIR or put back with --write-back"
        elif read_only:
            hint = f"write {head}:{DEFAULT_WORKSPACE}:ro"
        elif source:
            hint = f"write {text}:{DEFAULT_WORKSPACE} for a folder with a colon in its name"
        raise UsageError(
            f"--workspace {text!r} does not say where the program sees it",
            expected=form,
            got=text,
            hint=hint,
        )
    _check_source_text(source, None)
    _check_target(target, None)
    return MountRequest(source, target, not read_only)


def mount_of_job(source: object, target: object, mode: object, place: Place) -> MountRequest:
    """Read one entry of a job's `mounts`; a mode of None is `ro`.

    Raises:
        JobError: a value is of the wrong type or form.
    """
    mode = _job_mode(mode, _MODES, "ro", place)
    return MountRequest(_job_source(source, place), _job_target(target, place), mode == "rw", place)


def workspace_of_job(source: object, target: object, mode: object, place: Place) -> MountRequest:
    """Read a job's `workspace`; None stands for the target /workspace and the mode `overlay`.

    Raises:
        JobError: a value is of the wrong type or form.
    """
    mode = _job_mode(mode, _WORKSPACE_MODES, "overlay", place)
    target = DEFAULT_WORKSPACE if target is None else target
    return MountRequest(
        _job_source(source, place), _job_target(target, place), mode == "overlay", place
    )


def check_requests(requests: Sequence[MountRequest]) -> None:
    """Let only plain absolute targets pass that cover nothing of the sandbox's own, nor each other.

    The workspace is one of the requests.

    Raises:
        JobError, UsageError: a target is something else, or lies in another; which one, by who
            asks for it.
    """
    if len(requests) > MOST_SHOWN:
        raise _wrong(
            f"{len(requests)} mounts are too many for one program",
            requests[MOST_SHOWN].place,
            expected=f"at most {MOST_SHOWN}, the workspace counted",
            got=str(len(requests)),
        )
    folders = sum(request.target.count("/") for request in requests)
    if folders > _MOST_FOLDERS:
        raise _wrong(
            "the targets of all mounts are too deep",
            requests[-1].place,
            expected=f"at most {_MOST_FOLDERS} folders on the way to them together",
            got=str(folders),
        )
    for index, request in enumerate(requests):
        _check_source_text(request.source, request.place)
        _check_target(request.target, request.place)
        for earlier in requests[:index]:
            if not overlap(request.target, earlier.target):
                continue
            same = request.target == earlier.target
            raise _wrong(
                f"two mounts have the target {request.target!r}"
                if same
                else f"the targets {earlier.target!r} and {request.target!r} lie in each other",
                request.place,
                expected="targets apart from each other and from the workspace",
                got=f"{earlier.source!r} at {earlier.target}, {request.source!r} at "
                f"{request.target}",
            )


def judge_source(request: MountRequest, source: Source, protected: Sequence[Protected]) -> None:
    """Let only a file or folder pass that may be shown; `rw` needs more than `ro`.

    Raises:
        RefusedError: it may not, with what it is.
    """
    problem = _source_problem(source, protected)
    if problem is None and request.writable:
        problem = _write_problem(source)
    if problem is not None:
        raise refused(request, *problem)


def judge_workspace(request: MountRequest, source: Source, protected: Sequence[Protected]) -> None:
    """Let only a folder pass that may be shown; what is written to an overlay stays there.

    Raises:
        RefusedError: it may not, with what it is.
    """
    problem = _source_problem(source, protected)
    if problem is None and source.kind != "folder":
        problem = ("it is a file, and a workspace is a folder", "name the folder that it is in")
    if problem is not None:
        raise refused(request, *problem)


def judge_reach(
    request: MountRequest,
    path: str,
    own: str | None,
    allowed: Sequence[str],
    *,
    changes: bool,
) -> None:
    """Let a job's source pass only beneath the folders it was given.

    Args:
        path: where it really lies.
        own: the folder of the job, None when it has none.
        allowed: the folders of `--allow-path`; both without links.
        changes: whether the run may change it on the host: a mount that is `rw`, or a workspace
            under `--write-back`. Then only `allowed` counts.

    Raises:
        RefusedError: it lies elsewhere.
    """
    folders = (*allowed, *(() if changes or own is None else (own,)))
    if any(beneath(path, folder) for folder in folders):
        return
    if changes and own is not None and beneath(path, own):
        found = "the job's folder, which a job may read and not change"
    else:
        named = ", ".join(repr(folder) for folder in folders)
        found = f"it lies at {path!r}; allowed: {named or 'no folder'}"
    raise refused(request, found, "run with --allow-path DIR, a folder that holds it")


def check_no_writer(workspace: str, writable: Sequence[tuple[MountRequest, str]]) -> None:
    """Keep the workspace's own folder from changing beneath its overlay.

    Raises:
        RefusedError: a `rw` mount shows the workspace, a part of it or what holds it.

    Source: Documentation/filesystems/overlayfs.rst, "Changes to underlying filesystems".
    """
    for request, path in writable:
        if overlap(path, workspace):
            raise refused(
                request,
                f"it overlaps the workspace {workspace!r}, which must not change meanwhile",
                "mount it ro, or take what the program makes with --results DIR or --write-back",
            )


def refused(request: MountRequest, found: str, fix: str) -> RefusedError:
    """Give the refusal of one request."""
    mode = "rw" if request.writable else "ro"
    return RefusedError(
        f"{request.source!r} cannot be shown to a program: {found}",
        reason="files",
        needs=f"{request.source!r} at {request.target} ({mode})",
        found=found,
        fix=fix,
        place=request.place,
    )


def beneath(path: str, folder: str) -> bool:
    """Tell whether a path is a folder or lies in it; both absolute and normalised."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def overlap(a: str, b: str) -> bool:
    """Tell whether one of two paths holds the other."""
    return beneath(a, b) or beneath(b, a)


def _looks_like_mode(text: str) -> bool:
    return text.isalpha() and len(text) <= 4


def _wrong(
    message: str, place: Place | None, *, expected: str | None = None, got: str | None = None
) -> BeddelError:
    if place is None:
        return UsageError(message, expected=expected, got=got)
    return JobError(message, place=place, expected=expected, got=got)


def _check_source_text(source: str, place: Place | None) -> None:
    if not source:
        raise _wrong("an empty source names no folder", place, expected="a file or folder")
    # Python carries bytes of a name that are no UTF-8 as U+DC80 to U+DCFF; no name has the others.
    if any(
        c == "\0" or ("\ud800" <= c <= "\udfff" and not "\udc80" <= c <= "\udcff") for c in source
    ):
        raise _wrong(f"no file can have the name {source!r}", place, expected="a file or folder")


def _job_source(source: object, place: Place) -> str:
    if not isinstance(source, str):
        raise JobError(
            "a mount's source is not a text", place=place, expected="a path", got=repr(source)
        )
    _check_source_text(source, place)
    return source


def _job_target(target: object, place: Place) -> str:
    if not isinstance(target, str):
        raise JobError(
            "a mount's target is not a text", place=place, expected="a path", got=repr(target)
        )
    _check_target(target, place)
    return target


def _job_mode(mode: object, modes: tuple[str, ...], default: str, place: Place) -> str:
    if mode is None:
        return default
    if mode not in modes:
        raise JobError(
            f"unknown mode {mode!r}", place=place, expected=" or ".join(modes), got=str(mode)
        )
    return str(mode)


def _check_target(target: str, place: Place | None) -> None:
    problem = target_problem(target)
    if problem is not None:
        raise _wrong(
            f"{target!r} cannot be a mount's target: {problem}",
            place,
            expected="a path such as /data",
            got=target,
        )


def target_problem(target: str) -> str | None:
    """Say why nothing can be mounted at a path inside; None where it can."""
    if not target.startswith("/"):
        return "it is not absolute"
    if not target.isprintable():
        return "it holds characters that cannot be shown"
    parts = target[1:].split("/")
    if target == "/" or any(part in ("", ".", "..") for part in parts):
        return "it is not a plain path without empty parts, . and .."
    if len(target.encode()) > _TARGET_BYTES or any(len(p.encode()) > _NAME_BYTES for p in parts):
        return f"it is longer than {_TARGET_BYTES} bytes, or a name in it than {_NAME_BYTES}"
    for reserved in RESERVED_TARGETS:
        if beneath(target, reserved):
            return f"{reserved} is the sandbox's own"
        if beneath(reserved, target):
            return f"{reserved} in it is the sandbox's own"
    return None


def _source_problem(source: Source, protected: Sequence[Protected]) -> Problem | None:
    if source.kind not in ("folder", "file"):
        device = source.kind.endswith("device")
        return f"it is {source.kind}", _OWN_DEVICES if device else "name a file or a folder"
    if source.path == "/" or len(source.chain) == 1:
        return "it is the root of the file system, with everything in it", _ONE_BENEATH
    own = source.path in _SHOWN_OF_THEIR_OWN
    fix = f"leave it out: a program has a {source.path} of its own" if own else _COPY
    view = KERNEL_FILE_SYSTEMS.get(source.file_system)
    if view is not None:
        return f"it lies on {view}, a view of the kernel", fix
    for folder in _KERNEL_FOLDERS:
        if beneath(source.path, folder):
            return f"{folder} is the system's own", fix
    for each in protected:
        problem = _protected_problem(source, each)
        if problem is not None:
            return problem
    if source.by_root and source.path in _SECRETS_OF_ROOT:
        return f"{source.path} holds secrets of the system", _ONE_BENEATH
    if source.mount_inside is not None:
        # Root could hide it and an ordinary user only show it, whatever file system it is.
        return f"another file system is mounted in it, at {source.mount_inside}", _ONE_BENEATH
    return None


def _protected_problem(source: Source, folder: Protected) -> Problem | None:
    """Say what a source has to do with a protected folder, by name or by identity."""
    here = source.chain[0]
    never = _UNCHANGED if folder.may_be_read else _NEVER
    if source.path == folder.path or (folder.chain and here == folder.chain[0]):
        beneath_it = source.kind == "folder" and not folder.tree
        return f"it is {folder.what}", _ONE_BENEATH if beneath_it else never
    if beneath(folder.path, source.path) or here in folder.chain:
        return f"{folder.what} lies in it", _ONE_BENEATH
    inside = beneath(source.path, folder.path) or (folder.chain and folder.chain[0] in source.chain)
    if folder.tree and inside:
        return f"it lies in {folder.what}", never
    return None


def _write_problem(source: Source) -> Problem | None:
    for folder in _SYSTEM_TREES:
        if beneath(source.path, folder):
            return f"{folder} is a folder of the system, never shown rw", "mount it ro"
    if source.path in _SYSTEM_FOLDERS:
        found = f"{source.path} is a folder of the system, never shown rw"
        return found, f"mount it ro, or {_ONE_BENEATH}"
    return None
