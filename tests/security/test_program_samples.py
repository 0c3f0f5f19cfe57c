"""The samples of programs do what they say, under the limits of the default profile."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from beddel_cli.job import Job, input_bytes
from tests.support import behind_walls
from tests.support.capabilities import give_up, require
from tests.support.named_files import load_job

SAMPLES = Path(__file__).parents[2] / "samples"


def run(name: str) -> tuple[Job, behind_walls.Ended]:
    require("overlay")
    job = load_job(str(SAMPLES / f"{name}.yaml"))
    given = b"" if job.input is None else input_bytes(job)
    ended = behind_walls.run(*job.command, environment=dict(job.environment), stdin=given)
    os.close(ended.upper)
    return job, ended


def test_python() -> None:
    _, ended = run("program-python")
    assert (ended.code, ended.stdout) == (0, b'{"items": 3, "total": 61.4}\n'), ended.stderr


def test_pipeline() -> None:
    _, ended = run("program-pipeline")
    assert (ended.code, ended.stdout) == (0, b"3 the\n2 is\n1 as\n"), ended.stderr


def test_compiled() -> None:
    if shutil.which("cc") is None:
        give_up("needs cc")
    _, ended = run("program-compiled")
    assert (ended.code, ended.stdout) == (0, b"the 1000th prime is 7919\n"), ended.stderr


def test_no_way_out() -> None:
    _, ended = run("program-no-way-out")
    assert ended.code == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert len(found) == 12
    assert "WORKED" not in found.values()
    assert found["a way to 192.0.2.1"] == found["a way to 2001:db8::1"] == "ENETUNREACH"


def test_fork_bomb() -> None:
    _, ended = run("program-fork-bomb")
    assert ended.code == 0, ended.stderr
    words = ended.stdout.split()
    assert words[1:] == [b"started,", b"then", b"EAGAIN"]
    assert 0 < int(words[0]) < 16


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("program-*.yaml")), ids=lambda path: path.stem)
def test_each_says_how_to_run_it(path: Path) -> None:
    text = path.read_text("utf-8")
    assert f"# Run it: beddel-cli run samples/{path.name}\n" in text
    assert "# Expect: exit 0" in text
