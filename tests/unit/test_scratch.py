"""Scratch folders: where they are made, how they are measured, and that all of them goes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from beddel_cli.process import scratch
from beddel_cli.process.cgroup import run_name
from beddel_cli.process.scratch import MAX_DEPTH, Scratch, ScratchMeter
from tests.support.callers import ORDINARY
from tests.support.capabilities import give_up


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder for temporary files that everybody may pass; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(prefix="place-", dir="/var/tmp") as folder:
        path = Path(folder)
        path.chmod(0o755)
        yield path


def made(place: Path) -> Scratch:
    return scratch.make(scratch.choose_path({"TMPDIR": str(place)}), None)


def close(folder: Scratch) -> None:
    os.close(folder.workspace)
    os.close(folder.temporary)


def test_it_lies_where_tmpdir_says(place: Path) -> None:
    path = scratch.choose_path({"TMPDIR": str(place)})
    assert Path(path).parent == place
    assert Path(scratch.choose_path({})).parent == Path("/tmp")


@pytest.mark.parametrize("value", ["", "relative", "/not/there", "/proc/self"])
def test_a_tmpdir_that_is_of_no_use_is_passed_over(value: str) -> None:
    assert Path(scratch.choose_path({"TMPDIR": value})).parent == Path("/tmp")


def test_a_folder_in_which_others_may_rename_is_passed_over(place: Path) -> None:
    place.chmod(0o777)
    assert Path(scratch.choose_path({"TMPDIR": str(place)})).parent != place
    place.chmod(0o1777)
    assert Path(scratch.choose_path({"TMPDIR": str(place)})).parent == place


def test_a_folder_of_somebody_else_is_passed_over(place: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    os.chown(place, 23456, -1)
    assert Path(scratch.choose_path({"TMPDIR": str(place)})).parent != place


def test_a_folder_that_an_id_without_rights_cannot_pass_is_of_no_use_to_root(place: Path) -> None:
    place.chmod(0o700)
    chosen = Path(scratch.choose_path({"TMPDIR": str(place)})).parent
    assert (chosen == place) is (os.geteuid() != 0)


def test_all_of_it_goes_whatever_is_in_it(place: Path) -> None:
    folder = made(place)
    outside = place / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"stays")
    inner = Path(folder.path) / "workspace"
    (inner / "link").symlink_to(outside)
    (inner / "file").write_bytes(b"x")
    os.link(outside / "file", inner / "hard")
    os.mkfifo(inner / "fifo")
    (inner / "closed").mkdir()
    (inner / "closed" / "within").mkdir()
    (inner / "closed" / "within" / "file").write_bytes(b"x")
    (inner / "closed" / "within").chmod(0)
    (inner / "closed").chmod(0)
    (inner / os.fsdecode(b"\xff\n")).mkdir()
    here = os.open(inner, os.O_RDONLY)
    for _ in range(1500):
        # Deeper than a path can be long, and than descriptors could be held.
        os.mkdir("d" * 20, dir_fd=here)
        below = os.open("d" * 20, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    close(folder)
    scratch.remove(folder.path)
    assert [path.name for path in place.iterdir()] == ["outside"]
    assert (outside / "file").read_bytes() == b"stays"
    scratch.remove(folder.path)  # a second time there is nothing to do


def test_a_link_in_its_place_is_not_followed(place: Path) -> None:
    outside = place / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"stays")
    link = place / run_name()
    link.symlink_to(outside)
    with pytest.raises(OSError, match=r"Too many levels|Not a directory"):
        scratch.remove(str(link))
    assert (outside / "file").exists()


def test_only_what_nobody_is_left_to_remove_is_swept(place: Path) -> None:
    dead = subprocess.run(
        [sys.executable, "-c", "from beddel_cli.process.cgroup import run_name; print(run_name())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    for name in (dead, run_name(), "beddel-1-2-3-x", "beddel-mine", "other"):
        (place / name / "workspace").mkdir(parents=True)
    (place / f"{dead}f").symlink_to(place / "other")
    (place / f"{dead}e").write_bytes(b"a file")
    removed = scratch.sweep({"TMPDIR": str(place)})
    assert [path for path in removed if path.startswith(str(place))] == [str(place / dead)]
    assert len(list(place.iterdir())) == 6


def test_what_another_user_made_is_not_swept(place: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    code = "from beddel_cli.process.cgroup import run_name; print(run_name())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    path = place / done.stdout.strip()
    path.mkdir()
    os.chown(path, 23456, 23456)
    scratch.sweep({"TMPDIR": str(place)})
    assert path.exists()
    os.chown(path, 0, 0)
    scratch.sweep({"TMPDIR": str(place)})
    assert not path.exists()


def test_nothing_is_swept_where_others_may_rename(place: Path) -> None:
    code = "from beddel_cli.process.cgroup import run_name; print(run_name())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    path = place / done.stdout.strip()
    path.mkdir()
    place.chmod(0o777)
    scratch.sweep({"TMPDIR": str(place)})
    assert path.exists()
    place.chmod(0o1777)
    scratch.sweep({"TMPDIR": str(place)})
    assert not path.exists()


# As whoever a program's id would be: what is in a folder they closed to themselves.
CLOSED = """
import os, sys
from pathlib import Path
from beddel_cli.process.scratch import ScratchMeter, choose_path, make, remove
folder = make(choose_path({"TMPDIR": sys.argv[1]}), None)
meter = ScratchMeter(folder, 1 << 20, 10)
top = Path(folder.path) / "tmp"
inner = top / sys.argv[2]
inner.mkdir(exist_ok=True)
(inner / "file").write_bytes(b"x" * 200_000)
inner.chmod(0)
print(meter.look(), meter.used_bytes >= 200_000)
inner.chmod(0)
if sys.argv[3] == "refused":
    # As if it were closed again each time before it is opened.
    from beddel_cli.process import scratch
    scratch._LOOKING = 0
    print(meter.look(), meter.look())
