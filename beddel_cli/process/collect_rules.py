"""What counts of the things a program left behind. Pure: stat results and names in, decisions out.

Only folders and regular files are taken. Everything else is named with the reason why it was not,
and what the overlay marks as deleted is named as that.

Source: Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories", `userxattr`.
"""

from __future__ import annotations

import stat

from beddel_cli.record import changed, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    # What a copy of a workspace was before the program ran: by path, inode and time of change;
    # None instead of a time for a folder.
    Manifest = Mapping[bytes, tuple[int, int | None]]

# Deep enough for any tree people make; each level keeps a descriptor open on both sides.
MAX_DEPTH = 100
# Longer paths could be made, but below a folder of their own most tools could not open them.
MAX_PATH_BYTES = 3072
OPAQUE, WHITEOUT = "user.overlay.opaque", "user.overlay.whiteout"

FOLDER, FILE, DELETED = "folder", "file", "deleted"
_SKIPPED_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


@record
class Caps:
    """The most that is taken: bytes as files claim to have them, holes included, and entries."""

    total_bytes: int
    entries: int
    depth: int = MAX_DEPTH


@record
class Found:
    """One thing in the upper folder.

    Attributes:
        path: its names from the upper folder down.
        kind: FOLDER, FILE, DELETED, or in words what else it is.
        inode: what must be found again when it is copied.
        replaces: whether the workspace has a folder there of which nothing is left.
        changed_ns: when the kernel last noted a change of it.
    """

    path: tuple[bytes, ...]
    kind: str
    size: int
    mode: int
    modified_ns: int
    inode: int
    replaces: bool = False
    changed_ns: int = 0


@record
class Skipped:
    """Something that was not taken, and why."""

    path: bytes
    reason: str


@record
class Deleted:
    """Something the program deleted from the workspace. It is named, and stays where it is.

    `contents`: something new has its name, and what the workspace's folder held is gone.
    """

    path: bytes
    contents: bool


@record
class Selection:
    """What is taken, in an order in which a folder stands before what is in it."""

    taken: tuple[Found, ...]
    deleted: tuple[Deleted, ...]
    skipped: tuple[Skipped, ...]
    complete: bool


def classify(mode: int, device: int, size: int, whiteout: bool, *, overlay: bool) -> str:
    """Say what an entry is: FOLDER, FILE, DELETED, or in words what else.

    Args:
        mode, device, size: st_mode, st_rdev and st_size of the entry itself.
        whiteout: whether it has the attribute WHITEOUT.
        overlay: whether an overlay wrote it. Otherwise a program made what looks like its marks.
    """
    if stat.S_ISDIR(mode):
        return FOLDER
    if stat.S_ISREG(mode):
        return DELETED if overlay and whiteout and size == 0 else FILE
    if overlay and stat.S_ISCHR(mode) and device == 0:
        return DELETED
    return _SKIPPED_KINDS.get(stat.S_IFMT(mode), "of an unknown kind")


def changed_since(found: Sequence[Found], before: Manifest) -> tuple[Found, ...]:
    """Give of a copy what is not as it was: new, changed, or deleted, in the order of `survey`.

    A folder that was there counts only where something in it is to be taken.
    """
    kept: dict[tuple[bytes, ...], Found] = {}
    there = {item.path for item in found}
    for item in found:
        inode, changed_ns = before.get(b"/".join(item.path), (None, None))
        was_folder = inode is not None and changed_ns is None
        if inode is None or item.inode != inode or (item.kind == FOLDER) != was_folder:
            kept[item.path] = changed(item, replaces=was_folder)
        elif not was_folder and item.changed_ns != changed_ns:
            kept[item.path] = item
    folders = {item.path: item for item in found if item.kind == FOLDER}
    for path in tuple(kept):
        for depth in range(1, len(path)):
            kept.setdefault(path[:depth], folders[path[:depth]])
    for name in before:
        path = tuple(name.split(b"/"))
        # Where a whole folder is gone, or is another one now, that says it all.
        as_before = len(path) == 1 or (path[:-1] in folders and not _is_new(path[:-1], kept))
        if path not in there and as_before:
            kept[path] = Found(path, DELETED, 0, 0, 0, 0)
    return tuple(kept[path] for path in sorted(kept))


def _is_new(path: tuple[bytes, ...], kept: Mapping[tuple[bytes, ...], Found]) -> bool:
    """Tell whether a folder, or one around it, is not the one that was there before."""
    return any(
        path[:depth] in kept and kept[path[:depth]].replaces for depth in range(1, len(path) + 1)
    )


def select(found: Sequence[Found], caps: Caps) -> Selection:
    """Decide what is taken of what was found, in its order.

    A file that does not fit into what is left is skipped, and smaller ones after it may still fit.
    """
    taken: list[Found] = []
    deleted: list[Deleted] = []
    skipped: list[Skipped] = []
    bytes_left, complete = caps.total_bytes, True
    for item in found:
        path = b"/".join(item.path)
        if item.kind == DELETED or item.replaces:
            deleted.append(Deleted(path, contents=item.replaces))
        if item.kind == DELETED:
            continue
        if item.kind not in (FOLDER, FILE):
            skipped.append(Skipped(path, f"it is {item.kind}"))
            continue
        reason = _too_much(item, path, caps, len(taken), bytes_left)
        if reason is not None:
            skipped.append(Skipped(path, reason))
            complete = False
            continue
        taken.append(item)
        if item.kind == FILE:
            bytes_left -= item.size
    return Selection(tuple(taken), tuple(deleted), tuple(skipped), complete)


def _too_much(item: Found, path: bytes, caps: Caps, taken: int, bytes_left: int) -> str | None:
    if len(path) > MAX_PATH_BYTES:
        return f"its path is longer than {MAX_PATH_BYTES} bytes"
    if len(item.path) > caps.depth:
        return f"it lies deeper than {caps.depth} folders"
    if taken >= caps.entries:
        return f"more than {caps.entries} files and folders"
    if item.kind == FILE and item.size > bytes_left:
        return (
            f"its {item.size} bytes do not fit: {bytes_left} of {caps.total_bytes} bytes are left"
        )
    return None


def result_mode(mode: int) -> int:
    """Give the mode of a collected file: 0755 where its owner could execute it, else 0644."""
    return 0o755 if mode & stat.S_IXUSR else 0o644


def replaced_mode(mode: int, there: int) -> int:
    """Give the mode of a file put over one that is there.

    Who may read and write stays as it is, so nothing private becomes public; who can read it may
    execute it if the program made it executable. No setuid, setgid or sticky bit stays.
    """
    kept = stat.S_IMODE(there) & 0o666
    return kept | (kept & 0o444) >> 2 if mode & stat.S_IXUSR else kept


def path_text(path: bytes) -> str:
    """Write a path as text that stands for no other path: a backslash doubled, bytes that are no
    UTF-8 as `\\xNN`. Control characters stay; whoever prints it escapes them.
    """
    return path.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
