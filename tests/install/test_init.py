"""`init` from the installed package: an empty folder, and everything in it runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.capabilities import give_up, has, require
from tests.support.cli import COMMAND, Home, has_traceback

NOBODY = 65534
SAMPLES = 12


def expected_code(job: Path) -> int:
    """Give the exit code that a sample's own comment announces."""
    found = re.search(r"^# .*Expect: exit (\d+)", job.read_text("utf-8"), re.MULTILINE)
    assert found, f"{job} does not say how it ends"
    return int(found[1])


def test_what_it_lays_out_runs_as_it_says(home: Home) -> None:
    made = home.run("init")
    assert made.returncode == 0, made.message
    assert made.message == "next  beddel-cli run job.yaml\n"
    listed = made.stdout.decode().splitlines()
    assert sorted(listed) == sorted(
        str(path.relative_to(home.work)) for path in home.work.rglob("*") if path.is_file()
    )
    command = made.message.removeprefix("next  beddel-cli ").split()
    first = home.run(*command, "-q")
    assert first.returncode == 0, first.message
    assert json.loads(first.stdout)[0] == {"text": "Hello, Ada!", "letters": 3}
    assert first.message == ""
    samples = sorted((home.work / "samples").glob("*.yaml"))
    assert len(samples) >= SAMPLES
    for job in samples:
        # Without root there may be no cgroup, which the default profile requires for programs.
        program = "runtime: process" in job.read_text("utf-8") and not has("cgroup")
        result = home.run("run", job, *(("--profile", "high-security") if program else ()))
        assert result.returncode == expected_code(job), (job.name, result.message)
        assert not has_traceback(result)
    assert {expected_code(job) for job in samples} >= {0, 1, 124, 137}


def test_the_schema_it_writes_is_the_one_for_jobs(home: Home) -> None:
    home.run("init", "demo")
    schema = json.loads((home.work / "demo" / "job.schema.json").read_bytes())
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert {"beddel", "id", "runtime", "code", "limits"} <= set(schema["properties"])
    jobs = sorted((home.work / "demo").rglob("*.yaml"))
    assert len(jobs) > SAMPLES
    for job in jobs:
        first = job.read_text("utf-8").partition("\n")[0]
        assert first.startswith("# yaml-language-server: $schema="), job
        assert (job.parent / first.partition("=")[2]).resolve().name == "job.schema.json"
        assert (job.parent / first.partition("=")[2]).is_file()


def test_a_second_time_nothing_is_touched(home: Home) -> None:
    assert home.run("init", "demo").returncode == 0
    job = home.work / "demo" / "job.yaml"
    job.write_text("mine")
    again = home.run("init", "demo")
    assert (again.returncode, again.stdout) == (2, b"")
    assert again.message.startswith("beddel-cli: nothing was written: 'demo/job.yaml', ")
    assert job.read_text() == "mine"
    forced = home.run("init", "demo", "--force")
    assert forced.returncode == 0
    assert home.run("run", job, "-q").returncode == 0


@pytest.mark.parametrize("name", ["-x", "two words", "$(touch x)", "\x1b[31m"])
def test_the_command_it_names_can_be_pasted(home: Home, name: str) -> None:
    made = home.run("init", "--", name)
    assert made.returncode == 0, made.message
    assert b"\x1b" not in made.stdout + made.stderr
    if name.isprintable():
        command = made.message.removeprefix("next  ").replace("beddel-cli", " ".join(COMMAND))
        done = home.run("-c", command, command=("sh",))
        assert done.returncode == 0, done.message
    assert not (home.work / "x").exists()


def test_it_runs_for_a_user_who_owns_nothing_but_a_folder(tmp_path: Path) -> None:
    require("root")
    drop = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    import_it = [*drop, sys.executable, "-c", "import beddel_cli"]
    if subprocess.run(import_it, capture_output=True, cwd="/", check=False).returncode:
        give_up("second-user: this Python cannot be started by another user")
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, NOBODY, NOBODY)
    environment = {"HOME": str(theirs), "PATH": "/usr/bin:/bin"}

    def run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = [*drop, *COMMAND, *arguments]
        return subprocess.run(
            command, cwd=theirs, env=environment, capture_output=True, check=False
        )

    made = run("init", "demo")
    assert made.returncode == 0, made.stderr
    job = theirs / "demo" / "job.yaml"
    assert (job.stat().st_uid, job.stat().st_mode & 0o777) == (NOBODY, 0o644)
    assert run("run", "demo/job.yaml", "-q").returncode == 0
    for sample in sorted((theirs / "demo" / "samples").glob("*.yaml")):
        # Without root there may be no cgroup, which the default profile requires for programs.
        program = "runtime: process" in sample.read_text("utf-8")
        done = run("run", str(sample), *(("--profile", "high-security") if program else ()))
        assert done.returncode == expected_code(sample), (sample.name, done.stderr)
    assert run("init", str(tmp_path)).returncode == 2
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]
