"""The folders beddel trusts, and files written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from beddel_cli.errors import HomeError, ReceiptWriteError
from beddel_cli.home import (
    NoFolderError,
    create_once,
    locate,
    open_folder,
    shell_word,
    write_whole,
)

PROJECT = Path(__file__).parents[2]
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's files")


@contextlib.contextmanager
def umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture
def nobodys() -> Iterator[Path]:
    """A folder of the user nobody's, which only that user can enter."""
    if os.geteuid() != 0:
        pytest.skip("only root can act as another user")
    folder = Path(tempfile.mkdtemp())
    os.chown(folder, NOBODY, NOBODY)
    yield folder
    shutil.rmtree(folder)


def run_as_nobody(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Python code as nobody, in the first interpreter that nobody can reach."""
    drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(PROJECT)}
    for python in (sys.executable, "/usr/bin/python3"):
        can = subprocess.run(
            [*drop, python, "-c", "import beddel_cli.home"],
            env=environ,
            capture_output=True,
            check=False,
        )
        if can.returncode == 0:
            break
    else:
        pytest.skip("nobody can run no Python here that has this package")
    return subprocess.run(
        [*drop, python, "-c", code, *map(str, arguments)],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )


def test_default_places_are_below_home(tmp_path: Path) -> None:
    places = locate({"HOME": str(tmp_path)})
    assert places.home == f"{tmp_path}/.local/share/beddel-cli"
    assert places.cache == f"{tmp_path}/.cache/beddel-cli"


def test_xdg_folders_of_ours_count_and_relative_ones_do_not(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "XDG_DATA_HOME": f"{tmp_path}/data", "XDG_CACHE_HOME": "c"}
    places = locate(environ)
    assert places.home == f"{tmp_path}/data/beddel-cli"
    assert places.cache == f"{tmp_path}/.cache/beddel-cli"


def test_own_variables_win_and_are_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environ = {"BEDDEL_HOME": "h", "BEDDEL_CACHE_DIR": f"{tmp_path}/c", "XDG_DATA_HOME": "/x"}
    places = locate(environ)
    assert (places.home, places.cache) == (f"{tmp_path}/h", f"{tmp_path}/c")


@as_root
@pytest.mark.parametrize("variable", ["HOME", "XDG_DATA_HOME"])
def test_under_sudo_the_callers_folders_are_not_used(tmp_path: Path, variable: str) -> None:
    os.chown(tmp_path, NOBODY, NOBODY)
    asked = tmp_path / "not-made-yet" if variable == "XDG_DATA_HOME" else tmp_path
    home = locate({variable: str(asked)}).home
    assert home == f"{pwd.getpwuid(0).pw_dir}/.local/share/beddel-cli"


@pytest.mark.parametrize("environ", [{}, {"HOME": ""}, {"HOME": "/no/such/folder"}])
def test_without_a_home_the_user_database_is_asked(environ: dict[str, str]) -> None:
    assert locate(environ).home.startswith(pwd.getpwuid(os.geteuid()).pw_dir + "/")


@as_root
def test_user_without_any_home_is_told_what_to_set() -> None:
    code = (
        "import os; os.setresuid(54321, 54321, 54321)\n"
        "from beddel_cli.errors import HomeError\n"
        "from beddel_cli.home import locate\n"
        "try: locate({})\n"
        "except HomeError as error: print(error.message, '|', error.hint)\n"
    )
    # Root may still drop to a user the database does not know; imports happen before that.
    code = "import beddel_cli.home, pwd\n" + code
    environ = {"PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert "user 54321 has no home folder: HOME is not set" in done.stdout
    assert "export BEDDEL_HOME=" in done.stdout


@pytest.mark.parametrize(("home", "cache"), [("a", "a"), ("a", "a/c"), ("a/h", "a"), ("a", "link")])
def test_keys_and_caches_never_share_a_folder(tmp_path: Path, home: str, cache: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    environ = {"BEDDEL_HOME": f"{tmp_path}/{home}", "BEDDEL_CACHE_DIR": f"{tmp_path}/{cache}"}
    with pytest.raises(HomeError, match="overlap"):
        locate(environ)
    environ["BEDDEL_CACHE_DIR"] = f"{tmp_path}/ab"  # a common prefix of names is no overlap
    assert locate(environ).cache == f"{tmp_path}/ab"


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o777])
def test_folders_are_made_private_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    home = tmp_path / "deep" / "home"
    with umask(mask), open_folder(str(home)) as folder, folder.child("keys") as keys:
        assert keys.path == str(home / "keys")
    for path in (home.parent, home, home / "keys"):
        assert mode_of(path) == 0o700, path


def test_the_descriptor_is_the_folder_and_is_not_inherited(tmp_path: Path) -> None:
    with open_folder(str(tmp_path / "home")) as folder:
        assert os.fstat(folder.fd).st_ino == (tmp_path / "home").stat().st_ino
        assert not os.get_inheritable(folder.fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(folder.fd)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    before = os.listdir("/proc/self/fd")
    open_folder(str(tmp_path / "real")).close()
    open_folder(str(tmp_path / "link" / "inner")).close()
    for bad in ("link", "missing/x"):
        with pytest.raises(HomeError):
            open_folder(str(tmp_path / bad), create=False)
    assert os.listdir("/proc/self/fd") == before


def test_missing_folder_is_not_made_when_only_looked_for(tmp_path: Path) -> None:
    with pytest.raises(NoFolderError, match="does not exist"):
        open_folder(str(tmp_path / "home"), create=False)
    assert not (tmp_path / "home").exists()


def test_a_link_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "home").symlink_to("real")
    with pytest.raises(HomeError, match="is a link") as caught:
        open_folder(str(tmp_path / "home"))
    assert caught.value.hint == f"rm {tmp_path}/home"
    (tmp_path / "real" / "keys").symlink_to("..")
    real = open_folder(str(tmp_path / "real"))
    with real, pytest.raises(HomeError, match="is a link") as caught:
        real.child("keys")
    assert caught.value.hint == f"rm {tmp_path}/real/keys"


def test_links_of_ours_on_the_way_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "relative").symlink_to("real/inner/../inner")
    (tmp_path / "absolute").symlink_to(tmp_path / "relative")
    with open_folder(str(tmp_path / "absolute" / "home")) as folder:
        assert os.fstat(folder.fd).st_ino == (tmp_path / "real/inner/home").stat().st_ino


@as_root
def test_a_link_of_another_user_on_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    os.lchown(tmp_path / "link", NOBODY, NOBODY)
    with pytest.raises(HomeError, match=f"a link made by user {NOBODY}"):
        open_folder(str(tmp_path / "link" / "home"))
    assert list((tmp_path / "real").iterdir()) == []
    os.lchown(tmp_path / "link", 0, 0)
    open_folder(str(tmp_path / "link" / "home")).close()


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(HomeError, match="Too many levels of symbolic links"):
        open_folder(str(tmp_path / "a" / "home"))


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(HomeError, match="is a regular file, expected a folder"):
        open_folder(str(tmp_path / "home"))
    with pytest.raises(HomeError, match="Not a directory"):
        open_folder(str(tmp_path / "home" / "inner"))


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_folder_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(mode)
    with pytest.raises(HomeError, match=f"has mode {mode:04o}") as caught:
        open_folder(str(home))
    assert caught.value.hint == f"chmod 700 {home}"
    home.chmod(0o755)
    open_folder(str(home)).close()


@as_root
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o700)
    os.chown(tmp_path / "home", NOBODY, NOBODY)
    with pytest.raises(HomeError, match=f"belongs to user {NOBODY}, expected user 0") as caught:
        open_folder(str(tmp_path / "home"))
    assert caught.value.hint == f"sudo chown -R 0 {tmp_path}/home"


@as_root
def test_nobody_cannot_be_given_roots_folder(nobodys: Path) -> None:
    code = (
        "import sys\n"
        "from beddel_cli.errors import HomeError\n"
        "from beddel_cli.home import open_folder\n"
        "open_folder(sys.argv[1] + '/own').close()\n"
        "try: open_folder(sys.argv[1] + '/roots')\n"
        "except HomeError as error: print(error)\n"
    )
    (nobodys / "roots").mkdir(mode=0o755)
    done = run_as_nobody(code, nobodys)
    assert done.stdout == f"folder '{nobodys}/roots' belongs to user 0, expected user {NOBODY}\n"
    assert (nobodys / "own").stat().st_uid == NOBODY
    assert mode_of(nobodys / "own") == 0o700


@pytest.mark.parametrize("mask", [0o000, 0o077])
@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_files_have_their_mode_whatever_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    with umask(mask):
        write_whole(str(tmp_path / "r.json"), b"data", mode)
    assert (tmp_path / "r.json").read_bytes() == b"data"
    assert mode_of(tmp_path / "r.json") == mode
    assert os.listdir(tmp_path) == ["r.json"]


def test_an_older_file_is_replaced_and_its_other_names_are_not(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_bytes(b"old")
    os.link(tmp_path / "r.json", tmp_path / "other")
    write_whole(str(tmp_path / "r.json"), b"new", 0o600)
    assert (tmp_path / "r.json").read_bytes() == b"new"
    assert (tmp_path / "other").read_bytes() == b"old"


def test_a_plain_name_means_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_whole("r.json", b"data", 0o600)
    assert (tmp_path / "r.json").read_bytes() == b"data"


@pytest.mark.parametrize("target", ["victim", "nowhere"])
def test_a_link_is_not_written_through(tmp_path: Path, target: str) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "r.json").symlink_to(target)
    with pytest.raises(ReceiptWriteError, match="is a link"):
        write_whole(str(tmp_path / "r.json"), b"data", 0o600)
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert sorted(os.listdir(tmp_path)) == ["r.json", "victim"]


@pytest.mark.parametrize(
    ("make", "what"),
    [(os.mkfifo, "a named pipe"), (os.mkdir, "a folder")],
)
def test_only_regular_files_are_replaced(tmp_path: Path, make: object, what: str) -> None:
    assert callable(make)
    make(tmp_path / "r.json")
    with pytest.raises(ReceiptWriteError, match=f"exists and is {what}"):
        write_whole(str(tmp_path / "r.json"), b"data", 0o600)
    assert os.listdir(tmp_path) == ["r.json"]


def test_a_device_is_not_replaced() -> None:
    with pytest.raises(ReceiptWriteError, match="is a character device"):
        write_whole("/dev/null", b"data", 0o600)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize("path", ["", ".", "..", "x/", "/"])
def test_a_folder_is_not_a_file_name(path: str) -> None:
    with pytest.raises(ReceiptWriteError, match="expected a file name"):
        write_whole(path, b"data", 0o600)


def test_missing_folder_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ReceiptWriteError, match="does not exist") as caught:
        write_whole(f"{tmp_path}/my runs/r.json", b"data", 0o600)
    assert caught.value.hint == f"mkdir -p '{tmp_path}/my runs'"
    (tmp_path / "file").write_text("")
    with pytest.raises(ReceiptWriteError, match="is not a folder"):
        write_whole(f"{tmp_path}/file/r.json", b"data", 0o600)


def test_a_name_that_is_too_long_is_said(tmp_path: Path) -> None:
    with pytest.raises(ReceiptWriteError, match="too long"):
        write_whole(f"{tmp_path}/{'x' * 256}", b"data", 0o600)
    write_whole(f"{tmp_path}/{'x' * 255}", b"data", 0o600)
    assert os.listdir(tmp_path) == ["x" * 255]


@as_root
def test_folder_without_permission(nobodys: Path) -> None:
    code = (
        "import sys\n"
        "from beddel_cli.errors import ReceiptWriteError\n"
        "from beddel_cli.home import write_whole\n"
        "write_whole(sys.argv[1] + '/open/r', b'x', 0o600)\n"
        "try: write_whole(sys.argv[1] + '/shut/r', b'x', 0o600)\n"
        "except ReceiptWriteError as error: print(error)\n"
    )
    for name, mode in (("open", 0o755), ("shut", 0o555)):
        (nobodys / name).mkdir()
        os.chown(nobodys / name, NOBODY, NOBODY)
        (nobodys / name).chmod(mode)
    done = run_as_nobody(code, nobodys)
    assert done.stdout == f"folder '{nobodys}/shut' may not be written by user {NOBODY}\n"
    assert os.listdir(nobodys / "open") == ["r"]


def in_small_disk(tmp_path: Path, mount_options: str, code: str) -> str:
    """Run code with a small disk of its own mounted at tmp_path; give what it printed."""
    script = f'mount -t tmpfs -o {mount_options} none "$1" || exit 77; shift; exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "-", tmp_path, sys.executable, "-c", code, tmp_path],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip(f"cannot mount a disk here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout


TRY_WRITE = (
    "import os, sys\n"
    "from beddel_cli.errors import ReceiptWriteError\n"
    "from beddel_cli.home import write_whole\n"
    "try: write_whole(sys.argv[1] + '/r', b'x' * 100_000, 0o600)\n"
    "except ReceiptWriteError as error: print(error.message)\n"
    "print(os.listdir(sys.argv[1]))\n"
)


@as_root
def test_full_disk(tmp_path: Path) -> None:
    assert in_small_disk(tmp_path, "size=1m", TRY_WRITE) == "['r']\n"
    assert in_small_disk(tmp_path, "size=16k", TRY_WRITE) == (
        f"the disk is full: cannot write '{tmp_path}/r'\n[]\n"
    )


@as_root
def test_read_only_disk(tmp_path: Path) -> None:
    assert in_small_disk(tmp_path, "ro", TRY_WRITE) == (
        f"the file system of '{tmp_path}' is read-only\n[]\n"
    )


def test_file_size_limit_leaves_nothing_half_written(tmp_path: Path) -> None:
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n" + TRY_WRITE
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "the file size limit (ulimit -f)" in done.stdout
    assert done.stdout.endswith("[]\n")


def test_an_interrupted_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole(str(tmp_path / "r"), b"data", 0o600)
    assert os.listdir(tmp_path) == []


def test_create_once_keeps_the_first(tmp_path: Path) -> None:
    with open_folder(str(tmp_path)) as folder, umask(0):
        assert create_once(folder.fd, "key", b"first", 0o600)
        assert not create_once(folder.fd, "key", b"second", 0o600)
    assert (tmp_path / "key").read_bytes() == b"first"
    assert mode_of(tmp_path / "key") == 0o600
    assert os.listdir(tmp_path) == ["key"]


def test_create_once_does_not_follow_a_link(tmp_path: Path) -> None:
    (tmp_path / "key").symlink_to("elsewhere")
    with open_folder(str(tmp_path)) as folder:
        assert not create_once(folder.fd, "key", b"data", 0o600)
    assert os.listdir(tmp_path) == ["key"]


def test_of_many_at_once_exactly_one_is_first(tmp_path: Path) -> None:
    ready, go = os.pipe()
    children = []
    for number in range(8):
        child = os.fork()
        if child == 0:
            os.close(go)
            os.read(ready, 1)  # all wait for the same end of file
            first = False
            with contextlib.suppress(BaseException), open_folder(str(tmp_path)) as folder:
                first = create_once(folder.fd, "key", b"%d" % number * 9000, 0o600)
            os._exit(number if first else 100)
        children.append(child)
    os.close(ready)
    os.close(go)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    winners = [code for code in codes if code != 100]
    assert len(winners) == 1
    assert (tmp_path / "key").read_bytes() == b"%d" % winners[0] * 9000
    assert os.listdir(tmp_path) == ["key"]


def test_shell_word_survives_a_shell() -> None:
    for text in ("plain/path-1.x", "two words", "it's", "$(id)", "", "a\nb", "größe", "-n"):
        script = f"printf %s {shell_word(text)}" if text != "-n" else "printf -- %s -n"
        shown = subprocess.run(["sh", "-c", script], capture_output=True, check=True).stdout
        assert shown.decode() == text
