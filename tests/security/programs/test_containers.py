"""Programs in something like a container: either they run, and the receipt is true, or it refuses.

Each thing that Docker and Podman take away is really taken away, alone and all together (see
tests/support/container.py), and what `doctor` says beforehand is what `exec` then does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import container
from tests.support.callers import Caller
from tests.support.capabilities import require
from tests.support.cli import COMMAND, Result, has_traceback

PROFILES = ("ultra-secure", "high-security", "tenant-isolated")
PROGRAM = ("--", "sh", "-c", "echo up; ls /proc | wc -l")
# What a person gets who gives Docker the flags that a refusal names.
UNCONFINED = ("pid-1", "overlay-root", "read-only-cgroups", "capabilities")
# May go on behind weaker walls where namespaces are refused, and then says so.
PERMITS_LESS = "tenant-isolated"
FILTERED = "docker run --security-opt seccomp=unconfined"
NAMESPACES, CGROUP = "namespaces", "cgroup"
# Of each thing alone: which profiles refuse, for the want of what.
ALONE: dict[str, dict[str, str]] = {
    "pid-1": {},
    "overlay-root": {},
    "masked-proc": {},
    "read-only-cgroups": {"ultra-secure": CGROUP},
    "no-cgroups": {"ultra-secure": CGROUP},
    "tiny-dev": {},
    "no-shm": {},
    "no-run": {},
    "read-only-root": {},
    "capabilities": {},
    "no-new-privileges": {},
    "one-id": {},
    "seccomp": dict.fromkeys(PROFILES, NAMESPACES),
}

# Looked at before a release.
SELDOM = ("pid-1", "no-shm", "no-run", "no-new-privileges", "tiny-dev")


def prepared(caller: Caller, conditions: tuple[str, ...]) -> tuple[list[str], dict[str, Any]]:
    """Give what to put before a command to run it in a container as a caller, and how."""
    folder = str(caller.work.parent)
    prefix = [sys.executable, "-P", str(Path(container.__file__)), ",".join(conditions)]
    prefix += ["--volume", folder]
    more: dict[str, Any] = {"env": caller.environment()}
    if "one-id" in conditions:
        more |= caller.identity()
    elif caller.user is not None:
        prefix += ["--user", str(caller.user)]
    return prefix, more


def inside(caller: Caller, conditions: tuple[str, ...], *command: str) -> Result:
    """Run a command of ours in a container as a caller."""
    prefix, more = prepared(caller, conditions)
    return caller.home.run(*command, command=(*prefix, "--", *COMMAND), **more)


def needs_root(conditions: tuple[str, ...]) -> None:
    if "one-id" not in conditions:
        require("root")


def judge(
    caller: Caller, conditions: tuple[str, ...], profile: str, wanted: str | None
) -> dict[str, Any]:
    """Run under one profile and hold the receipt against what happened; gives what it says."""
    done = inside(caller, conditions, "exec", "-q", "--profile", profile, *PROGRAM)
    assert not has_traceback(done), done.message
    said = caller.predicate()
    if done.returncode == 126:
        outcome = said["outcome"]
        assert (outcome["status"], outcome["reason"]) == ("refused", "protection")
        assert outcome["refusal"]["needs"] == wanted, done.message
        assert outcome["refusal"]["fix"].encode() in done.stderr
        return dict(said)
    if wanted == NAMESPACES and profile == PERMITS_LESS:
        return behind_less(done, said)
    assert wanted is None, f"{profile} ran without {wanted}"
    assert (done.returncode, said["outcome"]["status"]) == (0, "success"), done.message
    assert done.stdout.startswith(b"up\n")
    listed = int(done.stdout.split()[1])
    # An empty /proc is empty, an own one is full.
    assert (listed == 0) is (said["runtime"]["sandbox"]["proc"] == "empty")
    required = [each for each in said["controls"] if each["requested"] == "required"]
    assert required
    assert all(each["enforced"] for each in required)
    return dict(said)


def behind_less(done: Result, said: dict[str, Any]) -> dict[str, Any]:
    """Hold a run on the rung below namespaces, where a profile permits it, against its receipt."""
    assert (done.returncode, said["outcome"]["status"]) == (0, "success"), done.message
    assert done.stdout.startswith(b"up\n")
    assert said["runtime"]["sandbox"]["rung"] == "landlock"
    enforced = {each["name"]: each["enforced"] for each in said["controls"]}
    assert not enforced["namespaces"]
    assert all(enforced[name] for name in ("no-new-privs", "capabilities", "seccomp", "landlock"))
    return dict(said)


def runs(said: dict[str, Any]) -> bool:
    return bool(said["outcome"]["status"] == "success")


def agrees(caller: Caller, conditions: tuple[str, ...], profile: str, wanted: str | None) -> None:
    """Hold what `doctor` says against what `exec` does."""
    told = inside(
        caller, conditions, "doctor", "--runtime", "process", "--profile", profile, "--json"
    )
    assert told.returncode == (0 if wanted is None else 1), told.message
    assert wanted is None or wanted in told.json["question"]["lacks"]


def wanting(caller: Caller, conditions: tuple[str, ...], profile: str) -> str | None:
    """Give what a profile misses first, where several things are taken away at once."""
    found = {ALONE[each].get(profile) for each in conditions}
    if caller.profile != "ultra-secure" and profile == "ultra-secure":
        found.add(CGROUP)
    return NAMESPACES if NAMESPACES in found else CGROUP if CGROUP in found else None


@pytest.mark.parametrize("profile", PROFILES)
def test_docker_without_flags(caller: Caller, profile: str) -> None:
    needs_root(container.DOCKER)
    said = judge(caller, container.DOCKER, profile, NAMESPACES)
    if runs(said):
        assert profile == PERMITS_LESS
    else:
        assert said["outcome"]["refusal"]["fix"].startswith(FILTERED)
    agrees(caller, container.DOCKER, profile, None if runs(said) else NAMESPACES)


def test_docker_with_the_flags_that_a_refusal_names(caller: Caller) -> None:
    needs_root(UNCONFINED)
    said = judge(caller, UNCONFINED, "high-security", None)
    assert said["runtime"]["sandbox"]["proc"] == "own"
    throws_away = caller.user is None
    assert said["runtime"]["sandbox"]["identity"].startswith("throw-away" if throws_away else "own")
    refused = judge(caller, UNCONFINED, "ultra-secure", CGROUP)["outcome"]["refusal"]
    if caller.user is None:
        assert refused["fix"].startswith("docker run --cgroupns private")


@pytest.mark.parametrize("profile", PROFILES)
def test_podman_without_root(caller: Caller, profile: str) -> None:
    wanted = CGROUP if profile == "ultra-secure" else None
    said = judge(caller, container.PODMAN, profile, wanted)
    if wanted is None:
        assert (said["runtime"]["sandbox"]["proc"], said["runtime"]["sandbox"]["identity"]) == (
            "empty",
            "own id",
        )
        assert said["runtime"]["sandbox"]["cgroup"] == "none"
    else:
        assert "run --cgroupns private" in said["outcome"]["refusal"]["fix"]


@pytest.mark.parametrize(
    "condition",
    [pytest.param(each, marks=pytest.mark.slow if each in SELDOM else ()) for each in ALONE],
)
def test_one_thing_that_is_missing(caller: Caller, condition: str) -> None:
    needs_root((condition,))
    wanted = wanting(caller, (condition,), "high-security")
    said = judge(caller, (condition,), "high-security", wanted)
    if condition == "masked-proc":
        assert said["runtime"]["sandbox"]["proc"] == "empty"
    if condition == "one-id":
        assert said["runtime"]["sandbox"]["identity"] == "own id"


@pytest.mark.slow
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    "conditions",
    [*((each,) for each in ALONE), container.DOCKER, UNCONFINED, container.PODMAN],
    ids="-".join,
)
def test_every_profile_under_every_condition(
    caller: Caller, conditions: tuple[str, ...], profile: str
) -> None:
    needs_root(conditions)
    wanted = wanting(caller, conditions, profile)
    said = judge(caller, conditions, profile, wanted)
    agrees(caller, conditions, profile, None if runs(said) else wanted)


@pytest.mark.parametrize(
    "conditions", [container.DOCKER, container.PODMAN], ids=["docker", "podman"]
)
def test_javascript_runs_in_both(caller: Caller, conditions: tuple[str, ...]) -> None:
    needs_root(conditions)
    if conditions == container.PODMAN and os.geteuid() != 0:
        # As in no container: native code below a folder of an unknown user is not loaded.
        pytest.skip("the folders above this installation belong to users it would not know")
    job = caller.home.job("return 6 * 7")
    done = inside(caller, conditions, "run", "-q", "--profile", "ultra-secure", str(job))
    assert (done.returncode, done.stdout) == (0, b"42\n"), done.message
    assert all(each["enforced"] for each in caller.predicate()["controls"])


@pytest.mark.parametrize(
    ("number", "code", "reason"),
    [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")],
)
def test_process_1_of_a_container_hears_signals(
    caller: Caller, number: signal.Signals, code: int, reason: str
) -> None:
    """`docker stop` sends SIGTERM to process 1, on which no signal acts by itself."""
    program = ("exec", "-q", "--profile", "high-security", "--", "sh", "-c", "echo up; sleep 60")
    prefix, more = prepared(caller, container.PODMAN)
    run = caller.home.start(*program, command=(*prefix, "--", *COMMAND), **more)
    caller.started.append(run)
    assert run.stdout is not None
    assert run.stdout.readline() == b"up\n"
    run.send_signal(number)
    assert run.wait(20) == code
    assert caller.predicate()["outcome"]["reason"] == reason


def test_the_conditions_are_those_of_a_container() -> None:
    """What is taken away is gone, and was there before."""
    require("root")
    code = (
        "import os\n"
        "def tried(what):\n"
        " try: what()\n"
        " except OSError as error: return error.errno\n"
        " return 0\n"
        "status=dict(row.split(':',1) for row in open('/proc/self/status') if ':' in row)\n"
        "import ctypes\nlibc=ctypes.CDLL(None,use_errno=True)\n"
        "unshared=libc.unshare(0x10000000) and ctypes.get_errno()\n"
        "masked=os.path.samefile('/proc/timer_list','/dev/null')\n"
        "settings=tried(lambda: os.close(os.open('/proc/sys/kernel/hostname',1)))\n"
        "print(os.getpid(), int(status['CapEff'],16), unshared, masked, settings)"
    )
    script = [sys.executable, "-P", str(Path(container.__file__))]
    python = ["--", "/usr/bin/python3", "-I", "-c", code]
    bare, held = (
        subprocess.run(
            [*script, ",".join(names), *python], capture_output=True, text=True, check=True
        ).stdout.split()
        for names in ((), container.DOCKER)
    )
    assert bare[2:] == ["0", "False", "0"]
    assert held == ["1", str(0xA80425FB), "1", "True", "30"]
