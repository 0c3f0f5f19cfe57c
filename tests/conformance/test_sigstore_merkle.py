"""The proofs of a log, judged by the code that judges those of Rekor.

`sigstore` brings 67 MB and more, so it is not installed for this: BEDDEL_SIGSTORE_PYTHON names an
interpreter that has it. To repeat:

    python3 -m venv /tmp/sigstore && /tmp/sigstore/bin/pip install sigstore
    BEDDEL_SIGSTORE_PYTHON=/tmp/sigstore/bin/python pytest tests/conformance/test_sigstore_merkle.py

Last answer, of sigstore 4.5.1: all 2,485 proofs of every size up to 70 accepted, all 2,485 with one
bit changed refused.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from beddel_cli.log.ledger import open_ledger
from beddel_cli.log.merkle import inclusion_path
from tests.support.capabilities import give_up
from tests.support.logs import make_log

VARIABLE = "BEDDEL_SIGSTORE_PYTHON"
JUDGE = """
import json, sys
from importlib.metadata import version
from types import SimpleNamespace as Holder
from sigstore._internal.merkle import verify_merkle_inclusion
from sigstore.errors import VerificationError

def accepted(case, leaf):
    proof = Holder(
        log_index=case["index"],
        tree_size=case["size"],
        root_hash=bytes.fromhex(case["root"]),
        hashes=[bytes.fromhex(step) for step in case["path"]],
    )
    try:
        inner = Holder(inclusion_proof=proof, canonicalized_body=leaf)
        verify_merkle_inclusion(Holder(_inner=inner))
    except VerificationError:
        return False
    return True

good = bad = 0
for case in json.load(sys.stdin):
    leaf = bytes.fromhex(case["entry"])
    good += accepted(case, leaf)
    bad += not accepted(case, bytes([leaf[0] ^ 1]) + leaf[1:])
print(json.dumps({"version": version("sigstore"), "accepted": good, "refused": bad}))
"""
MOST = 70


def test_every_proof_is_accepted_there(tmp_path: Path) -> None:
    python = os.environ.get(VARIABLE)
    if python == "absent":
        pytest.skip(f"declared absent: {VARIABLE}")
    if not python:
        give_up(f"{VARIABLE} names no interpreter that has sigstore")
    make_log(tmp_path, MOST // 2)
    with open_ledger(str(tmp_path), "default") as ledger:
        rows = list(ledger.rows())
        cases = [
            {
                "entry": rows[index].data.hex(),
                "index": index,
                "size": size,
                "root": ledger.root(size).hex(),
                "path": [step.hex() for step in inclusion_path(index, size, ledger.read_node)],
            }
            for size in range(1, MOST + 1)
            for index in range(size)
        ]
    done = subprocess.run(
        [python, "-c", JUDGE], input=json.dumps(cases), capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert (found["accepted"], found["refused"]) == (len(cases), len(cases)), found
