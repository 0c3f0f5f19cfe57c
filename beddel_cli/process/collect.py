"""Take out what a program left in its workspace, after its last process is dead.

Nothing changes under us here: the upper folder belongs to a mount that no process has any more.
What lies in it was still made by somebody who may want us to write elsewhere, to read something
else, or to fill the disk. So the folder is looked through first, from descriptor to descriptor and
through no link; `collect_rules` decides on what was found; and only then is anything written.

The place results go to may be under attack too, by another user who can write there. With
`--results` the whole appears at once: everything is put into a new folder that only we can enter,
which then takes its name where nothing has that name. With `--write-back` each file is written
under a name of its own beside its place and then takes it by rename, which replaces a link instead
of following it. Folders are entered by descriptor, never through a link, and never made by
somebody else where they should be ours.

Sources: openat(2), rename(2), renameat2(2), lseek(2) on SEEK_DATA, proc(5) on /proc/PID/fd.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from contextlib import suppress

from beddel_cli.errors import ReceiptWriteError, UsageError
from beddel_cli.home import explain_write, open_temporary
from beddel_cli.leftovers import empty, make_held, remove_dead
from beddel_cli.process.collect_rules import (
    FILE,
    FOLDER,
    OPAQUE,
    WHITEOUT,
    Caps,
    Deleted,
    Found,
    Selection,
    Skipped,
    changed_since,
    classify,
    replaced_mode,
    result_mode,
    select,
)
from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from beddel_cli.process.collect_rules import Manifest

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 20
_RENAME_NOREPLACE = 1
_SYS_RENAMEAT2 = {"x86_64": 316, "aarch64": 276}
# Names this file system does not take; the rest of the results is not lost for them.
_NAME_ERRORS = (errno.EINVAL, errno.ENAMETOOLONG, errno.EILSEQ, errno.EEXIST)


@record
class CollectedFile:
    """A file that was taken: `sha256` is of the bytes that were written (hex digest)."""

    path: bytes
    size: int
    sha256: str
    mode: int


@record
class Collection:
    """What came of collecting, sorted by path.

    Attributes:
        folders: how many folders were taken or found in place.
        complete: false when a cap or an error left out something that would have been taken.
        total_bytes: of all files.
    """

    files: tuple[CollectedFile, ...]
    folders: int
    deleted: tuple[Deleted, ...]
    skipped: tuple[Skipped, ...]
    complete: bool
    total_bytes: int


class NotAllWrittenError(ReceiptWriteError):
    """Something could not be written back; `collection` says what was, and what was not."""

    def __init__(self, message: str, *, hint: str | None, collection: Collection) -> None:
        super().__init__(message, hint=hint)
        self.collection = collection


class _CutShort(OSError):
    """Copying failed at `path`; `collection` is what came of it until then."""

    def __init__(self, error: OSError, path: tuple[bytes, ...], collection: Collection) -> None:
        super().__init__(error.errno, error.strerror)
        self.path = path
        self.collection = collection


@record
class ResultsPlace:
    """Where `--results` go: a folder that is open, and the name in it that is to be made.

    `folder` is the descriptor of an empty folder of that name, None where there is none.
    Use it in a `with`.
    """

    path: str
    name: str
    parent: int
    folder: int | None

    def __enter__(self) -> ResultsPlace:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.parent)
        if self.folder is not None:
            os.close(self.folder)


def open_results(path: str) -> ResultsPlace:
    """Open where results will go, before the program starts and can change the way there.

    Links on the way are followed, as the caller named them; the last name can be no link.

    Raises:
        UsageError: something is there other than an empty folder, or it cannot be opened.
    """
    plain = path.rstrip("/")
    parent_path, name = os.path.split(plain)
    if name in ("", ".", ".."):
        raise UsageError(f"--results {path!r} has no name of its own", expected="a new folder")
    try:
        parent = os.open(parent_path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise _cannot_use(path, error) from error
    try:
        folder = os.open(name, _FOLDER, dir_fd=parent)
    except FileNotFoundError:
        return ResultsPlace(path, name, parent, None)
    except (OSError, ValueError) as error:
        os.close(parent)
        raise _cannot_use(path, error) from error
    if os.listdir(folder):
        os.close(parent)
        os.close(folder)
        raise UsageError(
            f"--results {path!r} is a folder with something in it",
            expected="a new or empty folder",
            hint="name another; results are never put over what is there",
        )
    return ResultsPlace(path, name, parent, folder)


def _cannot_use(path: str, error: OSError | ValueError) -> UsageError:
    if isinstance(error, OSError) and error.errno in (errno.ELOOP, errno.ENOTDIR):
        why = "it, or a part of it, is no folder"
    elif isinstance(error, OSError):
        why = os.strerror(error.errno or 0)
    else:
        why = "no folder can have that name"
    return UsageError(f"--results {path!r} cannot be used: {why}", expected="a new folder")


def collect_results(
    place: ResultsPlace, upper: int, lower: int | None, caps: Caps, before: Manifest | None = None
) -> Collection:
    """Copy what a program left to where `open_results` found room for it.

    A new folder appears at once, complete. An empty one that was there stays itself (it may be a
    mount), and what belongs directly into it appears piece by piece, each complete.

    Args:
        upper: descriptor of the overlay's upper folder, or of the folder that stood for it.
        lower: descriptor of the folder beneath the overlay; None where there was no overlay.
        before: what was in `upper` when the program started, where it is a copy.

    Raises:
        ReceiptWriteError: it could not be written, or something appeared there meanwhile.
            What was written before is removed, as far as it was not in place.
    """
    inside = place.parent if place.folder is None else place.folder
    selection = _selected(upper, lower, caps, before)
    try:
        remove_dead(inside)
        name, folder = make_held(lambda name: _make_own(inside, name))
        try:
            collection = _copy_all(upper, selection, _NewTree(folder))
            if place.folder is None:
                os.fchmod(folder, 0o777 & ~_umask())
                _rename_new(inside, name, inside, place.name)
            else:
                for entry in sorted(os.listdir(folder)):
                    _rename_new(folder, entry, inside, entry)
                os.rmdir(name, dir_fd=inside)
        except BaseException:
            empty(folder)
            os.rmdir(name, dir_fd=inside)
            raise
        finally:
            os.close(folder)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise ReceiptWriteError(
                f"cannot write the results {place.path!r}: something took the name meanwhile",
                hint="name another folder; results are never put over what is there",
            ) from error
        message, hint = explain_write(place.path, error)
        raise ReceiptWriteError(message, hint=hint) from error
    return collection


def write_back(
    workspace: int, path: str, upper: int, caps: Caps, before: Manifest | None = None
) -> Collection:
    """Put what a program left into the workspace's own folder, over what is there.

    Each file is replaced whole or not at all. Nothing is deleted: what the program deleted is named
    and stays, since a deletion cannot be looked through afterwards and a written file can. A file
    that would have to replace a folder, or to go through a link, is skipped.

    When root does this, what is written belongs to the workspace's owner, and nothing is put into
    a folder of somebody else: the owner could have moved one of root's there. A file that is
    replaced keeps its mode, so nothing private becomes public.

    Args:
        workspace: O_PATH descriptor of the folder, as it was opened before the program started.
        path: of the same, for messages.
        before: what was in `upper` when the program started, where it is a copy and no overlay.

    Raises:
        NotAllWrittenError: something could not be written; what was written until then stays.
        ReceiptWriteError: what the program left cannot be read.
    """
    lower = workspace if before is None else None
    selection = _selected(upper, lower, caps, before)
    try:
        folder = os.open(".", _FOLDER, dir_fd=workspace)
        try:
            return _copy_all(upper, selection, _ExistingTree(folder))
        finally:
            os.close(folder)
    except _CutShort as short:
        message, hint = explain_write(os.path.join(path, *map(os.fsdecode, short.path)), short)
        raise NotAllWrittenError(message, hint=hint, collection=short.collection) from short
    except OSError as error:
        message, hint = explain_write(os.path.join(path, "."), error)
        raise ReceiptWriteError(message, hint=hint) from error


def _selected(upper: int, lower: int | None, caps: Caps, before: Manifest | None) -> Selection:
    try:
        found = survey(upper, lower, caps)
        return select(found if before is None else changed_since(found, before), caps)
    except OSError as error:
        raise ReceiptWriteError(
            f"cannot read what the program left: {os.strerror(error.errno or 0)}"
        ) from error


def survey(upper: int, lower: int | None, caps: Caps) -> tuple[Found, ...]:
    """Look through everything in a folder, by name in byte order, at most one level too deep.

    Raises:
        OSError: something in it cannot be looked at.
    """
    top = _enter(upper)
    try:
        return tuple(_walk(top, lower, (), caps.depth, overlay=lower is not None))
    finally:
        os.close(top)


def _walk(
    folder: int, below: int | None, path: tuple[bytes, ...], depth: int, *, overlay: bool
) -> Iterator[Found]:
    """Look through one folder; `below` is the same folder beneath the overlay, if there is one."""
    for name in sorted(os.fsencode(name) for name in os.listdir(folder)):
        here = os.open(name, _LOOK, dir_fd=folder)
        inner = inner_below = None
        try:
            found = _look(here, (*path, name), below, overlay=overlay)
            if found.kind == FOLDER and len(found.path) <= depth:
                inner = _enter(here)
        finally:
            os.close(here)
        yield found
        if inner is None:
            continue
        try:
            if below is not None and not found.replaces:
                with suppress(OSError):  # there is no such folder beneath, or none to look into
                    inner_below = os.open(name, _LOOK | os.O_DIRECTORY, dir_fd=below)
            yield from _walk(inner, inner_below, found.path, depth, overlay=overlay)
        finally:
            os.close(inner)
            if inner_below is not None:
                os.close(inner_below)


def _enter(folder: int) -> int:
    """Open a folder of the program for reading, whatever mode the program gave it."""
    _allow(folder, os.fstat(folder).st_mode)
    return os.open(_by_descriptor(folder), _FOLDER & ~os.O_NOFOLLOW)


def _allow(here: int, mode: int) -> None:
    """Give us back rights a program took from its own files, which are ours; root needs none."""
    wanted = 0o700 if stat.S_ISDIR(mode) else 0o400
    if os.geteuid() != 0 and mode & wanted != wanted:
        os.chmod(_by_descriptor(here), stat.S_IMODE(mode) | wanted)


def _by_descriptor(descriptor: int) -> str:
    """Give a name for exactly what is open, which needs no way to it."""
    return f"/proc/self/fd/{descriptor}"


def _look(here: int, path: tuple[bytes, ...], below: int | None, *, overlay: bool) -> Found:
    status = os.fstat(here)
    folder, file = stat.S_ISDIR(status.st_mode), stat.S_ISREG(status.st_mode)
    if folder or file:
        _allow(here, status.st_mode)
    whiteout = overlay and file and _attribute(here, WHITEOUT) is not None
    kind = classify(status.st_mode, status.st_rdev, status.st_size, whiteout, overlay=overlay)
    # An overlay marks every new folder as opaque; it hides something only where something is.
    hides = kind == FILE or (kind == FOLDER and overlay and _attribute(here, OPAQUE) == b"y")
    return Found(
        path=path,
        kind=kind,
        size=status.st_size,
        mode=status.st_mode,
        modified_ns=status.st_mtime_ns,
        changed_ns=status.st_ctime_ns,
        inode=status.st_ino,
        replaces=hides and _is_folder(below, path[-1]),
    )


def _is_folder(below: int | None, name: bytes) -> bool:
    if below is None:
        return False
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=below, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _attribute(here: int, name: str) -> bytes | None:
    try:
        return os.getxattr(_by_descriptor(here), name)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return None
        raise


class _NewTree:
    """A folder of our own, in which nothing is there until we make it."""

    def __init__(self, root: int) -> None:
        self.root = root
        self._umask = _umask()

    def enter(self, parent: int, name: bytes) -> int | str:
        """Make and open a folder; gives its descriptor, or why it cannot be."""
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except OSError as error:
            return _refused_name(error)
        return _open_own(parent, name)

    def leave(self, folder: int, found: Found) -> None:
        """Give a folder that is complete its mode and time."""
        os.fchmod(folder, 0o755 & ~self._umask)
        os.utime(folder, ns=(found.modified_ns, found.modified_ns))

    def put(self, parent: int, found: Found, source: int) -> CollectedFile | str:
        """Copy a file under its own name; gives it, or why it cannot be."""
        mode = result_mode(found.mode)
        try:
            target = os.open(found.path[-1], _CREATE, 0o600, dir_fd=parent)
        except OSError as error:
            return _refused_name(error)
        try:
            size, digest = _copy(source, target, found.size)
            os.fchmod(target, mode & ~self._umask)
            os.utime(target, ns=(found.modified_ns, found.modified_ns))
        finally:
            os.close(target)
        return CollectedFile(b"/".join(found.path), size, digest, mode & ~self._umask)


class _ExistingTree:
    """The workspace's own folder, in which anything may be there already."""

    def __init__(self, root: int) -> None:
        self.root = root
        self._umask = _umask()
        status = os.fstat(root)
        self._device = status.st_dev
        self._owner = (status.st_uid, status.st_gid) if os.geteuid() == 0 else None
        self._made: set[tuple[int, int]] = set()

    def enter(self, parent: int, name: bytes) -> int | str:
        """Open a folder, and make it if nothing is there; gives it, or why it cannot be."""
        made = False
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
            made = True
        except FileExistsError:
            pass
        except OSError as error:
            return _refused_name(error)
        try:
            folder = os.open(name, _FOLDER, dir_fd=parent)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENOENT):
                return "something else than a folder has its name in the workspace"
            raise
        status = os.fstat(folder)
        problem = None
        if status.st_dev != self._device:
            problem = "another file system is mounted there in the workspace"
        elif made and _is_new(folder, status):
            self._made.add((status.st_dev, status.st_ino))
        elif self._owner is not None and status.st_uid != self._owner[0]:
            problem = "its folder in the workspace belongs to somebody else"
        if problem is not None:
            os.close(folder)
            return problem
        return folder

    def leave(self, folder: int, found: Found) -> None:
        """Give a folder that we made its owner and mode; others keep theirs."""
        status = os.fstat(folder)
        if (status.st_dev, status.st_ino) in self._made:
            self._give(folder)
            os.fchmod(folder, 0o755 & ~self._umask)

    def put(self, parent: int, found: Found, source: int) -> CollectedFile | str:
        """Put a file in place whole; gives it, or why it cannot be."""
        name = found.path[-1]
        mode = result_mode(found.mode) & ~self._umask
        try:
            there = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            pass
        except OSError as error:
            return _refused_name(error)
        else:
            if stat.S_ISREG(there.st_mode):
                mode = replaced_mode(found.mode, there.st_mode)
            elif not stat.S_ISLNK(there.st_mode):
                return "something else than a file has its name in the workspace"
        with open_temporary(parent) as file:
            size, digest = _copy(source, file.fd, found.size)
            self._give(file.fd)
            os.fchmod(file.fd, mode)
            os.utime(file.fd, ns=(found.modified_ns, found.modified_ns))
            try:
                file.take(name)
            except OSError as error:
                return _refused_name(error)
        return CollectedFile(b"/".join(found.path), size, digest, mode)

    def _give(self, descriptor: int) -> None:
        """Let what we made belong to the workspace's owner, where the file system knows owners."""
        status = os.fstat(descriptor)
        if self._owner is not None and (status.st_uid, status.st_gid) != self._owner:
            os.fchown(descriptor, *self._owner)


