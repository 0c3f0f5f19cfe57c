"""A job names its file in ways that other programs trip over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.cli import Home, has_traceback
from tests.support.named_files import ALLOWED, WAYS, job_naming, load, load_each

NO_NAME = "JobError no file can have the name of the code file: NAME"
NOT_FOUND = "NotFoundError no code file at NAME"
NAMES = {
    "": NOT_FOUND,
    ".": "JobError the code file NAME is not a regular file",
    "x.js/": NOT_FOUND,
    "x.js/.": NOT_FOUND,
    "nope/x.js": NOT_FOUND,
    "nope/../x.js": NOT_FOUND,
    "x.js\0": NO_NAME,
    "x.js\0.yaml": NO_NAME,
    "n" * 256: "JobError cannot read the code file NAME: File name too long",
    "./" * 3000 + "x.js": "JobError cannot read the code file NAME: File name too long",
    "-": f"read {ALLOWED}",
    "-x.js": f"read {ALLOWED}",
    "~/x.js": NOT_FOUND,
    "$HOME/x.js": NOT_FOUND,
    "%2e%2e/x.js": NOT_FOUND,
    "file:///etc/passwd": NOT_FOUND,
    ".//x.js": f"read {ALLOWED}",
    "a\nb\r\t.js": f"read {ALLOWED}",
    "\x1b[31mred.js": f"read {ALLOWED}",
    "\u202egnp.js": f"read {ALLOWED}",
    "…ß.js": f"read {ALLOWED}",
    "*.js": NOT_FOUND,
}
# Where the kernel does not look the name up in one step, these lead to the file they seem to.
LENIENT = ("x.js/.", "nope/../x.js", "./" * 3000 + "x.js")


@pytest.mark.parametrize("way", WAYS)
def test_each_name_is_the_file_of_that_name_or_an_error(tmp_path: Path, way: str) -> None:
    for name, ending in NAMES.items():
        if ending.startswith("read"):
            (tmp_path / name).write_text(ALLOWED)
    (tmp_path / "x.js").write_text(ALLOWED)
    jobs = [job_naming(tmp_path, name, f"{index}.yaml") for index, name in enumerate(NAMES)]
    counts = load_each(way, jobs)
    found = {
        name: "".join(count).replace(repr(name), "NAME")
        for name, count in zip(NAMES, counts, strict=True)
    }
    lenient = {} if way == "none" else dict.fromkeys(LENIENT, f"read {ALLOWED}")
    assert found == NAMES | lenient


def test_half_of_a_character_is_no_name(tmp_path: Path) -> None:
    """A file may have a name that is not UTF-8; a job, which is, cannot spell it."""
    folder = os.fsencode(tmp_path)
    with open(folder + b"/\xff.js", "wb") as file:
        file.write(ALLOWED.encode())
    for spelled in (r'"\udcff.js"', r'"\ud800.js"', r'"\xff.js"'):
        job = tmp_path / "job.yaml"
        job.write_text(f"beddel: 1\nid: named\nruntime: javascript\nfile: {spelled}\n")
        ending = load("none", job)
        assert ending.startswith(("JobError", "NotFoundError")), (spelled, ending)
    (tmp_path / "ÿ.js").write_text(ALLOWED)
    assert load("none", job) == f"read {ALLOWED}"


def test_a_folder_whose_name_is_not_utf_8_can_be_allowed_and_refused(home: Home) -> None:
    folder = os.fsencode(home.work) + b"/\xff"
    os.mkdir(folder)
    with open(folder + b"/x.js", "wb") as file:
        file.write(b"return 42")
    (home.work / "jobs").mkdir()
    (home.work / "link.js").symlink_to(os.fsdecode(folder + b"/x.js"))
    job = job_naming(home.work / "jobs", "../link.js")
    result = home.run("run", job, "-q", "--allow-path", os.fsdecode(folder))
    assert (result.returncode, result.stdout) == (0, b"42\n"), result.message
    (home.work / "elsewhere.js").write_text("return 1")
    job = job_naming(home.work / "jobs", "../elsewhere.js")
    result = home.run("run", job, "--allow-path", os.fsdecode(folder))
    assert result.returncode == 126
    assert not has_traceback(result)
    assert b"\xff" not in result.stderr
    assert b"\\udcff" in result.stderr
    assert "\\udcff" in home.predicate()["outcome"]["refusal"]["found"]


def test_a_name_with_controls_is_shown_and_not_sent(home: Home) -> None:
    result = home.run("run", job_naming(home.work, "../\x1b]0;owned\a\u202e.js"))
    assert result.returncode == 126
    assert b"\x1b" not in result.stderr
    assert b"\x07" not in result.stderr
    assert "\u202e" not in result.message
    assert "owned" in result.message, "the control: the name is in the message"
