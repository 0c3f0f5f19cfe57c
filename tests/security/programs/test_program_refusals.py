"""What a program is not given: refusals with a signed receipt, usage errors before there is one.

Machines that lack something are made so for real, by seccomp filters and limits of namespaces.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import block_syscalls, callers, no_namespaces
from tests.support.callers import Caller
from tests.support.capabilities import require
from tests.support.cli import COMMAND, Result, has_traceback

PLANTED = "touch /tmp/beddel-refused-and-ran"


def refusal(caller: Caller, result: Result) -> dict[str, Any]:
    """Give the receipt of a refusal, after a look at all that every refusal has in common."""
    assert result.returncode == 126, result.message
    assert not has_traceback(result)
    said = caller.predicate()
    assert (said["outcome"]["status"], said["plan"], said["streams"]) == ("refused", None, None)
    assert said["outcome"]["programExitCode"] is None
    assert all(said["outcome"]["refusal"].values()), "needs, found and fix"
    checked = caller.cli("verify", caller.home.receipts()[-1], "--expect-outcome", "refused")
    assert checked.returncode == 0, checked.message
    outcome: dict[str, Any] = said["outcome"]
    return outcome


# ---- what it asks for -----------------------------------------------------------------------


def test_a_profile_that_grants_nothing_to_programs(caller: Caller) -> None:
    profile = caller.folder("profiles", mine__yaml=MINE) / "mine.yaml"
    outcome = refusal(caller, caller.exec("--", "true", profile=str(profile)))
    assert outcome["reason"] == "limits"
    assert outcome["refusal"] == {
        "needs": "runtime process",
        "found": "mine has no `process` part",
        "fix": "choose another profile with --profile",
    }


MINE = b"""beddel: 1
name: mine
level: medium
isolate:
  limits: {memory: 2MiB, timeout: 5s, fuel: 1000000, max_output: 1MiB, max_console: 4KiB}
  dynamic_code: none
  clock: frozen
  network: none
  required: [store-limits]
