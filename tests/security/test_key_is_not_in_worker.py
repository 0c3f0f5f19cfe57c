"""The signing key is nowhere in the memory of the process that runs the job.

A run is caught in the middle of an endless job and every readable page of its worker is searched.
The same search finds a canary from the job in the worker, and the key in the supervisor.
"""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from tests.support import processes
from tests.support.capabilities import require
from tests.support.cli import Home

CANARY = "canary-7f1c40d9-in-the-job"
PASSPHRASE = "correct horse 5d0e battery staple"
Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def memory_of(pid: int) -> Iterator[bytes]:
    """Give what every readable mapping of a process holds.

    Source: proc(5), /proc/PID/maps and /proc/PID/mem.
    """
    maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines()
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            addresses, rights, *_ = line.split()
            start, end = (int(part, 16) for part in addresses.split("-"))
            if not rights.startswith("r") or line.endswith(
                ("[vvar]", "[vsyscall]", "[vvar_vclock]")
            ):
                continue
            yield _read(memory.fileno(), start, end - start)


def _read(memory: int, start: int, size: int) -> bytes:
    parts = []
    while size:
        try:
            part = os.pread(memory, min(size, 1 << 24), start)
        except OSError:
            # A guard page or a mapping past the end of its file: there is nothing to read.
            break
        if not part:
            break
        parts.append(part)
        start += len(part)
        size -= len(part)
    return b"".join(parts)


def found(pid: int, needles: Mapping[str, bytes]) -> set[str]:
    """Give the names of the needles that stand anywhere in a process's memory."""
    names: set[str] = set()
    mappings = 0
    for data in memory_of(pid):
        mappings += 1
        names |= {name for name, needle in needles.items() if needle in data}
    assert mappings > 20
    return names


def secrets_of(pem: bytes, passphrase: str | None = None) -> dict[str, bytes]:
    """Give all forms in which a private key may stand in memory."""
    key = serialization.load_pem_private_key(pem, passphrase.encode() if passphrase else None)
    assert isinstance(key, Key)
    body = re.sub(rb"-----[^-]+-----|\s", b"", pem)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        scalar = key.private_numbers().private_value.to_bytes(32, "big")
    else:
        scalar = key.private_bytes_raw()
    plain = key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    lines = pem.split(b"\n")
    assert len(scalar) == 32
    return {
        "scalar": scalar,
        "scalar, little-endian": scalar[::-1],
        "scalar in hex": scalar.hex().encode(),
        "PEM body": body[20:60],
        "PEM line": lines[2][:40],
        "DER": base64.b64decode(body)[-40:],
        "plain DER": plain[-40:],
    }


@dataclass(frozen=True, slots=True)
class Caught:
    """A run in the middle of an endless job."""

    supervisor: int
    worker: int


@pytest.fixture
def catch(home: Home) -> Iterator[Callable[..., Caught]]:
    """Start a run, with its key from anywhere, and catch it in the middle."""
    require("trace")
    runs: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, **environment: str) -> Caught:
        job = home.job(f"const canary = '{CANARY}'\nfor (;;) ;")
        run = home.start("run", job, *arguments, env=home.environment(**environment))
        runs.append(run)
        worker = processes.wait_for(lambda: processes.busy_worker(run.pid), what="a busy worker")
        os.kill(worker, signal.SIGSTOP)
        return Caught(run.pid, worker)

    yield start
    for run in runs:
        run.kill()
        run.communicate(timeout=20)


def _new_key(passphrase: str | None = None) -> bytes:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase.encode())
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


def _assert_only_the_supervisor_knows(
    caught: Caught, secrets: dict[str, bytes], known: set[str]
) -> None:
    canary = {"canary": CANARY.encode()}
    assert found(caught.worker, canary | secrets) == {"canary"}
    assert found(caught.supervisor, canary | secrets) >= {"canary", *known}


def _first_run(home: Home) -> bytes:
    assert home.run("run", home.job("return 1", name="first")).returncode == 0
    return (home.home / "keys" / "signing.pem").read_bytes()


