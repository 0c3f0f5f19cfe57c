"""What a program would get, from where, and every reason against it, as `run` then has it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import no_namespaces
from tests.support.capabilities import require
from tests.support.cli import COMMAND, Home

NO_NAMESPACES = (sys.executable, "-P", str(Path(no_namespaces.__file__)))
OFFERED = "offered, not tried; run tries it and confirms it"
HIGH = ("--profile", "high-security")


def program(home: Home, name: str = "job", **more: Any) -> Path:
    """Write a job of a program."""
    job = {"beddel": 1, "id": name, "runtime": "process", "command": ["true"], **more}
    path = home.work / f"{name}.yaml"
    path.write_text(json.dumps(job))
    return path


def explained(home: Home, *arguments: str | Path, code: int = 0, **more: Any) -> dict[str, Any]:
    result = home.run("explain", *arguments, "--json", **more)
    assert result.returncode == code, result.message
    return result.json


def folders(home: Home) -> None:
    (home.work / "data" / "sub").mkdir(parents=True)
    (home.work / "data" / "in").write_text("in")
    (home.work / "other").mkdir()


PLANS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({}, ()),
    ({"input": {"a": 1}, "limits": {"memory": "32MiB", "cpus": 0.125}}, ("--timeout", "5s")),
    ({"env": {"B": "x"}}, ("--env", "A=b", "--tier", "free")),
    (
        {
            "workspace": {"source": "data", "mode": "ro"},
            "mounts": [{"source": "other", "target": "/o"}],
        },
        ("--mount", "data/in:/in", "--tier", "enterprise"),
    ),
    ({}, ("--workspace", "data", "--mount", "other:/o:rw")),
]


@pytest.mark.parametrize(("job", "options"), PLANS, ids=range(len(PLANS)))
def test_the_plan_is_the_one_in_the_receipt(
    home: Home, job: dict[str, Any], options: tuple[str, ...]
) -> None:
    require("user-namespaces")
    folders(home)
    path = program(home, **job)
    told = explained(home, path, *HIGH, *options)
    ran = home.run("run", path, "-q", *HIGH, *options)
    assert ran.returncode == 0, ran.message
    predicate = home.predicate()
    digests = told["digests"]
    assert digests["plan"] == predicate["planDigest"]["sha256"]
    assert digests["job"] == predicate["job"]["digest"]["sha256"]
    assert digests["command"] == predicate["runtime"]["program"]["commandDigest"]["sha256"]
    read = {x["name"]: x["digest"]["sha256"] for x in predicate["resolvedDependencies"]}
    assert digests["profile"] == read["profile"]
    assert digests["input"] == read.get("input")
    origins = [item["origin"] for item in told["values"][:9]]
    assert origins == [
        predicate["limitOrigins"][key]
        for key in (
            *("memoryBytes", "wallNs", "outputBytes", "cpuNs", "milliCpus", "processes"),
            *("diskBytes", "inodes", "openFiles"),
        )
    ]
    names = [item["name"] for item in told["protections"]]
    assert sorted(names) == sorted(item["name"] for item in predicate["controls"])
    needed = {item["name"] for item in told["protections"] if item["required"]}
    assert needed == set(predicate["plan"]["required"])


def test_what_a_program_may_touch_is_told_with_its_place(home: Home) -> None:
    folders(home)
    job = program(home, env={"B": "x"}, workspace={"source": "data"})
    told = explained(home, job, *HIGH, "--env", "A=b", "--mount", "other:/o", "--tier", "pro")
    rows = [
        (item["field"], item["value"], item["origin"], item["refused"])
        for item in told["values"][9:]
    ]
    assert rows == [
        ("network", "none", "profile", False),
        ("workspace", "data at /workspace (overlay)", "job", False),
        ("mount", "other at /o (ro)", "command line", False),
        ("env", "B", "job", False),
        ("env", "A", "command line", False),
        ("tier", "pro", "command line", False),
    ]
    assert told["values"][10]["place"]["file"] == str(job)
    assert all(item["verified"] == OFFERED for item in told["protections"] if item["available"])
    assert told["machine"]["isolate_bytes"] is None
    text = home.run("explain", job, *HIGH).stdout.decode()
    assert "  input    none: an empty standard input\n" in text
    assert "  namespaces    yes " in text


REFUSED: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    (("--mount", "/proc:/data"), ("it lies on proc, a view of the kernel",)),
    (("--workspace", "."), ()),
    (
        ("--mount", "/:/data", "--workspace", "/sys", "--memory", "1GiB"),
        (
            "it is the root of the file system, with everything in it",
            "it lies on sysfs, a view of the kernel",
            "high-security grants 256MiB",
        ),
    ),
    (
        ("--workspace", "data", "--mount", "data/sub:/o:rw"),
        ("it overlaps the workspace",),
    ),
    (("--mount", "/usr/lib:/o:rw"), ("/usr is a folder of the system, never shown rw",)),
]


@pytest.mark.parametrize(("options", "found"), REFUSED, ids=range(len(REFUSED)))
def test_what_may_not_be_shown_is_told_and_run_refuses_it(
    home: Home, options: tuple[str, ...], found: tuple[str, ...]
) -> None:
    require("user-namespaces")
    folders(home)
    job = program(home)
    told = explained(home, job, *HIGH, *options, code=1 if found else 0)
    assert len(told["refusals"]) == len(found)
    for refusal, words in zip(told["refusals"], found, strict=True):
        assert refusal["found"].startswith(words)
    marked = [x for x in told["values"] if x["refused"] and x["field"] in ("mount", "workspace")]
    assert len(marked) == len([x for x in told["refusals"] if x["reason"] == "files"])
    ran = home.run("run", job, "--json", *HIGH, *options)
    assert ran.returncode == (126 if found else 0), ran.message
    if found:
        first = told["refusals"][0]
        assert ran.json["error"]["message"] == first["message"]
        assert ran.json["error"]["hint"] == first["fix"]


def test_a_job_is_bound_to_its_folder(home: Home) -> None:
    folders(home)
    (home.work / "jobs").mkdir()
    job = program(home, "in", workspace={"source": "../data"}, mounts=[])
    job = Path(shutil.move(job, home.work / "jobs" / "in.yaml"))
    told = explained(home, job, *HIGH, code=1)
    (refusal,) = told["refusals"]
    assert refusal["fix"] == "run with --allow-path DIR, a folder that holds it"
    assert refusal["place"]["file"] == str(job)
    explained(home, job, *HIGH, "--allow-path", home.work / "data")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--mount", "gone:/o"), "nothing to mount at 'gone'"),
        (("--mount", "data"), "--mount 'data' does not say where the program sees it"),
        (("--mount", "data:/usr"), "'/usr' cannot be a mount's target"),
        (("--workspace", "data", "--mount", "other:/workspace/x"), "lie in each other"),
        (("--tier", "huge"), "unknown tier 'huge'"),
        (("--env", "NOT_SET_ANYWHERE"), "there is no such variable to pass on"),
        (("--fuel", "7"), "--fuel is for isolates"),
    ],
)
def test_what_cannot_be_told_is_exit_2(home: Home, options: tuple[str, ...], message: str) -> None:
    folders(home)
    told = explained(home, program(home), *HIGH, *options, code=2)
    assert message in told["error"]["message"]


def test_a_profile_without_a_part_for_programs_grants_nothing(home: Home) -> None:
    source = Path(__file__).parents[2] / "profiles" / "high-security.yaml"
    text = source.read_text().replace("name: high-security", "name: mine")
    (home.work / "mine.yaml").write_text(text.partition("process:")[0])
    job = program(home, limits={"memory": "1MiB"})
    told = explained(home, job, "--profile", "./mine.yaml", code=1)
    (refusal,) = told["refusals"]
    assert refusal["message"] == "mine grants nothing to programs"
    assert {item["granted"] for item in told["values"][:9]} == {"nothing"}
    assert all(item["refused"] for item in told["values"][:9])
    assert [item["value"] for item in told["values"][:2]] == ["1MiB", "nothing"]
    assert home.run("explain", job, "--profile", "./mine.yaml").returncode == 1
    ran = home.run("run", job, "--json", "--profile", "./mine.yaml")
    assert ran.returncode == 126
    assert ran.json["error"]["message"] == refusal["message"]


def test_a_machine_without_namespaces_is_told_as_run_tells_it(home: Home) -> None:
    require("user-namespaces")
    job = program(home)
    asked = (*NO_NAMESPACES, *COMMAND)
    told = explained(home, job, *HIGH, code=1, command=asked)
    ran = home.run("run", job, "--json", *HIGH, command=asked)
    assert ran.returncode == 126
    (refusal,) = told["refusals"]
    assert refusal["message"] == ran.json["error"]["message"]
    assert refusal["fix"] == ran.json["error"]["hint"]
    assert refusal["found"] == "user.max_user_namespaces is 0"
    # The control: without the block it would run.
    assert explained(home, job, *HIGH)["would_run"] is True
