"""The bounded copy of a workspace, and what is told afterwards to have changed."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from beddel_cli.process.collect import survey
from beddel_cli.process.collect_rules import DELETED, FILE, FOLDER, Caps, Found, changed_since
from beddel_cli.process.workspace_copy import (
    MAX_DEPTH,
    Copied,
    TooLargeError,
    copy_workspace,
    stays_inside,
)

CAPS = Caps(1 << 30, 10_000)


def copied(source: Path, target: Path, most_bytes: int = 1 << 20, entries: int = 100) -> Copied:
    target.mkdir(exist_ok=True)
    one = os.open(source, os.O_PATH)
    other = os.open(target, os.O_RDONLY)
    try:
        return copy_workspace(one, other, most_bytes, entries, None)
    finally:
        os.close(one)
        os.close(other)


def differences(target: Path, before: Copied) -> list[tuple[str, str, bool]]:
    folder = os.open(target, os.O_RDONLY)
    try:
        found = changed_since(survey(folder, None, CAPS), before.before)
    finally:
        os.close(folder)
    return [(b"/".join(item.path).decode(), item.kind, item.replaces) for item in found]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "c").mkdir()
    for name in ("one", "a/two", "a/b/three", "c/four"):
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.mark.parametrize(
    ("text", "depth", "inside"),
    [
        (b"file", 0, True),
        (b"a/../file", 0, True),
        (b"../file", 1, True),
        (b"./b//c", 0, True),
        (b"../file", 0, False),
        (b"a/../../file", 0, False),
        (b"../../file", 1, False),
        (b"/etc/passwd", 3, False),
        (b"../..", 2, True),
    ],
)
def test_a_link_stays_inside_or_not(text: bytes, depth: int, inside: bool) -> None:
    assert stays_inside(text, depth) is inside


def test_nothing_has_changed_where_nothing_was_done(source: Path, tmp_path: Path) -> None:
    (source / "link").symlink_to("one")
    target = tmp_path / "target"
    before = copied(source, target)
    assert differences(target, before) == []
    assert (target / "a" / "b" / "three").read_bytes() == b"a/b/three"
    assert os.readlink(target / "link") == "one"


def test_modes_and_times_are_kept_and_special_bits_are_not(source: Path, tmp_path: Path) -> None:
    (source / "one").chmod(0o6755)
    os.utime(source / "one", ns=(5, 7_000_000_123))
    copied(source, tmp_path / "target")
    status = (tmp_path / "target" / "one").stat()
    assert (status.st_mode & 0o7777, status.st_mtime_ns) == (0o755, 7_000_000_123)


def test_each_kind_of_change_is_told(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    before = copied(source, target)
    (target / "one").write_bytes(b"ONE")
    os.utime(target / "one", ns=(1, 1))
    (target / "a" / "b" / "three").unlink()
    (target / "new").mkdir()
    (target / "new" / "file").write_bytes(b"")
    assert differences(target, before) == [
        ("a/b/three", DELETED, False),
        *(("new", FOLDER, False), ("new/file", FILE, False), ("one", FILE, False)),
    ]


def test_a_folder_that_is_gone_or_another_one_is_told_once(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    before = copied(source, target)
    for path in ("a/b/three", "a/two", "c/four"):
        (target / path).unlink()
    (target / "a" / "b").rmdir()
    (target / "a").rmdir()
    (target / "c").rename(target / "d")
    (target / "a").write_bytes(b"a file now")
    (target / "c").mkdir()
    assert differences(target, before) == [
        *(("a", FILE, True), ("c", FOLDER, True), ("d", FOLDER, False)),
    ]


def test_a_file_that_is_exchanged_for_another_of_its_own_is_told(
    source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    before = copied(source, target)
    (target / "one").rename(target / "x")
    (target / "c" / "four").rename(target / "one")
    (target / "x").rename(target / "c" / "four")
    assert [name for name, _, _ in differences(target, before)] == ["c", "c/four", "one"]


def test_an_old_note_is_no_reason_to_take_something() -> None:
    before = {b"file": (7, 100), b"folder": (8, None)}
    same = (
        Found((b"file",), FILE, 1, 0, 0, 7, changed_ns=100),
        Found((b"folder",), FOLDER, 0, 0, 0, 8, changed_ns=999),
    )
    assert changed_since(same, before) == ()


@pytest.mark.parametrize(
    ("caps", "what"), [((10, 100), "bytes"), ((1 << 20, 3), "files and folders")]
)
def test_more_than_may_be_copied_is_told(
    source: Path, tmp_path: Path, caps: tuple[int, int], what: str
) -> None:
    with pytest.raises(TooLargeError) as told:
        copied(source, tmp_path / "target", *caps)
    assert told.value.what == what


def test_deeper_than_can_be_collected_is_not_copied(tmp_path: Path) -> None:
    here = tmp_path / "source"
    here.mkdir()
    for _ in range(MAX_DEPTH + 1):
        here /= "d"
        here.mkdir()
    with pytest.raises(TooLargeError, match="levels"):
        copied(tmp_path / "source", tmp_path / "target", entries=1000)


def test_what_is_no_file_or_folder_is_left_out(source: Path, tmp_path: Path) -> None:
    os.mkfifo(source / "fifo")
    (source / "out").symlink_to("../../x")
    found = copied(source, tmp_path / "target")
    assert [name for name, _ in found.left_out] == [b"fifo", b"out"]
    assert not (tmp_path / "target" / "fifo").exists()


def test_what_is_swapped_for_a_link_meanwhile_is_not_followed(source: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "two").write_bytes(b"SECRET")
    (source / "swap").symlink_to(secret)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            # Between one call and the next, `a` is a link to the secret folder.
            os.rename(source / "a", source / "away")
            os.rename(source / "swap", source / "a")
            os.rename(source / "a", source / "swap")
            os.rename(source / "away", source / "a")

    swapper = threading.Thread(target=swap)
    swapper.start()
    rounds = 0
    try:
        for number in range(150):
            target = tmp_path / f"target{number}"
            try:
                copied(source, target)
            except FileNotFoundError:
                continue  # it was gone for that moment
            rounds += 1
            for path in target.rglob("*"):
                assert path.is_symlink() or not path.is_file() or path.read_bytes() != b"SECRET"
    finally:
        stop.set()
        swapper.join()
    assert rounds


def test_what_is_gone_by_the_time_it_is_looked_at_is_passed_over(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: ["gone", *listed(folder)])
    found = copied(source, tmp_path / "target")
    assert {"one", "a", "c"} <= {path.decode() for path in found.before}
    assert not found.left_out