def _copy_all(upper: int, selection: Selection, tree: _NewTree | _ExistingTree) -> Collection:
    """Copy what is selected, with one open folder on both sides for each level.

    Raises:
        _CutShort: something could not be written.
    """
    taken = _Taken(selection)
    trail = _Trail(upper, tree)
    left = list(selection.taken)
    at: tuple[bytes, ...] = ()
    try:
        while left:
            at = left[0].path
            trail.go_to(at[:-1])
            if not trail.blocked(at):
                taken.take(trail, left[0])
            del left[0]
        trail.go_to(())
    except OSError as error:
        with suppress(OSError):  # folders that we made get their mode all the same
            trail.go_to(())
        why = os.strerror(error.errno or 0)
        for found in left:
            taken.skip(found, why if found.path == at else f"not reached: {why} before it")
        raise _CutShort(error, at, taken.collection()) from error
    finally:
        trail.close()
    return taken.collection()


class _Taken:
    """What was copied so far, and what was not."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._files: list[CollectedFile] = []
        self._skipped = list(selection.skipped)
        self._folders = 0

    def take(self, trail: _Trail, found: Found) -> None:
        """Copy one file, or make one folder and go into it."""
        if found.kind == FOLDER:
            problem = trail.enter(found)
            self._folders += problem is None
        else:
            answer = trail.copy(found)
            problem = answer if isinstance(answer, str) else None
            if isinstance(answer, CollectedFile):
                self._files.append(answer)
        if problem is not None:
            self.skip(found, problem)

    def skip(self, found: Found, why: str) -> None:
        """Note that something is left out."""
        self._skipped.append(Skipped(b"/".join(found.path), why))

    def collection(self) -> Collection:
        """Give all of it, sorted."""
        files = sorted(self._files, key=lambda file: file.path)
        return Collection(
            files=tuple(files),
            folders=self._folders,
            deleted=tuple(sorted(self._selection.deleted, key=lambda item: item.path)),
            skipped=tuple(sorted(self._skipped, key=lambda item: item.path)),
            complete=self._selection.complete
            and len(self._skipped) == len(self._selection.skipped),
            total_bytes=sum(file.size for file in files),
        )


class _Trail:
    """The way from the top to the folder at hand: on each level the folder on either side."""

    def __init__(self, upper: int, tree: _NewTree | _ExistingTree) -> None:
        self._tree = tree
        self._upper = _enter(upper)
        self._levels: list[tuple[Found, int, int]] = []
        self._closed: tuple[bytes, ...] | None = None

    def _sides(self) -> tuple[int, int]:
        return self._levels[-1][1:] if self._levels else (self._upper, self._tree.root)

    def go_to(self, path: tuple[bytes, ...]) -> None:
        """Leave folders until the one at hand is `path` or above it."""
        while self._levels and self._levels[-1][0].path != path[: len(self._levels)]:
            found, source, target = self._levels.pop()
            try:
                self._tree.leave(target, found)
            finally:
                os.close(source)
                os.close(target)

    def blocked(self, path: tuple[bytes, ...]) -> bool:
        """Tell whether a folder above could not be entered, which was said of that folder."""
        return self._closed is not None and path[: len(self._closed)] == self._closed

    def enter(self, found: Found) -> str | None:
        """Go one level down on both sides; gives why that cannot be."""
        source_above, target_above = self._sides()
        target = self._tree.enter(target_above, found.path[-1])
        if isinstance(target, str):
            self._closed = found.path
            return target
        try:
            source = os.open(found.path[-1], _FOLDER, dir_fd=source_above)
        except BaseException:
            os.close(target)
            raise
        self._levels.append((found, source, target))
        return None

    def copy(self, found: Found) -> CollectedFile | str:
        """Copy one file of the folder at hand."""
        source_above, target_above = self._sides()
        looked = os.open(found.path[-1], _LOOK, dir_fd=source_above)
        try:
            status = os.fstat(looked)
            if not stat.S_ISREG(status.st_mode) or status.st_ino != found.inode:
                return "it was exchanged while it was collected"
            source = os.open(_by_descriptor(looked), _READ)
        finally:
            os.close(looked)
        try:
            return self._tree.put(target_above, found, source)
        finally:
            os.close(source)

    def close(self) -> None:
        """Give every descriptor back."""
        for _, source, target in self._levels:
            os.close(source)
            os.close(target)
        self._levels.clear()
        os.close(self._upper)


def _copy(source: int, target: int, size: int) -> tuple[int, str]:
    """Copy at most `size` bytes, holes as holes; gives the length and the digest of the copy."""
    digest = hashlib.sha256()
    zeros = bytes(_CHUNK)
    position = 0
    while position < size:
        data = _next(os.SEEK_DATA, source, position, size)
        while position < data:
            step = min(_CHUNK, data - position)
            digest.update(zeros[:step] if step < _CHUNK else zeros)
            position += step
        end = _next(os.SEEK_HOLE, source, position, size)
        part = os.pread(source, min(_CHUNK, end - position), position)
        if not part:
            break
        rest = memoryview(part)
        while rest:
            rest = rest[os.pwrite(target, rest, position + len(part) - len(rest)) :]
        digest.update(part)
        position += len(part)
    os.ftruncate(target, position)
    return position, digest.hexdigest()


def _next(what: int, source: int, position: int, size: int) -> int:
    """Give where the next data, or the next hole, begins; `size` when there is none before that."""
    try:
        return min(os.lseek(source, position, what), size)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        # Nothing but a hole from here to the end, or the end is already behind us.
        return min(max(os.fstat(source).st_size, position), size)


def _make_own(parent: int, name: str) -> int:
    """Make and open a folder that only we can enter."""
    os.mkdir(name, 0o700, dir_fd=parent)
    try:
        return _open_own(parent, name)
    except FileNotFoundError:
        raise
    except OSError:
        os.rmdir(name, dir_fd=parent)
        raise


def _open_own(parent: int, name: bytes | str) -> int:
    """Open a folder just made, and find that it is ours: not one put in its place meanwhile.

    Raises:
        OSError: it is somebody else's, or cannot be opened.
    """
    folder = os.open(name, _FOLDER, dir_fd=parent)
    if not _is_new(folder, os.fstat(folder)):
        os.close(folder)
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
    return folder


def _is_new(folder: int, status: os.stat_result) -> bool:
    """Tell whether a folder can be the one we just made: ours, and with nothing in it."""
    return status.st_uid == os.geteuid() and not os.listdir(folder)


def _refused_name(error: OSError) -> str:
    """Say why a name was not taken; other errors are raised on."""
    if error.errno == errno.EEXIST:
        return "something of that name, or of one that counts as the same, is there already"
    if error.errno in (errno.EISDIR, errno.ENOENT):
        return "something else took its place meanwhile"
    if error.errno in _NAME_ERRORS:
        return f"its name cannot be used there: {os.strerror(error.errno or 0)}"
    raise error


def _rename_new(from_folder: int, name: str, to_folder: int, new_name: str) -> None:
    """Rename where nothing has the new name.

    Raises:
        OSError: EEXIST when something has; else as renameat2(2).
    """
    import ctypes

    number = _SYS_RENAMEAT2.get(os.uname().machine)
    if number is not None:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.syscall.restype = ctypes.c_long
        done = libc.syscall(
            ctypes.c_long(number),
            ctypes.c_int(from_folder),
            os.fsencode(name),
            ctypes.c_int(to_folder),
            os.fsencode(new_name),
            ctypes.c_uint(_RENAME_NOREPLACE),
        )
        if done == 0:
            return
        failed = ctypes.get_errno()
        if failed not in (errno.EINVAL, errno.ENOSYS, errno.EPERM):
            raise OSError(failed, os.strerror(failed))
    # A file system or filter without it: nothing is there by a look, and for a folder rename(2)
    # itself replaces nothing but an empty one.
    try:
        os.stat(new_name, dir_fd=to_folder, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(name, new_name, src_dir_fd=from_folder, dst_dir_fd=to_folder)
        return
    raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))


def _umask() -> int:
    current = os.umask(0o077)
    os.umask(current)
    return current
