"""`explain` starts nothing, writes nothing and looks at no key, whatever it is asked about."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from beddel_cli.trust.keys import generate_key
from tests.support import block_syscalls, watch_audit
from tests.support.capabilities import give_up, require
from tests.support.cli import COMMAND, Home, Result

WATCH = (sys.executable, "-P", str(Path(watch_audit.__file__)))
BLOCK = (sys.executable, "-P", str(Path(block_syscalls.__file__)))
PROFILE = """\
beddel: 1
name: mine
level: high
isolate:
  limits: {memory: 64MiB, timeout: 1s, fuel: 1000, max_output: 1KiB, max_console: 1KiB}
  dynamic_code: function
  clock: real
  network: none
  required: [store-limits, landlock]
"""
HIGH = ("--profile", "high-security")
# What is asked -> the exit code.
QUESTIONS: list[tuple[list[str], int]] = [
    (["job.yaml"], 0),
    (["job.yaml", "--json", "--profile", "tenant-isolated", "--set", "input.a=1"], 0),
    (["job.yaml", "--profile", "./mine.yaml", "--input", "input.json"], 0),
    (["job.yaml", "--memory", "64MiB"], 1),
    (["program.yaml", *HIGH], 0),
    (["program.yaml", *HIGH, "--workspace", "data", "--mount", "data/in:/in", "--env", "A=b"], 0),
    (["program.yaml", *HIGH, "--mount", "/proc:/data", "--json"], 1),
    (["gone.yaml"], 2),
]
# Calls that start, change or send something. A first execve is the command itself.
STARTING = "fork,vfork,clone,clone3,execve,execveat"
CHANGING = (
    "mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,link,linkat,symlink,symlinkat,"
    "chmod,fchmod,fchmodat,truncate,ftruncate,creat,socket,connect,bind,memfd_create,setrlimit,"
    "unshare,setns,mount,umount2,open_tree,move_mount,mount_setattr,pivot_root,setresuid,setgroups,"
    "capset,landlock_add_rule,landlock_restrict_self,kill,tgkill,ptrace"
)
MAYBE = "open,openat,openat2,prctl,seccomp,prlimit64,landlock_create_ruleset"
# Of the calls in MAYBE, those that only read or ask.
HARMLESS = re.compile(
    r"open(at2?)?\((?!.*(O_WRONLY|O_RDWR|O_CREAT|O_TRUNC))|prctl\(PR_(GET|SET_NAME|SET_VMA)"
    r"|seccomp\(SECCOMP_GET_|prlimit64\([^,]*, \w+, NULL,"
    r"|landlock_create_ruleset\(NULL, 0, LANDLOCK_CREATE_RULESET_VERSION\)"
    # The C library asks the cache of user names, where there is one, for the caller's home.
    r"|socket\(AF_UNIX, SOCK_STREAM\||connect\(\d+, \{sa_family=AF_UNIX, sun_path=\"/var/run/nscd/"
)


def program(home: Home) -> Path:
    path = home.work / "program.yaml"
    path.write_text("beddel: 1\nid: program\nruntime: process\ncommand: ['true']\n")
    return path


def prepare(home: Home) -> dict[str, str]:
    """Lay out a job, a profile, an input and a key in the environment."""
    home.job("return input", input={"a": 1})
    (home.work / "mine.yaml").write_text(PROFILE)
    (home.work / "input.json").write_text("[1]")
    program(home)
    (home.work / "data").mkdir()
    (home.work / "data" / "in").write_text("in")
    more = {"BEDDEL_SIGNING_KEY": generate_key().decode(), "PYTHONDONTWRITEBYTECODE": "1"}
    return home.environment(HOME=str(home.work / "user"), **more)


def tree(folder: Path) -> set[tuple[str, bytes]]:
    """Give every file below a folder with its bytes."""
    return {(str(x), x.read_bytes()) for x in folder.rglob("*") if x.is_file()}


def check_untouched(home: Home, before: set[tuple[str, bytes]]) -> None:
    assert not home.home.exists()
    assert not home.cache.exists()
    assert tree(home.work) == before


@pytest.mark.parametrize(("arguments", "code"), QUESTIONS, ids=range(len(QUESTIONS)))
def test_no_audited_event_starts_or_changes_anything(
    home: Home, tmp_path: Path, arguments: list[str], code: int
) -> None:
    environment = prepare(home)
    before = tree(home.work)
    log = tmp_path / "events"
    result = home.run("explain", *arguments, env=environment, command=(*WATCH, str(log)))
    assert result.returncode == code, result.message
    assert log.read_text() == ""
    check_untouched(home, before)


def test_the_watch_sees_what_a_run_starts_and_writes(home: Home, tmp_path: Path) -> None:
    environment = prepare(home)
    del environment["BEDDEL_SIGNING_KEY"]
    log = tmp_path / "events"
    result = home.run("run", "job.yaml", "-q", env=environment, command=(*WATCH, str(log)))
    assert result.returncode == 0, result.message
    events = log.read_text()
    for event in ("os.fork", "os.mkdir", "open", "os.link"):
        assert f"{event} " in events


def trace(home: Home, log: Path, environment: dict[str, str], *arguments: str) -> Result:
    strace = shutil.which("strace")
    if strace is None:
        give_up("strace is not installed")
    # A question mark: not every architecture has every call.
    calls = "trace=" + ",".join(f"?{x}" for x in f"{STARTING},{CHANGING},{MAYBE}".split(","))
    command = (strace, "-f", "-qq", "-o", str(log), "-e", calls, *COMMAND)
    probe = subprocess.run([*command[: -len(COMMAND)], "true"], capture_output=True, check=False)
    if probe.returncode != 0:
        give_up(f"strace cannot trace here: {probe.stderr.decode(errors='replace')}")
    return home.run(*arguments, env=environment, command=command)


def acting(log: Path) -> list[str]:
    """Give the calls of a trace that do more than read or ask, without the command's own start."""
    calls = [line.split(maxsplit=1)[1] for line in log.read_text().splitlines()]
    assert calls[0].startswith("execve("), "the control: the trace is of the whole command"
    return [call for call in calls[1:] if not HARMLESS.match(call) and not call.startswith("---")]