"""

# A source, by what it is, and what the refusal says of it.
FORBIDDEN = {
    "/": "it is the root of the file system, with everything in it",
    "/proc": "it lies on proc, a view of the kernel",
    "/sys": "it lies on sysfs, a view of the kernel",
    "/dev": "/dev is the system's own",
    "HOME": "it is your home folder",
    "above HOME": "your home folder lies in it",
    "BEDDEL_HOME": "it is beddel's home",
    "keys": "it lies in beddel's home",
    "BEDDEL_CACHE_DIR": "it is beddel's cache",
    "a link to it": "it is beddel's home",
    "a socket": "it is a socket",
    "/dev/null": "it is a character device",
}


@pytest.mark.parametrize("option", ["--mount", "--workspace"])
@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_is_never_shown(caller: Caller, name: str, option: str) -> None:
    if name in ("BEDDEL_HOME", "keys", "BEDDEL_CACHE_DIR", "a link to it"):
        assert caller.exec("-q", "--", "true").returncode == 0, "the home is there now"
    link = caller.work / "link"
    link.symlink_to(caller.home.home)
    person = caller.home.work.parent / "person"
    sources = {
        "HOME": person,
        "above HOME": person.parent,
        "BEDDEL_HOME": caller.home.home,
        "keys": caller.home.home / "keys",
        "BEDDEL_CACHE_DIR": caller.home.cache,
        "a link to it": link,
        "a socket": caller.work / "socket",
    }
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(caller.work / "socket"))
    source = sources.get(name, Path(name))
    with listening:
        result = caller.sh(PLANTED, option, f"{source}:/data:ro")
    outcome = refusal(caller, result)
    assert outcome["reason"] == "files"
    found = outcome["refusal"]["found"]
    if name.startswith(("/proc", "/sys")) and found.endswith("is the system's own"):
        return
    assert found == FORBIDDEN[name], result.message


@pytest.mark.parametrize("source", ["/usr", "/etc", "/var", "/tmp", "/home"])
def test_folders_of_the_system_are_never_writable(caller: Caller, source: str) -> None:
    outcome = refusal(caller, caller.exec("--mount", f"{source}:/data:rw", "--", "true"))
    assert outcome["reason"] == "files"


def test_the_workspace_is_not_mounted_rw_as_well(caller: Caller) -> None:
    folder = caller.folder("project", a=b"one")
    result = caller.exec("--workspace", folder, "--mount", f"{folder}:/data:rw", "--", "true")
    assert "overlaps the workspace" in refusal(caller, result)["refusal"]["found"]


# ---- what is no question at all -------------------------------------------------------------

USAGE = {
    "no command": ((), "missing argument"),
    "an unknown option": (("--no-such", "--", "true"), "no such option: --no-such"),
    "a tier": (("--tier", "gold", "--", "true"), "unknown tier 'gold'"),
    "a unit": (("--memory", "2MB", "--", "true"), "--memory: memory has no known unit: '2MB'"),
    "a number of CPUs": (("--cpus", "many", "--", "true"), "--cpus: "),
    "a mount of another form": (("--mount", "/data", "--", "true"), "--mount '/data' does not say"),
    "a mount's mode": (("--mount", "/srv:/data:wr", "--", "true"), "neither an absolute path nor"),
    "a mount on /proc": (("--mount", "/srv:/proc", "--", "true"), "/proc is the sandbox's own"),
    "two mounts in one place": (
        ("--mount", "/srv:/a", "--mount", "/opt:/a", "--", "true"),
        "two mounts have the target '/a'",
    ),
    "a workspace's mode": (("--workspace", "/srv:/w:rw", "--", "true"), "--workspace '/srv:/w:rw'"),
    "a variable that is not set": (
        ("--env", "NOT_SET_AT_ALL", "--", "true"),
        "--env NOT_SET_AT_ALL: there is no such variable to pass on",
    ),
    "a variable without a name": (("--env", "=x", "--", "true"), "--env '=x' names no variable"),
    "write back without a workspace": (
        ("--write-back", "--", "true"),
        "--write-back needs a workspace to write to",
    ),
    "write back and results": (
        ("--workspace", ".", "--write-back", "--results", "r", "--", "true"),
        "--write-back and --results are two places for the same files",
    ),
    "fuel for a program": (("--fuel", "5", "--", "true"), "--fuel is for isolates"),
    "a console for a program": (("--max-console", "5B", "--", "true"), "--max-console is for isol"),
    "a heap of a program": (("--heap-snapshot", "h", "--", "true"), "--heap-snapshot is for isol"),
    **{
        f"{flag} for an isolate": (
            ("--runtime", "javascript", flag, *value, "--", "code.js"),
            f"{flag} is for programs; an isolate cannot use it",
        )
        for flag, value in {
            "--tier": ("free",),
            "--workspace": (".",),
            "--mount": ("/srv:/data",),
            "--env": ("A=1",),
            "--results": ("r",),
            "--write-back": (),
            "--tty": (),
            "--cpus": ("1",),
            "--cpu-time": ("1s",),
            "--processes": ("1",),
            "--disk": ("1MiB",),
            "--inodes": ("5",),
            "--open-files": ("5",),
        }.items()
    },
    "two words for an isolate": (
        ("--runtime", "javascript", "--", "code.js", "more"),
        "--runtime javascript runs one code file, and here are 2 words",
    ),
    "a terminal and JSON": (("--tty", "--", "true"), "--tty and --json cannot go together"),
}


@pytest.mark.parametrize("name", USAGE)
@pytest.mark.parametrize("caller", callers.NAMES[:1], indirect=True)
def test_usage(caller: Caller, name: str) -> None:
    """Who asks makes no difference here, so one of them asks."""
    (caller.work / "code.js").write_text("return 1", encoding="ascii")
    arguments, message = USAGE[name]
    result = caller.cli("exec", "--json", "--profile", caller.profile, *arguments)
    assert result.returncode == 125, result.message
    assert message in result.message
    assert message in result.json["error"]["message"]
    assert result.json["outcome"]["exit_code"] == 125
    assert not has_traceback(result)
    assert caller.home.receipts() == []


@pytest.mark.parametrize("option", ["--mount", "--workspace"])
def test_a_source_that_is_not_there(caller: Caller, option: str) -> None:
    result = caller.exec(option, "gone:/data", "--", "true")
    assert result.returncode == 127, result.message
    assert "nothing to mount at 'gone'" in result.message
    assert caller.home.receipts() == []


# ---- machines that lack something -----------------------------------------------------------

BLOCKING = (sys.executable, "-P", str(Path(block_syscalls.__file__)))
NO_NAMESPACES = (sys.executable, "-P", str(Path(no_namespaces.__file__)))
# What is blocked -> what ultra-secure says is missing, what it found, and how it may be helped.
MISSING = {
    "unshare-refused": ("namespaces", "user namespace failed with EPERM", ""),
    "unshare-missing": ("namespaces", "user namespace failed with ENOSYS", ""),
    "clone-refused": ("namespaces", "EPERM", ""),
    "mount-refused": ("namespaces", "EPERM", ""),
    "landlock-missing": ("landlock", "ENOSYS", "use Linux 5.13 or newer"),
    "landlock-off": ("landlock", "Operation not supported: it is off at boot", "lsm="),
    "landlock-not-permitted": ("landlock", "EPERM", ""),
    "seccomp-not-permitted": ("seccomp", "EPERM", ""),
    "rlimits": ("rlimits", "EPERM", ""),
    "capset": ("capabilities", "EPERM", ""),
}


@pytest.mark.parametrize("block", MISSING)
def test_a_machine_that_lacks_something(caller: Caller, block: str) -> None:
    name, number, fix = MISSING[block]
    command = (*BLOCKING, block, *COMMAND)
    result = caller.sh(PLANTED, command=command)
    outcome = refusal(caller, result)
    said = outcome["refusal"]
    assert (outcome["reason"], said["needs"]) == ("protection", name)
    assert number in said["found"]
    assert fix in said["fix"]
    # The control: the same machine without the block.
    assert caller.exec("--", "true", command=(*BLOCKING, "none", *COMMAND)).returncode == 0
    # `doctor` gives the same answer, and the same reason.
    asked = ("doctor", "--json", "--runtime", "process", "--profile", caller.profile)
    doctor = caller.cli(*asked, command=command)
    assert doctor.returncode == 1, doctor.message
    assert name in doctor.json["question"]["lacks"]
    listed = doctor.json["runtimes"]["process"]["protections"]
    found = next(item for item in listed if item["name"] == name)
    assert (found["found"], found["fix"]) == (said["found"], said["fix"])


@pytest.mark.parametrize("block", ["landlock-missing", "rlimits"])
def test_what_a_profile_does_not_require_may_be_missing(caller: Caller, block: str) -> None:
    command = (*BLOCKING, block, *COMMAND)
    result = caller.sh("echo ran", profile="tenant-isolated", command=command)
    assert (result.returncode, result.stdout) == (0, b"ran\n"), result.message
    controls = {item["name"]: item for item in caller.predicate()["controls"]}
    name = MISSING[block][0]
    assert (controls[name]["enforced"], controls[name]["requested"]) == (False, "applied")
    asked = ("doctor", "--runtime", "process", "--profile")
    assert caller.cli(*asked, "tenant-isolated", command=command).returncode == 0
    assert caller.cli(*asked, "high-security", command=command).returncode == 1


def test_user_namespaces_at_their_limit(caller: Caller) -> None:
    command = (*NO_NAMESPACES, *COMMAND)
    # The third goes on behind the weaker walls that it permits.
    for profile in ("ultra-secure", "high-security"):
        outcome = refusal(caller, caller.sh(PLANTED, profile=profile, command=command))
        assert outcome["refusal"] == {
            "needs": "namespaces",
            "found": "user namespace failed with ENOSPC: No space left on device: "
            "user.max_user_namespaces is 0",
            "fix": "sudo sysctl -w user.max_user_namespaces=15000",
        }


def test_who_has_no_cgroup(caller: Caller) -> None:
    """An ordinary user without a delegated cgroup: the strictest profile says no, others do not."""
    if caller.profile == "ultra-secure":
        require("cgroup")
        assert caller.exec("--", "true").returncode == 0
        return
    outcome = refusal(caller, caller.sh(PLANTED, profile="ultra-secure"))
    assert (outcome["reason"], outcome["refusal"]["needs"]) == ("protection", "cgroup")
    assert "Delegate=yes" in outcome["refusal"]["fix"]
    asked = ("doctor", "--runtime", "process", "--profile")
    assert caller.cli(*asked, "ultra-secure").returncode == 1
    for profile in ("high-security", "tenant-isolated"):
        assert caller.cli(*asked, profile).returncode == 0
        assert caller.exec("--", "true", profile=profile).returncode == 0
        assert caller.predicate()["runtime"]["sandbox"]["cgroup"] == "none"


def test_doctor_about_a_job_of_a_program(caller: Caller) -> None:
    text = '{"beddel": 1, "id": "j", "runtime": "process", "command": ["true"], "limits": {%s}}'
    fits, large = caller.work / "fits.yaml", caller.work / "large.yaml"
    fits.write_text(text % '"memory": "32MiB"', encoding="ascii")
    large.write_text(text % '"memory": "5GiB"', encoding="ascii")
    asked = ("doctor", "--json", "--profile", caller.profile, "--job")
    result = caller.cli(*asked, fits)
    assert (result.returncode, result.json["question"]["runtime"]) == (0, "process")
    result = caller.cli(*asked, large)
    assert result.returncode == 1
    assert result.json["refusal"]["needs"] == "memory 5GiB"


def test_nothing_that_was_refused_has_run() -> None:
    assert not Path("/tmp/beddel-refused-and-ran").exists()
    assert callers.NAMES
