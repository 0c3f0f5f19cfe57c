"""What is taken of what a program left, and where it is put."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from beddel_cli.errors import BeddelError, ReceiptWriteError, UsageError
from beddel_cli.process.collect import (
    CollectedFile,
    Collection,
    collect_results,
    open_results,
    survey,
    write_back,
)
from beddel_cli.process.collect_rules import (
    MAX_DEPTH,
    Caps,
    Deleted,
    Skipped,
    classify,
    path_text,
    replaced_mode,
    result_mode,
)
from tests.support.capabilities import require
from tests.support.overlay import leave

PLENTY = Caps(total_bytes=64 << 20, entries=20_000)


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def descriptor(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)


def collect(
    upper: Path | int, results: Path, caps: Caps = PLENTY, lower: Path | None = None
) -> Collection:
    """Collect by hand: `upper` is a folder or a descriptor that is used up."""
    source = upper if isinstance(upper, int) else descriptor(upper)
    below = None if lower is None else os.open(lower, os.O_PATH)
    try:
        with open_results(str(results)) as place:
            return collect_results(place, source, below, caps)
    finally:
        os.close(source)
        if below is not None:
            os.close(below)


def put_back(upper: Path | int, workspace: Path, caps: Caps = PLENTY) -> Collection:
    source = upper if isinstance(upper, int) else descriptor(upper)
    folder = os.open(workspace, os.O_PATH)
    try:
        return write_back(folder, str(workspace), source, caps)
    finally:
        os.close(source)
        os.close(folder)


def tree(folder: Path) -> dict[str, str]:
    """Give every path below a folder with its type, mode and content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        kind = stat.filemode(status.st_mode)
        content = path.read_text("utf-8") if path.is_file() and not path.is_symlink() else ""
        found[str(path.relative_to(folder))] = f"{kind} {content}".strip()
    return found


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    folder = tmp_path / "upper"
    folder.mkdir()
    return folder


@pytest.fixture
def deep(upper: Path) -> Iterator[Path]:
    """The upper folder of a test that makes it too deep for Python to remove."""
    yield upper
    subprocess.run(["rm", "-rf", str(upper)], check=True)


def open_count() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_files_and_folders_appear_with_digests(upper: Path, tmp_path: Path) -> None:
    (upper / "b").write_text("second", "utf-8")
    (upper / "sub" / "deeper").mkdir(parents=True)
    (upper / "sub" / "deeper" / "tool").write_text("#!/bin/sh", "utf-8")
    (upper / "sub" / "deeper" / "tool").chmod(0o6750)
    (upper / "a").write_text("first", "utf-8")
    (upper / "a").chmod(0o600)
    (upper / "sub").chmod(0o1777)
    before = open_count()
    got = collect(upper, tmp_path / "out")
    assert open_count() == before
    assert tree(tmp_path / "out") == {
        "a": "-rw-r--r-- first",
        "b": "-rw-r--r-- second",
        "sub": "drwxr-xr-x",
        "sub/deeper": "drwxr-xr-x",
        "sub/deeper/tool": "-rwxr-xr-x #!/bin/sh",
    }

    def said(path: str, content: str, mode: int) -> CollectedFile:
        digest = hashlib.sha256(content.encode()).hexdigest()
        return CollectedFile(path.encode(), len(content), digest, mode)

    assert got == Collection(
        files=(
            said("a", "first", 0o644),
            said("b", "second", 0o644),
            said("sub/deeper/tool", "#!/bin/sh", 0o755),
        ),
        folders=2,
        deleted=(),
        skipped=(),
        complete=True,
        total_bytes=len("firstsecond#!/bin/sh"),
    )
    assert os.listdir(tmp_path) == ["upper", "out"] or set(os.listdir(tmp_path)) == {"upper", "out"}
    assert all(p.lstat().st_uid == os.geteuid() for p in (tmp_path / "out").rglob("*"))


def test_times_are_kept(upper: Path, tmp_path: Path) -> None:
    (upper / "old").write_text("", "utf-8")
    (upper / "folder").mkdir()
    (upper / "folder" / "x").write_text("", "utf-8")
    for path in (upper / "old", upper / "folder"):
        os.utime(path, ns=(5_000_000_123, 1_000_000_456))
    collect(upper, tmp_path / "out")
    for name in ("old", "folder"):
        assert (tmp_path / "out" / name).stat().st_mtime_ns == 1_000_000_456


