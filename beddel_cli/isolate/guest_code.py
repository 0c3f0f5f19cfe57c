"""Find the guest's native code and load it only from where nobody else could have put it.

Precompiled code is native code: whoever can write the file runs as us. So it comes from the
installed package, with its owner and its path checked through the open descriptor, or from our
own 0700 cache, where the bytes that are loaded are the bytes that were hashed. Code made by another
wasmtime version or for other settings is refused by the engine, and compiled anew into the cache.
"""

from __future__ import annotations

import hashlib
import os
import stat

from beddel_cli.errors import GuestError, HomeError
from beddel_cli.guests import CODE_FILE, WASM_FILE
from beddel_cli.isolate.engine_settings import (
    baseline_target,
    library_folder,
    library_version,
    settings_text,
)
from beddel_cli.isolate.wasm import Engine, EngineError
from beddel_cli.record import record

_WORLD_WRITE = stat.S_IWOTH
_DIGEST_BYTES = 32


@record
class LoadedGuest:
    """A module handle, and whether its code was `packaged`, `cached` or `compiled` just now."""

    module: int
    source: str


def _trusted_owners() -> frozenset[int]:
    # Whoever owns our Python files runs as us already, so their native code adds no new power.
    return frozenset((0, os.geteuid(), os.stat(__file__).st_uid))


def _check_owner(status: os.stat_result, path: str) -> None:
    if status.st_uid not in _trusted_owners():
        raise GuestError(
            f"{path} belongs to user {status.st_uid}",
            expected="root or the user who runs beddel-cli",
            hint="reinstall beddel-cli as yourself",
        )
    sticky_folder = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    writable_by_all = status.st_mode & _WORLD_WRITE and not sticky_folder
    by_group = status.st_mode & stat.S_IWGRP and not sticky_folder
    if writable_by_all or (by_group and not _is_private_group(status.st_gid)):
        raise GuestError(
            f"{path} can be written by others (mode {stat.S_IMODE(status.st_mode):04o})",
            hint=f"chmod go-w {path}",
        )


def _is_private_group(group: int) -> bool:
    """Tell whether a group is root's or has this user as its only member, as Debian makes them."""
    if group == 0:
        return True
    import grp
    import pwd

    try:
        found, user = grp.getgrgid(group), pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    members = set(found.gr_mem) | {found.gr_name}
    return group == user.pw_gid and members == {user.pw_name}


def open_packaged(path: str) -> int:
    """Open a file of the installed package; gives a descriptor whose owner and path were checked.

    Raises:
        GuestError: it is missing, a link, or others can write it or a folder above it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise GuestError(
            f"the JavaScript guest is not usable: {path}: {error.strerror}",
            hint="pip install --force-reinstall beddel-cli",
        ) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise GuestError(f"{path} is not a regular file")
        _check_owner(status, path)
        folder = os.path.dirname(os.path.realpath(f"/proc/self/fd/{descriptor}"))
        while True:
            _check_owner(os.stat(folder), folder)
            if folder == "/":
                return descriptor
            folder = os.path.dirname(folder)
    except BaseException:
        os.close(descriptor)
        raise


def read_packaged_wasm() -> bytes:
    """Read the guest's portable module from the installed package; raises as `open_packaged`."""
    with os.fdopen(open_packaged(WASM_FILE), "rb") as file:
        return file.read()


def load_guest(engine: Engine) -> LoadedGuest:
    """Load the guest's native code, the cheapest way that is sound.

    Raises:
        GuestError: no usable guest, or no cache folder to compile into.
    """
    descriptor = open_packaged(CODE_FILE)
    try:
        return LoadedGuest(engine.load_file(b"/proc/self/fd/%d" % descriptor), "packaged")
    except EngineError:
        # Another wasmtime version or processor than the wheel was built for.
        return _load_cached(engine)
    finally:
        os.close(descriptor)


def _cache_name(wasm: bytes) -> str:
    version = library_version(library_folder())
    text = "\n".join((version, settings_text(), baseline_target()))
    key = hashlib.sha256(text.encode() + b"\n" + hashlib.sha256(wasm).digest())
    return f"javascript-{key.hexdigest()[:32]}.cwasm"


def _load_cached(engine: Engine) -> LoadedGuest:
    from beddel_cli.home import locate, open_folder, write_whole

    wasm = read_packaged_wasm()
    with open_folder(locate(os.environ).cache) as folder:
        path = os.path.join(folder.path, _cache_name(wasm))
    code = _read_cached(path)
    if code is not None:
        try:
            return LoadedGuest(engine.load_bytes(code), "cached")
        except EngineError:
            # A damaged or foreign file under our key: made again below.
            code = None
    code = Engine(engine.library, target=baseline_target()).compile(wasm)
    write_whole(path, hashlib.sha256(code).digest() + code, 0o600)
    return LoadedGuest(engine.load_bytes(code), "compiled")


def _read_cached(path: str) -> bytes | None:
    """Give cached code whose digest fits, or None when it must be made again."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HomeError(f"cannot read the cached guest {path}: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            return None
        data = file.read()
    digest, code = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    return code if hashlib.sha256(code).digest() == digest else None
