"""`verify` and `countersign` as their users meet them: files, folders, pipes, proofs, lists."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable
from pathlib import Path
from time import time_ns

import pytest

from beddel_cli.log.audit_anchor import append_to_file
from beddel_cli.trust.dsse import Signature, make_envelope
from beddel_cli.trust.keys import generate_key, load_signing_key
from beddel_cli.trust.trust_list import Revocation
from tests.support.cli import Home
from tests.support.command import CommandLine
from tests.support.statements import JOB, as_payload, bundled, make_statement, sign, signed
from tests.support.trusted import (
    DAY,
    HOUR,
    SmallLog,
    entry,
    log_with,
    new_key,
    payload_at,
    trust_file,
)

NOW = time_ns() // 1_000_000_000 * 1000
ROOT, KEY, LOG, BOB = new_key(), new_key(), new_key("ed25519"), new_key()
PAYLOAD = payload_at(NOW - HOUR, KEY)
SMALL = log_with(PAYLOAD, NOW - HOUR, KEY, LOG)
CURRENT = {"issued_ms": NOW - DAY, "expires_ms": NOW + DAY}
LISTED = (entry(KEY), entry(LOG, "log"), entry(BOB, "countersign", owner="bob"))


@pytest.fixture
def beddel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> CommandLine:
    for name in os.environ:
        if "BEDDEL" in name:
            monkeypatch.delenv(name)
    monkeypatch.setenv("BEDDEL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BEDDEL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    files = {
        "r.json": make_envelope(PAYLOAD, [sign(PAYLOAD, KEY)]),
        "key.pem": KEY.public_pem,
        "log.pem": LOG.public_pem,
        "bob.pem": BOB.public_pem,
        "root.pem": ROOT.public_pem,
        "checkpoint": SMALL.checkpoint(),
        "trust.json": trust_file(ROOT, *LISTED, **CURRENT),
        "needs-bob.json": trust_file(ROOT, *LISTED, countersigners=1, serial=2, **CURRENT),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    return CommandLine(capsys)


BY_KEY = ("--key", "key.pem")
BY_LIST = ("--trust", "trust.json", "--root", "root.pem")


def write_proof(tmp_path: Path, data: bytes | None = None) -> None:
    (tmp_path / "r.json.tlog-proof").write_bytes(SMALL.proof(3) if data is None else data)


def test_a_proof_beside_a_receipt_is_used(beddel: CommandLine, tmp_path: Path) -> None:
    write_proof(tmp_path)
    answer = beddel("verify", "r.json", *BY_LIST)
    assert "judged   at" in answer.out
    assert "(by the word of a trusted log)" in answer.out
    assert "log      entry 3 of 5 in beddel.test/log, proved" in answer.out
    assert answer.err == ""
    document = beddel("verify", "r.json", *BY_LIST, "--json").json
    assert document["judged_at"]["source"] == "log"
    assert document["log"]["index"] == 3
    assert document["trust"]["serial"] == 1
    assert (document["warnings"], document["notes"], document["valid"]) == ([], [], True)


def test_a_proof_that_nobody_can_judge_is_said_and_not_passed_over(
    beddel: CommandLine, tmp_path: Path
) -> None:
    write_proof(tmp_path)
    answer = beddel("verify", "r.json", *BY_KEY)
    assert "note     the proof beside the receipt was not judged" in answer.out
    assert (
        "key of a log was given" in beddel("verify", "r.json", *BY_KEY, "--json").json["notes"][0]
    )
    # Asked for, it has to hold.
    for more in (("--proof", "r.json.tlog-proof"), ("--log-key", "key.pem")):
        beddel("verify", "r.json", *BY_KEY, *more, code=2)
    proved = beddel("verify", "r.json", *BY_KEY, "--log-key", "log.pem")
    assert "entry 3 of 5" in proved.out


@pytest.mark.parametrize("believed", [BY_LIST, (*BY_KEY, "--log-key", "log.pem")])
def test_a_bad_proof_beside_a_receipt_is_an_error(
    beddel: CommandLine, tmp_path: Path, believed: tuple[str, ...]
) -> None:
    good = SMALL.proof(3)
    other = log_with(payload_at(NOW, KEY), NOW, KEY, LOG)
    for bad in (b"", b"garbage", good.replace(b"index 3", b"index 2"), other.proof(3), good[:-9]):
        write_proof(tmp_path, bad)
        answer = beddel("verify", "r.json", *believed, code=1)
        assert answer.err.startswith("NOT VALID"), answer
    (tmp_path / "r.json.tlog-proof").unlink()
    os.mkfifo(tmp_path / "r.json.tlog-proof")
    beddel("verify", "r.json", *believed, code=2)


def test_a_named_proof_has_to_be_there(beddel: CommandLine) -> None:
    assert "no proof at" in beddel("verify", "r.json", *BY_LIST, "--proof", "none", code=2).err


def test_a_checkpoint_that_was_kept(beddel: CommandLine, tmp_path: Path) -> None:
    kept = ("--checkpoint", "checkpoint")
    assert (
        "shows nothing without a proof" in beddel("verify", "r.json", *BY_LIST, *kept, code=2).err
    )
    write_proof(tmp_path)
    beddel("verify", "r.json", *BY_LIST, *kept)
    # A file to which `audit anchor` adds holds several.
    shorter = SmallLog(LOG, SMALL.entries[:4]).checkpoint()
    append_to_file("anchors", shorter)
    assert (
        "log and size"
        in beddel("verify", "r.json", *BY_LIST, "--checkpoint", "anchors", code=2).err
    )
    append_to_file("anchors", SMALL.checkpoint())
    beddel("verify", "r.json", *BY_LIST, "--checkpoint", "anchors")
    (tmp_path / "empty").write_bytes(b"")
    beddel("verify", "r.json", *BY_LIST, "--checkpoint", "empty", code=2)
    forked = SmallLog(LOG, [*SMALL.entries[:4], b"another end"]).checkpoint()
    (tmp_path / "checkpoint").write_bytes(forked)
    assert "forked" in beddel("verify", "r.json", *BY_LIST, *kept, code=1).err


def test_a_revoked_key_is_good_for_what_a_log_saw_before(
    beddel: CommandLine, tmp_path: Path
) -> None:
    def revoke(at_ms: int, serial: int) -> None:
        revoked = entry(KEY, revoked=Revocation(at_ms, "stolen"))
        data = trust_file(ROOT, revoked, *LISTED[1:], serial=serial, **CURRENT)
        (tmp_path / "trust.json").write_bytes(data)

    revoke(NOW - HOUR // 2 // 1000 * 1000, 2)
    answer = beddel("verify", "r.json", *BY_LIST, code=2)
    assert "no trusted time shows that the signature is older" in answer.err
    write_proof(tmp_path)
    beddel("verify", "r.json", *BY_LIST)
    # The thief's receipt says that it is old. The log has it when it came.
    late = log_with(PAYLOAD, NOW, KEY, LOG)
    write_proof(tmp_path, late.proof(3))
    assert "was revoked" in beddel("verify", "r.json", *BY_LIST, code=1).err
    revoke((NOW - 2 * HOUR) // 1000 * 1000, 3)
    write_proof(tmp_path)
    assert "was revoked" in beddel("verify", "r.json", *BY_LIST, code=1).err


@pytest.mark.parametrize("name", ["trust.json", "r.json"])
def test_a_flipped_byte_is_never_good(beddel: CommandLine, tmp_path: Path, name: str) -> None:
    beddel("verify", "r.json", *BY_LIST)
    path = tmp_path / name
    data = path.read_bytes()
    for at in range(0, len(data) - 1, 211):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        answer = beddel("verify", "r.json", *BY_LIST, code=None)
        assert answer.code in ((2,) if name == "trust.json" else (1, 2)), answer


def test_an_old_copy_of_the_list_is_noticed(beddel: CommandLine, tmp_path: Path) -> None:
    by_new = ("--trust", "needs-bob.json", "--root", "root.pem")
    assert "too few owners" in beddel("verify", "r.json", *by_new, code=2).err
    assert "an old copy was put back" in beddel("verify", "r.json", *BY_LIST, code=2).err


def test_a_reader_without_a_memory_names_the_least_serial(beddel: CommandLine) -> None:
    beddel("verify", "r.json", *BY_LIST, "--least-serial", "1")
    answer = beddel("verify", "r.json", *BY_LIST, "--least-serial", "2", code=2)
    assert "this list of trusted keys is older than --least-serial asks for" in answer.err
    assert "expected  serial 2 or later\n  got       serial 1\n" in answer.err


def test_a_file_that_is_no_public_key_is_named(beddel: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "junk").write_text("junk")
    for option in ("--key", "--root", "--log-key"):
        arguments = (option, "junk", *(BY_LIST[:2] if option == "--root" else ()))
        answer = beddel("verify", "r.json", *arguments, code=2)
        assert "beddel-cli: 'junk' holds no PEM block\n" in answer.err
        assert "hint      the signer's public key, as `beddel-cli keys export" in answer.err
    assert "'junk' holds no PEM block" in beddel("audit", "verify", "--key", "junk", code=2).err


def test_a_user_without_a_home_can_verify(
    beddel: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Home and cache in one folder is no home, and is refused wherever one is needed.
    monkeypatch.setenv("BEDDEL_CACHE_DIR", os.environ["BEDDEL_HOME"])
    assert beddel("verify", "r.json", *BY_KEY).err == ""
    assert "nothing here remembers" in beddel("verify", "r.json", *BY_LIST).err
    assert "overlap" in beddel("verify", "r.json", code=2).err


def test_options_that_contradict_each_other(beddel: CommandLine) -> None:
    for arguments, why in (
        ((*BY_KEY, *BY_LIST), "two answers to one question"),
        ((*BY_KEY, "--root", "root.pem"), "not --key"),
        ((*BY_KEY, "--least-serial", "5"), "not --key"),
        (("--least-serial", "5"), "no list of trusted keys"),
        (("--root", "root.pem"), "--trust FILE"),
        (("--trust", "trust.json"), "--root FILE"),
        (("--trust", "trust.json", "--root", "key.pem"), "another root key"),
        (("--trust", "r.json", "--root", "root.pem"), "holds no list of trusted keys"),
        ((), "nothing was verified"),
        ((*BY_KEY[:1], "log.pem"), "a key that was not given"),
        ((*BY_KEY[:1], "trust.json"), "holds no PEM block"),
        ((*BY_KEY, "--timestamp", "r.json"), "shows nothing without roots"),
    ):
        assert why in beddel("verify", "r.json", *arguments, code=2).err, arguments


@pytest.mark.parametrize("option", ["--log-key", "--timestamp-roots"])
def test_what_was_given_to_judge_by_and_had_nothing_to_judge_is_never_good(
    beddel: CommandLine, tmp_path: Path, option: str
) -> None:
    """Who removes the proof must not make the question disappear as well."""
    for by in (BY_KEY, BY_LIST):
        asked = (*by, option, "log.pem")
        answer = beddel("verify", "r.json", *asked, code=2)
        assert answer.err.startswith("COULD NOT TELL")
        assert f"{option} judged nothing" in answer.err
        found = beddel("verify", "r.json", *asked, "--json", code=2).json
        assert (found["valid"], found["exit_code"]) == (None, 2)
        beddel("verify", "r.json", *by)
    # A bad receipt is bad all the same.
    (tmp_path / "r.json").write_bytes((tmp_path / "r.json").read_bytes().replace(b"A", b"B", 1))
    beddel("verify", "r.json", *BY_KEY, option, "log.pem", code=1)


def test_a_receipt_of_a_folder_without_what_was_asked_for_is_not_good(
    beddel: CommandLine, folder: Path
) -> None:
    payload = payload_at(NOW - HOUR, KEY)
    proof = log_with(payload, NOW - HOUR, KEY, LOG).proof(3)
    for number in range(3):
        (folder / f"{number}.dsse.json").write_bytes(make_envelope(payload, [sign(payload, KEY)]))
        (folder / f"{number}.dsse.json.tlog-proof").write_bytes(proof)
    asked = (*BY_KEY, "--log-key", "log.pem")
    beddel("verify", folder, *asked)
    (folder / "1.dsse.json.tlog-proof").unlink()
    answer = beddel("verify", folder, *asked, code=2)
    assert "UNKNOWN    1.dsse.json  there is no proof beside the receipt" in answer.err
    assert "2 valid, 0 not valid, 1 could not tell" in answer.err
    assert (
        "--timestamp-roots"
        in beddel("verify", folder, "--timestamp-roots", "log.pem", *BY_KEY, code=2).err
    )


def test_a_maker_whose_signature_was_not_judged_is_told(
    beddel: CommandLine, tmp_path: Path
) -> None:
    """A countersignature shows who countersigned, and not who made the receipt."""
    (tmp_path / "r.json").write_bytes(
        make_envelope(PAYLOAD, [sign(PAYLOAD, KEY), sign(PAYLOAD, BOB)])
    )
    answer = beddel("verify", "r.json", "--key", "bob.pem")
    assert (
        f"warning  the receipt says that key {KEY.key_id} made it, which was not given"
        in answer.err
    )
    assert beddel("verify", "r.json", "--key", "bob.pem", *BY_KEY).err == ""
    (tmp_path / "r.json").write_bytes(make_envelope(PAYLOAD, [sign(PAYLOAD, BOB)]))
    answer = beddel("verify", "r.json", "--key", "bob.pem", code=1)
    assert "no signature by the key that it says made it" in answer.err


def test_what_was_kept_of_the_output_is_held_against_the_receipt(home: Home) -> None:
    receipt, salted = home.work / "r.json", home.work / "s.json"
    salt = home.work / "salt"
    kept = Path(f"{receipt}.capture")
    job = home.job("return 42")
    assert home.run("run", job, "--capture", "--receipt", receipt).returncode == 0
    assert home.run("run", job, "--capture", "--salt", salt, "--receipt", salted).returncode == 0
    assert home.run("verify", receipt).returncode == 0
    assert b"digest is salted" in home.run("verify", salted).stdout
    assert home.run("verify", salted, "--salt-file", salt).stdout.count(b"capture") == 0
    for path, more in ((receipt, ()), (salted, ("--salt-file", salt))):
        with Path(f"{path}.capture").open("ab") as file:
            file.write(b" ")
        result = home.run("verify", path, *more)
        assert result.returncode == 1
        assert f"'{path}.capture' is not what was kept of this run\n" in result.message
        kind = "saltedSha256" if path == salted else "sha256"
        for label in ("expected", "got     "):
            assert re.search(rf"^  {label}  {kind}:[0-9a-f]{{64}}$", result.message, re.MULTILINE)
    kept.unlink()
    assert home.run("verify", receipt).returncode == 0


def test_nothing_in_a_receipt_is_a_command_to_a_ci_system(
    beddel: CommandLine, tmp_path: Path
) -> None:
    """Anybody can add a signature by a key of a name of their choosing to a receipt."""
    command = "##[error]forged"
    payload = as_payload(make_statement(note=command))
    forged = Signature(command, b"x")
    (tmp_path / "r.json").write_bytes(make_envelope(payload, [sign(payload, KEY), forged]))
    (tmp_path / "other.json").write_bytes(make_envelope(payload, [forged]))
    for words in (("r.json",), ("r.json", "--json"), ("r.json", "-v"), (".", "--json", "-v")):
        answer = beddel("verify", *words, *BY_KEY, code=None)
        assert "error]forged" in answer.out, "the control: it is told"
        assert "##[" not in answer.out + answer.err
    assert beddel("verify", "r.json", "--json", *BY_KEY).json["unknown_key_ids"] == [command]
    answer = beddel("verify", "other.json", "--json", *BY_KEY, code=2)
    assert answer.json["error"]["got"] == command
    assert "##[" not in answer.out


def test_countersigning_until_enough_owners_have(beddel: CommandLine, tmp_path: Path) -> None:
    private = tmp_path / "bob-private.pem"
    needs = ("--trust", "needs-bob.json", "--root", "root.pem")
    private.write_bytes(generate_key())
    private.chmod(0o600)
    bob = load_signing_key("/", file=str(private))
    listed = (*LISTED[:2], entry(bob, "countersign", owner="bob"))
    (tmp_path / "needs-bob.json").write_bytes(
        trust_file(ROOT, *listed, countersigners=1, serial=2, **CURRENT)
    )
    assert "too few owners" in beddel("verify", "r.json", *needs, code=2).err
    mine = ("--signing-key", private)
    (tmp_path / "r.json").chmod(0o600)
    answer = beddel("countersign", "r.json", *needs, *mine)
    assert stat.S_IMODE((tmp_path / "r.json").stat().st_mode) == 0o600
    assert f"countersigned by {bob.key_id}: 2 signatures in r.json" in answer.err
    assert f"counter  {bob.key_id} (bob)" in beddel("verify", "r.json", *needs).out
    assert (
        "signed this receipt already" in beddel("countersign", "r.json", *needs, *mine, code=2).err
    )
    document = beddel("verify", "r.json", *needs, "--json").json
    assert document["trust"]["countersigned_by"] == [{"key_id": bob.key_id, "owner": "bob"}]
    assert document["trust"]["countersigners_needed"] == 1


def test_nothing_is_countersigned_unverified(beddel: CommandLine, tmp_path: Path) -> None:
    home = tmp_path / "home"
    load_signing_key(str(home))
    before = (tmp_path / "r.json").read_bytes()
    beddel("countersign", "r.json", code=2)  # by this machine's own key
    beddel("countersign", "r.json", "--key", "bob.pem", code=2)
    damaged = before.replace(b"A", b"B", 1)
    (tmp_path / "r.json").write_bytes(damaged)
    assert beddel("countersign", "r.json", *BY_KEY, code=1).err.startswith("NOT VALID")
    assert (tmp_path / "r.json").read_bytes() == damaged
    (tmp_path / "r.json").write_bytes(before)
    beddel("countersign", "r.json", *BY_KEY, "--out", "both.json")
    assert (tmp_path / "r.json").read_bytes() == before
    beddel("verify", "both.json", *BY_KEY)
    (tmp_path / "b.json").write_bytes(bundled(KEY))
    assert "exactly one signature" in beddel("countersign", "b.json", *BY_KEY, code=2).err


def test_no_key_is_made_to_countersign_with(beddel: CommandLine, tmp_path: Path) -> None:
    assert "no signing key" in beddel("countersign", "r.json", *BY_KEY, code=2).err
    assert not (tmp_path / "home").exists()


@pytest.fixture
def folder(beddel: CommandLine, tmp_path: Path) -> Path:
    path = tmp_path / "receipts"
    path.mkdir()
    for number in range(3):
        payload = payload_at(NOW - HOUR + number, KEY)
        (path / f"{number}.dsse.json").write_bytes(make_envelope(payload, [sign(payload, KEY)]))
        proof = log_with(payload, NOW - HOUR, KEY, LOG).proof(3)
        (path / f"{number}.dsse.json.tlog-proof").write_bytes(proof)
    return path


def test_a_folder_of_good_receipts(beddel: CommandLine, folder: Path) -> None:
    (folder / "one.sigstore.json").write_bytes(bundled(KEY))
    (folder / "README").write_text("not a receipt, and does not say so")
    (folder / "sub").mkdir()
    answer = beddel("verify", folder, *BY_LIST)
    assert [line[:9].strip() for line in answer.out.splitlines()] == ["valid"] * 4 + ["4 in all:"]
    assert "warning (1 of them)  no trusted time" in answer.err
    assert beddel("verify", folder, *BY_LIST, "-q").out == ""
    document = beddel("verify", folder, *BY_LIST, "--json").json
    assert (document["valid"], document["exit_code"]) == (4, 0)
    assert [each["file"] for each in document["receipts"]][:2] == ["0.dsse.json", "1.dsse.json"]
    assert document["receipts"][0]["statement"] is None
    whole = beddel("verify", folder, *BY_LIST, "--json", "-v").json
    assert whole["receipts"][0]["statement"]["predicate"]["output"]


def test_what_was_not_judged_in_a_folder_is_said(beddel: CommandLine, folder: Path) -> None:
    answer = beddel("verify", folder, *BY_KEY)
    assert "warning (3 of them)  the proof beside the receipt was not judged" in answer.err


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _another_key(path: Path) -> None:
    path.write_bytes(signed(BOB))


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def _trust_list(path: Path) -> None:
    path.write_bytes(trust_file(ROOT, *LISTED, **CURRENT))


@pytest.mark.parametrize(
    ("spoil", "code"),
    [(_empty, 1), (_trust_list, 1), (_another_key, 2), (_fifo, 2), (_dangling, 2)],
)
def test_one_receipt_that_is_not_good_decides_for_the_folder(
    beddel: CommandLine, folder: Path, spoil: Callable[[Path], None], code: int
) -> None:
    spoil(folder / "x.json")
    by = ("--key", "key.pem")
    answer = beddel("verify", folder, *by, "-q", code=code)
    assert answer.out == ""
    assert "x.json" in answer.err
    assert beddel("verify", folder, *by, "--json", code=code).json["valid"] == 3


def test_a_bad_proof_in_a_folder_counts(beddel: CommandLine, folder: Path) -> None:
    one, two = (folder / f"{number}.dsse.json.tlog-proof" for number in (1, 2))
    one.write_bytes(two.read_bytes())
    answer = beddel("verify", folder, *BY_LIST, code=1)
    assert "NOT VALID  1.dsse.json" in answer.err
    assert "2 valid, 1 not valid, 0 could not tell" in answer.err
    # Each has a log of its own under one name and of one size; the checkpoint is of the first's.
    answer = beddel("verify", folder, *BY_LIST, "--checkpoint", "checkpoint", code=1)
    assert "1 valid, 2 not valid, 0 could not tell" in answer.err


def test_an_empty_folder_is_never_good(beddel: CommandLine, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "receipt.txt").write_bytes(signed(KEY))
    for by in (BY_KEY, BY_LIST):
        assert "there is no .json file" in beddel("verify", empty, *by, code=2).err
        document = beddel("verify", empty, *by, "--json", code=2).json
        assert (document["exit_code"], document["receipts"]) == (2, [])


def test_expectations_hold_for_each_of_a_folder(beddel: CommandLine, folder: Path) -> None:
    beddel("verify", folder, *BY_KEY, "--expect-outcome", "success")
    refused = as_payload(make_statement(outcome={"status": "refused", "reason": "limits"}))
    (folder / "r.json").write_bytes(signed(KEY, refused))
    answer = beddel("verify", folder, *BY_KEY, "--expect-outcome", "success", code=1)
    assert "MISMATCH   r.json" in answer.err
    assert (
        "unknown outcome"
        in beddel("verify", folder, *BY_KEY, "--expect-outcome", "sucess", code=2).err
    )
    for option in ("--proof", "--timestamp"):
        assert "one receipt" in beddel("verify", folder, *BY_KEY, option, "r.json", code=2).err


def test_names_in_a_folder_are_shown_and_not_sent(beddel: CommandLine, folder: Path) -> None:
    (folder / "\x1b[2Jvalid\u202e.json").write_bytes(b"{}")
    (folder / os.fsdecode(b"\xff.json")).write_bytes(b"{}")
    answer = beddel("verify", folder, *BY_KEY, code=1)
    assert not {"\x1b", "\u202e"} & set(answer.err + answer.out)
    assert "\\x1b[2Jvalid\\u202e.json" in answer.err
    assert beddel("verify", folder, *BY_KEY, "--json", code=1).json["not_valid"] == 2


def test_a_receipt_from_standard_input(home: Home) -> None:
    """In a process of its own: what is read is descriptor 0."""
    (home.work / "key.pem").write_bytes(KEY.public_pem)
    (home.work / "log.pem").write_bytes(LOG.public_pem)
    (home.work / "proof").write_bytes(SMALL.proof(3))
    data = make_envelope(PAYLOAD, [sign(PAYLOAD, KEY)])
    by = ("--key", "key.pem", "--log-key", "log.pem", "--proof", "proof")
    good = home.run("verify", "-", *by, input=data)
    assert good.returncode == 0, good.message
    assert b"entry 3 of 5" in good.stdout
    assert home.run("verify", "-", *by).returncode == 1  # nothing came


def test_a_run_by_a_key_that_is_rotated_and_revoked_afterwards(home: Home) -> None:
    """The whole way with real runs: what the log saw in time goes on to hold, and nothing else."""
    root = ("--root-key", home.work / "root.pem")
    assert home.run("keys", "init", *root).returncode == 0
    assert home.run("run", home.job("return 1"), "--receipt", "old.json").returncode == 0
    assert home.run("keys", "rotate", *root).returncode == 0
    assert home.run("run", home.job("return 1"), "--receipt", "new.json").returncode == 0
    listed = home.run("keys", "list", "--json").json["keys"]
    old = next(each["key_id"] for each in listed if each["until"])
    time.sleep(1)  # a list tells whole seconds, and a run of that second counts as too late
    assert home.run("keys", "revoke", old, "--reason", "lost", *root).returncode == 0
    for name in ("old.json", "new.json"):
        document = home.run("verify", name, "--json").json
        assert document["error"] is None
        assert (document["valid"], document["judged_at"]["source"]) == (True, "log")
        assert (document["key_id"] == old) is (name == "old.json")
    # Without its proof the one may be made up now; the other's key is good now.
    for name, code in (("old.json", 2), ("new.json", 0)):
        (home.work / f"{name}.tlog-proof").unlink()
        assert home.run("verify", name).returncode == code


def test_nothing_is_asked_of_the_network(
    beddel: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was made")

    monkeypatch.setattr(socket, "socket", refuse)
    write_proof(tmp_path)
    beddel("verify", "r.json", *BY_LIST)


def test_the_job_is_compared_as_before(beddel: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_bytes(JOB)
    beddel("verify", "r.json", *BY_KEY, "--job", "job.yaml")
    (tmp_path / "job.yaml").write_bytes(JOB + b"#")
    answer = beddel("verify", "r.json", *BY_KEY, "--job", "job.yaml", code=1)
    assert "valid signature, BUT" in answer.out
    assert "MISMATCH job" in answer.err
