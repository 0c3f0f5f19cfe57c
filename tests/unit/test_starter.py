"""`init`: what it lays out, and what it leaves alone."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest

from beddel_cli import starter
from beddel_cli.errors import ReceiptWriteError, UsageError
from beddel_cli.starter import starter_files, with_schema, write_starter
from tests.support.named_files import load_job

SCHEMA = b'{"type": "object"}\n'
FILES = {
    "job.yaml": b"one",
    "job.schema.json": b"two",
    "samples/a.yaml": b"a",
    "samples/b.js": b"b",
}


def content(folder: Path) -> dict[str, bytes]:
    """Give every file below a folder."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_a_first_job_a_schema_and_every_sample_are_laid_out() -> None:
    files = starter_files(SCHEMA)
    assert files["job.schema.json"] == SCHEMA
    samples = {name for name in os.listdir(starter.samples_folder()) if name != "job.schema.json"}
    assert len(samples) >= 8
    assert set(files) == {"job.yaml", "job.schema.json", *(f"samples/{name}" for name in samples)}
    assert files["job.yaml"].startswith(b"# yaml-language-server: $schema=./job.schema.json\n")


def test_every_job_of_it_is_one_and_its_modeline_leads_to_the_schema(tmp_path: Path) -> None:
    write_starter(str(tmp_path), starter_files(SCHEMA), force=False)
    jobs = sorted(tmp_path.rglob("*.yaml"))
    assert len(jobs) >= 8
    for path in jobs:
        load_job(str(path))
        first, _, _ = path.read_text("utf-8").partition("\n")
        key, equals, schema = first.rpartition("$schema=")
        if equals:
            assert key == "# yaml-language-server: "
            assert (path.parent / schema).resolve() == tmp_path / "job.schema.json"
    assert load_job(str(tmp_path / "job.yaml")).id == "first-job"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"# yaml-language-server: $schema=job.schema.json\nbeddel: 1\n", b"{new}\nbeddel: 1\n"),
        (b"# yaml-language-server: $schema=x", b"{new}\n"),
        (b"# About\n# yaml-language-server: $schema=x\n", None),
        (b"beddel: 1\n", None),
        (b"", None),
    ],
)
def test_only_a_modeline_in_the_first_line_is_changed(before: bytes, after: bytes | None) -> None:
    new = b"# yaml-language-server: $schema=../s.json"
    expected = before if after is None else after.replace(b"{new}", new)
    assert with_schema(before, "../s.json") == expected


@pytest.mark.parametrize("name", [".", "new", "new/deep/er", "link"])
def test_the_folder_is_made_where_it_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if name == "link":
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
    written = write_starter(name, FILES, force=False)
    assert written == tuple(path if name == "." else f"{name}/{path}" for path in FILES)
    assert content(tmp_path / name) == FILES


@pytest.mark.parametrize("taken", FILES)
def test_a_file_that_is_there_is_left_alone_and_nothing_is_written(
    tmp_path: Path, taken: str
) -> None:
    path = tmp_path / taken
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"mine")
    with pytest.raises(UsageError) as caught:
        write_starter(str(tmp_path), FILES, force=False)
    assert caught.value.message == f"nothing was written: {str(path)!r} would be overwritten"
    assert caught.value.hint == "give another folder, or --force to replace these files"
    assert content(tmp_path) == {taken: b"mine"}
    write_starter(str(tmp_path), FILES, force=True)
    assert content(tmp_path) == FILES


def test_a_long_list_of_what_is_in_the_way_is_cut(tmp_path: Path) -> None:
    write_starter(str(tmp_path), FILES, force=False)
    with pytest.raises(UsageError, match=r"'.*/samples/a.yaml' and 1 more would be overwritten"):
        write_starter(str(tmp_path), FILES, force=False)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("kind", ["link", "dangling link", "folder", "fifo", "samples link"])
def test_nothing_is_written_through_a_link_or_over_what_is_no_file(
    tmp_path: Path, kind: str, force: bool
) -> None:
    folder, outside = tmp_path / "in", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (outside / "victim").write_bytes(b"mine")
    place = folder / ("samples" if kind == "samples link" else "job.schema.json")
    if kind == "folder":
        place.mkdir()
    elif kind == "fifo":
        os.mkfifo(place)
    else:
        targets = {"link": "victim", "dangling link": "nope", "samples link": "."}
        place.symlink_to(outside / targets[kind])
    with pytest.raises(UsageError) as caught:
        write_starter(str(folder), FILES, force=force)
    assert caught.value.message == f"nothing was written: {str(place)!r} cannot be replaced"
    assert content(outside) == {"victim": b"mine"}
    assert sorted(path.name for path in folder.iterdir()) == [place.name]
    place.rmdir() if kind == "folder" else place.unlink()
    write_starter(str(folder), FILES, force=force)
    assert content(folder) == FILES


def test_a_folder_that_is_a_file_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"mine")
    (tmp_path / "dangling").symlink_to("nope")
    for name in ("f", "f/deeper", "dangling"):
        with pytest.raises(UsageError, match="cannot be made a folder: a file is in the way"):
            write_starter(str(tmp_path / name), FILES, force=False)
    assert (tmp_path / "f").read_bytes() == b"mine"


def test_what_may_not_be_made_is_told_by_the_folder_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def may_not(path: str, mode: int = 0o777) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    # As for a user who is not root; and to root, nothing is closed.
    monkeypatch.setattr(os, "mkdir", may_not)
    with pytest.raises(ReceiptWriteError) as caught:
        write_starter(str(tmp_path / "new" / "deep" / "er"), FILES, force=False)
    assert caught.value.message.startswith(f"folder {str(tmp_path)!r} may not be written by user")


def test_what_was_made_is_taken_away_when_it_cannot_be_finished(tmp_path: Path) -> None:
    files = {**FILES, "samples/large": bytes(1 << 20)}
    (tmp_path / "there").mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, hard))
    try:
        for name in ("there", "new"):
            with pytest.raises(ReceiptWriteError) as caught:
                write_starter(str(tmp_path / name), files, force=False)
            path = str(tmp_path / name / "samples" / "large")
            assert (
                caught.value.message == f"the file size limit (ulimit -f) does not allow {path!r}"
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert list((tmp_path / "there").iterdir()) == []
    write_starter(str(tmp_path / "new"), files, force=False)
    assert content(tmp_path / "new") == files


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    write_starter(str(tmp_path), FILES, force=False)
    with pytest.raises(UsageError):
        write_starter(str(tmp_path), FILES, force=False)
    assert sorted(os.listdir("/proc/self/fd")) == before
