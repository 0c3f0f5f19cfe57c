"""`keys` as its users meet it: from a first key to one that is rotated and one that is revoked."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from beddel_cli.trust import keys as keys_module
from beddel_cli.trust.instants import parse_instant
from beddel_cli.trust.keys import SigningKey, generate_key, load_log_key, load_signing_key
from beddel_cli.trust.trust_list import parse_trust
from tests.support.command import CommandLine
from tests.support.statements import signed
from tests.support.trusted import new_key, payload_at, public

AS_RECEIPT = ("--role", "receipt")
BIDI, ESCAPE = "\u202e", "\x1b]0;title\x07"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in os.environ:
        if "BEDDEL" in name:
            monkeypatch.delenv(name)
    monkeypatch.setenv("BEDDEL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BEDDEL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture
def beddel(home: Path, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(capsys)


@pytest.fixture
def usb(tmp_path: Path) -> Path:
    """A root key that is not kept in the home."""
    folder = tmp_path / "usb"
    folder.mkdir()
    return folder / "root.pem"


@pytest.fixture
def ready(beddel: CommandLine, usb: Path) -> CommandLine:
    """A command line whose home has a list, signed by the root key at `usb`."""
    beddel("keys", "init", "--root-key", usb, "--owner", "ann")
    return beddel


def serial(beddel: CommandLine) -> int:
    found: int = beddel("keys", "list", "--json").json["serial"]
    return found


def states(beddel: CommandLine) -> list[tuple[str, str]]:
    listed = beddel("keys", "list", "--json").json["keys"]
    return [(each["key_id"], each["state"]) for each in listed]


def home_key(home: Path) -> SigningKey:
    return load_signing_key(str(home), require_key=True)


def pem_file(folder: Path, key: SigningKey, name: str = "given.pub.pem") -> Path:
    path = folder / name
    path.write_bytes(key.public_pem)
    return path


def test_init_makes_a_key_a_root_and_a_list(beddel: CommandLine, home: Path) -> None:
    answer = beddel("keys", "init", "--owner", "ann")
    key = home_key(home)
    assert f"key      {key.key_id} (receipt)" in answer.out
    assert "move " in answer.err
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (home / "keys").iterdir()}
    assert modes == {
        "signing.pem": 0o600,
        "signing.pub.pem": 0o644,
        "log.pem": 0o600,
        "log.pub.pem": 0o644,
        "root.pem": 0o600,
        "root.pub.pem": 0o644,
    }
    log = load_log_key(str(home))
    assert states(beddel) == [(key.key_id, "valid"), (log.key_id, "valid")]
    assert [each["roles"] for each in beddel("keys", "list", "--json").json["keys"]] == [
        *(["receipt"], ["log"]),
    ]
    again = beddel("keys", "init", code=2)
    assert "has a list of trusted keys already" in again.err
    text = beddel("keys", "list").out
    assert key.key_id[:16] in text
    assert "serial 1, until" in text


def test_init_keeps_keys_that_are_there(beddel: CommandLine, home: Path, tmp_path: Path) -> None:
    before = load_signing_key(str(home))
    root = tmp_path / "mine.pem"
    root.write_bytes(generate_key("ed25519"))
    root.chmod(0o600)
    there = root.read_bytes()
    beddel("keys", "init", "--root-key", root)
    assert root.read_bytes() == there
    assert home_key(home).key_id == before.key_id
    # What it signed before there was a list is good too.
    assert beddel("keys", "list", "--json").json["keys"][0]["from"] is None


def test_a_list_that_was_lost_goes_on_under_the_same_root(
    ready: CommandLine, home: Path, tmp_path: Path, usb: Path
) -> None:
    ready("keys", "trust", "--renew", "--root-key", usb)
    (home / "trust.json").unlink()
    public_root = (home / "keys" / "root.pub.pem").read_bytes()
    for more in ((), ("--root-key", tmp_path / "another.pem")):
        answer = ready("keys", "init", *more, code=2)
        assert "readers may have it already" in answer.err
    assert (home / "keys" / "root.pub.pem").read_bytes() == public_root
    assert not (tmp_path / "another.pem").exists()
    ready("keys", "init", "--root-key", usb)
    assert serial(ready) == 3


def test_the_root_key_is_not_in_the_home(ready: CommandLine, home: Path, usb: Path) -> None:
    assert sorted(path.name for path in (home / "keys").iterdir()) == [
        *("log.pem", "log.pub.pem", "root.pub.pem", "signing.pem", "signing.pub.pem"),
    ]
    answer = ready("keys", "trust", "--renew", code=2)
    assert "root.pem" in answer.err
    ready("keys", "trust", "--renew", "--root-key", usb)
    assert serial(ready) == 2


def test_export_gives_what_a_reader_needs(ready: CommandLine, home: Path, tmp_path: Path) -> None:
    root = tmp_path / "root.pub.pem"
    ready("keys", "export", "--root", "--out", root)
    assert ready("keys", "export", "--root").out == root.read_text()
    receipt = tmp_path / "receipt.json"
    receipt.write_bytes(signed(home_key(home)))
    trust = home / "trust.json"
    answer = ready("verify", receipt, "--trust", trust, "--root", root)
    assert "(by the list of trusted keys)" in answer.out
    assert "owner    ann" in answer.out
    assert "warning  no trusted time" in answer.err
    parse_trust(
        trust.read_bytes(), [public(load_signing_key("/", file=str(tmp_path / "usb/root.pem")))]
    )


def test_export_without_a_root(beddel: CommandLine) -> None:
    assert "there is no root key" in beddel("keys", "export", "--root", code=2).err


def test_a_key_is_trusted_changed_and_revoked(
    ready: CommandLine, tmp_path: Path, usb: Path
) -> None:
    bob = new_key()
    file = pem_file(tmp_path, bob)
    by = ("--root-key", usb)
    roles = ("--role", "receipt", "--role", "countersign")
    ready("keys", "trust", file, "--owner", "bob", *roles, "--until", "90d", *by)
    entry = ready("keys", "list", "--json").json["keys"][2]
    assert entry["key_id"] == bob.key_id
    assert (entry["owner"], entry["roles"]) == ("bob", ["receipt", "countersign"])
    assert (entry["from"], entry["state"]) == (None, "valid")
    past = ("--from", "none", "--until", "2020-01-01")
    ready("keys", "trust", file, "--role", "log", *past, *by, code=2)
    ready("keys", "trust", file, *past, *by)
    changed = ready("keys", "list", "--json").json["keys"][2]
    assert (changed["owner"], changed["roles"]) == ("bob", ["receipt", "countersign"])
    assert (changed["until"], changed["state"]) == ("2020-01-01T00:00:00Z", "retired")
    # What is not said stays: above all, a key whose time ended is not believed again by accident.
    ready("keys", "trust", file, "--owner", "bob b", "--role", "receipt", *by)
    changed = ready("keys", "list", "--json").json["keys"][2]
    assert (changed["owner"], changed["roles"], changed["state"]) == (
        "bob b",
        ["receipt"],
        "retired",
    )
    ready("keys", "trust", file, "--until", "none", *by)
    assert ready("keys", "list", "--json").json["keys"][2]["until"] is None
    assert serial(ready) == 5
    start = bob.key_id[:8]
    ready("keys", "revoke", start, "--reason", "lost", "--at", "2020-01-01T00:00:00Z", *by)
    assert dict(states(ready))[bob.key_id] == "revoked"
    for arguments, why in (
        (("keys", "trust", file, "--until", "90d"), "that is not taken back"),
        (("keys", "revoke", start, "--reason", "again"), "was revoked before that already"),
        (("keys", "revoke", start, "--reason", "x", "--at", "9d"), "not in the future"),
        (("keys", "revoke", "00000000", "--reason", "x"), "no trusted key"),
    ):
        assert why in ready(*arguments, *by, code=2).err
    assert serial(ready) == 6
    # Earlier is possible: it turns out that the key was stolen before.
    ready("keys", "revoke", start, "--reason", "stolen", "--at", "2019-01-01", *by)
    assert ready("keys", "list", "--json").json["keys"][2]["revoked"] == {
        "at": "2019-01-01T00:00:00Z",
        "reason": "stolen",
    }


def test_a_new_key_is_given_no_role_that_nobody_named(
    ready: CommandLine, tmp_path: Path, usb: Path
) -> None:
    words = ("keys", "trust", pem_file(tmp_path, new_key()), "--root-key", usb, "--owner", "bob")
    answer = ready(*words, code=2)
    assert "what may this key sign?" in answer.err
    assert "expected  --role with receipt, log or countersign" in answer.err
    assert serial(ready) == 1
    ready(*words, "--role", "countersign")
    # Of a key that is there, what is not said stays.
    ready(*words, "--until", "90d")
    assert ready("keys", "list", "--json").json["keys"][2]["roles"] == ["countersign"]


def test_an_end_in_the_past_has_to_be_spelt_out(
    ready: CommandLine, tmp_path: Path, usb: Path
) -> None:
    file = pem_file(tmp_path, new_key())
    words = ("keys", "trust", file, "--root-key", usb, "--owner", "bob", "--role", "receipt")
    answer = ready(*words, "--until", "2020-01-01", code=2)
    assert "--until '2020-01-01' is past" in answer.err
    assert "expected  now, or a time to come" in answer.err
    assert serial(ready) == 1
    ready(*words, "--until", "now")
    # As of somebody who has left: receipts of that time are to hold.
    ready(*words, "--from", "2019-01-01", "--until", "2020-01-01")
    entry = ready("keys", "list", "--json").json["keys"][2]
    assert (entry["until"], entry["state"]) == ("2020-01-01T00:00:00Z", "retired")


def test_the_last_countersigner_can_be_revoked(
    ready: CommandLine, tmp_path: Path, usb: Path
) -> None:
    bob, by = new_key(), ("--root-key", usb)
    role = ("--role", "countersign", "--countersigners", "1")
    ready("keys", "trust", pem_file(tmp_path, bob), "--owner", "bob", *role, *by)
    words = ("keys", "revoke", bob.key_id, "--reason", "lost", *by)
    answer = ready(*words, code=2)
    assert "1 owner would have to countersign each receipt, and the list would name 0" in answer.err
    assert "hint      the same command with --countersigners 0; or first" in answer.err
    # What a receipt needs is not made less by itself, and nothing was changed.
    assert dict(states(ready))[bob.key_id] == "valid"
    assert ready("keys", "list", "--json").json["countersigners"] == 1
    assert "expected  0 to 15" in ready(*words, "--countersigners", "16", code=2).err
    ready(*words, "--countersigners", "0")
    assert dict(states(ready))[bob.key_id] == "revoked"
    assert ready("keys", "list", "--json").json["countersigners"] == 0


def test_revoking_names_the_other_keys_of_the_same_owner(
    ready: CommandLine, tmp_path: Path, usb: Path, home: Path
) -> None:
    log = new_key("ed25519")
    file = pem_file(tmp_path, log)
    ready("keys", "trust", file, "--owner", "ann", "--role", "log", "--root-key", usb)
    key_id = home_key(home).key_id
    answer = ready("keys", "revoke", key_id, "--reason", "machine lost", "--root-key", usb)
    assert f"still trusted: {log.key_id} (log) of ann" in answer.err


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "nothing to change"),
        (("--owner", "x"), "nothing to change"),
        (("--renew", "--owner", "x"), "go with a key"),
        (("PEM",), "whose key is it"),
        (("PEM", "--owner", "x", "--role", "root"), "unknown role"),
        (("PEM", "--owner", "x", *AS_RECEIPT, "--until", "tomorrow"), "no time"),
        (("PEM", "--owner", "x", *AS_RECEIPT, "--until", "2026-02-30"), "no time"),
        (("PEM", "--owner", "x", *AS_RECEIPT, "--until", "9" * 20 + "d"), "no time"),
        (
            ("PEM", "--owner", "x", *AS_RECEIPT, "--from", "2d", "--until", "1d"),
            "ends before it begins",
        ),
        (("PEM", "--owner", "", *AS_RECEIPT), "characters"),
        (("PEM", "--owner", "x", *AS_RECEIPT, "--lifetime", "0d"), "ends before it begins"),
        (("--countersigners", "-1"), "--countersigners -1"),
        (("--countersigners", "16"), "0 to 15"),
        (("--countersigners", "1"), "and the list would name 0 who may"),
        (("ROOT", "--owner", "x", *AS_RECEIPT), "is also among the keys it vouches for"),
        (("PRIVATE", "--owner", "x"), "root.pem' is no public key"),
    ],
)
def test_what_is_wrong_changes_nothing(
    ready: CommandLine, tmp_path: Path, usb: Path, home: Path, arguments: tuple[str, ...], why: str
) -> None:
    files = {
        "PEM": pem_file(tmp_path, new_key()),
        "ROOT": home / "keys" / "root.pub.pem",
        "PRIVATE": usb,
    }
    before = (home / "trust.json").read_bytes()
    words = [files.get(word, word) for word in arguments]
    assert why in ready("keys", "trust", *words, "--root-key", usb, code=2).err
    assert (home / "trust.json").read_bytes() == before


def test_a_private_key_is_not_shown_when_it_is_given_for_a_public_one(
    ready: CommandLine, usb: Path
) -> None:
    answer = ready("keys", "trust", usb, "--owner", "x", "--root-key", usb, code=2)
    assert usb.read_text().splitlines()[1] not in answer.err + answer.out


def test_only_the_root_changes_the_list(ready: CommandLine, home: Path, tmp_path: Path) -> None:
    before = (home / "trust.json").read_bytes()
    for key in ("home/keys/signing.pem", "usb/other.pem"):
        path = tmp_path / key
        if not path.exists():
            path.write_bytes(generate_key())
            path.chmod(0o600)
        answer = ready("keys", "trust", "--renew", "--root-key", path, code=2)
        assert "signed by another root key" in answer.err
    assert (home / "trust.json").read_bytes() == before


def test_an_old_copy_is_not_gone_on_from(ready: CommandLine, home: Path, usb: Path) -> None:
    first = (home / "trust.json").read_bytes()
    ready("keys", "trust", "--renew", "--root-key", usb)
    (home / "trust.json").write_bytes(first)
    assert "an old copy" in ready("keys", "trust", "--renew", "--root-key", usb, code=2).err


def test_a_list_that_ended_is_renewed(ready: CommandLine, home: Path, usb: Path) -> None:
    ready("keys", "trust", "--renew", "--lifetime", "1s", "--root-key", usb)
    receipt = home.parent / "receipt.json"
    receipt.write_bytes(signed(home_key(home)))
    while "ENDED" not in ready("keys", "list").out:
        pass
    ended = ready("verify", receipt, code=2)
    assert "the list of trusted keys ended at" in ended.err
    ready("keys", "trust", "--renew", "--root-key", usb)
    ready("verify", receipt)


def test_a_root_is_replaced_by_way_of_both(
    ready: CommandLine, home: Path, tmp_path: Path, usb: Path
) -> None:
    new = tmp_path / "usb" / "new.pem"
    new.write_bytes(generate_key())
    new.chmod(0o600)
    new_public = pem_file(tmp_path, load_signing_key("/", file=str(new)))
    old_public = pem_file(tmp_path, load_signing_key("/", file=str(usb)), "old.pub.pem")
    receipt, trust = tmp_path / "receipt.json", home / "trust.json"
    receipt.write_bytes(signed(home_key(home)))

    def reads(root: Path) -> int:
        return ready("verify", receipt, "--trust", trust, "--root", root, code=None).code

    assert (reads(old_public), reads(new_public)) == (0, 2)
    answer = ready("keys", "trust", "--renew", "--root-key", new, code=2)
    assert "signed by another root key" in answer.err
    ready("keys", "trust", "--renew", "--root-key", usb, "--root-key", new)
    assert (reads(old_public), reads(new_public)) == (0, 0)
    answer = ready("keys", "trust", "--renew", "--root-key", new)
    assert "is this home's root key now" in answer.err
    assert (reads(old_public), reads(new_public)) == (2, 0)
    ready("verify", receipt)


def test_rotation_keeps_the_old_receipts_of_their_time(
    ready: CommandLine, home: Path, usb: Path, tmp_path: Path
) -> None:
    old = home_key(home)
    receipt = tmp_path / "old.json"
    receipt.write_bytes(signed(old))
    answer = ready("keys", "rotate", "--grace", "0s", "--root-key", usb)
    new = home_key(home)
    assert new.key_id != old.key_id
    assert f"key      {new.key_id}" in answer.out
    kept = home / "keys" / f"retired-{old.key_id[:16]}.pem"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert load_signing_key("/", file=str(kept)).key_id == old.key_id
    assert (home / "keys/signing.pub.pem").read_bytes() == new.public_pem
    while dict(states(ready))[old.key_id] == "valid":
        pass  # to the second
    assert dict(states(ready)) == {
        **{old.key_id: "retired", new.key_id: "valid"},
        load_log_key(str(home)).key_id: "valid",
    }
    unknown = ready("verify", receipt, code=2)
    assert "no trusted time shows that the signature is older" in unknown.err
    receipt.write_bytes(signed(new))
    ready("verify", receipt)


def test_a_key_that_goes_on_signing_after_its_time_is_found_out(
    ready: CommandLine, home: Path, usb: Path, tmp_path: Path
) -> None:
    old = home_key(home)
    ready("keys", "rotate", "--grace", "0s", "--root-key", usb)
    until = ready("keys", "list", "--json").json["keys"][0]["until"]
    receipt = tmp_path / "late.json"
    receipt.write_bytes(signed(old, payload_at(parse_instant(until), old)))
    answer = ready("verify", receipt, code=1)
    assert f"was no longer valid (until {until})" in answer.err


def test_who_read_the_old_key_before_a_rotation_does_not_undo_half_of_it(
    ready: CommandLine, home: Path, usb: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run opens the old key, perhaps asks for its passphrase, and meanwhile it is exchanged."""
    old, opened = home_key(home), keys_module._open_key

    def rotated_meanwhile(*arguments: Any, **more: Any) -> SigningKey:
        monkeypatch.setattr(keys_module, "_open_key", opened)
        ready("keys", "rotate", "--root-key", usb)
        return opened(*arguments, **more)

    monkeypatch.setattr(keys_module, "_open_key", rotated_meanwhile)
    assert home_key(home).key_id == old.key_id
    public = (home / "keys/signing.pub.pem").read_bytes()
    assert public != old.public_pem
    assert home_key(home).public_pem == public
    # What is missing or wrong is put right as ever.
    for spoilt in (b"", old.public_pem):
        (home / "keys/signing.pub.pem").write_bytes(spoilt)
        home_key(home)
        assert (home / "keys/signing.pub.pem").read_bytes() == public


