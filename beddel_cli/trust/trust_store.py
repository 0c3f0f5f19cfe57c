"""Where a list of trusted keys is kept, and the memory of the newest one that was seen.

A list that is given by name is checked by its signature, so links to it are its reader's own. What
is in BEDDEL_HOME is read through no link and only if it is ours.

The memory holds, for each root key, the highest serial number seen and the digest of that list. It
is what makes an old copy, put back in the place of a newer one, stand out before it ends; two lists
with one number, too.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from hashlib import sha256

from beddel_cli.errors import BeddelError, TrustError
from beddel_cli.files import read_file
from beddel_cli.home import NoFolderError, open_folder, replace
from beddel_cli.record import record
from beddel_cli.trust.keys import MAX_KEY_BYTES, load_public_key
from beddel_cli.trust.trust_list import (
    MAX_TRUST_BYTES,
    SEEN_BEFORE,
    parse_trust,
    require_current,
    require_serial,
    trust_payload,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from beddel_cli.home import Folder
    from beddel_cli.trust.keys import PublicKey
    from beddel_cli.trust.trust_list import Trust

TRUST_NAME = "trust.json"
ROOT_PRIVATE_NAME = "root.pem"
ROOT_PUBLIC_NAME = "root.pub.pem"
_SEEN_FOLDER = "trust-seen"
_MOST_SEEN_BYTES = 256
_NO_MEMORY = "nothing here remembers the newest list of trusted keys"


@record
class LoadedTrust:
    """A list that is current by its own end and by this machine's memory.

    Attributes:
        path: the file it is from.
        warning: why an older copy would not have been noticed here; None if it would have.
    """

    trust: Trust
    path: str
    warning: str | None


def load_trust(path: str, roots: Iterable[PublicKey], home: str | None, now_ms: int) -> LoadedTrust:
    """Read a list that a person named, and remember its number.

    Args:
        home: where the memory is; None: there is none.

    Raises:
        TrustError: it is not by one of the root keys, has ended, or is older than one seen before.
        NotFoundError, JobError: the file cannot be read.
    """
    return _current(
        read_file(path, "list of trusted keys", MAX_TRUST_BYTES), path, roots, home, now_ms
    )


def load_home_trust(home: str, now_ms: int) -> LoadedTrust | None:
    """Read the list of this home with its own root key; None where there is none.

    Raises:
        TrustError, HomeError: it is there and cannot be used.
    """
    data = home_trust_bytes(home)
    if data is None:
        return None
    path, root = os.path.join(home, TRUST_NAME), home_root(home)
    if root is None:
        raise TrustError(f"{path!r} is there, and its root key {ROOT_PUBLIC_NAME!r} is not")
    return _current(data, path, [root], home, now_ms)


def home_trust_bytes(home: str) -> bytes | None:
    """Give the list that is in a home, as it is; None where there is none."""
    try:
        with open_folder(home, create=False) as folder:
            return read_own(folder, TRUST_NAME, MAX_TRUST_BYTES)
    except NoFolderError:
        return None


def home_root(home: str) -> PublicKey | None:
    """Give the root key whose lists this home believes; None where there is none."""
    try:
        with open_folder(home, create=False) as folder, folder.child("keys", create=False) as keys:
            pem = read_own(keys, ROOT_PUBLIC_NAME, MAX_KEY_BYTES)
    except NoFolderError:
        return None
    return (
        None
        if pem is None
        else load_public_key(pem, repr(os.path.join(keys.path, ROOT_PUBLIC_NAME)))
    )


def _current(
    data: bytes, path: str, roots: Iterable[PublicKey], home: str | None, now_ms: int
) -> LoadedTrust:
    trust = parse_trust(data, roots)
    require_current(trust, now_ms)
    if home is None:
        return LoadedTrust(trust, path, f"{_NO_MEMORY} (there is no home folder)")
    try:
        remember(home, trust)
    except TrustError:
        raise
    except (BeddelError, OSError) as error:
        why = error.message if isinstance(error, BeddelError) else os.strerror(error.errno or 0)
        return LoadedTrust(trust, path, f"{_NO_MEMORY} ({why})")
    return LoadedTrust(trust, path, None)


def remember(home: str, trust: Trust) -> None:
    """Compare a list with the newest seen, and write down which that is now.

    Raises:
        TrustError: it is older than that, or another one with the same number.
        HomeError, ReceiptWriteError, OSError: the memory cannot be used.
    """
    digest = sha256(trust_payload(trust)).hexdigest()
    with open_folder(home) as folder, folder.child(_SEEN_FOLDER) as seen:
        import fcntl  # after a home was found, so on Linux

        # Two readers at once must not leave the older of two numbers behind.
        fcntl.flock(seen.fd, fcntl.LOCK_EX)
        for root_id in trust.signed_by:
            serial, known = _seen(seen, root_id)
            require_serial(trust, serial, SEEN_BEFORE)
            if trust.serial == serial and digest != known:
                raise TrustError(
                    f"two different lists of trusted keys have serial {serial}: "
                    "one root key signed both, and this one is not the one seen before"
                )
            if trust.serial > serial:
                replace(seen.fd, root_id, f"{trust.serial} {digest}\n".encode(), 0o600)


def seen_serial(home: str, root_id: str) -> int:
    """Give the highest serial number seen of a root's lists; 0 if there was none."""
    try:
        with (
            open_folder(home, create=False) as folder,
            folder.child(_SEEN_FOLDER, create=False) as seen,
        ):
            return _seen(seen, root_id)[0]
    except NoFolderError:
        return 0


def _seen(seen: Folder, root_id: str) -> tuple[int, str]:
    data = read_own(seen, root_id, _MOST_SEEN_BYTES)
    if data is None:
        return 0, ""
    number, _, digest = data.decode("ascii", "replace").strip().partition(" ")
    if not number.isdigit() or len(digest) != 64:
        path = os.path.join(seen.path, root_id)
        raise TrustError(f"{path!r} should hold the newest serial number seen, and does not")
    return int(number), digest


def read_own(folder: Folder, name: str, most_bytes: int) -> bytes | None:
    """Read a file of a folder of ours, None if it is not there.

    Raises:
        TrustError: it is not a regular file of ours that only we can write, or too large.
    """
    path = os.path.join(folder.path, name)
    try:
        fd = os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder.fd
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TrustError(f"cannot read {path!r}: {os.strerror(error.errno or 0)}") from error
    try:
        status = os.fstat(fd)
        writable = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or writable:
            raise TrustError(f"{path!r} is not a regular file of ours that only we can write")
        data = b""
        while len(data) <= most_bytes and (part := os.read(fd, most_bytes + 1 - len(data))):
            data += part
    finally:
        os.close(fd)
    if len(data) > most_bytes:
        raise TrustError(f"{path!r} is too large", expected=f"at most {most_bytes} bytes")
    return data


@contextmanager
def locked(home: str) -> Iterator[None]:
    """Keep others who change keys or lists in this home waiting; make it if it is not there."""
    import fcntl

    with open_folder(home) as folder:
        fcntl.flock(folder.fd, fcntl.LOCK_EX)
        yield
