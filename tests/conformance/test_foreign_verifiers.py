"""Receipts verify with programs that know nothing of us, and broken ones do not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from google.protobuf.json_format import Parse  # type: ignore[import-untyped]
from in_toto_attestation.v1 import statement_pb2  # type: ignore[import-untyped]
from in_toto_attestation.v1.statement import Statement  # type: ignore[import-untyped]
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import Key, SSlibKey  # type: ignore[attr-defined]

from beddel_cli.trust.countersign import countersigned
from beddel_cli.trust.dsse import PAYLOAD_TYPE, TRUST_PAYLOAD_TYPE, make_envelope, pae
from beddel_cli.trust.keys import (
    Passphrases,
    SigningKey,
    generate_key,
    load_public_key,
    load_signing_key,
)
from beddel_cli.trust.verify import PREDICATE_TYPE, verify_envelope
from tests.support.cli import Home
from tests.support.statements import as_payload, bundled, make_statement, sign, signed
from tests.support.trusted import entry, new_key, trust_file

KINDS = ("p256", "ed25519")
PAYLOAD = as_payload(make_statement())


@pytest.fixture(scope="module", params=KINDS)
def key(request: pytest.FixtureRequest) -> SigningKey:
    return load_signing_key("/nowhere", environment_pem=generate_key(request.param).decode())


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False
    )


def test_dsse_published_vector() -> None:
    """Source: secure-systems-lab/dsse protocol.md, "Test Vectors"."""
    encoded = pae("http://example.com/HelloWorld", b"hello world")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    public_key = ec.EllipticCurvePublicNumbers(
        46950820868899156662930047687818585632848591499744589407958293238635476079160,
        5640078356564379163099075877009565129882514886557779369047442380624545832820,
        ec.SECP256R1(),
    ).public_key()
    raw = base64.b64decode(
        "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA=="
    )
    signature = encode_dss_signature(*(int.from_bytes(raw[at : at + 32], "big") for at in (0, 32)))
    public_key.verify(signature, encoded, ec.ECDSA(hashes.SHA256()))


def securesystemslib_key(key: SigningKey) -> SSlibKey:
    public_key = serialization.load_pem_public_key(key.public_pem)
    return SSlibKey.from_crypto(public_key, keyid=key.key_id)


def test_securesystemslib(key: SigningKey) -> None:
    envelope = Envelope.from_dict(json.loads(signed(key)))
    assert list(envelope.verify([securesystemslib_key(key)], 1)) == [key.key_id]
    envelope.payload = PAYLOAD.replace(b"success", b"failure")
    with pytest.raises(VerificationError):
        envelope.verify([securesystemslib_key(key)], 1)


def test_securesystemslib_two_of_two() -> None:
    pair = [
        load_signing_key("/nowhere", environment_pem=generate_key(kind).decode())  # type: ignore[arg-type]
        for kind in KINDS
    ]
    data = make_envelope(PAYLOAD, [sign(PAYLOAD, key) for key in pair])
    accepted = Envelope.from_dict(json.loads(data)).verify(
        [securesystemslib_key(key) for key in pair], 2
    )
    assert sorted(accepted) == sorted(key.key_id for key in pair)


def test_securesystemslib_counts_our_countersignatures() -> None:
    made, ann, bob, eve = (
        load_signing_key("/nowhere", environment_pem=generate_key(kind).decode())
        for kind in ("p256", "ed25519", "p256", "p256")
    )
    data = signed(made)
    for key in (ann, bob):
        known = [load_public_key(each.public_pem) for each in (made, ann, bob)]
        data = countersigned(verify_envelope(data, known), key)
    envelope = Envelope.from_dict(json.loads(data))
    trusted: list[Key] = [securesystemslib_key(key) for key in (ann, bob)]
    assert sorted(envelope.verify(trusted, 2)) == sorted((ann.key_id, bob.key_id))
    assert len(envelope.verify([*trusted, securesystemslib_key(made)], 3)) == 3
    with pytest.raises(VerificationError):
        envelope.verify([*trusted, securesystemslib_key(eve)], 3)
    # One of them twice is one.
    again = json.loads(data)
    again["signatures"][2] = dict(again["signatures"][1])
    with pytest.raises(ValueError, match="Multiple signatures"):
        Envelope.from_dict(again)


def test_securesystemslib_reads_a_list_of_trusted_keys() -> None:
    root, other = new_key(), new_key("ed25519")
    data = trust_file(root, entry(other))
    envelope = Envelope.from_dict(json.loads(data))
    assert envelope.payload_type == TRUST_PAYLOAD_TYPE
    assert list(envelope.verify([securesystemslib_key(root)], 1)) == [root.key_id]
    assert json.loads(envelope.payload)["keys"][0]["owner"] == "ann"
    with pytest.raises(VerificationError):
        envelope.verify([securesystemslib_key(other)], 1)


def test_in_toto_attestation(key: SigningKey) -> None:
    payload = base64.b64decode(json.loads(signed(key))["payload"])
    statement = Statement.copy_from_pb(Parse(payload, statement_pb2.Statement()))
    statement.validate()
    assert statement.pb.predicate_type == PREDICATE_TYPE
    del statement.pb.subject[:]
    with pytest.raises(ValueError, match="subject"):
        statement.validate()


def test_a_salted_receipt_is_as_valid_a_statement_to_others(home: Home) -> None:
    """Source: in-toto attestation spec/v1/digest_set.md: any name of an algorithm will do."""
    options = ("--salt", "salt", "--capture", "--receipt", "r.json")
    assert home.run("run", home.job("return 1"), "-q", *options).returncode == 0
    envelope = Envelope.from_dict(json.loads((home.work / "r.json").read_bytes()))
    key = load_signing_key(str(home.home))
    assert list(envelope.verify([securesystemslib_key(key)], 1)) == [key.key_id]
    statement = Statement.copy_from_pb(Parse(envelope.payload, statement_pb2.Statement()))
    statement.validate()
    subjects = {each.name: dict(each.digest) for each in statement.pb.subject}
    assert set(subjects) == {"job", "output", "capture"}
    output = hmac.digest((home.work / "salt").read_bytes(), hashlib.sha256(b"1").digest(), "sha256")
    assert subjects["output"] == {"saltedSha256": output.hex()}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize("place", ["alone", "countersigned", "countersigning"])
def test_openssl(key: SigningKey, tmp_path: Path, place: str) -> None:
    data, other = signed(key), new_key()
    if place == "countersigned":
        data = countersigned(verify_envelope(data, [load_public_key(key.public_pem)]), other)
    elif place == "countersigning":
        public_key = load_public_key(other.public_pem)
        data = countersigned(verify_envelope(signed(other), [public_key]), key)
    envelope = json.loads(data)
    message, signature, public = (tmp_path / name for name in ("pae", "sig", "pub.pem"))
    mine = [each["sig"] for each in envelope["signatures"] if each["keyid"] == key.key_id]
    signature.write_bytes(base64.b64decode(mine[0]))
    public.write_bytes(key.public_pem)

    def verify(payload: bytes) -> subprocess.CompletedProcess[str]:
        message.write_bytes(pae(PAYLOAD_TYPE, payload))
        if key.kind == "p256":
            return run(
                "openssl", "dgst", "-sha256", "-verify", public, "-signature", signature, message
            )
        raw = ["-rawin", "-in", message, "-sigfile", signature]
        return run("openssl", "pkeyutl", "-verify", "-pubin", "-inkey", public, *raw)

    good = verify(base64.b64decode(envelope["payload"]))
    assert good.returncode == 0, good.stderr
    assert "Verified" in good.stdout
    assert verify(PAYLOAD + b" ").returncode == 1


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize("passphrase", [None, "open sesame"])
def test_openssl_reads_our_key_files_and_computes_our_key_id(
    key: SigningKey, tmp_path: Path, passphrase: str | None
) -> None:
    home = tmp_path / "home"
    made = load_signing_key(str(home), kind=key.kind, passphrases=Passphrases(passphrase))
    options = ["-passin", f"pass:{passphrase}"] if passphrase else []
    der = tmp_path / "der"
    done = run(
        "openssl", "pkey", "-in", made.path, *options, "-pubout", "-outform", "DER", "-out", der
    )
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256(der.read_bytes()).hexdigest() == made.key_id
    text = run("openssl", "pkey", "-pubin", "-in", made.public_path, "-pubout").stdout
    assert text.encode() == made.public_pem


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize(
    "options",
    [["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], ["-algorithm", "ed25519"]],
)
@pytest.mark.parametrize("encrypt", [[], ["-aes-256-cbc", "-pass", "pass:open sesame"]])
def test_keys_that_openssl_makes_sign(
    tmp_path: Path, options: list[str], encrypt: list[str]
) -> None:
    file = tmp_path / "k.pem"
    with open(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600)):
        made = run("openssl", "genpkey", *options, *encrypt, "-out", file)
    assert made.returncode == 0, made.stderr
    key = load_signing_key("/nowhere", file=str(file), passphrases=Passphrases("open sesame"))
    envelope = Envelope.from_dict(json.loads(signed(key)))
    assert list(envelope.verify([securesystemslib_key(key)], 1)) == [key.key_id]


VERIFY_BUNDLE = """
const { bundleFromJSON } = require('@sigstore/bundle');
const { Verifier, toSignedEntity, toTrustMaterial } = require('@sigstore/verify');
const { createPublicKey } = require('node:crypto');
const { readFileSync } = require('node:fs');
const [bundlePath, keyPath, keyId] = process.argv.slice(2);
const bundle = bundleFromJSON(JSON.parse(readFileSync(bundlePath, 'utf8')));
const root = { certificateAuthorities: [], timestampAuthorities: [], tlogs: [], ctlogs: [] };
const trust = toTrustMaterial(root, (hint) => {
  if (hint !== keyId) throw new Error('asked for another key: ' + hint);
  return { publicKey: createPublicKey(readFileSync(keyPath)), validFor: () => true };
});
const none = { tlogThreshold: 0, ctlogThreshold: 0, timestampThreshold: 0 };
const signer = new Verifier(trust, none).verify(toSignedEntity(bundle));
console.log('verified', signer.key.asymmetricKeyType);
"""


def skip_or_fail(reason: str) -> None:
    """Skip on a laptop; in CI, where node is promised, a check that cannot run is a failure."""
    if os.environ.get("CI") and shutil.which("node"):
        pytest.fail(f"CI has node but cannot verify with @sigstore/verify: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def sigstore_verify(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Give a function that has @sigstore/verify judge a bundle."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        skip_or_fail("node and npm are not installed")
    folder = tmp_path_factory.mktemp("node")
    (folder / "verify.js").write_text(VERIFY_BUNDLE)
    packages = ["@sigstore/verify@3", "@sigstore/bundle@4"]
    installed = run(
        "npm", "install", "--no-save", "--no-audit", "--no-fund", "--prefix", folder, *packages
    )
    if installed.returncode != 0:
        skip_or_fail(f"npm cannot install {packages}: {installed.stderr[-500:]}")

    def judge(bundle: bytes, key: SigningKey) -> subprocess.CompletedProcess[str]:
        (folder / "bundle.json").write_bytes(bundle)
        (folder / "key.pem").write_bytes(key.public_pem)
        files = (folder / name for name in ("verify.js", "bundle.json", "key.pem"))
        return run("node", *files, key.key_id)

    return judge


def test_sigstore_verify(key: SigningKey, sigstore_verify: Callable[..., Any]) -> None:
    good = sigstore_verify(bundled(key), key)
    assert good.returncode == 0, good.stderr
    assert good.stdout == f"verified {'ec' if key.kind == 'p256' else 'ed25519'}\n"
    bundle = json.loads(bundled(key))
    changed = PAYLOAD.replace(b"success", b"failure")
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(changed).decode()
    bad = sigstore_verify(json.dumps(bundle).encode(), key)
    assert bad.returncode == 1
    assert "signature verification failed" in bad.stderr
