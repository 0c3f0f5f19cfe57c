"""Results are put where another user can write, while that user changes everything there.

Each test lets a thread rename folders and links under the collector's feet, thousands of times
over, and then looks at a folder of somebody else's that must not have changed. The control is the
same writing by path, as `cp` would do it, which the same thread does lead astray.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from beddel_cli.errors import BeddelError
from beddel_cli.process.collect import collect_results, open_results, write_back
from beddel_cli.process.collect_rules import Caps

ROUNDS = 2000
CAPS = Caps(total_bytes=1 << 20, entries=100)


@contextmanager
def attacking(step: Callable[[int], None]) -> Iterator[list[int]]:
    """Call `step` with a rising number as fast as it goes; gives how often it was called."""
    stop = threading.Event()
    turns = [0]

    def attack() -> None:
        while not stop.is_set():
            with suppress(OSError):
                step(turns[0])
            turns[0] += 1

    thread = threading.Thread(target=attack)
    thread.start()
    try:
        yield turns
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def upper(tmp_path: Path) -> Iterator[int]:
    folder = tmp_path / "upper"
    (folder / "sub").mkdir(parents=True)
    for name in ("sub/f", "g"):
        (folder / name).write_text("the program's", "utf-8")
    descriptor = os.open(folder, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    folder = tmp_path / "victim"
    (folder / "sub").mkdir(parents=True)
    (folder / "g").write_text("untouched", "utf-8")
    return folder


def is_untouched(victim: Path) -> bool:
    return (
        sorted(os.listdir(victim)) == ["g", "sub"]
        and os.listdir(victim / "sub") == []
        and (victim / "g").read_text("utf-8") == "untouched"
    )


def flip(folder: Path, name: str, victim: Path) -> Callable[[int], None]:
    """Make a step that puts a folder and a link to the victim in each other's place."""
    (folder / name).mkdir(exist_ok=True)
    (folder / "aside").symlink_to(victim)

    def step(turn: int) -> None:
        os.rename(folder / name, folder / f"third{turn}")
        os.rename(folder / "aside", folder / name)
        os.rename(folder / f"third{turn}", folder / "aside")

    return step


def test_writing_back_into_a_folder_that_becomes_a_link(
    tmp_path: Path, upper: int, victim: Path
) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    descriptor = os.open(workspace, os.O_PATH)
    wrote = 0
    with attacking(flip(workspace, "sub", victim)) as turns:
        for _ in range(ROUNDS):
            with suppress(BeddelError):
                got = write_back(descriptor, str(workspace), upper, CAPS)
                wrote += any(file.path == b"sub/f" for file in got.files)
    os.close(descriptor)
    assert is_untouched(victim)
    assert 0 < wrote < ROUNDS, "the attack met both states"
    assert turns[0] > ROUNDS // 10


def test_the_control_writing_by_path_is_led_astray(tmp_path: Path, victim: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    with attacking(flip(workspace, "sub", victim)):
        for _ in range(ROUNDS * 10):
            with suppress(OSError):
                (workspace / "sub" / "f").write_text("the program's", "utf-8")
            if not is_untouched(victim):
                return
    raise AssertionError("the attack never worked, so the other tests show nothing")


def test_writing_back_a_file_whose_place_becomes_a_link(
    tmp_path: Path, upper: int, victim: Path
) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    descriptor = os.open(workspace, os.O_PATH)

    def step(turn: int) -> None:
        os.symlink(victim / "g", workspace / f"link{turn}")
        os.rename(workspace / f"link{turn}", workspace / "g")

    with attacking(step):
        for _ in range(ROUNDS):
            write_back(descriptor, str(workspace), upper, CAPS)
    os.close(descriptor)
    assert is_untouched(victim)
    assert not [name for name in os.listdir(workspace) if name.endswith(".tmp")]


@pytest.mark.parametrize("there_before", [True, False])
def test_results_where_somebody_renames_everything(
    tmp_path: Path, upper: int, victim: Path, there_before: bool
) -> None:
    base = tmp_path / "base"
    base.mkdir()

    def step(turn: int) -> None:
        """Take whatever appears, the collector's own temporary folder too, for a link."""
        folder = base / "out" if there_before else base
        for name in os.listdir(folder):
            if not os.path.islink(folder / name):
                os.rename(folder / name, tmp_path / f"taken{turn}")
                os.symlink(victim, folder / name)

    outcomes = {"written": 0, "failed": 0}
    for turn in range(ROUNDS):
        if turn >= ROUNDS // 10 and outcomes["failed"]:
            break
        if there_before:
            (base / "out").mkdir(exist_ok=True)
        with attacking(step):
            try:
                with open_results(str(base / "out")) as place:
                    collect_results(place, upper, None, CAPS)
                outcomes["written"] += 1
            except BeddelError:
                outcomes["failed"] += 1
        assert is_untouched(victim), turn
        _empty(base)
    assert outcomes["failed"] > 0, "the attack met the collector"


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_symlink() or not path.is_dir():
            path.unlink()
        else:
            _empty(path)
            path.rmdir()


def test_a_name_taken_by_another_is_never_replaced(tmp_path: Path, upper: int) -> None:
    """Somebody makes the very folder, with a file of theirs in it, at any moment."""
    base = tmp_path / "base"
    base.mkdir()

    def step(_turn: int) -> None:
        (base / "out").mkdir()
        (base / "out" / "theirs").write_text("theirs", "utf-8")

    outcomes = {"written": 0, "refused": 0}
    for _ in range(ROUNDS // 10):
        with attacking(step):
            try:
                with open_results(str(base / "out")) as place:
                    collect_results(place, upper, None, CAPS)
                outcomes["written"] += 1
            except BeddelError:
                outcomes["refused"] += 1
        names = sorted(os.listdir(base / "out"))
        assert names in (["g", "sub"], ["theirs"], ["g", "sub", "theirs"]), names
        if "theirs" in names:
            assert (base / "out" / "theirs").read_text("utf-8") == "theirs"
        assert os.listdir(base) == ["out"]
        _empty(base)
    assert outcomes["refused"] > 0, outcomes