def test_rotation_that_stopped_half_way_can_be_repeated(
    ready: CommandLine, home: Path, usb: Path
) -> None:
    old = home_key(home)
    kept = home / "keys" / f"retired-{old.key_id[:16]}.pem"
    os.link(home / "keys" / "signing.pem", kept)
    ready("keys", "rotate", "--root-key", usb)
    assert load_signing_key("/", file=str(kept)).key_id == old.key_id
    # Something else of that name is not written over.
    new = home_key(home)
    other = home / "keys" / f"retired-{new.key_id[:16]}.pem"
    other.write_text("mine")
    assert "is there already" in ready("keys", "rotate", "--root-key", usb, code=2).err
    assert other.read_text() == "mine"
    assert home_key(home).key_id == new.key_id
    assert serial(ready) == 2


def test_rotation_without_a_list_or_root_changes_nothing(
    beddel: CommandLine, home: Path, usb: Path
) -> None:
    key = load_signing_key(str(home))
    assert "has no list of trusted keys" in beddel("keys", "rotate", code=2).err
    beddel("keys", "init", "--root-key", usb)
    assert "root.pem" in beddel("keys", "rotate", code=2).err
    assert home_key(home).key_id == key.key_id
    assert serial(beddel) == 1


def test_hostile_texts_of_a_list_are_shown_and_not_sent(
    ready: CommandLine, home: Path, usb: Path, tmp_path: Path
) -> None:
    key = new_key()
    owner = f"mallory{ESCAPE}{BIDI}\nvalid signature"
    by = ("--root-key", usb)
    ready("keys", "trust", pem_file(tmp_path, key), "--owner", owner, "--role", "receipt", *by)
    receipt = tmp_path / "receipt.json"
    receipt.write_bytes(signed(key))
    shown = [ready("keys", "list"), ready("verify", receipt), ready("verify", tmp_path, code=None)]
    ready("keys", "revoke", key.key_id, "--reason", f"{ESCAPE}{BIDI}\r", *by)
    shown += [ready("keys", "list"), ready("verify", receipt, code=2)]
    for answer in shown:
        for text in (answer.out, answer.err):
            assert not {"\x1b", "\x07", BIDI, "\r"} & set(text)
            # The owner's line end does not begin a line of ours.
            assert text.count("\nvalid signature") == 0
    assert "\\x1b]0;title\\x07\\u202e" in shown[0].out
