"""What a job may choose, or its caller is set to, never changes which walls stand around it.

A low limit or an odd umask can make a call of ours fail while the walls are being built. Nothing
may then start with one wall fewer, under a profile that wants some of them only where they are.
"""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest

from tests.support.callers import Caller
from tests.support.cli import Result

# It requires neither Landlock nor a cgroup.
WANTS_THEM = "tenant-isolated"
LOWEST = 3
PLENTY_OF_FILES = 24
UMASKS = (0o000, 0o022, 0o077, 0o111, 0o177, 0o377, 0o700, 0o777)
# May be written by anyone; only Landlock forbids it.
WRITE = "echo x > /dev/random && echo wrote"


def standing(result: Result) -> set[str]:
    """Give the protections that were confirmed."""
    return {item["name"] for item in result.json["controls"] if item["enforced"]}


def try_to_write(caller: Caller, *options: str | Path, **more: Any) -> set[str]:
    """Let a program try what only Landlock forbids; gives the walls that stood."""
    result = caller.sh(WRITE, "--json", *options, profile=WANTS_THEM, **more)
    assert result.json["outcome"]["reason"] == "exit", result.message
    assert result.json["stdout"]["text"] == "", "nothing that Landlock forbids was done"
    return standing(result)


@pytest.fixture
def walls(caller: Caller) -> set[str]:
    """The walls that stand where nothing is asked for; the control of all that follows."""
    Path("/dev/random").open("wb").close()
    found = try_to_write(caller)
    assert {"namespaces", "no-new-privs", "capabilities", "seccomp", "rlimits"} <= found
    return found


def test_a_low_limit_of_open_files_takes_no_wall_away(caller: Caller, walls: set[str]) -> None:
    for most in range(LOWEST, PLENTY_OF_FILES):
        assert try_to_write(caller, "--open-files", str(most)) == walls, most


def test_the_least_of_a_limit_takes_no_wall_away(caller: Caller, walls: set[str]) -> None:
    folder = caller.folder("project", file=b"content")
    for option, least in (
        ("--processes", "1"),
        ("--inodes", "1"),
        ("--disk", "1B"),
        ("--cpu-time", "1ms"),
    ):
        for workspace in ((), ("--workspace", folder)):
            asked = ("--json", option, least, *workspace, "--", "true")
            result = caller.exec(*asked, profile=WANTS_THEM)
            assert result.json["outcome"]["status"] in ("success", "limit"), result.message
            assert standing(result) == walls, option


def test_no_umask_takes_a_wall_away(caller: Caller, walls: set[str]) -> None:
    folder = caller.folder("project", file=b"content")
    for umask in UMASKS:
        assert try_to_write(caller, "--workspace", folder, umask=umask) == walls, oct(umask)


def test_one_process_is_enough(caller: Caller) -> None:
    alone = caller.exec("--processes", "1", "--", "true")
    assert alone.returncode == 0, alone.message
    code = "import os\ntry: os.fork()\nexcept OSError as error: print(error.errno)"
    result = caller.python(code, "--processes", "1")
    assert result.stdout == b"11\n", "EAGAIN: one is all there may be"
    two = caller.python("import os\nif os.fork(): print(os.wait()[1])", "--processes", "2")
    assert two.stdout == b"0\n", "the control"


@pytest.mark.parametrize("workspace", [False, True])
def test_the_limit_of_inodes_is_exact(caller: Caller, workspace: bool) -> None:
    options: tuple[str | Path, ...] = ()
    if workspace:
        options = ("--workspace", caller.folder("project", file=b"content"))
    script = "cd /tmp; for i in 1 2 3 4; do : > f$i || exit 7; done"
    for most in (1, 2, 3):
        result = caller.sh(f"({script}) 2>/dev/null; ls /tmp", "--inodes", str(most), *options)
        assert len(result.stdout.split()) == most
    assert caller.sh(script, "--inodes", "4", *options).returncode == 0, "the control"


def few_files(most: int) -> dict[str, Any]:
    """Give what lets a command have so few open files."""
    return {
        "preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (most, most)),
    }


def test_too_few_files_of_the_callers_are_told_as_that(caller: Caller) -> None:
    for profile in ("high-security", WANTS_THEM):
        result = caller.exec("--", "true", profile=profile, **few_files(20))
        assert result.returncode == 125
        assert "this process may have 20 open files" in result.message
        assert "ulimit -n 1024" in result.message
        assert "does not enforce" not in result.message
    told = caller.cli("doctor", "--runtime", "process", **few_files(20))
    assert "this process may have 20 open files" in told.stdout.decode()
    assert caller.exec("--", "true", **few_files(256)).returncode == 0, "the control"


