"""Opening what a program will be shown: the rules bind what was opened, whatever its name was."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from beddel_cli.errors import BeddelError, JobError, NotFoundError, Place, RefusedError, UsageError
from beddel_cli.files import Reach
from beddel_cli.home import Places
from beddel_cli.process import mount_sources
from beddel_cli.process.mount_rules import MountRequest, Protected
from beddel_cli.process.mount_sources import Opened, open_sources, protected_folders
from tests.support.capabilities import give_up, require

NO_REACH = Reach(None, ())
JOB = Place("job.yaml", 4, 9)


def ask(source: Path | str, mode: str = "ro", target: str = "/data") -> MountRequest:
    return MountRequest(str(source), target, mode != "ro")


def by_job(source: Path | str, mode: str = "ro", target: str = "/data") -> MountRequest:
    return MountRequest(str(source), target, mode != "ro", JOB)


@pytest.fixture
def protected(tmp_path: Path) -> tuple[Protected, ...]:
    """A home with beddel's folders in it, all of it below the test's own folder."""
    home = tmp_path / "me"
    (home / ".beddel" / "keys").mkdir(parents=True)
    return protected_folders(
        Places(str(home / ".beddel"), str(home / ".cache" / "beddel-cli")), {"HOME": str(home)}
    )


def opened(
    requests: Sequence[MountRequest],
    protected: Sequence[Protected] = (),
    reach: Reach = NO_REACH,
    **more: object,
) -> Opened:
    return open_sources(None, requests, protected, reach, **more)  # type: ignore[arg-type]


def refusal(request: MountRequest, protected: Sequence[Protected], reach: Reach = NO_REACH) -> str:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(RefusedError) as caught:
        opened([request], protected, reach)
    assert len(os.listdir("/proc/self/fd")) == len(before), "a descriptor was left open"
    return caught.value.found


@pytest.fixture(params=[True, False], ids=["openat2", "by steps"])
def any_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With openat2, and as on a machine that answers it with ENOSYS (an unknown number does)."""
    if not request.param:
        monkeypatch.setattr(mount_sources, "_SYS_OPENAT2", 9999)


@pytest.mark.usefixtures("any_way")
def test_a_folder_and_a_file(tmp_path: Path, protected: tuple[Protected, ...]) -> None:
    data = tmp_path / "me" / "data"
    data.mkdir()
    (data / "f").write_text("x", "utf-8")
    (tmp_path / "link").symlink_to(data)
    with opened([ask(tmp_path / "link", "rw"), ask(data / "f", target="/f")], protected) as got:
        folder, file = got.mounts
        assert (folder.source, folder.target, folder.writable, folder.folder) == (
            *(str(data), "/data", True, True),
        )
        assert (file.source, file.target, file.writable, file.folder) == (
            *(str(data / "f"), "/f", False, False),
        )
        assert os.fstat(folder.descriptor).st_ino == data.stat().st_ino
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.read(file.descriptor, 1)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(folder.descriptor)


@pytest.mark.usefixtures("any_way")
def test_protected_folders_by_any_name(tmp_path: Path, protected: tuple[Protected, ...]) -> None:
    for name, where in {"h": "me", "k": "me/.beddel/keys", "b": "me/.beddel", "u": "."}.items():
        (tmp_path / name).symlink_to(tmp_path / where)
    assert refusal(ask(tmp_path / "h"), protected) == "it is your home folder"
    assert refusal(ask(tmp_path / "me" / ".." / "me"), protected) == "it is your home folder"
    assert refusal(ask(tmp_path / "k"), protected) == "it lies in beddel's home"
    assert refusal(ask(tmp_path / "b"), protected) == "it is beddel's home"
    assert refusal(ask(tmp_path / "u"), protected) == "your home folder lies in it"
    assert refusal(ask("/"), protected).startswith("it is the root of the file system")
    # A cache that is not there yet, and will be.
    (tmp_path / "me" / ".cache").mkdir()
    assert refusal(ask(tmp_path / "me" / ".cache"), protected) == "beddel's cache lies in it"
    (tmp_path / "me" / "other").mkdir()
    opened([ask(tmp_path / "me" / "other")], protected).__exit__()


def test_both_homes_are_protected(tmp_path: Path) -> None:
    import pwd

    places = Places("/nowhere/a", "/nowhere/b")
    real = os.path.realpath(pwd.getpwuid(os.getuid()).pw_dir)
    paths = {item.path for item in protected_folders(places, {"HOME": str(tmp_path)})}
    assert {str(tmp_path), "/nowhere/a", "/nowhere/b"} <= paths
    assert real in paths or not os.path.isdir(real)
    relative = {item.path for item in protected_folders(places, {"HOME": "."})}
    assert os.getcwd() not in relative


