"""A job names a file outside of its folder: by dots, whole paths, links, and /proc."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.cli import Home, has_traceback
from tests.support.named_files import ALLOWED, CANARY, WAYS, job_naming, load, load_each

OUTSIDE = {
    "dots": "../outside/x.js",
    "dots through a folder": "sub/../../outside/x.js",
    "dots through a link": "sub/self/../outside/x.js",
    "many dots": "../" * 60 + "etc/passwd",
    "whole path": "{outside}/x.js",
    "whole path with dots": "{jobs}/../outside/x.js",
    "link": "link.js",
    "whole link": "whole-link.js",
    "link to a link": "second.js",
    "link in the middle": "up/outside/x.js",
    "whole link in the middle": "out/x.js",
    "magic link of the root": "/proc/self/root{outside}/x.js",
    "magic link to the working folder": "/proc/self/cwd/../../../../../etc/passwd",
    "magic link in the folder": "root{outside}/x.js",
    "name that begins like the folder": "../jobs-too/x.js",
}
REFUSED = "RefusedError the code file NAME lies outside of where this job may name files"
INSIDE = {
    "plain": "x.js",
    "in a folder": "sub/x.js",
    "dots inside": "sub/../x.js",
    "by a link": "inner.js",
    "by a link to a folder": "inner/x.js",
    "out and in again": "../jobs/x.js",
    "whole path": "{jobs}/x.js",
    "whole link": "whole-inner.js",
}


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    """A job's folder with every kind of link in it, and folders outside of it."""
    jobs, outside, near = (tmp_path / name for name in ("jobs", "outside", "jobs-too"))
    for folder in (jobs, outside, near, jobs / "sub"):
        folder.mkdir()
    for folder, text in (
        (jobs, ALLOWED),
        (jobs / "sub", ALLOWED),
        (outside, CANARY),
        (near, CANARY),
    ):
        (folder / "x.js").write_text(text)
    links = {
        "link.js": "../outside/x.js",
        "whole-link.js": f"{outside}/x.js",
        "second.js": "link.js",
        "up": "..",
        "out": str(outside),
        "root": "/proc/self/root",
        "sub/self": "..",
        "inner.js": "sub/x.js",
        "inner": "sub",
        "whole-inner.js": f"{jobs}/sub/x.js",
    }
    for name, target in links.items():
        (jobs / name).symlink_to(target)
    return jobs


def load_all(jobs: Path, table: dict[str, str], way: str, *allowed: Path) -> dict[str, str]:
    """Load a job for each name of a table; gives each ending."""
    names = [name.format(jobs=jobs, outside=jobs.parent / "outside") for name in table.values()]
    for name in names:
        if not name.endswith("etc/passwd"):
            assert (jobs / name).is_file(), f"the control: {name} leads to a file"
    files = [job_naming(jobs, name, f"{index}.yaml") for index, name in enumerate(names)]
    counts = load_each(way, files, allowed=allowed)
    return {
        kind: "".join(count).replace(repr(name), "NAME")
        for kind, name, count in zip(table, names, counts, strict=True)
    }


@pytest.mark.parametrize("way", WAYS)
def test_what_lies_outside_is_refused(jobs: Path, way: str) -> None:
    refused = dict.fromkeys(OUTSIDE, REFUSED)
    assert load_all(jobs, OUTSIDE, way) == refused
    assert load_all(jobs, OUTSIDE, way, jobs / "sub") == refused


@pytest.mark.parametrize("way", WAYS)
def test_the_same_is_read_where_its_folder_is_allowed(jobs: Path, way: str) -> None:
    outside = {kind: name for kind, name in OUTSIDE.items() if not name.endswith("etc/passwd")}
    allowed = (jobs.parent / "outside", jobs.parent / "jobs-too")
    assert load_all(jobs, outside, way, *allowed) == dict.fromkeys(outside, f"read {CANARY}")


@pytest.mark.parametrize("way", WAYS)
def test_what_lies_inside_is_read(jobs: Path, way: str) -> None:
    assert load_all(jobs, INSIDE, way) == dict.fromkeys(INSIDE, f"read {ALLOWED}")


