"""The receipt of a program: what it proves, and what it keeps to itself."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support import callers
from tests.support.callers import Caller

SECRET = "value-that-is-nobodys-business"
WORDS = "what-it-printed"


def statement(caller: Caller) -> tuple[bytes, dict[str, Any]]:
    """Give the signed bytes of the newest receipt, and what they say."""
    envelope = json.loads(caller.home.receipts()[-1].read_bytes())
    payload = base64.b64decode(envelope["payload"])
    said: dict[str, Any] = json.loads(payload)
    return payload, said


def full_run(caller: Caller) -> Path:
    """Run with everything that could leave a trace; gives the folder of the results."""
    folder = caller.folder("project-of-mine", a=b"one")
    shown = caller.folder("shown-to-it", file=b"shown")
    results = caller.work / "results-of-it"
    result = caller.sh(
        f"echo {WORDS}; echo {WORDS} >&2; cat; mkdir d; echo '{WORDS}' > d/new",
        *("--env", f"API_TOKEN={SECRET}", "--env", "PASSED", "--workspace", folder),
        *("--mount", f"{shown}:/shown", "--results", results),
        input=SECRET.encode(),
        env=caller.environment(PASSED=SECRET, NOT_PASSED=SECRET),
    )
    assert result.returncode == 0, result.message
    return results


def test_no_value_no_text_and_no_place_of_the_host(caller: Caller) -> None:
    full_run(caller)
    payload, said = statement(caller)
    for word in (
        *(SECRET, WORDS, str(caller.work), "project-of-mine", "shown-to-it", "results-of-it"),
        *("NOT_PASSED", str(caller.home.home), os.uname().nodename),
    ):
        assert word.encode() not in payload, word
    assert said["predicate"]["environmentNames"] == ["API_TOKEN", "PASSED"]
    assert b"/workspace" in payload, "the control: places inside are named"


def test_every_output_is_a_subject(caller: Caller) -> None:
    results = full_run(caller)
    _, said = statement(caller)
    digests = {item["name"]: item["digest"]["sha256"] for item in said["subject"]}
    printed = f"{WORDS}\n".encode()
    assert digests.pop("job")
    assert digests == {
        "stdout": hashlib.sha256(printed + SECRET.encode()).hexdigest(),
        "stderr": hashlib.sha256(printed).hexdigest(),
        "results/d/new": hashlib.sha256((results / "d" / "new").read_bytes()).hexdigest(),
    }


def test_every_figure_has_its_source(caller: Caller) -> None:
    full_run(caller)
    usage = statement(caller)[1]["predicate"]["usage"]
    for name, figure in usage.items():
        if figure is not None:
            assert figure["source"], name
    by_leaf = caller.profile == "ultra-secure"
    assert (usage["memoryPeak"] is not None) == by_leaf, "exact, or not there at all"
    assert usage["cpu"]["exact"] is by_leaf
    assert ("cgroup" in usage["cpu"]["source"]) == by_leaf
    assert usage["wallsSetup"]["ns"] > 0
    assert usage["disk"]["source"] == "kernel, statvfs at the end"
    if usage["anonymousPeak"] is not None:
        assert "sample" in usage["anonymousPeak"]["source"], "it says that it is a lower bound"


def test_a_name_of_a_result_that_is_no_text(caller: Caller) -> None:
    results = caller.work / "results"
    result = caller.python("open(b'a\\xff\\\\n', 'w').write('x')", "--results", results)
    assert result.returncode == 0, result.message
    assert os.listdir(os.fsencode(results)) == [b"a\xff\\n"]
    _, said = statement(caller)
    assert "results/a\\udcff\\\\n" in {item["name"] for item in said["subject"]}


@pytest.mark.parametrize("script", ["exit 0", "exit 3", "kill -9 $$", "sleep 9"])
def test_it_verifies_whatever_the_ending(caller: Caller, script: str) -> None:
    caller.sh(script, "-q", "--timeout", "500ms")
    receipt = caller.home.receipts()[-1]
    status = caller.predicate()["outcome"]["status"]
    assert caller.cli("verify", receipt, "--expect-outcome", status).returncode == 0
    other = "failure" if status == "success" else "success"
    assert caller.cli("verify", receipt, "--expect-outcome", other).returncode == 1
    flipped = caller.work / "flipped.json"
    data = json.loads(receipt.read_bytes())
    payload = bytearray(base64.b64decode(data["payload"]))
    payload[len(payload) // 2] ^= 1
    data["payload"] = base64.b64encode(payload).decode()
    flipped.write_text(json.dumps(data), encoding="ascii")
    assert caller.cli("verify", flipped).returncode == 1


def test_the_plan_is_the_same_whoever_runs_it() -> None:
    """Who runs it, where its folders lie and how it ends are no part of the policy."""
    digests = set()
    for name in callers.NAMES:
        for script in ("exit 0", "exit 1"):
            with callers.caller(name) as caller:
                folder = caller.folder(f"place-of-{name}-{script[-1]}")
                caller.exec(
                    *("--env", f"A={name}", "--workspace", folder, "--", "sh", "-c", script),
                    profile="high-security",
                )
                digests.add(caller.predicate()["planDigest"]["sha256"])
    assert len(digests) == 1
    with callers.caller(callers.NAMES[0]) as caller:
        caller.exec("--", "sh", "-c", "exit 0", profile="high-security")
        assert caller.predicate()["planDigest"]["sha256"] not in digests, "the control"


def test_the_identity_inside_owns_nothing_on_the_host(caller: Caller) -> None:
    assert caller.exec("--", "true").returncode == 0
    identity = caller.predicate()["runtime"]["sandbox"]["identity"]
    if caller.user is None and callers.AS_ROOT:
        assert identity.startswith("throw-away id ")
        number = int(identity.split()[-1])
        assert 1879048192 <= number <= 2013265919
    else:
        assert identity == "own id"


# ---- the document of --json -----------------------------------------------------------------


def test_the_document_holds_both_streams(caller: Caller) -> None:
    result = caller.sh(r"echo text é; printf '\377\000' >&2; exit 4", "--json")
    assert result.returncode == 4
    document = result.json
    out, error = "text é\n".encode(), b"\xff\x00"
    assert document["stdout"] == {
        "bytes": len(out),
        "sha256": hashlib.sha256(out).hexdigest(),
        "text": "text é\n",
        "base64": None,
        "truncated": False,
    }
    assert document["stderr"]["text"] is None
    assert base64.b64decode(document["stderr"]["base64"]) == error
    said = caller.predicate()["streams"]
    for name in ("stdout", "stderr"):
        assert document[name]["sha256"] == said[name]["digest"]["sha256"]
    assert document["outcome"]["program_exit_code"] == 4
    assert document["time"]["program_cpu_ns"] is not None
    assert document["time"]["walls_setup_ns"] > 0
    assert (document["output"], document["fuel"], document["console"]) == (None, None, [])


def test_the_document_tells_what_was_cut(caller: Caller) -> None:
    result = caller.exec("--json", "--max-output", "1000B", "--", "yes")
    assert result.returncode == 124
    out = result.json["stdout"]
    assert (out["bytes"], out["text"]) == (1000, "y\n" * 500)
    assert result.json["error"]["code"] == "output"


def test_the_document_names_the_results(caller: Caller) -> None:
    results = caller.work / "results"
    result = caller.sh("echo x > y", "--json", "--results", results)
    document = result.json
    assert document["results_path"] == str(results)
    assert [item["path"] for item in document["files"]] == ["y"]
