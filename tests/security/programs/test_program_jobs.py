"""Jobs of programs: every key of the file, what it may name, and the same job by `exec`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from beddel_cli.job import command_job, parse_job
from tests.support.callers import Caller
from tests.support.capabilities import give_up, require
from tests.support.cli import Result, has_traceback

SAMPLES = Path(__file__).parents[3] / "samples"


def run(caller: Caller, folder: Path, *arguments: str | Path, **keys: Any) -> Result:
    """Write a job into a folder and run it."""
    job = {"beddel": 1, "id": "job", "runtime": "process", "command": ["true"], **keys}
    (folder / "job.yaml").write_text(json.dumps(job), encoding="ascii")
    return caller.cli("run", "--profile", caller.profile, folder / "job.yaml", *arguments)


def test_every_key(caller: Caller) -> None:
    folder = caller.folder("project")
    for name in ("work", "data"):
        (folder / name).mkdir()
        (folder / name / "file").write_text(f"in {name}\n", encoding="ascii")
    caller.own(folder)
    result = run(
        caller,
        folder,
        command=["sh", "-c", 'cat; echo; cat file /data/file; echo "$A"; pwd; ulimit -n'],
        env={"A": "b c"},
        workspace={"source": "work", "target": "/code", "mode": "ro"},
        mounts=[{"source": "data", "target": "/data"}],
        limits={
            **{"memory": "48MiB", "timeout": "20s", "cpu_time": "3s", "cpus": 0.2},
            **{"processes": 12, "disk": "2MiB", "inodes": 500, "open_files": 32},
            "max_output": "64KiB",
        },
        input={"x": [1, "é"]},
        network="none",
    )
    wanted = ['{"x":[1,"é"]}', "in work", "in data", "b c", "/code", "32"]
    assert result.stdout.decode().splitlines() == wanted, result.message
    said = caller.predicate()
    assert set(said["limitOrigins"].values()) == {"job"}
    assert said["environmentNames"] == ["A"]
    assert said["plan"]["files"] == {
        "workspace": {"target": "/code", "mode": "ro"},
        "mounts": [{"target": "/data", "mode": "ro"}],
    }
    assert "input" in {item["name"] for item in said["resolvedDependencies"]}


def test_flags_tighten_a_job_and_never_loosen_it(caller: Caller) -> None:
    folder = caller.folder("project")
    assert run(caller, folder, "--open-files", "20", limits={"open_files": 30}).returncode == 0
    said = caller.predicate()
    assert said["plan"]["limits"]["openFiles"] == 20
    assert said["limitOrigins"]["openFiles"] == "command line"
    assert run(caller, folder, "--open-files", "40", limits={"open_files": 30}).returncode == 0
    said = caller.predicate()
    assert said["plan"]["limits"]["openFiles"] == 30
    assert said["limitOrigins"]["openFiles"] == "job"
    result = run(caller, folder, "--open-files", "20", limits={"open_files": 100000})
    assert result.returncode == 126, result.message
    assert "job.yaml:1:" in result.message, "the place in the job"


def test_the_command_line_adds_to_a_job(caller: Caller) -> None:
    folder = caller.folder("project")
    other = caller.folder("other", file=b"other\n")
    result = run(
        *(caller, folder, "--env", "A=2", "--env", "B=3", "--mount", f"{other}:/other"),
        command=["sh", "-c", "echo $A $B; cat /other/file"],
        env={"A": "1"},
    )
    assert result.stdout == b"2 3\nother\n", result.message


# ---- what a job, which may be an attacker's, may name ---------------------------------------


@pytest.mark.parametrize("source", ["../outside", "LINK", "ABSOLUTE", "/etc"])
@pytest.mark.parametrize("key", ["workspace", "mounts"])
def test_a_job_names_nothing_outside_of_its_folder(caller: Caller, source: str, key: str) -> None:
    folder, outside = caller.folder("project"), caller.folder("outside", file=b"secret\n")
    (folder / "link").symlink_to(outside)
    source = {"LINK": "link", "ABSOLUTE": str(outside)}.get(source, source)
    entry = {"source": source, "target": "/data"}
    keys = {"workspace": entry} if key == "workspace" else {"mounts": [entry]}
    result = run(caller, folder, command=["cat", "/data/file"], **keys)
    assert (result.returncode, result.stdout) == (126, b""), result.message
    said = caller.predicate()["outcome"]
    assert said["reason"] == "files"
    assert "--allow-path" in said["refusal"]["fix"]
    assert "job.yaml:1:" in result.message
    if source == "/etc":
        return
    allowed = run(caller, folder, "--allow-path", outside, command=["cat", "/data/file"], **keys)
    assert (allowed.returncode, allowed.stdout) == (0, b"secret\n"), "the control"


def test_a_job_reads_its_neighbours_and_does_not_change_them(caller: Caller) -> None:
    folder = caller.folder("project", file=b"mine\n")
    (folder / "data").mkdir()
    caller.own(folder)
    mounts = [{"source": "data", "target": "/data", "mode": "rw"}]
    command = ["sh", "-c", "echo x > /data/new"]
    result = run(caller, folder, command=command, mounts=mounts)
    assert result.returncode == 126, result.message
    assert not (folder / "data" / "new").exists()
    result = run(caller, folder, "--allow-path", folder, command=command, mounts=mounts)
    assert result.returncode == 0, result.message
    assert (folder / "data" / "new").read_bytes() == b"x\n"
    # The same of a workspace that is written back.
    keys: dict[str, Any] = {"workspace": {"source": "data"}, "command": ["sh", "-c", "echo y > z"]}
    assert run(caller, folder, "--write-back", **keys).returncode == 126
    assert not (folder / "data" / "z").exists()
    assert run(caller, folder, "--write-back", "--allow-path", folder, **keys).returncode == 0
    assert (folder / "data" / "z").exists()


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no command": ({"command": []}, "command"),
    "a command that is no list": ({"command": "true"}, "command"),
    "code for a program": ({"code": "return 1"}, "code"),
    "a file for a program": ({"file": "x.js"}, "file"),
    "fuel for a program": ({"limits": {"fuel": 5}}, "fuel"),
    "a variable's name": ({"env": {"A=B": "x"}}, "not a name of a variable"),
    "a variable that is no text": ({"env": {"A": 1}}, "env.A"),
    "a target that is not absolute": (
        {"mounts": [{"source": "x", "target": "data"}]},
        "cannot be a mount's target",
    ),
    "a target of the sandbox's own": (
        {"workspace": {"source": ".", "target": "/proc"}},
        "/proc is the sandbox's own",
    ),
    "an unknown mode": ({"mounts": [{"source": "x", "target": "/d", "mode": "x"}]}, "mode"),
    "a mount without a target": ({"mounts": [{"source": "x"}]}, "target"),
    "a network": ({"network": "all"}, "network"),
    "an unknown key": ({"workspaces": {}}, "unknown key 'workspaces'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_job_is_told_with_its_place(caller: Caller, name: str) -> None:
    keys, message = WRONG[name]
    result = run(caller, caller.folder("project"), **keys)
    assert result.returncode == 125, result.message
    assert message in result.message
    assert "job.yaml:1:" in result.message
    assert not has_traceback(result)
    assert caller.home.receipts() == []


# ---- the same by exec -----------------------------------------------------------------------


def test_the_job_of_a_command_line_is_a_job(caller: Caller) -> None:
    """A receipt of `exec` has the digest of a job file; that file gives the same run."""
    command = ("sh", "-c", 'echo "$0 é $1"; exit 3', "a b", "")
    source = command_job(command).source
    assert parse_job(source, "job.yaml").command == command
    first = caller.exec("--", *command)
    said = caller.predicate()
    job = caller.folder("again", job__yaml=source) / "job.yaml"
    second = caller.cli("run", "--profile", caller.profile, job)
    assert (second.returncode, second.stdout) == (3, "a b é \n".encode())
    assert (first.returncode, first.stdout) == (second.returncode, second.stdout)
    again = caller.predicate()
    for key in ("job", "plan", "planDigest"):
        assert again[key] == said[key]
    receipt = caller.home.receipts()[-1]
    checked = caller.cli("verify", receipt, "--job", job)
    assert checked.returncode == 0, checked.message


# ---- samples --------------------------------------------------------------------------------

SAID = {
    "program-python": b'{"items": 3, "total": 61.4}\n',
    "program-pipeline": b"3 the\n2 is\n1 as\n",
    "program-compiled": b"the 1000th prime is 7919\n",
}


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("program-*.yaml")), ids=lambda path: path.stem)
def test_samples_end_as_their_headers_say(caller: Caller, path: Path) -> None:
    if path.stem == "program-compiled" and shutil.which("cc") is None:
        give_up("needs cc")
    samples = caller.folder("samples", **{path.name.replace(".", "__"): path.read_bytes()})
    header = path.read_text("utf-8").partition("\nbeddel:")[0]
    documented = next(
        line.partition("# Run it: ")[2] for line in header.splitlines() if "# Run it: " in line
    )
    program, *words = documented.split()
    assert (program, words[0]) == ("beddel-cli", "run")
    result = caller.cli(*words)
    if caller.profile != "ultra-secure":
        # The header says what helps who cannot make a cgroup.
        assert result.returncode == 126, result.message
        assert "add --profile high-security" in " ".join(header.replace("#", " ").split())
        result = caller.cli(*words, "--profile", "high-security")
    assert result.returncode == 0, result.message
    assert samples.is_dir()
    if path.stem in SAID:
        assert result.stdout == SAID[path.stem]
    elif path.stem == "program-no-way-out":
        found = json.loads(result.stdout)
        assert len(found) >= 12
        assert "WORKED" not in found.values()
    else:
        words = result.stdout.decode().split()
        assert words[1:] == ["started,", "then", "EAGAIN"]
        assert 0 < int(words[0]) < 16
    assert caller.predicate()["outcome"]["reason"] == "ok"


def test_the_samples_run_under_every_profile(caller: Caller) -> None:
    require("system-python")
    profiles = {"ultra-secure", "high-security", "tenant-isolated"}
    for profile in profiles if caller.profile == "ultra-secure" else profiles - {"ultra-secure"}:
        result = caller.cli("run", SAMPLES / "program-python.yaml", "--profile", profile)
        assert result.stdout == SAID["program-python"], result.message
