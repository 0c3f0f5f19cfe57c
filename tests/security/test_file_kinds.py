"""A job names what is no honest file: devices, pipes, sockets, folders, and files without end."""

from __future__ import annotations

import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from beddel_cli.errors import JobError, Place
from beddel_cli.files import MAX_BYTES, open_reach, read_named
from tests.support.capabilities import require
from tests.support.cli import Home
from tests.support.named_files import ALLOWED, WAYS, job_naming, load_each

_DENIED = "JobError cannot read the code file NAME: Permission denied"
NOT_REGULAR = "JobError the code file NAME is not a regular file"
# name: how loading ends when the name, in a folder the job may use, is of that kind.
KINDS = {
    "folder": NOT_REGULAR,
    "fifo": NOT_REGULAR,
    "fifo with a writer": NOT_REGULAR,
    "/dev/zero": NOT_REGULAR,
    # A device that only root may open.
    "/dev/tty0": NOT_REGULAR if os.geteuid() == 0 else _DENIED,
    "zero": NOT_REGULAR,
    "socket": "JobError cannot read the code file NAME: No such device or address",
    "loop": "JobError cannot read the code file NAME: Too many levels of symbolic links",
    "dangling": "NotFoundError no code file at NAME",
    "sparse": "JobError the code file NAME is too large",
    "regular": f"read {ALLOWED}",
}


@pytest.mark.parametrize("way", WAYS)
def test_only_regular_files_are_read_and_nothing_hangs(tmp_path: Path, way: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "regular").write_text(ALLOWED)
    for name, target in (("zero", "/dev/zero"), ("loop", "loop"), ("dangling", "nope")):
        (tmp_path / name).symlink_to(target)
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 40)
    for name in ("fifo", "fifo with a writer"):
        os.mkfifo(tmp_path / name)
    writer = os.open(tmp_path / "fifo with a writer", os.O_RDWR)
    os.write(writer, b"return 'from a pipe'")
    names = [name for name in KINDS if os.path.lexists(tmp_path / name) or name == "socket"]
    jobs = [job_naming(tmp_path, name, f"{index}.yaml") for index, name in enumerate(names)]
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "socket"))
        counts = load_each(way, jobs, allowed=[Path("/dev")])
    os.close(writer)
    found = {
        name: "".join(count).replace(repr(name), "NAME")
        for name, count in zip(names, counts, strict=True)
    }
    assert found == {name: KINDS[name] for name in names}
    assert {"fifo", "regular", "sparse", "/dev/zero"} <= set(found)


def test_the_cap_is_on_what_is_read_not_on_what_the_file_says(tmp_path: Path) -> None:
    """A file that grows while it is read ends at the cap."""
    path = tmp_path / "grows"
    path.write_bytes(b" " * MAX_BYTES)
    end = threading.Event()

    def grow() -> None:
        with path.open("ab") as file:
            while not end.is_set() and file.tell() < 4 * MAX_BYTES:
                file.write(b" " * 65536)
                file.flush()

    with open_reach(str(tmp_path / "job.yaml")) as reach:
        assert len(read_named(reach, "grows", "code file", Place("job.yaml"))) == MAX_BYTES
        grower = threading.Thread(target=grow)
        grower.start()
        try:
            while path.stat().st_size == MAX_BYTES:
                pass
            with pytest.raises(JobError) as caught:
                read_named(reach, "grows", "code file", Place("job.yaml"))
        finally:
            end.set()
            grower.join()
    assert caught.value.message == "the code file 'grows' is too large"
    assert caught.value.expected == f"at most {MAX_BYTES} bytes"


def test_a_file_that_the_user_may_not_read_is_not_read_for_the_job(tmp_path: Path) -> None:
    require("root")
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    secret = tmp_path / "x.js"
    secret.write_text(ALLOWED)
    place = Place("job.yaml")
    with open_reach(str(tmp_path / "job.yaml")) as reach:
        secret.chmod(0o600)
        os.seteuid(65534)
        try:
            with pytest.raises(JobError) as caught:
                read_named(reach, "x.js", "code file", place)
        finally:
            os.seteuid(0)
        assert caught.value.message == "cannot read the code file 'x.js': Permission denied"
        secret.chmod(0o644)
        os.seteuid(65534)
        try:
            assert read_named(reach, "x.js", "code file", place) == ALLOWED.encode()
        finally:
            os.seteuid(0)


def test_a_pipe_without_a_writer_does_not_hold_up_a_run(home: Home) -> None:
    os.mkfifo(home.work / "x.js")
    assert stat.S_ISFIFO((home.work / "x.js").stat().st_mode)
    result = home.run("run", job_naming(home.work, "x.js"))
    assert (result.returncode, result.stdout) == (125, b"")
    assert b"the code file 'x.js' is not a regular file" in result.stderr
    (home.work / "x.js").unlink()
    (home.work / "x.js").write_text("return 42")
    assert home.run("run", job_naming(home.work, "x.js"), "-q").stdout == b"42\n"