remove(folder.path)
"""


@pytest.mark.parametrize("name", ["inner", "."])
@pytest.mark.parametrize(("then", "said"), [("", ""), ("refused", "None disk\n")])
def test_what_a_program_closed_to_itself_is_measured(
    place: Path, name: str, then: str, said: str
) -> None:
    if os.geteuid() == 0:
        os.chown(place, ORDINARY, ORDINARY)
    who: dict[str, Any] = {} if os.geteuid() else {"user": ORDINARY, "group": ORDINARY}
    done = subprocess.run(
        [sys.executable, "-c", CLOSED, place, name, then],
        capture_output=True,
        check=True,
        text=True,
        **who,
    )
    assert done.stdout == f"None True\n{said}"


# As somebody who has nothing of it but its folders: where it was looked.
UNSEEN = """
import os, sys
from beddel_cli.process.scratch import ScratchMeter, choose_path, make, remove
folder = make(choose_path({"TMPDIR": sys.argv[1]}), int(sys.argv[2]) or None)
places = [folder.path + "/" + name for name in ("workspace", "tmp", "tmp/in", "tmp/in/in")]
for place in places[2:]:
    os.mkdir(place)
    if int(sys.argv[2]):
        os.chown(place, int(sys.argv[2]), -1)
def seen(look):
    # Older than any change to it, so that the next look would count also where not each does.
    for place in places:
        os.utime(place, (1, 1))
    look()
    return [os.stat(place).st_atime_ns != 10**9 for place in places]
meter = ScratchMeter(folder, 1 << 20, 10)
print(seen(meter.look))
print(seen(lambda: [os.listdir(place) for place in places]))
remove(folder.path)
"""


@pytest.mark.parametrize("name", ["root", "ordinary"] if os.geteuid() == 0 else ["us"])
def test_a_program_does_not_see_where_it_is_looked(place: Path, name: str) -> None:
    """By times of access, root's program had moved its files around the look for seconds."""
    who: dict[str, Any] = {}
    if name == "ordinary":
        os.chown(place, ORDINARY, ORDINARY)
        who = {"user": ORDINARY, "group": ORDINARY}
    done = subprocess.run(
        [sys.executable, "-c", UNSEEN, place, "1900000000" if name == "root" else "0"],
        capture_output=True,
        check=True,
        text=True,
        **who,
    )
    looked, listed = done.stdout.splitlines()
    if listed != str([True] * 4):
        give_up("times of access are not kept where temporary files are")
    assert looked == str([False] * 4)


def test_what_is_in_it_is_measured_and_what_was_is_not(place: Path) -> None:
    folder = made(place)
    inner = Path(folder.path)
    (inner / "workspace" / "before").write_bytes(b"x" * 100_000)
    meter = ScratchMeter(folder, 1 << 20, 10)
    assert (meter.look(), meter.used_bytes, meter.used_inodes) == (None, 0, 0)
    (inner / "tmp" / "new").write_bytes(b"x" * 200_000)
    os.link(inner / "tmp" / "new", inner / "tmp" / "again")
    (inner / "workspace" / "link").symlink_to("/usr")
    assert meter.look() is None
    assert 200_000 <= meter.used_bytes <= 250_000
    # The second name of a file is none more.
    assert meter.used_inodes == 2
    (inner / "tmp" / "more").write_bytes(b"x" * (1 << 20))
    assert meter.look() == "disk"
    close(folder)
    scratch.remove(folder.path)


def test_holes_take_no_disk(place: Path) -> None:
    folder = made(place)
    meter = ScratchMeter(folder, 1 << 20, 10)
    with (Path(folder.path) / "tmp" / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    assert meter.look() is None
    close(folder)
    scratch.remove(folder.path)


def test_too_many_and_too_deep_are_too_many(place: Path) -> None:
    folder = made(place)
    inner = Path(folder.path) / "workspace"
    meter = ScratchMeter(folder, 1 << 30, 50)
    for number in range(51):
        (inner / f"file{number}").write_bytes(b"")
    assert (meter.look(), meter.used_inodes) == ("inodes", 51)
    for path in inner.iterdir():
        path.unlink()
    assert meter.look() is None
    deep = ScratchMeter(folder, 1 << 30, 10_000)
    here = inner
    for _ in range(MAX_DEPTH + 1):
        here /= "d"
        here.mkdir()
    assert deep.look() == "inodes"
    # Not more than there are.
    assert deep.used_inodes == MAX_DEPTH + 1
    close(folder)
    scratch.remove(folder.path)