@pytest.mark.parametrize("way", WAYS)
def test_no_link_leads_out_of_an_allowed_folder(tmp_path: Path, way: str) -> None:
    allowed, outside, jobs = (tmp_path / each for each in ("allowed", "outside", "jobs"))
    for folder in (allowed, outside, jobs):
        folder.mkdir()
    (outside / "x.js").write_text(CANARY)
    (allowed / "x.js").write_text(ALLOWED)
    for link, target in (("out.js", "../outside/x.js"), ("whole-out.js", outside / "x.js")):
        (allowed / link).symlink_to(target)
    (allowed / "up").symlink_to("..")
    (allowed / "folder").symlink_to(outside)
    names = ("out.js", "whole-out.js", "up/outside/x.js", "../outside/x.js", "folder/x.js")
    table = {name: f"{allowed}/{name}" for name in names}
    assert load_all(jobs, table, way, allowed) == dict.fromkeys(names, REFUSED)
    assert load_all(jobs, table, way, allowed, outside) == dict.fromkeys(names, f"read {CANARY}")


@pytest.mark.parametrize("way", WAYS)
def test_an_allowed_folder_may_itself_be_a_link(tmp_path: Path, way: str) -> None:
    real, jobs = tmp_path / "real", tmp_path / "jobs"
    for folder in (real, jobs):
        folder.mkdir()
    (real / "x.js").write_text(ALLOWED)
    (tmp_path / "link").symlink_to("real")
    for name in ("link", "real"):
        job = job_naming(jobs, f"{tmp_path}/{name}/x.js")
        assert load(way, job, tmp_path / "link") == f"read {ALLOWED}"
        assert load(way, job).startswith("RefusedError")


@pytest.mark.parametrize("way", WAYS)
def test_a_process_has_no_files_for_a_job(tmp_path: Path, way: str) -> None:
    names = [f"/proc/self/{file}" for file in ("environ", "cmdline", "status", "maps")]
    for name in names:
        assert Path(name).read_bytes(), "the control: there is something to read"
    table = dict(zip(names, names, strict=True))
    not_regular = "JobError the code file NAME is not a regular file"
    assert load_all(tmp_path, table, way, Path("/")) == dict.fromkeys(names, not_regular)
    text = tmp_path / "x.js"
    text.write_text(ALLOWED)
    assert load(way, job_naming(tmp_path, str(text)), Path("/")) == f"read {ALLOWED}"


def test_a_refused_file_is_a_signed_refusal_and_an_allowed_one_runs(home: Home) -> None:
    outside = home.work.parent / "lib"
    outside.mkdir()
    (outside / "x.js").write_text("return 6 * 7")
    job = job_naming(home.work, "../lib/x.js")
    refused = home.run("run", job, "--json")
    assert (refused.returncode, refused.json["output"]) == (126, None)
    assert not has_traceback(refused)
    error = refused.json["error"]
    assert (error["code"], error["line"], error["column"]) == ("files", 4, 7)
    assert error["expected"] == "file '../lib/x.js'"
    assert error["got"] == "allowed: the job's folder"
    predicate = home.predicate()
    assert predicate["outcome"]["reason"] == "files"
    assert predicate["outcome"]["refusal"]["needs"] == "file '../lib/x.js'"
    assert predicate["plan"] is None
    names = [item["name"] for item in predicate["resolvedDependencies"]]
    assert names == ["input", "profile", "guest"], "no digest of what was not read"
    for arguments in (("--allow-path", outside), (f"--allow-path={outside}", "-v")):
        ran = home.run("run", job, "--receipt", "allowed.json", *arguments)
        assert (ran.returncode, ran.stdout) == (0, b"42\n"), ran.message
    (code, *_) = home.predicate(home.work / "allowed.json")["resolvedDependencies"]
    assert (code["name"], code["annotations"]) == ("code", {"file": "../lib/x.js"})


def test_an_allowed_folder_that_is_none_is_a_mistake_for_every_command(home: Home) -> None:
    job = home.job("return 42")
    code = home.work / "x.js"
    code.write_text("return 42")
    for command, file in ((("run",), job), (("exec", "--runtime", "javascript"), code)):
        result = home.run(*command, "--allow-path", "nope", file)
        assert result.returncode == 125
        assert b"--allow-path 'nope' cannot be opened: No such file or directory" in result.stderr
        assert home.run(*command, "-q", "--allow-path", os.curdir, file).stdout == b"42\n"


def test_explain_says_beforehand_what_run_would_refuse(home: Home) -> None:
    outside = home.work.parent / "lib"
    outside.mkdir()
    (outside / "x.js").write_text("return 6 * 7")
    job = job_naming(home.work, "../lib/x.js")
    refused = home.run("explain", job, "--json")
    assert refused.returncode == 1, refused.message
    (reason,) = refused.json["refusals"]
    assert (reason["reason"], reason["needs"]) == ("files", "file '../lib/x.js'")
    assert home.run("explain", job, "--allow-path", outside).returncode == 0