def test_the_umask_of_the_caller_counts(upper: Path, tmp_path: Path) -> None:
    (upper / "sub").mkdir()
    (upper / "sub" / "f").write_text("", "utf-8")
    os.umask(0o077)
    got = collect(upper, tmp_path / "out")
    assert tree(tmp_path / "out") == {"sub": "drwx------", "sub/f": "-rw-------"}
    assert got.files[0].mode == 0o600
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700


def make_special(upper: Path) -> dict[str, str]:
    """Make everything that is neither file nor folder; gives the reason each is skipped with."""
    (upper / "link").symlink_to("/etc/passwd")
    (upper / "folder-link").symlink_to("/etc")
    (upper / "dangling").symlink_to("nowhere")
    os.mkfifo(upper / "pipe")
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(upper / "sock"))
    sock.close()
    reasons = {
        "link": "it is a symbolic link",
        "folder-link": "it is a symbolic link",
        "dangling": "it is a symbolic link",
        "pipe": "it is a named pipe",
        "sock": "it is a socket",
    }
    # Anyone may make the device 0/0; without an overlay it is no mark of a deletion.
    os.mknod(upper / "null-null", stat.S_IFCHR | 0o600, os.makedev(0, 0))
    reasons["null-null"] = "it is a character device"
    if os.geteuid() == 0:
        os.mknod(upper / "mem", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(upper / "disk", stat.S_IFBLK | 0o666, os.makedev(7, 0))
        reasons |= {"mem": "it is a character device", "disk": "it is a block device"}
    return reasons


def test_special_files_are_named_and_not_taken(upper: Path, tmp_path: Path) -> None:
    reasons = make_special(upper)
    (upper / "plain").write_text("the control", "utf-8")
    got = collect(upper, tmp_path / "out")
    assert tree(tmp_path / "out") == {"plain": "-rw-r--r-- the control"}
    assert {item.path.decode(): item.reason for item in got.skipped} == reasons
    assert got.complete, "nothing that could be taken was left out"


def test_hard_links_become_files_of_their_own_and_count_each(upper: Path, tmp_path: Path) -> None:
    (upper / "0").write_bytes(b"x" * 1000)
    for number in range(1, 10):
        os.link(upper / "0", upper / str(number))
    got = collect(upper, tmp_path / "out", Caps(total_bytes=3500, entries=100))
    assert sorted(os.listdir(tmp_path / "out")) == ["0", "1", "2"]
    assert {(tmp_path / "out" / name).stat().st_nlink for name in "012"} == {1}
    assert got.skipped[0] == Skipped(b"3", "its 1000 bytes do not fit: 500 of 3500 bytes are left")
    assert (len(got.skipped), got.complete, got.total_bytes) == (7, False, 3000)


def test_a_smaller_file_still_fits(upper: Path, tmp_path: Path) -> None:
    (upper / "a").write_bytes(b"x" * 60)
    (upper / "b").write_bytes(b"x" * 60)
    (upper / "c").write_bytes(b"x" * 40)
    got = collect(upper, tmp_path / "out", Caps(total_bytes=100, entries=10))
    assert [file.path for file in got.files] == [b"a", b"c"]
    assert not got.complete


def test_entries_are_capped(upper: Path, tmp_path: Path) -> None:
    for number in range(8):
        (upper / f"d{number}").mkdir()
        (upper / f"d{number}" / "f").write_text("", "utf-8")
    got = collect(upper, tmp_path / "out", Caps(total_bytes=100, entries=5))
    assert sorted(tree(tmp_path / "out")) == ["d0", "d0/f", "d1", "d1/f", "d2"]
    assert {item.reason for item in got.skipped} == {"more than 5 files and folders"}
    assert (len(got.skipped), got.complete) == (11, False)


def test_ten_thousand_files(upper: Path, tmp_path: Path) -> None:
    for folder in range(100):
        (upper / f"{folder:02}").mkdir()
        for number in range(100):
            (upper / f"{folder:02}" / f"{number:02}").write_bytes(b"%d" % number)
    got = collect(upper, tmp_path / "out")
    assert (len(got.files), got.folders, got.complete) == (10_000, 100, True)
    assert (tmp_path / "out" / "99" / "42").read_bytes() == b"42"


def test_a_thousand_levels_end_at_the_cap(deep: Path, tmp_path: Path) -> None:
    here = descriptor(deep)
    for level in range(1000):
        os.mkdir("d", dir_fd=here)
        file = os.open(f"f{level}", os.O_CREAT | os.O_WRONLY, dir_fd=here)
        os.close(file)
        there = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = there
    os.close(here)
    before = open_count()
    got = collect(deep, tmp_path / "out")
    assert open_count() == before
    assert (len(got.files), got.folders, got.complete) == (MAX_DEPTH, MAX_DEPTH, False)
    lowest = b"/".join([b"d"] * MAX_DEPTH)
    reason = f"it lies deeper than {MAX_DEPTH} folders"
    assert got.skipped == (
        Skipped(lowest + b"/d", reason),
        Skipped(lowest + b"/f%d" % MAX_DEPTH, reason),
    )


def test_a_sparse_file_stays_sparse(upper: Path, tmp_path: Path) -> None:
    size = 1 << 30
    with (upper / "sparse").open("wb") as file:
        file.write(b"begin")
        file.seek(size // 2)
        file.write(b"middle")
        file.truncate(size)
    refused = collect(upper, tmp_path / "small")
    assert refused.skipped[0].reason == (
        f"its {size} bytes do not fit: {64 << 20} of {64 << 20} bytes are left"
    )
    assert not refused.complete
    got = collect(upper, tmp_path / "out", Caps(total_bytes=2 << 30, entries=10))
    copy = tmp_path / "out" / "sparse"
    assert copy.stat().st_size == size
    assert copy.stat().st_blocks * 512 < 1 << 20
    with copy.open("rb") as file:
        assert file.read(5) == b"begin"
        file.seek(size // 2)
        assert file.read(6) == b"middle"
    digest = hashlib.sha256()
    with (upper / "sparse").open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    assert got.files[0].sha256 == digest.hexdigest()


ODD_NAMES = (
    b"new\nline",
    b"\x1b[31mred",
    b"back\\slash",
    b"..\\up",
    b"...",
    b".. ",
    b"not-utf8-\xff\xfe",
    b"-rf",
    b"x" * 255,
    "\u202egnp.exe".encode(),
)


def test_odd_names_are_kept_byte_for_byte(upper: Path, tmp_path: Path) -> None:
    for name in ODD_NAMES:
        (Path(os.fsdecode(os.fsencode(upper) + b"/" + name))).write_bytes(name)
    got = collect(upper, tmp_path / "out")
    assert [file.path for file in got.files] == sorted(ODD_NAMES)
    assert sorted(os.listdir(os.fsencode(tmp_path / "out"))) == sorted(ODD_NAMES)
    texts = {path_text(file.path) for file in got.files}
    assert len(texts) == len(ODD_NAMES)
    assert {"back\\\\slash", "not-utf8-\\xff\\xfe"} <= texts
    assert all(text.encode("utf-8") for text in texts)


def test_a_text_stands_for_one_path() -> None:
    assert path_text(b"a\xffb") == "a\\xffb"
    assert path_text(b"a\\xffb") == "a\\\\xffb"


def test_a_path_nobody_could_open_is_skipped(upper: Path, tmp_path: Path) -> None:
    here = descriptor(upper)
    for _ in range(20):
        os.mkdir("n" * 200, dir_fd=here)
        there = os.open("n" * 200, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = there
    os.close(here)
    got = collect(upper, tmp_path / "out")
    assert got.folders == 15
    assert {item.reason for item in got.skipped} == {"its path is longer than 3072 bytes"}


@pytest.mark.parametrize("mode", [0o000, 0o100, 0o200, 0o400])
def test_rights_that_a_program_took_away_are_no_obstacle(
    upper: Path, tmp_path: Path, mode: int
) -> None:
    (upper / "closed").mkdir()
    (upper / "closed" / "f").write_text("inside", "utf-8")
    (upper / "closed" / "f").chmod(mode & 0o600)
    (upper / "closed").chmod(mode)
    upper_descriptor = descriptor(upper)
    upper.chmod(mode)
    try:
        got = collect(upper_descriptor, tmp_path / "out")
    finally:
        upper.chmod(0o700)
    assert tree(tmp_path / "out") == {"closed": "drwxr-xr-x", "closed/f": "-rw-r--r-- inside"}
    assert got.complete


def test_results_are_put_over_nothing(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("", "utf-8")
    (tmp_path / "file").write_text("mine", "utf-8")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    before, count = tree(tmp_path), open_count()
    wrong = {
        "full": "is a folder with something in it",
        "file": "cannot be used: it, or a part of it, is no folder",
        "link": "cannot be used: it, or a part of it, is no folder",
        "dangling": "cannot be used: it, or a part of it, is no folder",
        "file/below": "cannot be used: it, or a part of it, is no folder",
        "missing/new": "cannot be used: No such file or directory",
        "nul\0": "cannot be used: no folder can have that name",
        "..": "has no name of its own",
    }
    for name, message in wrong.items():
        path = f"{tmp_path}/{name}"
        with pytest.raises(UsageError) as caught:
            open_results(path)
        assert caught.value.message == f"--results {path!r} {message}"
        assert caught.value.expected in ("a new folder", "a new or empty folder")
    assert (tree(tmp_path), open_count()) == (before, count)
    for good in ("empty", "new", "new/"):
        open_results(f"{tmp_path}/{good}").__exit__()


def test_an_empty_folder_stays_itself(upper: Path, tmp_path: Path) -> None:
    (upper / "f").write_text("x", "utf-8")
    (upper / "sub").mkdir()
    out = tmp_path / "out"
    out.mkdir(0o750)
    inode = out.stat().st_ino
    collect(upper, out)
    assert tree(out) == {"f": "-rw-r--r-- x", "sub": "drwxr-xr-x"}
    assert (out.stat().st_ino, stat.S_IMODE(out.stat().st_mode)) == (inode, 0o750)


@pytest.mark.parametrize("there_before", [True, False])
def test_what_appears_meanwhile_is_not_written_over(
    upper: Path, tmp_path: Path, there_before: bool
) -> None:
    (upper / "f").write_text("the program's", "utf-8")
    out = tmp_path / "out"
    if there_before:
        out.mkdir()
    with open_results(str(out)) as place:
        out.mkdir(exist_ok=True)
        (out / "f").write_text("mine", "utf-8")
        source = descriptor(upper)
        with pytest.raises(ReceiptWriteError) as caught:
            collect_results(place, source, None, PLENTY)
        os.close(source)
    assert caught.value.message == (
        f"cannot write the results {str(out)!r}: something took the name meanwhile"
    )
    assert tree(out) == {"f": "-rw-r--r-- mine"}
    assert sorted(os.listdir(tmp_path)) == ["out", "upper"]


def test_a_full_disk_leaves_nothing(upper: Path, tmp_path: Path) -> None:
    import resource

    (upper / "a").write_text("fits", "utf-8")
    (upper / "sub").mkdir()
    (upper / "sub" / "b").write_bytes(bytes(range(256)) * 1000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(ReceiptWriteError) as caught:
            collect(upper, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.message.startswith("the file size limit (ulimit -f) does not allow")
    assert os.listdir(tmp_path) == ["upper"]
    # The control: without the limit it works.
    assert collect(upper, tmp_path / "out").complete


# entry: mode, device, size, whiteout, over an overlay; what it counts as
KINDS = (
    (stat.S_IFDIR | 0o700, 0, 0, False, True, "folder"),
    (stat.S_IFREG, 0, 5, False, True, "file"),
    (stat.S_IFREG, 0, 0, False, True, "file"),
    (stat.S_IFREG, 0, 0, True, True, "deleted"),
    (stat.S_IFREG, 0, 5, True, True, "file"),
    (stat.S_IFREG, 0, 0, True, False, "file"),
    (stat.S_IFCHR, 0, 0, False, True, "deleted"),
    (stat.S_IFCHR, 0, 0, False, False, "a character device"),
    (stat.S_IFCHR, os.makedev(1, 3), 0, False, True, "a character device"),
    (stat.S_IFBLK, 0, 0, False, True, "a block device"),
    (stat.S_IFIFO, 0, 0, False, True, "a named pipe"),
    (stat.S_IFSOCK, 0, 0, False, True, "a socket"),
    (stat.S_IFLNK, 0, 9, False, True, "a symbolic link"),
    (0, 0, 0, False, True, "of an unknown kind"),
)


@pytest.mark.parametrize(("mode", "device", "size", "whiteout", "overlay", "kind"), KINDS)
def test_kinds(mode: int, device: int, size: int, whiteout: bool, overlay: bool, kind: str) -> None:
    assert classify(mode, device, size, whiteout, overlay=overlay) == kind


@pytest.mark.parametrize(
    ("mode", "new", "there", "replaced"),
    [
        (0o100600, 0o644, 0o644, 0o644),
        (0o106777, 0o755, 0o644, 0o755),
        (0o100700, 0o755, 0o600, 0o700),
        (0o100644, 0o644, 0o4755, 0o644),
        (0o100100, 0o755, 0o440, 0o550),
        (0o100011, 0o644, 0o777, 0o666),
    ],
)
def test_modes(mode: int, new: int, there: int, replaced: int) -> None:
    assert (result_mode(mode), replaced_mode(mode, there)) == (new, replaced)


WORK = {"kept": "k", "changed": "old", "gone": "g", "folder/a": "a", "folder/b": "b", "sub/x": "x"}
CHANGES = """
echo -n new > changed
rm gone
rm -r folder
mkdir folder; echo -n fresh > folder/c
rm sub/x
mkdir -p made/deep; echo -n m > made/deep/f; chmod 4755 made/deep/f
mv kept moved
ln -s /etc/passwd link
mkfifo pipe
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    for name, content in WORK.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8")
    return folder


EXPECTED_DELETED = (
    Deleted(b"folder", contents=True),
    Deleted(b"gone", contents=False),
    Deleted(b"kept", contents=False),
    Deleted(b"sub/x", contents=False),
)
EXPECTED_SKIPPED = (
    Skipped(b"link", "it is a symbolic link"),
    Skipped(b"pipe", "it is a named pipe"),
)


def test_results_of_a_real_overlay(workspace: Path, tmp_path: Path) -> None:
    require("overlay")
    before = tree(workspace)
    got = collect(leave(workspace, CHANGES), tmp_path / "out", lower=workspace)
    assert tree(workspace) == before
    assert tree(tmp_path / "out") == {
        "changed": "-rw-r--r-- new",
        "folder": "drwxr-xr-x",
        "folder/c": "-rw-r--r-- fresh",
        "made": "drwxr-xr-x",
        "made/deep": "drwxr-xr-x",
        "made/deep/f": "-rwxr-xr-x m",
        "moved": "-rw-r--r-- k",
        "sub": "drwxr-xr-x",
    }
    assert (got.deleted, got.skipped, got.complete) == (EXPECTED_DELETED, EXPECTED_SKIPPED, True)


def test_writing_back_from_a_real_overlay(workspace: Path) -> None:
    require("overlay")
    got = put_back(leave(workspace, CHANGES), workspace)
    assert tree(workspace) == {
        "changed": "-rw-r--r-- new",
        "folder": "drwxr-xr-x",
        "folder/a": "-rw-r--r-- a",
        "folder/b": "-rw-r--r-- b",
        "folder/c": "-rw-r--r-- fresh",
        "gone": "-rw-r--r-- g",
        "kept": "-rw-r--r-- k",
        "made": "drwxr-xr-x",
        "made/deep": "drwxr-xr-x",
        "made/deep/f": "-rwxr-xr-x m",
        "moved": "-rw-r--r-- k",
        "sub": "drwxr-xr-x",
        "sub/x": "-rw-r--r-- x",
    }
    assert (got.deleted, got.skipped, got.complete) == (EXPECTED_DELETED, EXPECTED_SKIPPED, True)


def test_kinds_that_change_places(workspace: Path, tmp_path: Path) -> None:
    require("overlay")
    script = "rm -r folder; echo -n f > folder; rm gone; mkdir gone; echo -n i > gone/inside"
    before = tree(workspace)
    got = put_back(leave(workspace, script), workspace)
    assert tree(workspace) == before
    assert got.deleted == (Deleted(b"folder", contents=True),)
    assert [(item.path, item.reason) for item in got.skipped] == [
        (b"folder", "something else than a file has its name in the workspace"),
        (b"gone", "something else than a folder has its name in the workspace"),
    ]
    assert not got.complete
    again = collect(leave(workspace, script), tmp_path / "out", lower=workspace)
    assert tree(tmp_path / "out") == {
        "folder": "-rw-r--r-- f",
        "gone": "drwxr-xr-x",
        "gone/inside": "-rw-r--r-- i",
    }
    assert again.deleted == (Deleted(b"folder", contents=True),)


def test_a_file_that_is_replaced_keeps_who_may_read_it(upper: Path, workspace: Path) -> None:
    (workspace / "changed").chmod(0o600)
    (workspace / "gone").chmod(0o4755)
    for name in ("changed", "gone"):
        (upper / name).write_text("new", "utf-8")
        (upper / name).chmod(0o777)
    (upper / "gone").chmod(0o666)
    got = put_back(upper, workspace)
    assert tree(workspace)["changed"] == "-rwx------ new"
    assert tree(workspace)["gone"] == "-rw-r--r-- new"
    assert [(file.path, file.mode) for file in got.files] == [(b"changed", 0o700), (b"gone", 0o644)]


def test_another_name_of_a_replaced_file_keeps_its_content(
    upper: Path, workspace: Path, tmp_path: Path
) -> None:
    os.link(workspace / "changed", tmp_path / "elsewhere")
    (upper / "changed").write_text("new", "utf-8")
    put_back(upper, workspace)
    assert (workspace / "changed").read_text("utf-8") == "new"
    assert (tmp_path / "elsewhere").read_text("utf-8") == "old"


def test_writing_back_goes_through_no_link(upper: Path, workspace: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "sub").mkdir(parents=True)
    (outside / "target").write_text("untouched", "utf-8")
    (workspace / "to-folder").symlink_to(outside)
    (workspace / "to-file").symlink_to(outside / "target")
    os.mkfifo(workspace / "pipe")
    before = tree(outside)
    (upper / "to-folder" / "sub").mkdir(parents=True)
    (upper / "to-folder" / "sub" / "f").write_text("bad", "utf-8")
    (upper / "to-folder" / "f").write_text("bad", "utf-8")
    (upper / "to-file").write_text("good", "utf-8")
    (upper / "pipe").write_text("bad", "utf-8")
    (upper / "kept").write_text("good", "utf-8")
    got = put_back(upper, workspace)
    assert tree(outside) == before
    found = tree(workspace)
    assert (found["to-file"], found["kept"]) == ("-rw-r--r-- good", "-rw-r--r-- good")
    assert found["to-folder"].startswith("l")
    assert found["pipe"].startswith("p")
    assert [item.path for item in got.skipped] == [b"pipe", b"to-folder"]
    assert not got.complete
    assert not [name for name in os.listdir(workspace) if ".tmp" in name]


def test_a_survey_changes_no_order(upper: Path) -> None:
    for name in ("b", "a/z", "a/b", "a.x", "a-"):
        path = upper / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("", "utf-8")
    source = descriptor(upper)
    found = [b"/".join(item.path) for item in survey(source, None, PLENTY)]
    os.close(source)
    assert found == [b"a", b"a/b", b"a/z", b"a-", b"a.x", b"b"]


def test_a_file_that_grows_or_shrinks_is_cut_at_what_was_seen(upper: Path) -> None:
    from beddel_cli.process.collect import _copy

    (upper / "f").write_bytes(b"0123456789")
    for claimed, want in ((4, b"0123"), (10, b"0123456789"), (99, b"0123456789")):
        source = os.open(upper / "f", os.O_RDONLY)
        target = os.open(upper / f"copy{claimed}", os.O_WRONLY | os.O_CREAT)
        assert _copy(source, target, claimed) == (len(want), hashlib.sha256(want).hexdigest())
        os.close(source)
        os.close(target)
        assert (upper / f"copy{claimed}").read_bytes() == want


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for another owner")


OWNER = 54321


@as_root
def test_what_root_writes_back_belongs_to_the_workspaces_owner(
    upper: Path, workspace: Path
) -> None:
    for path in (workspace, *workspace.rglob("*")):
        os.chown(path, OWNER, OWNER + 1)
    (upper / "made").mkdir()
    (upper / "made" / "f").write_text("new", "utf-8")
    (upper / "changed").write_text("new", "utf-8")
    put_back(upper, workspace)
    for name in ("made", "made/f", "changed"):
        status = (workspace / name).stat()
        assert (status.st_uid, status.st_gid) == (OWNER, OWNER + 1), name


@as_root
def test_root_puts_nothing_into_somebody_elses_folder(upper: Path, workspace: Path) -> None:
    for path in (workspace, *workspace.rglob("*")):
        os.chown(path, OWNER, OWNER)
    os.chown(workspace / "folder", 0, 0)
    (upper / "folder").mkdir()
    (upper / "folder" / "a").write_text("bad", "utf-8")
    (upper / "sub").mkdir()
    (upper / "sub" / "x").write_text("good", "utf-8")
    got = put_back(upper, workspace)
    assert (workspace / "folder" / "a").read_text("utf-8") == "a"
    assert (workspace / "sub" / "x").read_text("utf-8") == "good"
    assert got.skipped == (
        Skipped(b"folder", "its folder in the workspace belongs to somebody else"),
    )


def test_what_cannot_be_read_is_our_error(tmp_path: Path) -> None:
    with pytest.raises(BeddelError) as caught:
        collect(os.open(os.devnull, os.O_RDONLY), tmp_path / "out")
    assert caught.value.message == "cannot read what the program left: Not a directory"
    assert os.listdir(tmp_path) == []
