"""The job that a command line asks for, and what it may not ask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from beddel_cli.asked_job import check_outputs, load_asked_job
from beddel_cli.errors import RefusedError, UsageError
from beddel_cli.execution import Asked
from beddel_cli.limits import FIELDS, Limits

PROCESS = '{"beddel": 1, "id": "p", "runtime": "process", "command": ["true"]}'
JAVASCRIPT = '{"beddel": 1, "id": "j", "runtime": "javascript", "code": "return 1"}'


@pytest.fixture
def jobs(tmp_path: Path) -> dict[str, str]:
    """A job of each runtime."""
    for name, text in (("process", PROCESS), ("javascript", JAVASCRIPT)):
        (tmp_path / f"{name}.yaml").write_text(text, encoding="ascii")
    return {name: str(tmp_path / f"{name}.yaml") for name in ("process", "javascript")}


def asked(job: str, **more: Any) -> Asked:
    return Asked(**{"job": job, "profile": "ultra-secure", "limits": Limits(), **more})


# Option -> how it is asked for, and the one runtime that has no use for it.
OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "--tier": ({"tier": "free"}, "javascript"),
    "--workspace": ({"workspace": "."}, "javascript"),
    "--mount": ({"mounts": ("a:/a",)}, "javascript"),
    "--env": ({"environment": ("A=1",)}, "javascript"),
    "--results": ({"results": "r"}, "javascript"),
    "--write-back": ({"write_back": True, "workspace": None}, "javascript"),
    "--tty": ({"terminal": True}, "javascript"),
    "--heap-snapshot": ({"heap_snapshot": "h"}, "process"),
    **{
        "--" + field.key.replace("_", "-"): (
            {"limits": Limits(**{field.field: 1})},
            "javascript" if "isolate" not in field.uses else "process",
        )
        for field in FIELDS
        if len(field.uses) == 1
    },
}


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_of_the_other_runtime(jobs: dict[str, str], option: str) -> None:
    more, useless_for = OPTIONS[option]
    with pytest.raises(UsageError) as caught:
        load_asked_job(asked(jobs[useless_for], **more))
    other, this = (
        ("programs", "an isolate") if useless_for == "javascript" else ("isolates", "a program")
    )
    assert caught.value.message == f"{option} is for {other}; {this} cannot use it"
    other_runtime = "process" if useless_for == "javascript" else "javascript"
    if option != "--write-back":
        job, refusal = load_asked_job(asked(jobs[other_runtime], **more))
        assert (job.runtime, refusal) == (other_runtime, None)


def test_every_limit_is_for_something() -> None:
    assert {use for field in FIELDS for use in field.uses} == {"isolate", "program"}
    assert {"--fuel", "--disk", "--cpus"} <= set(OPTIONS)


def test_a_command_is_a_job_with_what_flags_add() -> None:
    job, refusal = load_asked_job(
        asked("true", command=("true", "x"), environment=("A=1",), workspace="w")
    )
    assert refusal is None
    assert (job.runtime, job.command, job.environment) == ("process", ("true", "x"), (("A", "1"),))
    assert job.workspace is not None
    plain, _ = load_asked_job(asked("true", command=("true", "x")))
    assert job.source == plain.source, "the digest is of the command alone"


def test_input_of_a_program(jobs: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text('{"a": 1}', encoding="ascii")
    job, _ = load_asked_job(
        asked(jobs["process"], input=str(tmp_path / "in.json"), settings=("input.b=2",))
    )
    assert job.input == {"a": 1, "b": 2}


def test_job_and_input_are_not_one_stream() -> None:
    with pytest.raises(UsageError, match="cannot both come from standard input"):
        load_asked_job(asked("-", input="-"))


def test_a_file_out_of_reach_is_a_refusal_beside_the_job(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "code.js").write_text("return 1", encoding="ascii")
    job = tmp_path / "sub" / "job.yaml"
    job.write_text('{"beddel": 1, "id": "j", "runtime": "javascript", "file": "../code.js"}')
    read, refusal = load_asked_job(asked(str(job)))
    assert isinstance(refusal, RefusedError)
    assert (read.id, read.code) == ("j", b"")


@pytest.mark.parametrize("flag", ["receipt", "bundle", "predicate"])
def test_outputs_of_a_program_go_over_nothing(jobs: dict[str, str], flag: str) -> None:
    wanted = asked(jobs["process"], **{flag: jobs["process"]})
    job, _ = load_asked_job(wanted)
    with pytest.raises(UsageError, match="would write over the job"):
        check_outputs(wanted, job)
    for path, message in (("-", "needs the name of a file"),):
        wanted = asked(jobs["process"], **{flag: path})
        with pytest.raises(UsageError, match=message):
            check_outputs(wanted, job)
