"""What is removed of what dead runs left, where somebody else chose what lies there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from beddel_cli import leftovers

NAME = ".beddel-0123456789abcdef.tmp"


def sweep(place: Path) -> list[str]:
    folder = os.open(place, os.O_RDONLY)
    try:
        leftovers.remove_dead(folder)
        return sorted(os.listdir(folder))
    finally:
        os.close(folder)


def deepen(path: Path, levels: int) -> None:
    path.mkdir()
    here = os.open(path, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def flatten(path: Path) -> None:
    """Remove such a folder, which is too deep for what Python has for that."""
    while (path / "d").exists():
        inner = path / "d"
        if (inner / "d").exists():
            (inner / "d").rename(path / "next")
        inner.rmdir()
        if (path / "next").exists():
            (path / "next").rename(inner)
    path.rmdir()


def test_a_folder_deeper_than_any_of_ours_stays_and_stops_nothing(tmp_path: Path) -> None:
    deepen(tmp_path / NAME, 1500)
    deepen(tmp_path / NAME.replace("0", "1"), 100)
    try:
        assert sweep(tmp_path) == [NAME]
    finally:
        flatten(tmp_path / NAME)


def test_nothing_behind_a_link_is_removed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"stays")
    place = tmp_path / "place"
    place.mkdir()
    (place / NAME).symlink_to(outside)
    (place / NAME.replace("0", "1")).mkdir()
    (place / NAME.replace("0", "1") / "link").symlink_to(outside)
    (place / NAME.replace("0", "2")).symlink_to(outside / "file")
    os.mkfifo(place / NAME.replace("0", "3"))
    assert sweep(place) == [NAME, NAME.replace("0", "2"), NAME.replace("0", "3")]
    assert (outside / "file").read_bytes() == b"stays"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_held_stays_until_it_is_let_go(tmp_path: Path, kind: str) -> None:
    path = tmp_path / NAME
    if kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"half")
    held = os.open(path, os.O_RDONLY)
    leftovers.hold(held)
    assert sweep(tmp_path) == [NAME]
    os.close(held)
    assert sweep(tmp_path) == []


def test_a_folder_is_only_removed_where_nobody_else_could_have_named_it(tmp_path: Path) -> None:
    place = tmp_path / "place"
    (place / NAME).mkdir(parents=True)
    place.chmod(0o777)
    assert sweep(place) == [NAME]
    place.chmod(0o1777)
    assert sweep(place) == []
