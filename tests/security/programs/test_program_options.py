"""Every option of `exec`: what the program finds, what comes of it, what the receipt says of it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from tests.support import callers
from tests.support.callers import PYTHON, Caller

STANDARD = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/tmp",
    "TMPDIR": "/tmp",
    "USER": "sandbox",
    "LANG": "C.UTF-8",
}


# ---- what it sees ---------------------------------------------------------------------------


def test_the_environment_is_what_was_named_and_nothing_else(caller: Caller) -> None:
    result = caller.exec(
        *("--env", "A=1=2", "--env", "EMPTY=", "--env", "PASSED", "--env", "LANG=C"),
        *("--", "env", "-0"),
        env=caller.environment(PASSED="as it is\n", SECRET="not this"),
    )
    assert result.returncode == 0, result.message
    pairs = (entry.partition("=") for entry in result.stdout.decode().split("\0") if entry)
    found = {name: value for name, _, value in pairs}
    assert found == STANDARD | {"A": "1=2", "EMPTY": "", "PASSED": "as it is\n", "LANG": "C"}
    said = caller.predicate()
    assert said["environmentNames"] == ["A", "EMPTY", "LANG", "PASSED"]
    assert said["plan"]["environmentNames"] == said["environmentNames"]


def test_without_options_it_has_an_empty_place_to_work_in(caller: Caller) -> None:
    result = caller.sh("pwd; ls -A; echo x > y; cat y; id -u; hostname")
    assert result.stdout.decode().split() == ["/workspace", "x", "1000", "sandbox"], result.message
    assert caller.predicate()["plan"]["files"] == {"workspace": None, "mounts": []}


@pytest.mark.parametrize(
    ("form", "target", "mode"),
    [
        ("{}", "/workspace", "overlay"),
        ("{}:/code", "/code", "overlay"),
        ("{}:/code:ro", "/code", "ro"),
    ],
)
def test_a_workspace(caller: Caller, form: str, target: str, mode: str) -> None:
    folder = caller.folder("project", a=b"one")
    script = "pwd; cat a; echo two > a && echo written; cat a"
    result = caller.sh(script, "--workspace", form.format(folder))
    writes = mode == "overlay"
    wanted = [target, "onewritten", "two"] if writes else [target, "oneone"]
    assert result.stdout.decode().split() == wanted, result.message
    assert (folder / "a").read_bytes() == b"one"
    assert caller.predicate()["plan"]["files"]["workspace"] == {"target": target, "mode": mode}


@pytest.mark.parametrize("mode", ["", ":ro", ":rw"])
def test_mounts(caller: Caller, mode: str) -> None:
    shown = caller.folder("shown", a=b"one")
    alone = caller.folder("alone", file=b"alone") / "file"
    script = "cat /data/a /one; echo two > /data/b && echo written"
    result = caller.sh(script, "--mount", f"{shown}:/data{mode}", "--mount", f"{alone}:/one")
    writable = mode == ":rw"
    assert result.stdout == (b"onealonewritten\n" if writable else b"onealone"), result.message
    assert (result.returncode == 0) == writable
    assert sorted(os.listdir(shown)) == (["a", "b"] if writable else ["a"])
    if writable:
        assert (shown / "b").stat().st_uid == shown.stat().st_uid, "the owner is the folder's"
    plan = caller.predicate()["plan"]
    assert plan["files"]["mounts"] == [
        {"target": "/data", "mode": "rw" if writable else "ro"},
        {"target": "/one", "mode": "ro"},
    ]
    named = {item["name"] for item in caller.predicate()["resolvedDependencies"]}
    assert "mount:/one" in named, "a single file has its digest in the receipt"


def test_relative_sources_start_where_the_command_was_given(caller: Caller) -> None:
    caller.folder("here", a=b"found")
    result = caller.sh("cat a /b/a", "--workspace", "here", "--mount", "./here:/b")
    assert (result.returncode, result.stdout) == (0, b"foundfound"), result.message


# ---- limits ---------------------------------------------------------------------------------

LIMITS = {
    "memory": ("48MiB", "memoryBytes", 48 << 20),
    "cpus": ("0.2", "milliCpus", 200),
    "cpu-time": ("3s", "cpuNs", 3_000_000_000),
    "timeout": ("20s", "wallNs", 20_000_000_000),
    "processes": ("12", "processes", 12),
    "disk": ("2MiB", "diskBytes", 2 << 20),
    "inodes": ("500", "inodes", 500),
    "open-files": ("32", "openFiles", 32),
    "max-output": ("64KiB", "outputBytes", 64 << 10),
}


def test_every_limit_can_be_tightened(caller: Caller) -> None:
    flags = [word for name, (text, _, _) in LIMITS.items() for word in (f"--{name}", text)]
    code = (
        "import json, os, resource as r; s = os.statvfs('/workspace');"
        "print(json.dumps([r.getrlimit(r.RLIMIT_NOFILE), s.f_blocks * s.f_frsize,"
        "r.getrlimit(r.RLIMIT_CORE)]))"
    )
    result = caller.python(code, *flags)
    assert result.returncode == 0, result.message
    assert json.loads(result.stdout) == [[32, 32], 2 << 20, [0, 0]]
    said = caller.predicate()
    for _, field, value in LIMITS.values():
        assert said["plan"]["limits"][field] == value
        assert said["limitOrigins"][field] == "command line"


@pytest.mark.parametrize("name", LIMITS)
def test_no_limit_can_be_loosened(caller: Caller, name: str) -> None:
    more = {"memory": "5GiB", "cpus": "9", "timeout": "60min", "cpu-time": "60min"}
    asked = more.get(name, "1GiB" if name in ("disk", "max-output") else "100000")
    result = caller.exec(f"--{name}", asked, "--", "true")
    assert result.returncode == 126, result.message
    said = caller.predicate()
    assert said["outcome"]["reason"] == "limits"
    assert said["outcome"]["refusal"]["needs"] == f"{name.replace('-', '_')} {asked}"
    assert said["plan"] is None


def test_processes_are_counted_over_the_whole_tree(caller: Caller) -> None:
    code = (
        "import os, time\nn = 0\ntry:\n while n < 50:\n"
        "  if os.fork() == 0: time.sleep(60)\n  n += 1\nexcept BlockingIOError: print(n)"
    )
    result = caller.python(code, "--processes", "8")
    assert result.returncode == 0, result.message
    assert 0 < int(result.stdout) < 8


# ---- tiers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "tier", "limits", "origins"),
    [
        ("high-security", "free", (256 << 20, 250, 50), ("tier", "tier", "tier")),
        ("high-security", "enterprise", (256 << 20, 500, 64), ("profile", "profile", "profile")),
        ("tenant-isolated", "free", (256 << 20, 250, 50), ("tier", "tier", "tier")),
        ("tenant-isolated", "pro", (1 << 30, 1000, 200), ("tier", "tier", "tier")),
        ("tenant-isolated", "enterprise", (4 << 30, 2000, 500), ("tier", "tier", "tier")),
    ],
)
def test_tiers(
    caller: Caller,
    profile: str,
    tier: str,
    limits: tuple[int, int, int],
    origins: tuple[str, str, str],
) -> None:
    result = caller.exec("--tier", tier, "--", "true", profile=profile)
    assert result.returncode == 0, result.message
    said = caller.predicate()
    fields = ("memoryBytes", "milliCpus", "processes")
    assert said["plan"]["tier"] == tier
    assert tuple(said["plan"]["limits"][field] for field in fields) == limits
    assert tuple(said["limitOrigins"][field] for field in fields) == origins


@pytest.mark.parametrize("tier", ["free", "pro", "enterprise"])
def test_no_tier_is_more_than_the_profile(caller: Caller, tier: str) -> None:
    """Under ultra-secure every tier is clamped to the profile; where that cannot run, planned."""
    if caller.profile != "ultra-secure":
        job = caller.work / "job.yaml"
        job.write_text('{"beddel": 1, "id": "j", "runtime": "process", "command": ["true"]}')
        result = caller.cli("explain", job, "--tier", tier, "--json")
        found = {item["field"]: item["value"] for item in result.json["values"]}
        wanted = {"memory": "64MiB", "cpus": "0.25", "processes": "16"}
        assert {field: found[field] for field in wanted} == wanted, result.json
        return
    assert caller.exec("--tier", tier, "--", "true").returncode == 0
    found = caller.predicate()["plan"]["limits"]
    assert (found["memoryBytes"], found["milliCpus"], found["processes"]) == (64 << 20, 250, 16)


def test_flags_tighten_below_a_tier(caller: Caller) -> None:
    result = caller.exec(
        *("--tier", "free", "--memory", "32MiB", "--", "true"), profile="tenant-isolated"
    )
    assert result.returncode == 0, result.message
    said = caller.predicate()
    assert said["plan"]["limits"]["memoryBytes"] == 32 << 20
    assert said["limitOrigins"]["memoryBytes"] == "command line"
    assert said["limitOrigins"]["processes"] == "tier"


# ---- results --------------------------------------------------------------------------------

LEAVE = (
    "echo new > new; mkdir -p d/e; echo deep > d/e/f; echo changed > a; rm gone; "
    "ln -s /etc/passwd link; mkfifo pipe; echo s > tool; chmod 4755 tool; echo ' x' > ' odd'"
)
LEFT = {"new": b"new\n", "d/e/f": b"deep\n", "a": b"changed\n", "tool": b"s\n", " odd": b" x\n"}


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if not path.is_dir()
    }


def test_results(caller: Caller) -> None:
    folder = caller.folder("project", a=b"one", gone=b"two", same=b"three")
    results = caller.work / "results"
    result = caller.sh(LEAVE, "--workspace", folder, "--results", results)
    assert result.returncode == 0, result.message
    assert files_of(results) == LEFT, "what it changed, and nothing that is no file"
    assert files_of(folder) == {"a": b"one", "gone": b"two", "same": b"three"}
    assert stat.S_IMODE((results / "tool").stat().st_mode) & 0o7000 == 0
    owner = {path.lstat().st_uid for path in (results, *results.rglob("*"))}
    assert owner == {os.geteuid() if caller.user is None else caller.user}
    statement = caller.predicate()
    assert {item["path"] for item in statement["files"]} == set(LEFT)
    assert "not taken: 2 things, first link: it is a symbolic link" in result.message
    assert "deleted by it and still in the workspace: 1 thing\n" in result.message


def test_results_without_a_workspace_and_after_a_failure(caller: Caller) -> None:
    results = caller.work / "results"
    result = caller.sh("echo x > y; exit 7", "--results", results)
    assert result.returncode == 7, result.message
    assert files_of(results) == {"y": b"x\n"}
    late = caller.work / "late"
    result = caller.sh("echo x > y; sleep 60", "--results", late, "--timeout", "500ms")
    assert result.returncode == 124, result.message
    assert files_of(late) == {"y": b"x\n"}


@pytest.mark.parametrize("what", ["full", "file", "no parent"])
def test_results_never_go_over_anything(caller: Caller, what: str) -> None:
    folder = caller.folder("results", mine=b"mine")
    place = {"full": folder, "file": folder / "mine", "no parent": caller.work / "no" / "such"}
    result = caller.sh("echo ran >&2; echo x > mine", "--results", place[what])
    assert result.returncode == 125, result.message
    assert "\nran\n" not in f"\n{result.message}", "it is told before the program runs"
    assert files_of(folder) == {"mine": b"mine"}


def test_write_back(caller: Caller) -> None:
    folder = caller.folder("project", a=b"one", gone=b"two", same=b"three")
    (folder / "a").chmod(0o600)
    result = caller.sh(LEAVE, "--workspace", folder, "--write-back")
    assert result.returncode == 0, result.message
    assert files_of(folder) == LEFT | {"gone": b"two", "same": b"three"}
    assert stat.S_IMODE((folder / "a").stat().st_mode) == 0o600
    assert {item["path"] for item in caller.predicate()["files"]} == set(LEFT)


def test_without_either_nothing_comes_out(caller: Caller) -> None:
    folder = caller.folder("project", a=b"one")
    before = sorted(os.listdir(caller.work))
    assert caller.sh(LEAVE, "--workspace", folder).returncode != 125
    assert files_of(folder) == {"a": b"one"}
    assert sorted(os.listdir(caller.work)) == before
    assert caller.predicate()["files"] == []


# ---- receipt and document -------------------------------------------------------------------


def test_receipt_goes_where_it_was_asked_for(caller: Caller) -> None:
    place = caller.work / "r.json"
    result = caller.exec("--receipt", place, "--", "true")
    assert result.returncode == 0, result.message
    assert caller.home.receipts() == []
    assert caller.home.predicate(place)["outcome"]["reason"] == "ok"
    checked = caller.cli("verify", place, "--expect-outcome", "success")
    assert checked.returncode == 0, checked.message
    assert caller.cli("verify", place, "--expect-outcome", "limit").returncode == 1


def test_options_end_where_the_command_begins(caller: Caller) -> None:
    result = caller.exec("--", "echo", "--json", "--", "-q", "--timeout=1ms")
    assert result.stdout == b"--json -- -q --timeout=1ms\n", result.message
    result = caller.exec("echo", "--json", "--", "x")
    assert result.stdout == b"--json -- x\n", result.message


def test_arguments_arrive_as_they_were_given(caller: Caller) -> None:
    words = ["", " ", "$HOME", "a\nb", "é", "'\"", "*", "\t"]
    result = caller.exec("--", PYTHON, "-c", "import sys; print(ascii(sys.argv[1:]))", *words)
    assert result.stdout.decode() == f"{words!a}\n", result.message


def test_an_argument_that_is_no_text_is_a_usage_error(caller: Caller) -> None:
    result = caller.exec("--", "echo", os.fsdecode(b"\xff"))
    assert result.returncode == 125, result.message
    assert "not valid UTF-8 in the command" in result.message


def test_everybody_is_here() -> None:
    """Where root runs the tests, an ordinary user is among the callers."""
    assert ("ordinary" in callers.NAMES) == callers.AS_ROOT


# ---- keys -----------------------------------------------------------------------------------


def test_a_key_in_the_environment_signs_and_is_not_shown(caller: Caller) -> None:
    assert caller.exec("--", "true").returncode == 0
    pem = (caller.home.home / "keys" / "signing.pem").read_text("ascii")
    environment = caller.environment(BEDDEL_SIGNING_KEY=pem, OTHER="1")
    code = (
        "import os\nfound = b''.join(open(f'/proc/{p}/environ', 'rb').read()"
        " for p in os.listdir('/proc') if p.isdigit() and int(p) > 1)\n"
        "print('PRIVATE' in str(os.environ), b'PRIVATE' in found, len(found) > 0)"
    )
    result = caller.python(code, env=environment)
    assert result.stdout == b"False False True\n", result.message
    assert caller.predicate()["key"]["origin"] == "environment"
    result = caller.exec("--env", "BEDDEL_SIGNING_KEY", "--", "true", env=environment)
    assert result.returncode == 125, result.message
    assert "there is no such variable to pass on" in result.message
    control = caller.exec("-q", "--env", "OTHER", "--", "printenv", "OTHER", env=environment)
    assert control.stdout == b"1\n", control.message


def test_bundle_and_predicate(caller: Caller) -> None:
    bundle, predicate = caller.work / "b.json", caller.work / "p.json"
    result = caller.exec("--bundle", bundle, "--predicate", predicate, "--", "true")
    assert result.returncode == 0, result.message
    assert caller.cli("verify", bundle).returncode == 0
    assert json.loads(predicate.read_bytes()) == caller.predicate()
