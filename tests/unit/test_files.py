"""Files that somebody names: opened once, regular only, capped."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from beddel_cli.errors import JobError, NotFoundError, Place, RefusedError, UsageError
from beddel_cli.files import open_reach, read_file, read_named, read_stdin

HERE = Place("job.yaml", 1, 1)


def named(folder: Path, name: str) -> bytes:
    """Read what a job in a folder names."""
    with open_reach(str(folder / "job.yaml")) as reach:
        return read_named(reach, name, "code file", HERE)


def test_a_file_comes_back_whole_and_links_are_followed(tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000
    (tmp_path / "f").write_bytes(data)
    (tmp_path / "l").symlink_to("f")
    assert read_file(str(tmp_path / "f"), "job") == data
    assert read_file(str(tmp_path / "l"), "job") == data
    assert named(tmp_path, "l") == data


def test_the_cap_is_exact(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    path = str(tmp_path / "f")
    assert read_file(path, "job", 5) == b"12345"
    with pytest.raises(JobError) as caught:
        read_file(path, "job", 4)
    assert caught.value.message == f"the job {path!r} is too large"
    assert caught.value.expected == "at most 4 bytes"


def test_an_endless_file_is_read_no_further_than_its_cap(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(JobError, match="is too large"):
        read_file(str(path), "input")


@pytest.mark.parametrize("kind", ["folder", "fifo", "socket", "zero", "link to zero"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    elif kind == "zero":
        path = Path("/dev/zero")
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(JobError) as caught:
        read_file(str(path), "job")
    # A socket cannot even be opened.
    why = {"socket": f"cannot read the job {str(path)!r}: No such device or address"}
    assert caught.value.message == why.get(kind, f"the job {str(path)!r} is not a regular file")


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    for path in (tmp_path / "nope", tmp_path / "f" / "x", tmp_path / "no" / "x", Path("")):
        name = "" if path == Path() else str(path)
        with pytest.raises(NotFoundError) as caught:
            read_file(name, "job")
        assert caught.value.message == f"no job at {name!r}"
        assert caught.value.exit_code == 127


def test_names_that_no_file_can_have_are_errors(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="no file can have the name of the job"):
        read_file("a\0b", "job")
    with pytest.raises(JobError, match="File name too long"):
        read_file(str(tmp_path / ("n" * 300)), "job")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(JobError, match="Too many levels of symbolic links"):
        read_file(str(tmp_path / "loop"), "job")


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"1")
    before = sorted(os.listdir("/proc/self/fd"))
    read_file(str(tmp_path / "f"), "job")
    named(tmp_path, "f")
    for name in ("nope", "../f", "."):
        with pytest.raises((JobError, NotFoundError, RefusedError)):
            named(tmp_path, name)
    with pytest.raises(UsageError):
        open_reach(str(tmp_path / "f"), [str(tmp_path), str(tmp_path / "nope")])
    with pytest.raises(NotFoundError):
        open_reach(str(tmp_path / "nope" / "f"), [str(tmp_path)])
    with pytest.raises(JobError):
        read_file(str(tmp_path), "job")
    assert sorted(os.listdir("/proc/self/fd")) == before


@contextmanager
def standard_input(data: bytes | None) -> Iterator[None]:
    """Have some bytes on descriptor 0, or nothing there at all."""
    saved = os.dup(0)
    read, write = os.pipe()
    try:
        if data is None:
            os.close(0)
        else:
            os.write(write, data)
            os.dup2(read, 0)
        os.close(write)
        yield
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        os.close(read)


def test_standard_input_comes_back_whole_up_to_its_cap() -> None:
    with standard_input(b"12345"):
        assert read_stdin("job", 5) == b"12345"
    with standard_input(b"123456"), pytest.raises(JobError) as caught:
        read_stdin("job", 5)
    assert caught.value.message == "the job on standard input is too large"


def test_a_closed_standard_input_is_an_error() -> None:
    with standard_input(None), pytest.raises(JobError) as caught:
        read_stdin("job")
    assert caught.value.message == "cannot read the job from standard input: Bad file descriptor"
