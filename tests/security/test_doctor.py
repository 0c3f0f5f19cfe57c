"""What `doctor` says of a machine that has everything, and of one where something is blocked."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import block_syscalls, no_namespaces
from tests.support.capabilities import require
from tests.support.cli import COMMAND, Home, Result, has_traceback

BLOCKING = (sys.executable, "-P", str(Path(block_syscalls.__file__)))
NO_NAMESPACES = (sys.executable, "-P", str(Path(no_namespaces.__file__)))


def protection(document: dict[str, Any], runtime: str, name: str) -> dict[str, Any]:
    found = document["runtimes"][runtime]["protections"]
    return next(dict(item) for item in found if item["name"] == name)


def doctor(home: Home, *arguments: str, block: str = "none") -> Result:
    return home.run("doctor", "--json", *arguments, command=(*BLOCKING, block, *COMMAND))


def test_the_usual_question(home: Home) -> None:
    result = doctor(home)
    assert result.returncode == 0, result.message
    document = result.json
    assert (document["can_run"], document["refusal"]) == (True, None)
    question = {"profile": "ultra-secure", "runtime": "javascript", "can_run": True, "lacks": []}
    assert document["question"] == question
    said = {item["name"]: item for item in document["runtimes"]["javascript"]["protections"]}
    assert set(said) == {
        *("store-limits", "seccomp", "landlock", "no-new-privs", "capabilities", "rlimits"),
    }
    assert all(item["present"] and item["tried"] and not item["fix"] for item in said.values())
    assert [item["matches"] for item in document["code"]] == [True, True]
    assert len(document["verdicts"]) == 6
    assert not home.files(), "it made no key, and left nothing"


@pytest.mark.parametrize(
    ("block", "name", "number"),
    [("landlock-missing", "landlock", "ENOSYS"), ("seccomp-not-permitted", "seccomp", "EPERM")],
)
def test_a_missing_protection(home: Home, block: str, name: str, number: str) -> None:
    result = doctor(home, block=block)
    assert result.returncode == 1, result.message
    document = result.json
    assert name in document["question"]["lacks"]
    for runtime in ("javascript", "process"):
        said = protection(document, runtime, name)
        assert (said["present"], said["enforced_by"], said["tried"]) == (False, None, None)
        assert number in said["found"]
        assert said["fix"]


def test_landlock_is_not_required_of_tenants(home: Home) -> None:
    result = doctor(home, "--profile", "tenant-isolated", block="landlock-missing")
    assert (result.returncode, result.json["question"]["lacks"]) == (0, [])


def test_no_user_namespaces(home: Home) -> None:
    require("overlay")  # the control: there are some without the block
    control = home.run("doctor", "--json", "--runtime", "process")
    assert protection(control.json, "process", "namespaces")["present"], control.message
    command = (*NO_NAMESPACES, *COMMAND)
    result = home.run("doctor", "--json", "--runtime", "process", command=command)
    assert result.returncode == 1, result.message
    said = protection(result.json, "process", "namespaces")
    assert said["found"] == (
        "user namespace failed with ENOSPC: No space left on device: user.max_user_namespaces is 0"
    )
    assert said["fix"] == "sudo sysctl -w user.max_user_namespaces=15000"
    # What would then hold a program of a profile that permits it is tried in their place.
    for name in ("guardian", "landlock", "seccomp", "no-new-privs", "capabilities", "rlimits"):
        assert protection(result.json, "process", name)["present"], name
    assert result.json["runtimes"]["process"]["rung"] == "landlock"
    assert control.json["runtimes"]["process"]["rung"] == "namespaces"
    assert result.json["question"]["lacks"][-1] == "namespaces"
    # Isolates need none.
    assert all(item["present"] for item in result.json["runtimes"]["javascript"]["protections"])


def test_text_for_people(home: Home) -> None:
    result = home.run("doctor")
    lines = result.stdout.decode().splitlines()
    assert (result.returncode, lines[0]) == (0, "yes  javascript under ultra-secure")
    assert "  yes javascript  ultra-secure" in lines
    blocked = home.run("doctor", command=(*BLOCKING, "landlock-missing", *COMMAND))
    lines = blocked.stdout.decode().splitlines()
    assert (blocked.returncode, lines[0]) == (1, "NO  javascript under ultra-secure")
    where = next(i for i, line in enumerate(lines) if line.startswith("  NO  landlock"))
    assert lines[where + 1].startswith("      fix: use Linux 5.13 or newer")


def test_a_question_that_is_none(home: Home) -> None:
    home.job("return 1")
    for arguments in (
        ("--runtime", "cobol"),
        ("--profile", "no-such"),
        ("--job", "missing.yaml"),
        ("--allow-path", "."),
        ("--job", "job.yaml", "--allow-path", "missing"),
    ):
        result = home.run("doctor", *arguments)
        assert result.returncode == 2, result.message
        assert not has_traceback(result)


def test_a_job_that_asks_for_too_much(home: Home) -> None:
    fits = home.job("return 1", name="fits", limits={"memory": "1MiB"})
    large = home.job("return 1", name="large", limits={"memory": "4MiB"})
    assert doctor(home, "--job", str(fits)).returncode == 0
    result = doctor(home, "--job", str(large))
    assert result.returncode == 1
    refusal = result.json["refusal"]
    assert (refusal["needs"], refusal["found"]) == ("memory 4MiB", "ultra-secure grants 2MiB")
    assert doctor(home, "--job", str(large), "--profile", "high-security").returncode == 0


def outside(home: Home, kind: str) -> tuple[Path, Path]:
    """Give a job that names something beside its own folder, and that something."""
    folder, beside = home.work / "jobs", home.work / "lib"
    for each in (folder, beside):
        each.mkdir()
    (beside / "code.js").write_text("return 1")
    asked = {
        "file": "runtime: javascript\nfile: ../lib/code.js\n",
        "mount": "runtime: process\ncommand: ['true']\n"
        "mounts: [{source: ../lib, target: /lib-of-mine}]\n",
    }
    (folder / "job.yaml").write_text(f"beddel: 1\nid: one\n{asked[kind]}")
    return folder / "job.yaml", beside


@pytest.mark.parametrize("kind", ["file", "mount"])
def test_a_job_that_names_what_lies_elsewhere(home: Home, kind: str) -> None:
    job, beside = outside(home, kind)
    result = doctor(home, "--job", str(job), "--profile", "tenant-isolated")
    assert result.returncode == 1, result.message
    refusal = result.json["refusal"]
    assert "../lib" in refusal["needs"]
    assert "allowed: " in refusal["found"]
    assert "--allow-path DIR" in refusal["fix"]
    asked = ("doctor", "--job", job, "--profile", "tenant-isolated")
    text = home.run(*asked).stdout.decode().splitlines()
    assert text[1:4] == [
        f"  needs  {refusal['needs']}",
        f"  found  {refusal['found']}",
        f"  fix    {refusal['fix']}",
    ]
    # What it says helps does help, and `run` says the same.
    allowed = ("--profile", "tenant-isolated", "--allow-path", str(beside))
    assert doctor(home, "--job", str(job), *allowed).json["refusal"] is None
    assert home.run("run", job, "--profile", "tenant-isolated").returncode == 126
    assert home.run("run", job, *allowed).returncode == 0
