"""Secrets leave the environment before anything can inherit them, and where else they come from."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest

from beddel_cli.__main__ import _SECRETS
from beddel_cli.errors import SigningKeyError
from beddel_cli.trust.key_environment import SECRET_VARIABLES, Secrets, read_secrets
from beddel_cli.trust.keys import Passphrases, generate_key, load_signing_key
from tests.support.cli import COMMAND, Home

WORDS = "correct horse 5d0e battery staple"
SHOW = """
import json, os
from beddel_cli.trust.key_environment import read_secrets, restart_without_secrets
restart_without_secrets(os.environ)
before = open("/proc/self/environ").read()
found = read_secrets(os.environ)
print(json.dumps([found.pem, found.passphrase, before, sorted(os.environ)]))
"""


def shown(**variables: str) -> tuple[str | None, str | None, str, list[str]]:
    """Give key, passphrase, the block of the environment, and the names in it, of a process."""
    clean = {name: value for name, value in os.environ.items() if "BEDDEL" not in name}
    done = subprocess.run(
        [sys.executable, "-P", "-c", SHOW],
        env=clean | variables,
        capture_output=True,
        check=True,
        timeout=30,
    )
    pem, passphrase, block, names = json.loads(done.stdout)
    return pem, passphrase, block, names


@pytest.mark.parametrize("name", SECRET_VARIABLES)
def test_each_secret_is_read_and_gone(name: str) -> None:
    pem, passphrase, block, names = shown(**{name: WORDS}, HARMLESS="still here")
    assert (pem, passphrase) == ((WORDS, None) if "SIGNING" in name else (None, WORDS))
    assert WORDS not in block
    assert "still here" in block
    assert not [each for each in names if "BEDDEL" in each]


def test_all_at_once_and_the_newer_name_counts() -> None:
    pem, passphrase, block, _ = shown(
        BEDDEL_SIGNING_KEY="key-5d0e",
        BEDDEL_KEY_PASSWORD="new-5d0e",
        BEDDEL_KEY_PASSPHRASE="old-5d0e",
    )
    assert (pem, passphrase) == ("key-5d0e", "new-5d0e")
    assert "5d0e" not in block


def test_the_entry_looks_for_the_same_names() -> None:
    assert set(_SECRETS) == set(SECRET_VARIABLES)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_passphrase_in_a_file(tmp_path: Path, end: str) -> None:
    path = tmp_path / "password"
    path.write_bytes((WORDS + " ä" + end).encode())
    secrets = read_secrets({"BEDDEL_KEY_PASSWORD_FILE": str(path)})
    assert secrets == Secrets(None, WORDS + " ä")
    assert WORDS not in repr(secrets)


@pytest.mark.parametrize("content", [b"", b"\n", b"one\ntwo", b"one\n\n", b"x" * 4097])
def test_a_file_that_does_not_hold_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "password"
    path.write_bytes(content)
    with pytest.raises(SigningKeyError, match="one line") as caught:
        read_secrets({"BEDDEL_KEY_PASSWORD_FILE": str(path)})
    assert "one\\ntwo" not in caught.value.message


def test_what_is_no_file_holds_no_passphrase(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (tmp_path, fifo, tmp_path / "none", "/dev/zero", ""):
        with pytest.raises(SigningKeyError, match="no passphrase in"):
            read_secrets({"BEDDEL_KEY_PASSWORD_FILE": str(path)})


def test_two_passphrases_are_one_too_many(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text(WORDS)
    reading, writing = os.pipe()
    os.write(writing, json.dumps([None, "other"]).encode())
    os.close(writing)
    with pytest.raises(SigningKeyError, match="both BEDDEL_KEY_PASSWORD"):
        read_secrets({"_BEDDEL_SECRETS_FD": str(reading), "BEDDEL_KEY_PASSWORD_FILE": str(path)})


def at_terminal(home: Home, answers: list[str], *arguments: str) -> tuple[int, str]:
    """Run a command on a terminal, answer each question; gives exit code and all it showed."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(home.work)
        os.execve(sys.executable, [*COMMAND, *arguments], home.environment())
    text, waiting = b"", list(answers)
    try:
        while select.select([terminal], [], [], 30)[0]:
            try:
                part = os.read(terminal, 4096)
            except OSError:
                break  # EIO: the other end is closed
            text += part
            if waiting and text.endswith(b": "):
                os.write(terminal, waiting.pop(0).encode() + b"\n")
    finally:
        os.close(terminal)
        _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), text.decode("utf-8", "replace")