@pytest.mark.parametrize(("arguments", "code"), QUESTIONS, ids=range(len(QUESTIONS)))
def test_no_system_call_starts_or_changes_anything(
    home: Home, tmp_path: Path, arguments: list[str], code: int
) -> None:
    environment = prepare(home)
    before = tree(home.work)
    log = tmp_path / "trace"
    result = trace(home, log, environment, "explain", *arguments)
    assert result.returncode == code, result.message
    assert acting(log) == []
    check_untouched(home, before)


def test_the_trace_sees_what_a_run_starts_and_confines(home: Home, tmp_path: Path) -> None:
    environment = prepare(home)
    log = tmp_path / "trace"
    result = trace(home, log, environment, "run", "job.yaml", "-q")
    assert result.returncode == 0, result.message
    calls = "\n".join(acting(log))
    for call in ("execve(", "clone", "landlock_restrict_self(", "prctl(PR_SET_SECCOMP", "O_CREAT"):
        assert call in calls


# What is taken away -> the protection that explain finds missing.
SEEN = {
    "landlock-missing": "landlock",
    "landlock-off": "landlock",
    "landlock-not-permitted": "landlock",
    "seccomp-missing": "seccomp",
    "seccomp-not-permitted": "seccomp",
    "rlimits": "rlimits",
}
# What only trying shows.
UNSEEN = {"landlock-restrict": "landlock", "capset": "capabilities"}


@pytest.mark.parametrize("block", SEEN)
def test_what_this_machine_does_not_offer_is_told_and_run_refuses_it(
    home: Home, block: str
) -> None:
    job = home.job("return 42")
    told = home.run("explain", job, "--json", command=(*BLOCK, block, *COMMAND))
    assert told.returncode == 1, told.message
    assert [item["needs"] for item in told.json["refusals"]] == [SEEN[block]]
    missing = [item["name"] for item in told.json["protections"] if not item["available"]]
    assert missing == [SEEN[block]]
    ran = home.run("run", job, "--json", command=(*BLOCK, block, *COMMAND))
    assert ran.returncode == 126
    refusal = told.json["refusals"][0]
    assert ran.json["error"]["message"] == refusal["message"]
    assert ran.json["error"]["hint"] == refusal["fix"]


@pytest.mark.parametrize("block", SEEN)
def test_the_same_is_told_of_programs(home: Home, block: str) -> None:
    require("user-namespaces")
    asked = (*BLOCK, block, *COMMAND)
    told = home.run("explain", program(home), *HIGH, "--json", command=asked)
    assert told.returncode == 1, told.message
    (refusal,) = told.json["refusals"]
    assert refusal["needs"] == SEEN[block]
    ran = home.run("run", program(home), *HIGH, "--json", command=asked)
    assert ran.returncode == 126
    assert ran.json["error"]["code"] == "protection"
    if block != "rlimits":  # without those even the walls' own start fails
        assert ran.json["error"]["message"] == refusal["message"]


@pytest.mark.parametrize("block", ["unshare-refused", "mount-refused", "pivot-root-refused"])
def test_what_only_building_the_walls_shows_is_left_to_run(home: Home, block: str) -> None:
    require("user-namespaces")
    asked = (*BLOCK, block, *COMMAND)
    told = home.run("explain", program(home), *HIGH, "--json", command=asked)
    assert told.returncode == 0, told.message
    assert told.json["protections"][0]["name"] == "namespaces"
    assert told.json["protections"][0]["verified"] == (
        "offered, not tried; run tries it and confirms it"
    )
    ran = home.run("run", program(home), *HIGH, command=asked)
    assert ran.returncode == 126


@pytest.mark.parametrize("block", UNSEEN)
def test_what_only_trying_shows_is_left_to_run_and_said_so(home: Home, block: str) -> None:
    job = home.job("return 42")
    told = home.run("explain", job, "--json", command=(*BLOCK, block, *COMMAND))
    assert told.returncode == 0
    (wall,) = (x for x in told.json["protections"] if x["name"] == UNSEEN[block])
    assert wall["verified"] == "offered, not tried; run tries it and confirms it"
    assert home.run("run", job, command=(*BLOCK, block, *COMMAND)).returncode == 126


def test_without_a_block_everything_is_offered(home: Home) -> None:
    told = home.run("explain", home.job("return 42"), "--json", command=(*BLOCK, "none", *COMMAND))
    assert told.returncode == 0
    assert all(item["available"] and item["required"] for item in told.json["protections"])
