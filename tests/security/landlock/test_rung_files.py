"""The copied workspace and the scratch folder of the landlock rung, and its sampled limits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.security.landlock.conftest import Rung
from tests.support.callers import PYTHON


def workspace(rung: Rung) -> Path:
    """Make a workspace with some of everything."""
    folder = rung.caller.folder("space", kept=b"as it was\n", edited=b"old\n", gone=b"x", tool=b"#")
    (folder / "sub").mkdir()
    (folder / "sub" / "below").write_bytes(b"deep\n")
    (folder / "tool").chmod(0o755)
    (folder / "inside").symlink_to("sub/below")
    (folder / "outside").symlink_to("../../elsewhere")
    (folder / "absolute").symlink_to("/etc/hostname")
    os.mkfifo(folder / "pipe")
    rung.caller.own(folder)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


CHANGES = (
    "set -e; cat kept sub/below inside; test -x tool; test ! -e pipe; "
    "echo new > edited; rm gone; echo more > sub/more; mkdir empty; ln -s /etc/shadow sly"
)


def test_results_are_what_was_changed(rung: Rung) -> None:
    folder = workspace(rung)
    before = content(folder)
    results = rung.caller.work / "results"
    done = rung.sh(CHANGES, "--workspace", folder, "--results", results)
    assert (done.returncode, done.stdout) == (0, b"as it was\ndeep\ndeep\n"), done.message
    assert content(results) == {"edited": b"new\n", "sub/more": b"more\n"}
    assert (results / "empty").is_dir()
    assert content(folder) == before
    assert "not copied for the program: 3, first absolute: a link that leads out" in done.message
    assert "not taken: 1 thing, first sly: it is a symbolic link" in done.message
    assert "deleted by it and still in the workspace: 1 thing" in done.message


def test_write_back_puts_what_was_changed_into_the_workspace(rung: Rung) -> None:
    folder = workspace(rung)
    before = content(folder)
    done = rung.sh(CHANGES, "--workspace", folder, "--write-back")
    assert done.returncode == 0, done.message
    assert content(folder) == before | {"edited": b"new\n", "sub/more": b"more\n"}
    assert rung.caller.predicate()["outcome"]["status"] == "success"


def test_a_change_that_is_hidden_is_found(rung: Rung) -> None:
    # Same length, and the times set back: only the kernel's own note of the change tells.
    folder = rung.caller.folder("space", file=b"before")
    script = "touch -r file ../tmp/t; printf after. > file; touch -r ../tmp/t file || :"
    results = rung.caller.work / "results"
    done = rung.sh(script, "--workspace", folder, "--results", results)
    assert done.returncode == 0, done.message
    assert content(results) == {"file": b"after."}


def test_a_read_only_workspace_cannot_be_written(rung: Rung) -> None:
    folder = rung.caller.folder("space", file=b"as it was")
    script = "cat file; echo x > file; echo x > new; echo $TMPDIR > $TMPDIR/x"
    done = rung.sh(script, "--workspace", f"{folder}:/workspace:ro")
    assert (done.returncode, done.stdout) == (0, b"as it was"), done.message
    assert done.message.count("Permission denied") == 2
    assert rung.sh(script, "--workspace", folder).message.count("Permission denied") == 0


@pytest.mark.parametrize(
    ("option", "most"),
    [(("--disk", "64KiB"), "64KiB"), (("--inodes", "20"), "20 files and folders")],
)
def test_a_workspace_that_is_too_large_is_refused(
    rung: Rung, option: tuple[str, str], most: str
) -> None:
    folder = rung.caller.folder("space", **{f"file{number}": b"x" * 5000 for number in range(30)})
    done = rung.exec("--workspace", folder, *option, "--", "true")
    assert done.returncode == 126
    assert f"a workspace of at most {most}" in done.message
    assert rung.exec("--workspace", folder, "--", "true").returncode == 0


def test_what_takes_a_mount_namespace_is_refused_with_a_fix(rung: Rung) -> None:
    folder = rung.caller.folder("space", file=b"x")
    for options, needs in (
        (("--workspace", f"{folder}:/elsewhere"), "a workspace at /elsewhere"),
        (("--mount", f"{folder}:/data"), f"{folder} at /data"),
        (("--mount", f"{folder}:/data:rw"), "a writable mount at /data"),
    ):
        done = rung.exec(*options, "--json", "--", "true")
        assert done.returncode == 126
        assert done.json["outcome"]["reason"] == "files"
        error = done.json["error"]
        assert needs in error["expected"]
        assert error["hint"]


def test_a_mount_is_read_where_it_lies(rung: Rung) -> None:
    data = rung.caller.folder("data", file=b"shown")
    beside = rung.caller.folder("beside", file=b"hidden")
    for each in (data, beside):
        each.chmod(0o755)
    script = f"cat {data}/file; cat {beside}/file; echo x > {data}/file; : > {data}/new"
    done = rung.sh(script, "--mount", f"{data}:{data}")
    assert done.stdout == b"shown"
    assert done.message.count("Permission denied") == 3
    assert sorted(path.name for path in data.iterdir()) == ["file"]
    assert (data / "file").read_bytes() == b"shown"


def test_only_the_owners_files_are_copied_for_root(rung: Rung) -> None:
    if os.geteuid() != 0 or rung.own_id:
        pytest.skip("only root could read more than the owner of a workspace")
    folder = rung.caller.folder("space", open=b"1", closed=b"2", private=b"3")
    os.chown(folder, 23456, 23456)
    (folder / "closed").chmod(0o600)
    (folder / "private").chmod(0o600)
    os.chown(folder / "private", 23456, 23456)
    done = rung.sh("cat open private; cat closed", "--workspace", folder)
    assert done.stdout == b"13"
    assert "not copied for the program: 1, first closed: it cannot be read" in done.message


def test_nobody_else_sees_a_scratch_folder(rung: Rung) -> None:
    before = rung.scratch_folders()
    run = rung.start("--", "sh", "-c", "echo secret > here; echo up; sleep 100")
    assert run.stdout is not None
    assert run.stdout.readline() == b"up\n"
    (mine,) = rung.scratch_folders() - before
    for inner in ("workspace", "tmp"):
        assert (mine / inner).stat().st_mode & 0o077 == 0
    assert mine.stat().st_mode & 0o022 == 0
    run.terminate()
    run.communicate(timeout=30)
    assert not rung.scratch_folders() - before


def test_what_is_found_too_much_after_the_end_is_no_success(rung: Rung) -> None:
    """Whether a look came in time or not; the program itself ended well."""
    code = "for name in 'abcd': open(name, 'wb').write(bytes(1 << 20))"
    done = rung.exec("--json", "--disk", "2MiB", "--", PYTHON, "-ISc", code)
    assert (done.returncode, done.json["outcome"]["reason"]) == (124, "disk"), done.json
    done = rung.exec("--json", "--disk", "5MiB", "--", PYTHON, "-ISc", code)
    assert (done.returncode, done.json["outcome"]["reason"]) == (0, "ok"), done.json


@pytest.mark.parametrize(
    ("options", "script", "reason"),
    [
        (
            ("--disk", "4MiB"),
            "for i in 1 2 3 4; do head -c 2000000 /dev/zero > f$i; done; sleep 20",
            "disk",
        ),
        (("--disk", "1MiB"), "head -c 20000000 /dev/zero > f", "disk"),
        (("--inodes", "200"), "i=0; while i=$((i+1)); do : > f$i; done", "inodes"),
        ((), "i=0; while [ $i -lt 300 ]; do i=$((i+1)); mkdir d; cd d; done; sleep 20", "inodes"),
    ],
    ids=["files", "one file", "inodes", "depth"],
)
def test_what_is_too_much_for_the_scratch_folder_ends_the_run(
    rung: Rung, options: tuple[str, ...], script: str, reason: str
) -> None:
    before = rung.scratch_folders()
    done = rung.sh(script, "--json", *options)
    told = done.json["outcome"]
    assert (done.returncode, told["reason"]) == (124, reason), done.json
    assert not rung.scratch_folders() - before
    used = rung.caller.predicate()["usage"]
    assert used["disk"]["source"] == "scratch folder, looked through at the end"