def test_a_person_is_asked_twice_and_nothing_is_echoed(home: Home) -> None:
    code, text = at_terminal(home, [WORDS, WORDS], "keys", "init", "--encrypt")
    assert code == 0, text
    assert "passphrase for the new keys: " in text
    assert WORDS not in text
    for name in ("signing", "log", "root"):
        pem = (home.home / "keys" / f"{name}.pem").read_text()
        assert pem.startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
        load_signing_key(
            "/", file=str(home.home / "keys" / f"{name}.pem"), passphrases=Passphrases(WORDS)
        )
    # From then on it is asked for, once for each key that is opened.
    code, text = at_terminal(home, [WORDS], "keys", "trust", "--renew")
    assert code == 0, text
    assert WORDS not in text
    code, text = at_terminal(home, ["wrong"], "keys", "trust", "--renew")
    assert code == 2
    assert "the passphrase does not open" in text
    # One answer opens every key that it fits; a key of another passphrase takes a question.
    job = home.job("return 1")
    code, text = at_terminal(home, [WORDS], "run", str(job))
    assert code == 0, text
    pem = generate_key("ed25519", "another").decode()
    (home.home / "keys/log.pem").write_text(pem)
    (home.home / "keys/log.pub.pem").unlink()
    code, text = at_terminal(home, [WORDS, "another"], "run", str(job), "--tenant", "other")
    assert code == 0, text
    assert text.count("passphrase for key file") == 2
    # Without anybody to ask, the environment has to have it.
    done = home.run("keys", "trust", "--renew")
    assert done.returncode == 2
    assert "BEDDEL_KEY_PASSWORD" in done.message


def test_the_passphrase_of_a_key_from_elsewhere_is_not_put_on_the_log(home: Home) -> None:
    key = home.work / "mine.pem"
    key.write_bytes(generate_key("p256", WORDS))
    key.chmod(0o600)
    job = home.job("return 1")
    env = {**home.environment(), "BEDDEL_KEY_PASSWORD": WORDS}
    done = home.run("run", job, "-q", "--signing-key", key, env=env)
    assert done.returncode == 0, done.message
    assert "ENCRYPTED" not in (home.home / "keys/log.pem").read_text()
    # A key of the home is its own matter, and the log's goes with it.
    assert home.run("run", job, "-q").returncode == 0


def test_two_different_passphrases_make_no_key(home: Home) -> None:
    code, text = at_terminal(home, [WORDS, "another"], "keys", "init", "--encrypt")
    assert code == 2
    assert "two different ones" in text
    assert not (home.home / "keys").exists()
    done = home.run("keys", "init", "--encrypt")
    assert done.returncode == 2
    assert "there is no terminal" in done.message


def test_a_run_with_a_passphrase_in_a_file(home: Home) -> None:
    path = home.work / "password"
    path.write_text(WORDS + "\n")
    environment = home.environment(BEDDEL_KEY_PASSWORD_FILE=str(path))
    job = home.job("return 1")
    assert home.run("run", job, env=environment).returncode == 0
    assert "ENCRYPTED" in (home.home / "keys" / "signing.pem").read_text()
    assert home.run("verify", home.receipts()[-1]).returncode == 0
    refused = home.run("run", job)
    assert refused.returncode == 125
    assert "BEDDEL_KEY_PASSWORD_FILE" in refused.message
