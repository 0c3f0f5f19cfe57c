"""What a hostile program leaves in its workspace, from behind real walls to the results."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from beddel_cli.process.collect import collect_results, open_results, write_back
from beddel_cli.process.collect_rules import Caps, Deleted
from tests.support import behind_walls
from tests.support.capabilities import require

CAPS = Caps(total_bytes=16 << 20, entries=1000)
HOSTILE = r"""
echo good > good; chmod 0700 good
ln -s /etc/shadow shadow
ln -s / everything
ln good second-name
mkfifo pipe
mkdir -p closed/inside; echo hidden > closed/inside/f
chmod 000 closed/inside/f closed/inside closed
printf x > "$(printf 'new\nline')"
truncate -s 1G sparse 2>/dev/null || true
rm old
chmod u+s good 2>/dev/null && echo suid
(sleep 1000; echo late > good) &
mknod null c 1 3 2>/dev/null && echo device
chmod 000 .
exit 3
"""


def _workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    (folder / "old").write_text("old", "utf-8")
    (folder / "kept").write_text("kept", "utf-8")
    return folder


def test_only_files_come_out(tmp_path: Path) -> None:
    require("overlay")
    workspace = _workspace(tmp_path)
    ended = behind_walls.run("sh", "-c", HOSTILE, workspace=workspace)
    assert (ended.code, ended.stdout) == (3, b""), ended.stderr
    below = os.open(workspace, os.O_PATH)
    with open_results(str(tmp_path / "out")) as place:
        got = collect_results(place, ended.upper, below, CAPS)
    os.close(below)
    os.close(ended.upper)
    found = {
        str(path.relative_to(tmp_path / "out")): path.lstat()
        for path in (tmp_path / "out").rglob("*")
        if not path.is_dir()
    }
    assert set(found) == {"good", "second-name", "closed/inside/f", "new\nline"} | (
        {"sparse"} & set(found)
    )
    for name, status in found.items():
        assert stat.S_ISREG(status.st_mode), name
        assert stat.S_IMODE(status.st_mode) & 0o7022 == 0, name
        assert (status.st_uid, status.st_nlink) == (os.geteuid(), 1), name
    assert (tmp_path / "out" / "good").read_text("utf-8") == "good\n"
    assert got.deleted == (Deleted(b"old", contents=False),)
    skipped = {item.path: item.reason for item in got.skipped}
    assert skipped[b"shadow"] == skipped[b"everything"] == "it is a symbolic link"
    assert skipped[b"pipe"] == "it is a named pipe"
    # The workspace itself is as it was.
    assert sorted(os.listdir(workspace)) == ["kept", "old"]


def test_written_back(tmp_path: Path) -> None:
    require("overlay")
    workspace = _workspace(tmp_path)
    script = "echo new > kept; mkdir -p a/b; echo x > a/b/c; rm old"
    ended = behind_walls.run("sh", "-ec", script, workspace=workspace)
    assert ended.code == 0, ended.stderr
    folder = os.open(workspace, os.O_PATH)
    got = write_back(folder, str(workspace), ended.upper, CAPS)
    os.close(folder)
    os.close(ended.upper)
    assert (workspace / "kept").read_text("utf-8") == "new\n"
    assert (workspace / "a" / "b" / "c").read_text("utf-8") == "x\n"
    assert (workspace / "old").read_text("utf-8") == "old"
    assert got.deleted == (Deleted(b"old", contents=False),)
    assert got.complete
    owner = workspace.stat().st_uid
    assert {path.lstat().st_uid for path in workspace.rglob("*")} == {owner}


def test_without_a_workspace_marks_of_an_overlay_mean_nothing(tmp_path: Path) -> None:
    require("overlay")
    ended = behind_walls.run("sh", "-ec", "echo x > f; mkdir d; echo y > d/g")
    assert ended.code == 0, ended.stderr
    with open_results(str(tmp_path / "out")) as place:
        got = collect_results(place, ended.upper, None, CAPS)
    os.close(ended.upper)
    assert [file.path for file in got.files] == [b"d/g", b"f"]
    assert (got.deleted, got.skipped) == ((), ())