@pytest.mark.usefixtures("any_way")
def test_only_folders_and_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "sock"))
    (tmp_path / "to-pipe").symlink_to("pipe")
    assert refusal(ask(tmp_path / "pipe"), ()) == "it is a named pipe"
    assert refusal(ask(tmp_path / "to-pipe"), ()) == "it is a named pipe"
    assert refusal(ask(tmp_path / "sock"), ()) == "it is a socket"
    assert refusal(ask("/dev/null"), ()) == "it is a character device"
    listener.close()


def test_magic_links_lead_nowhere(tmp_path: Path) -> None:
    held = os.open(tmp_path, os.O_RDONLY)
    for path in (f"/proc/self/fd/{held}", "/proc/self/root", "/proc/self/cwd"):
        assert "a link of /proc" in refusal(ask(path), ())
    os.close(held)


@pytest.mark.parametrize("path", ["/proc", "/proc/sys", "/sys/kernel", "/dev/shm", "/run"])
def test_the_systems_own(path: str) -> None:
    assert refusal(ask(path), ())


def test_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "f").write_text("", "utf-8")
    for name in ("missing", "dangling", "f/below"):
        with pytest.raises(NotFoundError) as caught:
            opened([ask(tmp_path / name)])
        assert caught.value.message == f"nothing to mount at {str(tmp_path / name)!r}"
    assert "links without an end" in refusal(ask(tmp_path / "loop"), ())
    with pytest.raises(UsageError) as usage:
        opened([ask(tmp_path / ("x" * 300))])
    assert usage.value.message.endswith("for a mount: File name too long")


@pytest.fixture
def reach(tmp_path: Path) -> Iterator[Reach]:
    """A job's folder, one that is allowed, and one that is neither."""
    for name in ("job/data", "lent/data", "other/data"):
        (tmp_path / name).mkdir(parents=True)
    own, allowed = (str(tmp_path / name) for name in ("job", "lent"))
    fds = [os.open(path, os.O_PATH) for path in (own, allowed)]
    yield Reach((own, fds[0]), ((allowed, fds[1]),))
    for fd in fds:
        os.close(fd)


def test_a_job_names_what_lies_within_its_reach(tmp_path: Path, reach: Reach) -> None:
    (tmp_path / "job" / "to-lent").symlink_to("../lent/data")
    (tmp_path / "lent" / "to-job").symlink_to("../job/data")
    for good in ("data", "./data", str(tmp_path / "job"), "to-lent", "../lent/data"):
        opened([by_job(good)], reach=reach).__exit__()
    for good in ("to-lent", str(tmp_path / "lent" / "data")):
        opened([by_job(good, "rw")], reach=reach).__exit__()
    # The job's folder by way of one that may be changed is still the job's folder.
    for bad in ("data", "../lent/to-job"):
        found = "the job's folder, which a job may read and not change"
        assert refusal(by_job(bad, "rw"), (), reach) == found


def test_a_job_names_nothing_else(tmp_path: Path, reach: Reach) -> None:
    (tmp_path / "job" / "out").symlink_to(tmp_path / "other")
    (tmp_path / "job" / "etc").symlink_to("/etc")
    for bad in ("..", "../other/data", "out/data", "etc", str(tmp_path / "other"), "/etc"):
        assert "allowed: " in refusal(by_job(bad), (), reach)
    # The control: from the command line it is the user's own choice.
    opened([ask(tmp_path / "other")]).__exit__()
    with pytest.raises(JobError) as caught:
        opened([by_job("data")])
    assert caught.value.message == "'data' is relative, and this job comes from no folder"


def test_writing_back_into_a_jobs_workspace_needs_permission(tmp_path: Path, reach: Reach) -> None:
    for source, good in (("data", False), ("../lent/data", True)):
        workspace = by_job(source, "overlay", "/workspace")
        open_sources(workspace, [], (), reach).__exit__()
        if good:
            open_sources(workspace, [], (), reach, write_back=True).__exit__()
            continue
        with pytest.raises(RefusedError) as caught:
            open_sources(workspace, [], (), reach, write_back=True)
        assert "which a job may read and not change" in caught.value.found
    mine = ask(tmp_path / "other", "overlay", "/workspace")
    open_sources(mine, [], (), NO_REACH, write_back=True).__exit__()