@pytest.mark.parametrize("target", ["/var/empty", "/var", "/.lower", "/.store/x"])
def test_a_place_of_the_sandboxs_own_is_refused_by_all(caller: Caller, target: str) -> None:
    folder = caller.folder("data")
    told = "is the sandbox's own"
    result = caller.exec("--mount", f"{folder}:{target}", "--", "true")
    assert (result.returncode, told in result.message) == (125, True), result.message
    job = caller.work / "job.yaml"
    job.write_text(
        "{beddel: 1, id: x, runtime: process, command: ['true'], "
        f"mounts: [{{source: data, target: {target}}}]}}"
    )
    for command in ("explain", "run", ("doctor", "--job")):
        words = (command,) if isinstance(command, str) else command
        result = caller.cli(*words, job, "--profile", caller.profile)
        assert result.returncode == (125 if command == "run" else 2)
        assert told in result.message, (command, result.message)


def test_a_mount_may_lie_where_there_is_a_link_otherwise(caller: Caller) -> None:
    folder = caller.folder("data", file=b"shown")
    assert caller.sh("readlink /var/tmp").stdout == b"../tmp\n", "the control"
    for target in ("/var/tmp", "/var/tmp/here"):
        result = caller.sh(f"cat {target}/file", "--mount", f"{folder}:{target}")
        assert result.stdout == b"shown", result.message
        result = caller.sh("cat file", "--workspace", f"{folder}:{target}")
        assert result.stdout == b"shown", result.message


def test_more_mounts_than_a_message_holds_are_refused_early(caller: Caller) -> None:
    folder = caller.folder("data")
    many = [word for n in range(201) for word in ("--mount", f"{folder}:/m{n}")]
    result = caller.exec(*many, "--", "true")
    assert (result.returncode, "201 mounts are too many" in result.message) == (125, True)
    result = caller.sh("ls -d /m* | wc -l", *many[2:])
    assert result.stdout == b"200\n", result.message


def test_what_is_no_option_is_told(caller: Caller) -> None:
    folder = caller.folder("d")
    for options, message in (
        (("--workspace", f"{folder}:/w:ro", "--write-back"), "this one is ro"),
        (("--receipt", ""), "--receipt needs the name of a file"),
        (("--workspace", folder, "--workspace", folder), "--workspace is given twice"),
        (("--timeout", "1s", "--timeout=2s"), "--timeout is given twice"),
        (("--results", "r", "--receipt", "r/x.json"), "lies in --results 'r'"),
        (("--env", "A\udcff=1"), "not valid UTF-8 in --env"),
        (("--env", "A=\udcff"), "not valid UTF-8 in --env"),
        (("--open-files", "2"), "3 to 9007199254740991"),
    ):
        result = caller.exec(*options, "--", "true")
        assert (result.returncode, message in result.message) == (125, True), result.message


def test_a_job_has_one_runtime(caller: Caller) -> None:
    job = caller.work / "job.yaml"
    job.write_text("{beddel: 1, id: x, runtime: process, command: ['true']}")
    asked = ("doctor", "--profile", caller.profile, "--job", job)
    result = caller.cli(*asked, "--runtime", "javascript")
    assert (result.returncode, "beside a job of the runtime process" in result.message) == (2, True)
    assert caller.cli(*asked, "--runtime", "process").returncode == 0, "the control"


def test_a_program_without_a_name_is_not_there(caller: Caller) -> None:
    result = caller.exec("--", "")
    assert (result.returncode, "no program ''" in result.message) == (127, True), result.message


def test_a_folder_that_is_gone_is_needed_only_by_what_lies_in_it(caller: Caller) -> None:
    gone = caller.folder("gone")

    def leave() -> None:
        import os

        os.chdir(gone)
        os.rmdir(gone)

    result = caller.exec("--", "pwd", preexec_fn=leave)
    assert (result.returncode, result.stdout) == (0, b"/workspace\n"), result.message


def test_a_file_that_may_not_be_read_is_named(caller: Caller) -> None:
    secret = caller.work / "secret"
    secret.write_text("x")
    secret.chmod(0)
    result = caller.exec("--mount", f"{secret}:/x", "--", "cat", "/x")
    if caller.user is None:
        return  # root may read anything
    assert result.returncode == 126
    assert f"user {caller.user} may not read it" in result.message


def test_what_cannot_be_written_back_is_in_the_receipt(caller: Caller) -> None:
    if caller.user is None:
        return  # root may write anywhere
    folder = caller.folder("project", a=b"old", z=b"old")
    (folder / "ro").mkdir()
    caller.own(folder)
    (folder / "ro").chmod(0o555)
    script = "echo new > a; chmod 755 ro; echo x > ro/x; echo new > z"
    result = caller.sh(script, "--workspace", folder, "--write-back")
    assert result.returncode == 125
    assert f"folder '{folder}/ro' may not be written by user {caller.user}" in result.message
    assert "the run ended (success, ok)" in result.message
    told = caller.predicate()
    assert [each["path"] for each in told["files"]] == ["a"]
    assert told["notWritten"] == {
        "why": "Permission denied",
        "files": [
            {"path": "ro/x", "why": "Permission denied"},
            {"path": "z", "why": "not reached: Permission denied before it"},
        ],
    }
    assert ((folder / "a").read_bytes(), (folder / "z").read_bytes()) == (b"new\n", b"old")
