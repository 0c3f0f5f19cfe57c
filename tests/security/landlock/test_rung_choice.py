"""When the landlock rung is used: only where namespaces are refused and a profile permits it.

Each cause is real: a limit of no user namespaces, a system call that answers with an errno.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from tests.security.landlock.conftest import NO_NAMESPACES, PERMITS_IT, Rung
from tests.support import block_syscalls, drop_capabilities
from tests.support.cli import COMMAND, Result

WITHOUT = (sys.executable, "-P", str(Path(block_syscalls.__file__)))


def blocked(rung: Rung, blocks: str, *arguments: str, profile: str = PERMITS_IT) -> Result:
    """Run a program on a machine on which some system calls fail."""
    command = (*WITHOUT, blocks, *COMMAND)
    return rung.caller.exec(*arguments, command=command, profile=profile)


@pytest.mark.parametrize(
    ("blocks", "cause"),
    [
        ("unshare-refused", "user namespace failed with EPERM"),
        ("unshare-missing", "user namespace failed with ENOSYS"),
        ("mount-refused", "files failed with EPERM"),
        pytest.param("open-tree-missing", "files failed with ENOSYS", marks=pytest.mark.slow),
        pytest.param("pivot-root-refused", "root failed with EPERM", marks=pytest.mark.slow),
    ],
)
def test_whatever_step_fails_the_weaker_rung_is_built(rung: Rung, blocks: str, cause: str) -> None:
    done = blocked(rung, blocks, "--json", "--", "sh", "-c", "echo up")
    assert done.returncode == 0, done.message
    told = done.json
    assert (told["rung"], told["stdout"]["text"]) == ("landlock", "up\n")
    controls = {item["name"]: item for item in told["controls"]}
    assert not controls["namespaces"]["enforced"]
    assert cause in controls["namespaces"]["found"]
    strong = {"guardian", "no-new-privs", "capabilities", "seccomp", "landlock"}
    assert {name for name in strong if controls[name]["enforced"]} == strong
    assert {controls[name]["requested"] for name in strong} == {"required"}
    assert any("weaker than namespaces" in warning for warning in told["warnings"])
    receipt = rung.caller.predicate()
    assert receipt["runtime"]["sandbox"]["rung"] == "landlock"
    assert receipt["runtime"]["sandbox"]["proc"] == "closed"
    assert receipt["plan"]["required"] == sorted(
        ["namespaces-or-landlock", "no-new-privs", "capabilities", "seccomp"]
    )


def test_where_nothing_can_be_built_the_refusal_names_both(rung: Rung) -> None:
    done = blocked(rung, "clone-refused", "--", "true")
    assert done.returncode == 126
    assert "namespaces: init failed with EPERM" in done.message
    assert "landlock: guardian failed with EPERM" in done.message


def test_what_fails_because_of_the_job_does_not_weaken_its_walls(rung: Rung) -> None:
    if not rung.own_id:
        pytest.skip("root's walls find a workspace by descriptor, and this way not at all")
    space = rung.caller.folder("space", file=b"x")
    # A step that looks at the workspace, as one that was exchanged meanwhile would make it fail.
    done = blocked(rung, "openat2-missing", "--workspace", str(space), "--json", "--", "true")
    assert (done.returncode, done.json["rung"]) == (126, None), done.message
    assert "mounts failed with ENOSYS" in done.json["error"]["got"]
    assert "landlock:" not in done.json["error"]["got"]
    # The control: without a workspace the same machine has all it takes.
    assert blocked(rung, "openat2-missing", "--json", "--", "true").json["rung"] == "namespaces"


@pytest.mark.parametrize("profile", ["ultra-secure", "high-security"])
def test_a_profile_that_requires_namespaces_refuses(rung: Rung, profile: str) -> None:
    done = rung.exec("--json", "--", "true", profile=profile)
    assert done.returncode == 126
    assert done.json["rung"] is None
    assert done.json["error"]["message"] == (
        f"{profile} requires namespaces, which this machine does not enforce"
    )
    assert rung.caller.predicate()["runtime"]["sandbox"] is None


def test_the_stronger_rung_is_used_where_it_can_be(rung: Rung) -> None:
    done = rung.caller.exec("--json", "--", "true", profile=PERMITS_IT)
    assert (done.returncode, done.json["rung"]) == (0, "namespaces"), done.message
    assert rung.caller.predicate()["runtime"]["sandbox"]["rung"] == "namespaces"
    controls = {item["name"]: item["requested"] for item in done.json["controls"]}
    assert controls["namespaces"] == "required"
    assert "guardian" not in controls


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ("landlock-missing", "ENOSYS"),
        pytest.param("landlock-off", "ENOTSUP", marks=pytest.mark.slow),
        ("landlock-restrict", "EPERM"),
        ("seccomp-not-permitted", "EPERM"),
        pytest.param("capset", "EPERM", marks=pytest.mark.slow),
    ],
)
def test_without_one_of_its_walls_the_weaker_rung_is_refused(
    rung: Rung, block: str, words: str
) -> None:
    done = blocked(rung, f"unshare-refused,{block}", "--", "sh", "-c", "echo up")
    assert (done.returncode, done.stdout) == (126, b""), done.message
    assert "namespaces: user namespace failed with EPERM" in done.message
    second = done.message.partition("landlock: ")[2].partition("\n")[0]
    assert words in second, second


def test_root_that_can_take_no_other_id_is_refused(rung: Rung) -> None:
    if os.geteuid() != 0 or rung.own_id:
        pytest.skip("an ordinary user's program has its own id")
    without_rights = (sys.executable, "-P", str(Path(drop_capabilities.__file__)))
    command = (*without_rights, *COMMAND)
    done = rung.caller.exec("--", "true", command=command, profile=PERMITS_IT)
    assert done.returncode == 126
    assert "throw-away id failed with EPERM" in done.message
    assert "CAP_SETUID" in done.message


def test_doctor_and_explain_name_the_rung(rung: Rung) -> None:
    command = (*NO_NAMESPACES, *COMMAND)
    asked = ("--profile", PERMITS_IT, "--runtime", "process")
    told = rung.caller.cli("doctor", "--json", *asked, command=command)
    assert (told.returncode, told.json["can_run"]) == (0, True), told.message
    assert told.json["runtimes"]["process"]["rung"] == "landlock"
    strict = rung.caller.cli(
        *("doctor", "--json", "--profile", "high-security", "--runtime", "process"),
        command=command,
    )
    assert (strict.returncode, strict.json["question"]["lacks"]) == (1, ["namespaces"])
    job = rung.caller.work / "job.yaml"
    job.write_text("beddel: 1\nid: probe\nruntime: process\ncommand: [/bin/true]\n")
    rung.caller.own(job)
    explained = rung.caller.cli("explain", job, "--json", "--profile", PERMITS_IT, command=command)
    assert explained.json["would_run"] is True, explained.message
    walls = {item["name"]: item for item in explained.json["protections"]}
    assert walls["namespaces-or-landlock"]["available"]
    assert "the landlock rung, which is weaker" in walls["namespaces-or-landlock"]["how"]
    assert not walls["namespaces"]["available"]
    assert errno.ENOSPC == 28
