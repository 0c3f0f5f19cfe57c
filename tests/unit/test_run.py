"""What a run refuses before anything is started, and what its secrets never show."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from beddel_cli import run
from beddel_cli.execution import Terminated
from beddel_cli.trust.key_environment import Secrets
from beddel_cli.trust.keys import generate_key, load_public_key
from tests.support.cli import Home


@pytest.mark.parametrize("flag", ["--receipt", "--bundle", "--predicate", "--heap-snapshot"])
@pytest.mark.parametrize("what", ["the job", "the input", "the signing key"])
def test_no_output_takes_the_place_of_what_the_run_reads(home: Home, flag: str, what: str) -> None:
    key = home.work / "key.pem"
    key.write_bytes(generate_key())
    key.chmod(0o600)
    data = home.work / "input.json"
    data.write_text("1")
    job = home.job("return input")
    # Reached by another spelling of the same place.
    (home.work / "way").symlink_to(home.work)
    victim = {"the job": job, "the input": data, "the signing key": key}[what]
    before = victim.read_bytes()
    common = ("run", job, "--input", data, "--signing-key", key)
    assert home.run(*common, "--receipt", "fine.json").returncode == 0
    result = home.run(*common, flag, f"way/{victim.name}")
    assert (result.returncode, result.stdout) == (125, b"")
    assert f"{flag} 'way/{victim.name}' would write over {what}" in result.message
    assert victim.read_bytes() == before


def test_two_outputs_to_one_place_and_standard_output_are_refused(home: Home) -> None:
    job = home.job("return 1")
    twice = home.run("run", job, "--receipt", "a.json", "--bundle", "./a.json")
    assert twice.returncode == 125
    assert "--bundle './a.json' would write over what --receipt writes" in twice.message
    dash = home.run("run", job, "--receipt", "-")
    assert dash.returncode == 125
    assert "--receipt needs the name of a file" in dash.message
    assert not (home.work / "a.json").exists()


def test_the_key_that_would_sign_is_the_one_shown_and_exported(home: Home) -> None:
    assert home.run("run", home.job("return 1")).returncode == 0
    other = home.work / "other.pem"
    other.write_bytes(generate_key())
    other.chmod(0o600)
    environment = home.environment(BEDDEL_SIGNING_KEY=other.read_text())
    at_home = home.run("keys", "export").stdout
    by_file = home.run("keys", "export", "--signing-key", other).stdout
    by_environment = home.run("keys", "export", env=environment).stdout
    assert by_file == by_environment != at_home
    key_id = load_public_key(by_file).key_id
    assert key_id in home.run("keys", "show", env=environment).stdout.decode()
    receipt = home.work / "r.json"
    job = home.job("return 1")
    assert home.run("run", job, "--receipt", receipt, env=environment).returncode == 0
    public = home.work / "public.pem"
    public.write_bytes(by_file)
    assert home.run("verify", receipt, "--key", public).returncode == 0


def test_an_exported_key_never_takes_a_private_keys_place(home: Home) -> None:
    assert home.run("run", home.job("return 1")).returncode == 0
    private = home.home / "keys" / "signing.pem"
    before = private.read_bytes()
    result = home.run("keys", "export", "--out", private)
    assert result.returncode == 2
    assert "would write over a key" in result.message
    assert private.read_bytes() == before
    assert home.run("keys", "export", "--out", home.work / "fine.pem").returncode == 0


def test_quiet_says_why_there_is_no_result(home: Home) -> None:
    good = home.run("run", home.job("return 1"), "-q")
    assert (good.returncode, good.stdout, good.stderr) == (0, b"1\n", b"")
    bad = home.run("run", home.job("throw new Error('no')"), "-q")
    assert (bad.returncode, bad.stdout) == (1, b"")
    assert "reason   Error: no" in bad.message
    assert "receipt" not in bad.message
    refused = home.run("run", home.job("return 1"), "-q", "--memory", "64MiB")
    assert refused.returncode == 126
    assert "fix      ask for 2MiB or less" in refused.message


def test_verify_shows_the_whole_statement_when_asked(home: Home) -> None:
    assert home.run("run", home.job("return 1")).returncode == 0
    receipt = home.receipts()[0]
    short = home.run("verify", receipt).stdout.decode()
    whole = home.run("verify", receipt, "-v").stdout.decode()
    assert '"predicateType"' not in short
    assert whole.startswith(short)
    assert '"predicateType"' in whole


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    shown = repr(Secrets("PEM", "passphrase"))
    assert "PEM" not in shown
    assert "passphrase" not in shown


@pytest.mark.parametrize(
    ("number", "stop"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
)
def test_a_signal_told_to_a_callback_stops_the_run_before_its_job(
    number: int, stop: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a handler raises in a weak reference's callback, say, Python prints and forgets."""
    monkeypatch.setattr(run, "_stopped", [])
    run._heed_lost_stop()
    monkeypatch.setattr(run, "_stopped", [number])
    with pytest.raises(stop):
        run._heed_lost_stop()
    told: list[object] = []
    monkeypatch.setattr(sys, "__unraisablehook__", told.append)
    run._heed_later(cast(Any, SimpleNamespace(exc_value=stop())))
    assert told == []
    other = cast(Any, SimpleNamespace(exc_value=OSError()))
    run._heed_later(other)
    assert told == [other]