def test_the_workspace_is_not_mounted_rw_as_well(tmp_path: Path) -> None:
    (tmp_path / "w" / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to("w/sub")
    workspace = ask(tmp_path / "w", "overlay", "/workspace")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(RefusedError) as caught:
        open_sources(workspace, [ask(tmp_path / "link", "rw")], (), NO_REACH)
    assert caught.value.found.startswith("it overlaps the workspace")
    assert len(os.listdir("/proc/self/fd")) == before
    with open_sources(workspace, [ask(tmp_path / "link")], (), NO_REACH) as got:
        assert got.workspace is not None
        assert (got.workspace.target, got.workspace.writable) == ("/workspace", True)


def test_a_folder_that_is_gone_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    (tmp_path / "x (deleted)").mkdir()
    opened([ask(tmp_path / "x (deleted)")]).__exit__()
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert refusal(ask("."), ()).startswith("it was moved or deleted")
    folder.mkdir()
    assert refusal(ask("."), ()).startswith("it was moved or deleted")


ROUNDS = 3000


@pytest.mark.usefixtures("any_way")
def test_a_link_that_changes_all_the_time_never_shows_the_key(
    tmp_path: Path, protected: tuple[Protected, ...]
) -> None:
    """The name is judged nowhere: what was opened is, and either answer is for what was opened."""
    good, bad = tmp_path / "good", tmp_path / "me" / ".beddel" / "keys"
    good.mkdir()
    (tmp_path / "flip").symlink_to(good)
    stop = threading.Event()

    def swap() -> None:
        for turn in range(1 << 30):
            if stop.is_set():
                return
            os.symlink((good, bad)[turn % 2], tmp_path / "next")
            os.rename(tmp_path / "next", tmp_path / "flip")

    thread = threading.Thread(target=swap)
    thread.start()
    answers = {"good": 0, "refused": 0}
    try:
        for _ in range(ROUNDS):
            try:
                got = opened([ask(tmp_path / "flip")], protected)
            except BeddelError:
                answers["refused"] += 1
                continue
            with got:
                (mount,) = got.mounts
                assert mount.source == str(good)
                assert os.fstat(mount.descriptor).st_ino == good.stat().st_ino
            answers["good"] += 1
    finally:
        stop.set()
        thread.join()
    assert min(answers.values()) > 0, answers


@pytest.mark.parametrize("where", ["package", "process", "above"])
def test_our_own_code_may_be_read_and_not_changed(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "site" / "beddel_cli"
    (code / "process").mkdir(parents=True)
    monkeypatch.setattr(mount_sources, "__file__", str(code / "process" / "mount_sources.py"))
    places = Places(str(tmp_path / "none"), str(tmp_path / "cache"))
    protected = protected_folders(places, {"HOME": str(tmp_path / "nobody")})
    source = {"package": code, "process": code / "process", "above": tmp_path / "site"}[where]
    opened([ask(source)], protected).__exit__()
    assert "beddel-cli itself" in refusal(ask(source, "rw"), protected)
    (tmp_path / "site" / "other").mkdir()
    opened([ask(tmp_path / "site" / "other", "rw")], protected).__exit__()
    workspace = ask(source, "rw")
    open_sources(workspace, (), protected, NO_REACH).__exit__()
    with pytest.raises(RefusedError, match="cannot be shown"):
        open_sources(workspace, (), protected, NO_REACH, write_back=True)


IN_NAMESPACE = """
import os, subprocess, sys
sys.path[:0] = {path!r}
from tests.unit.test_mount_sources import ask, opened
from beddel_cli.errors import RefusedError
from beddel_cli.home import Places
from beddel_cli.process.mount_sources import protected_folders
base = {base!r}
places = Places(base + "/me/.beddel", base + "/me/.cache/b")
protected = protected_folders(places, {{"HOME": base + "/me"}})
for name, where in (("root", "/"), ("home", base + "/me"), ("keys", base + "/me/.beddel"),
                    ("good", base + "/plain")):
    os.mkdir(f"{{base}}/{{name}}")
    subprocess.run(["mount", "--rbind", where, f"{{base}}/{{name}}"], check=True)
    try:
        opened([ask(f"{{base}}/{{name}}")], protected).__exit__()
        print(name, "shown")
    except RefusedError as error:
        print(name, error.found)
    if name == "good":
        inner = base + "/good/in \\t ner"
        os.mkdir(inner)
        opened([ask(base + "/good")], protected).__exit__()
        print("still shown")
        subprocess.run(["mount", "-t", "tmpfs", "x", inner], check=True)
        try:
            opened([ask(base + "/good", "rw")], protected).__exit__()
            print("shown with what is mounted in it")
        except RefusedError as error:
            print(error.found == f"another file system is mounted in it, at {{inner}}")
"""


def test_bind_mounts_of_protected_folders(tmp_path: Path, protected: tuple[Protected, ...]) -> None:
    require("overlay")  # what it takes is a mount namespace
    assert protected
    (tmp_path / "plain").mkdir()
    (tmp_path / "me" / ".cache").mkdir()
    code = IN_NAMESPACE.format(path=[str(Path(__file__).parents[2])], base=str(tmp_path))
    namespaces = ["-m"] if os.geteuid() == 0 else ["-Urm"]
    done = subprocess.run(
        ["unshare", *namespaces, sys.executable, "-P", "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        give_up(done.stderr)
    assert done.stdout.splitlines() == [
        "root your home folder lies in it",
        "home it is your home folder",
        "keys it is beddel's home",
        "good shown",
        "still shown",
        "True",
    ]
