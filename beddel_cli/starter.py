"""Lay out a first job, the samples and the schema for editors in a folder of the user's.

Nothing is replaced unless asked: every name is looked at before the first is written, each file is
made only where there is none (O_EXCL), and when that fails halfway what was made is taken away.
Links at the places to write to are never followed.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from beddel_cli.errors import ReceiptWriteError, UsageError
from beddel_cli.files import read_file
from beddel_cli.home import explain_write, replace

JOB_NAME, SCHEMA_NAME, SAMPLES_NAME = "job.yaml", "job.schema.json", "samples"
_MOST_NAMES = 3  # in one message
_MODELINE = b"# yaml-language-server: $schema="


def samples_folder() -> str:
    """Give the folder of the samples: in the package, or beside it in a checkout."""
    package = os.path.dirname(os.path.abspath(__file__))
    inside = os.path.join(package, SAMPLES_NAME)
    return inside if os.path.isdir(inside) else os.path.join(os.path.dirname(package), SAMPLES_NAME)


def starter_files(schema: bytes) -> dict[str, bytes]:
    """Give what `init` writes, by path below its folder; samples point to the schema beside them.

    Args:
        schema: the JSON Schema of a job.

    Raises:
        NotFoundError, JobError: the installation lacks a file, or it cannot be read.
    """
    job = os.path.join(os.path.dirname(os.path.abspath(__file__)), "starter_job.yaml")
    files = {JOB_NAME: read_file(job, "starter job"), SCHEMA_NAME: schema}
    samples = samples_folder()
    for name in sorted(os.listdir(samples)):
        path = os.path.join(samples, name)
        # One schema is enough: the one above them.
        if name != SCHEMA_NAME and os.path.isfile(path):
            data = with_schema(read_file(path, "sample"), f"../{SCHEMA_NAME}")
            files[f"{SAMPLES_NAME}/{name}"] = data
    return files


def with_schema(data: bytes, schema: str) -> bytes:
    """Let a file's modeline, if its first line is one, name another schema."""
    if not data.startswith(_MODELINE):
        return data
    return _MODELINE + schema.encode("utf-8") + b"\n" + data.partition(b"\n")[2]


def write_starter(folder: str, files: dict[str, bytes], *, force: bool) -> tuple[str, ...]:
    """Write files into a folder, which is made if it is not there; gives their paths.

    Args:
        files: content by path below `folder`, at most one folder deep.
        force: replace regular files that are there.

    Raises:
        UsageError: something is in the way; nothing was written.
        ReceiptWriteError: a file could not be written; without `force` nothing was left behind.
    """
    made: list[tuple[str, int]] = []
    made_folder = not os.path.lexists(folder)
    try:
        os.makedirs(folder, exist_ok=True)
        root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"{folder!r} cannot be made a folder: a file is in the way") from error
    except OSError as error:
        # Of several folders to be made, the one that could not be is what to tell of.
        stuck = error.filename or folder
        inside = os.path.join(stuck, JOB_NAME)
        raise _write_error(inside if os.path.isdir(stuck) else stuck, error) from error
    opened = {"": root}
    path = ""
    try:
        _check(folder, root, files, force=force)
        for path, data in files.items():
            parent, name = os.path.split(path)
            if parent not in opened:
                opened[parent] = _open_folder(root, parent, made)
            _write(opened[parent], name, data, made, force=force)
    except BaseException as error:
        _take_away(made)
        if made_folder:
            _remove_if_empty(folder)
        if isinstance(error, OSError):
            raise _write_error(_below(folder, path), error) from error
        raise
    finally:
        for descriptor in opened.values():
            os.close(descriptor)
    return tuple(_below(folder, path) for path in files)


def _below(folder: str, path: str) -> str:
    """Name a file as a person in the current folder would."""
    return path if folder == "." else os.path.join(folder, path)


def _check(folder: str, root: int, files: dict[str, bytes], *, force: bool) -> None:
    """Look at every place to write to before anything is written."""
    parents = sorted({os.path.dirname(path) for path in files} - {""})
    in_the_way = [path for path in parents if not _is(root, path, stat.S_IFDIR)]
    for path in files:
        parent = os.path.dirname(path)
        if parent in in_the_way or _is(root, path, stat.S_IFREG if force else None):
            continue
        in_the_way.append(path)
    if in_the_way:
        names = ", ".join(repr(_below(folder, path)) for path in in_the_way[:_MOST_NAMES])
        if len(in_the_way) > _MOST_NAMES:
            names += f" and {len(in_the_way) - _MOST_NAMES} more"
        regular = all(_is(root, path, stat.S_IFREG) for path in in_the_way)
        raise UsageError(
            f"nothing was written: {names} would be overwritten"
            if regular
            else f"nothing was written: {names} cannot be replaced",
            hint="give another folder, or --force to replace these files"
            if regular
            else "links and folders in the way are not replaced; move them, or give another folder",
        )


def _is(root: int, path: str, kind: int | None) -> bool:
    """Tell whether a place is free, or taken by something of a kind."""
    try:
        found = os.stat(path, dir_fd=root, follow_symlinks=False)
    except FileNotFoundError:
        return True
    return kind is not None and stat.S_IFMT(found.st_mode) == kind


def _open_folder(root: int, name: str, made: list[tuple[str, int]]) -> int:
    try:
        os.mkdir(name, 0o755, dir_fd=root)
        made.append((name + "/", root))
    except FileExistsError:
        pass
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, dir_fd=root)


def _write(
    folder: int, name: str, data: bytes, made: list[tuple[str, int]], *, force: bool
) -> None:
    if force:
        replace(folder, name, data, 0o644)
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o644, dir_fd=folder)
    made.append((name, folder))
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    finally:
        os.close(descriptor)


def _take_away(made: list[tuple[str, int]]) -> None:
    for name, parent in reversed(made):
        if name.endswith("/"):
            _remove_if_empty(name, parent)
            continue
        # Gone already, or not to be removed any more: why we stopped is what matters.
        with suppress(OSError):
            os.unlink(name, dir_fd=parent)


def _remove_if_empty(path: str, parent: int | None = None) -> None:
    # What somebody else put there meanwhile stays.
    with suppress(OSError):
        os.rmdir(path, dir_fd=parent)


def _write_error(path: str, error: OSError) -> ReceiptWriteError:
    if isinstance(error, FileExistsError):
        return ReceiptWriteError(f"{path!r} appeared while the files were written")
    message, hint = explain_write(path, error)
    return ReceiptWriteError(message, hint=hint)