def test_key_of_the_home(home: Home, catch: Callable[..., Caught]) -> None:
    secrets = secrets_of(_first_run(home))
    caught = catch()
    _assert_only_the_supervisor_knows(caught, secrets, {"scalar, little-endian"})


def test_key_made_by_this_very_run(home: Home, catch: Callable[..., Caught]) -> None:
    caught = catch()
    secrets = secrets_of((home.home / "keys" / "signing.pem").read_bytes())
    _assert_only_the_supervisor_knows(caught, secrets, {"scalar, little-endian"})


def test_key_from_a_file(home: Home, catch: Callable[..., Caught]) -> None:
    path = home.work / "key.pem"
    path.write_bytes(_new_key())
    path.chmod(0o600)
    caught = catch("--signing-key", str(path))
    secrets = secrets_of(path.read_bytes())
    _assert_only_the_supervisor_knows(caught, secrets, {"scalar, little-endian"})


def test_key_from_the_environment(home: Home, catch: Callable[..., Caught]) -> None:
    pem = _new_key()
    caught = catch(BEDDEL_SIGNING_KEY=pem.decode())
    _assert_only_the_supervisor_knows(caught, secrets_of(pem), {"scalar, little-endian"})


def test_key_and_passphrase_from_the_environment(home: Home, catch: Callable[..., Caught]) -> None:
    pem = _new_key(PASSPHRASE)
    caught = catch(BEDDEL_SIGNING_KEY=pem.decode(), BEDDEL_KEY_PASSWORD=PASSPHRASE)
    secrets = secrets_of(pem, PASSPHRASE) | {"passphrase": PASSPHRASE.encode()}
    _assert_only_the_supervisor_knows(caught, secrets, {"scalar, little-endian"})


def test_passphrase_from_a_file(home: Home, catch: Callable[..., Caught]) -> None:
    pem = _new_key(PASSPHRASE)
    key, password = home.work / "key.pem", home.work / "password"
    key.write_bytes(pem)
    key.chmod(0o600)
    password.write_text(PASSPHRASE + "\n")
    caught = catch("--signing-key", str(key), BEDDEL_KEY_PASSWORD_FILE=str(password))
    secrets = secrets_of(pem, PASSPHRASE) | {"passphrase": PASSPHRASE.encode()}
    _assert_only_the_supervisor_knows(caught, secrets, {"scalar, little-endian"})


def test_key_of_the_log(home: Home, catch: Callable[..., Caught]) -> None:
    _first_run(home)
    secrets = secrets_of((home.home / "keys" / "log.pem").read_bytes())
    caught = catch()
    canary = {"canary": CANARY.encode()}
    assert found(caught.worker, canary | secrets) == {"canary"}
    # libcrypto keeps an Ed25519 key as it is in the file.
    assert found(caught.supervisor, canary | secrets) >= {"canary", "scalar"}


def test_the_log_is_open_in_the_supervisor_alone(home: Home, catch: Callable[..., Caught]) -> None:
    _first_run(home)
    caught = catch()
    path = str(home.home / "logs" / "default.sqlite3")
    held = processes.open_descriptors(caught.supervisor)
    assert held is not None
    assert path in held.values()
    links = {os.readlink(link) for link in Path(f"/proc/{caught.worker}/fd").iterdir()}
    assert not [link for link in links if str(home.home) in link]
    maps = Path(f"/proc/{caught.worker}/maps").read_text(encoding="utf-8")
    assert str(home.home) not in maps
    # The control: SQLite maps the log's shared memory, and that is in the supervisor.
    assert f"{path}-shm" in Path(f"/proc/{caught.supervisor}/maps").read_text(encoding="utf-8")


def test_environment_of_both_processes(home: Home, catch: Callable[..., Caught]) -> None:
    pem = _new_key()
    body = secrets_of(pem)["PEM line"]
    # The control: a variable that is no secret is there, in both.
    caught = catch(BEDDEL_SIGNING_KEY=pem.decode(), HARMLESS="harmless-51c2")
    for pid in (caught.supervisor, caught.worker):
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"HARMLESS=harmless-51c2" in environment
        assert body not in environment
        assert b"BEDDEL_SIGNING_KEY" not in environment
