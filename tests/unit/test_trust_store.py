"""Where lists of trusted keys are kept, and how an old copy of one is noticed."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from beddel_cli.errors import JobError, NotFoundError, TrustError
from beddel_cli.home import open_folder
from beddel_cli.trust.keys import SigningKey
from beddel_cli.trust.trust_list import MAX_TRUST_BYTES
from beddel_cli.trust.trust_store import home_root, load_home_trust, load_trust
from tests.support.trusted import DAY, NOW, entry, new_key, public, trust_file

ROOT, KEY = new_key("ed25519"), new_key()
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's files")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., str]:
    """Write a list with a serial number to a file, and give its path."""

    def write(serial: int = 1, root: SigningKey = ROOT, owner: str = "ann") -> str:
        path = tmp_path / "trust.json"
        path.write_bytes(trust_file(root, entry(KEY, owner=owner), serial=serial))
        return str(path)

    return write


def load(path: str, home: Path, root: SigningKey = ROOT) -> int:
    loaded = load_trust(path, [public(root)], str(home), NOW)
    assert loaded.warning is None
    return loaded.trust.serial


def test_an_old_copy_that_is_put_back_is_noticed(home: Path, put: Callable[..., str]) -> None:
    assert load(put(3), home) == 3
    assert load(put(3), home) == 3
    assert load(put(5), home) == 5
    for serial in (4, 3, 1):
        with pytest.raises(TrustError, match="an old copy was put back") as caught:
            load(put(serial), home)
        assert caught.value.expected == "serial 5 or later"
    assert load(put(5), home) == 5
    assert load(put(6), home) == 6


def test_two_lists_with_one_number_are_noticed(home: Path, put: Callable[..., str]) -> None:
    assert load(put(3), home) == 3
    with pytest.raises(TrustError, match="two different lists"):
        load(put(3, owner="eve"), home)
    assert load(put(4, owner="eve"), home) == 4


def test_each_root_has_its_own_numbers(home: Path, put: Callable[..., str]) -> None:
    other = new_key()
    assert load(put(9), home) == 9
    assert load(put(1, other), home, other) == 1


def test_a_list_that_is_not_believed_is_not_remembered(home: Path, put: Callable[..., str]) -> None:
    with pytest.raises(TrustError, match="another root key"):
        load(put(9, new_key()), home)
    path = put(9)
    with pytest.raises(TrustError, match="ended at"):
        load_trust(path, [public(ROOT)], str(home), NOW + 31 * DAY)
    assert load(put(1), home) == 1


def test_readers_at_the_same_time_leave_the_highest_number(home: Path, tmp_path: Path) -> None:
    paths = []
    for serial in range(1, 9):
        path = tmp_path / f"{serial}.json"
        path.write_bytes(trust_file(ROOT, entry(KEY), serial=serial))
        paths.append(str(path))

    def read(path: str) -> None:
        for _ in range(5):
            try:
                load_trust(path, [public(ROOT)], str(home), NOW)
            except TrustError:
                return

    threads = [threading.Thread(target=read, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with pytest.raises(TrustError) as caught:
        load(paths[0], home)
    assert caught.value.expected == "serial 8 or later"


def test_readers_wait_for_each_other(home: Path, put: Callable[..., str]) -> None:
    path = put(3)
    assert load(path, home) == 3
    with open_folder(str(home / "trust-seen")) as seen:
        fcntl.flock(seen.fd, fcntl.LOCK_EX)
        thread = threading.Thread(target=load, args=(path, home))
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
    thread.join()


def test_without_a_memory_the_reader_is_told(home: Path, put: Callable[..., str]) -> None:
    home.mkdir(mode=0o700)
    home.chmod(0o777)
    loaded = load_trust(put(1), [public(ROOT)], str(home), NOW)
    assert loaded.warning is not None
    assert "others may write to it" in loaded.warning
    nowhere = load_trust(put(1), [public(ROOT)], None, NOW)
    assert str(nowhere.warning).startswith("nothing here remembers")


@pytest.mark.parametrize("content", [b"", b"x", b"5 short", b"-5 " + b"a" * 64, b"5" * 300])
def test_a_memory_that_was_spoilt_is_not_taken_for_none(
    home: Path, put: Callable[..., str], content: bytes
) -> None:
    assert load(put(5), home) == 5
    (home / "trust-seen" / ROOT.key_id).write_bytes(content)
    with pytest.raises(TrustError):
        load(put(5), home)


def test_a_named_list_may_be_a_link_but_nothing_else_than_a_file(
    home: Path, tmp_path: Path, put: Callable[..., str]
) -> None:
    link = tmp_path / "link"
    link.symlink_to(put(2))
    assert load(str(link), home) == 2
    fifo, folder, huge = tmp_path / "fifo", tmp_path / "folder", tmp_path / "huge"
    os.mkfifo(fifo)
    folder.mkdir()
    os.truncate(os.open(huge, os.O_CREAT | os.O_WRONLY), 1 << 40)
    for path in (fifo, folder, huge, Path("/dev/zero")):
        with pytest.raises(JobError):
            load(str(path), home)
    with pytest.raises(NotFoundError):
        load(str(tmp_path / "none"), home)


@pytest.fixture
def own(home: Path) -> Path:
    """A home with a list and its root key; gives the list's path."""
    (home / "keys").mkdir(parents=True, mode=0o700)
    home.chmod(0o700)
    (home / "keys" / "root.pub.pem").write_bytes(ROOT.public_pem)
    path = home / "trust.json"
    path.write_bytes(trust_file(ROOT, entry(KEY), serial=4))
    path.chmod(0o644)
    return path


def test_the_list_of_a_home(home: Path, own: Path) -> None:
    loaded = load_home_trust(str(home), NOW)
    assert loaded is not None
    assert (loaded.path, loaded.trust.serial) == (str(own), 4)
    own.write_bytes(trust_file(ROOT, entry(KEY), serial=3))
    with pytest.raises(TrustError, match="an old copy"):
        load_home_trust(str(home), NOW)
    own.unlink()
    assert load_home_trust(str(home), NOW) is None


def test_a_home_without_anything(home: Path) -> None:
    assert load_home_trust(str(home), NOW) is None
    assert home_root(str(home)) is None
    assert not home.exists()


def test_a_list_without_its_root_is_an_error_and_not_none(home: Path, own: Path) -> None:
    (home / "keys" / "root.pub.pem").unlink()
    with pytest.raises(TrustError, match="is there, and its root key"):
        load_home_trust(str(home), NOW)


def _link(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _huge(path: Path) -> None:
    os.truncate(path, MAX_TRUST_BYTES + 1)


@pytest.mark.parametrize(
    "spoil", [_link, _fifo, _folder, _huge, lambda path: path.chmod(0o666), Path.touch]
)
@pytest.mark.parametrize("which", ["trust.json", "keys/root.pub.pem"])
def test_what_is_read_from_a_home_is_a_file_of_ours(
    home: Path, own: Path, spoil: Callable[[Path], None], which: str
) -> None:
    spoil(home / which)
    if spoil is Path.touch:  # the control
        assert load_home_trust(str(home), NOW)
    else:
        with pytest.raises(TrustError):
            load_home_trust(str(home), NOW)


@as_root
@pytest.mark.parametrize("which", ["trust.json", "keys/root.pub.pem"])
def test_files_of_another_user_are_not_read(home: Path, own: Path, which: str) -> None:
    os.chown(home / which, 65534, 65534)
    with pytest.raises(TrustError, match="not a regular file of ours"):
        load_home_trust(str(home), NOW)
