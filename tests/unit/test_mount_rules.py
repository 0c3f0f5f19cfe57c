"""Which mounts may be asked for, and which host folders a program may see."""

from __future__ import annotations

import pytest

from beddel_cli.errors import BeddelError, JobError, Place, RefusedError, UsageError
from beddel_cli.process.mount_rules import (
    MountRequest,
    Protected,
    Source,
    beneath,
    check_no_writer,
    check_requests,
    judge_reach,
    judge_source,
    judge_workspace,
    mount_of_job,
    parse_mount,
    parse_workspace,
    workspace_of_job,
)

JOB = Place("job.yaml", 4, 9)


@pytest.mark.parametrize(
    ("text", "source", "target", "mode"),
    [
        ("./data:/data", "./data", "/data", "ro"),
        ("/srv/x:/data:ro", "/srv/x", "/data", "ro"),
        ("/srv/x:/data:rw", "/srv/x", "/data", "rw"),
        ("a:b:/data", "a:b", "/data", "ro"),
        ("a:ro:/data:rw", "a:ro", "/data", "rw"),
        ("C:/x:/data", "C:/x", "/data", "ro"),
        ("x:/deep/er/place", "x", "/deep/er/place", "ro"),
        ("x:/home/me", "x", "/home/me", "ro"),
        ("x:/runs", "x", "/runs", "ro"),
        ("not-utf8-\udcff:/data", "not-utf8-\udcff", "/data", "ro"),
    ],
)
def test_mounts(text: str, source: str, target: str, mode: str) -> None:
    assert parse_mount(text) == MountRequest(source, target, mode in ("rw", "overlay"))


FORM = "HOST:GUEST[:ro|rw], such as ./data:/data:ro"


@pytest.mark.parametrize(
    ("text", "message", "expected"),
    [
        ("", "--mount '' does not say where the program sees it", FORM),
        ("/data", "--mount '/data' does not say where the program sees it", FORM),
        ("/data:ro", "--mount '/data' does not say where the program sees it", FORM),
        (":/data", "--mount ':/data' does not say where the program sees it", FORM),
        (
            "x:data",
            "--mount 'x:data' ends in 'data', which is neither an absolute path nor a mode",
            FORM,
        ),
        (
            "x:/data:RW",
            "--mount 'x:/data:RW' ends in 'RW', which is neither an absolute path nor a mode",
            FORM,
        ),
        (
            "x:/data:",
            "--mount 'x:/data:' ends in '', which is neither an absolute path nor a mode",
            FORM,
        ),
        ("a\0b:/data", "no file can have the name 'a\\x00b'", "a file or folder"),
        ("a\ud800:/data", "no file can have the name 'a\\ud800'", "a file or folder"),
    ],
)
def test_mounts_of_another_form(text: str, message: str, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_mount(text)
    assert (caught.value.message, caught.value.expected) == (message, expected)


@pytest.mark.parametrize(
    ("text", "source", "target", "mode"),
    [
        (".", ".", "/workspace", "overlay"),
        ("dir:/w", "dir", "/w", "overlay"),
        ("dir:/w:ro", "dir", "/w", "ro"),
        ("a:b:/w:ro", "a:b", "/w", "ro"),
    ],
)
def test_workspaces(text: str, source: str, target: str, mode: str) -> None:
    assert parse_workspace(text) == MountRequest(source, target, mode in ("rw", "overlay"))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("dir:ro", "write dir:/workspace:ro"),
        ("a:b", "write a:b:/workspace for a folder with a colon in its name"),
        ("dir:/w:rw", "changes are collected with --results DIR or put back with --write-back"),
        (":/w", None),
        ("dir:", "write dir::/workspace for a folder with a colon in its name"),
    ],
)
def test_workspaces_of_another_form(text: str, hint: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        parse_workspace(text)
    assert caught.value.message == f"--workspace {text!r} does not say where the program sees it"
    assert caught.value.hint == hint


def test_an_empty_workspace_names_nothing() -> None:
    with pytest.raises(UsageError) as caught:
        parse_workspace("")
    assert caught.value.message == "an empty source names no folder"


OWN = "the sandbox's own"
PLAIN = "it is not a plain path without empty parts, . and .."
TARGETS = {
    "data": "it is not absolute",
    "/": PLAIN,
    "//data": PLAIN,
    "/data/": PLAIN,
    "/data/../etc": PLAIN,
    "/./data": PLAIN,
    "/da\nta": "it holds characters that cannot be shown",
    "/da\udcffta": "it holds characters that cannot be shown",
    "/" + "x" * 256: "it is longer than 1024 bytes, or a name in it than 255",
    "/x" * 600: "it is longer than 1024 bytes, or a name in it than 255",
    **{
        f"/{name}{below}": f"/{name} is {OWN}"
        for name in (
            *("proc", "sys", "dev", "usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"),
            *("etc", "run", "tmp"),
        )
        for below in ("", "/below")
    },
}


@pytest.mark.parametrize("target", TARGETS)
def test_targets(target: str) -> None:
    message = f"{target!r} cannot be a mount's target: {TARGETS[target]}"
    for place, kind in ((None, UsageError), (JOB, JobError)):
        with pytest.raises(BeddelError) as caught:
            check_requests([MountRequest("x", target, False, place)])
        assert type(caught.value) is kind
        assert (caught.value.message, caught.value.place) == (message, place)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("/data", "/data", "two mounts have the target '/data'"),
        ("/data", "/data/x", "the targets '/data' and '/data/x' lie in each other"),
        ("/workspace/x", "/workspace", "the targets '/workspace/x' and '/workspace' lie in"),
    ],
)
def test_targets_lie_apart(first: str, second: str, message: str) -> None:
    requests = [MountRequest("a", first, False), MountRequest("b", second, False, JOB)]
    with pytest.raises(JobError) as caught:
        check_requests(requests)
    assert caught.value.message.startswith(message)
    check_requests([MountRequest("a", "/data", False), MountRequest("b", "/data2", False)])


EXT4, PROC = 0xEF53, 0x9FA0
ROOT_ID, HOME_ID, KEYS_ID, OTHER_ID = (1, 2), (1, 50), (1, 60), (1, 70)
PROTECTED = (
    Protected("your home folder", "/home/me", (HOME_ID, (1, 40), ROOT_ID), False),
    Protected("beddel's home", "/home/me/.beddel", (KEYS_ID, HOME_ID, (1, 40), ROOT_ID), True),
)


def source(path: str, *chain: tuple[int, int], kind: str = "folder", **more: object) -> Source:
    values: dict[str, object] = {"file_system": EXT4, "by_root": False} | more
    return Source(path, chain or (OTHER_ID, (1, 69), ROOT_ID), kind, **values)  # type: ignore[arg-type]


def verdict(where: Source, mode: str = "ro") -> str | None:
    error = refusal(where, mode)
    return None if error is None else error.found


def refusal(where: Source, mode: str = "ro") -> RefusedError | None:
    request = MountRequest("asked", "/data", mode == "rw")
    try:
        judge_source(request, where, PROTECTED)
    except RefusedError as error:
        return error
    return None


def test_a_refusal_says_what_helps() -> None:
    with pytest.raises(RefusedError) as caught:
        judge_source(MountRequest("asked", "/data", True, JOB), source("/etc"), PROTECTED)
    error = caught.value
    assert (error.exit_code, error.reason, error.place) == (126, "files", JOB)
    assert error.message == f"'asked' cannot be shown to a program: /etc {SYSTEM}"
    assert (error.needs, error.found) == ("'asked' at /data (rw)", f"/etc {SYSTEM}")
    assert error.fix == "mount it ro"


BENEATH = "name the one folder beneath it that the program needs"
NEVER = "no program is shown it: name another folder, with what the program needs"


@pytest.mark.parametrize(
    ("where", "mode", "fix"),
    [
        (source("/"), "ro", BENEATH),
        (source("/home/me"), "ro", BENEATH),
        (source("/home"), "ro", BENEATH),
        (source("/var", by_root=True), "ro", BENEATH),
        (source("/usr/local/lib"), "rw", "mount it ro"),
        (source("/opt"), "rw", f"mount it ro, or {BENEATH}"),
        # Nothing beneath these is shown either.
        (source("/home/me/.beddel"), "ro", NEVER),
        (source("/home/me/.beddel/keys"), "ro", NEVER),
        (source("/mnt/h", HOME_ID, (1, 80), ROOT_ID, kind="file"), "ro", NEVER),
        (source("/dev"), "ro", "leave it out: a program has a /dev of its own"),
        (source("/proc", file_system=PROC), "ro", "leave it out: a program has a /proc of its own"),
        (source("/sys"), "ro", "copy what the program needs of it into a folder, and name that"),
        (source("/p", file_system=PROC), "ro", "copy what the program needs of it into a folder, "),
        # Nor has any of these something beneath it.
        (
            source("/dev/null", kind="a character device"),
            "ro",
            "leave it out: a program has /dev/null and the like of its own",
        ),
        (source("/srv/s", kind="a socket"), "ro", "name a file or a folder"),
    ],
)
def test_what_helps_does_help(where: Source, mode: str, fix: str) -> None:
    error = refusal(where, mode)
    assert error is not None
    assert error.fix.startswith(fix)


SYSTEM = "is a folder of the system, never shown rw"
VERDICTS = [
    # path, ro, rw
    ("/srv/data", None, None),
    ("/home/me/project", None, None),
    ("/home/you", None, None),
    ("/home/me/.beddel-other", None, None),
    ("/var/lib/app", None, None),
    ("/tmp/x", None, None),
    ("/opt/app", None, None),
    ("/", "it is the root of the file system, with everything in it", "="),
    ("/home/me", "it is your home folder", "="),
    ("/home", "your home folder lies in it", "="),
    ("/home/me/.beddel", "it is beddel's home", "="),
    ("/home/me/.beddel/keys", "it lies in beddel's home", "="),
    ("/proc", "/proc is the system's own", "="),
    ("/proc/1/root", "/proc is the system's own", "="),
    ("/sys/fs/cgroup", "/sys is the system's own", "="),
    ("/dev/shm", "/dev is the system's own", "="),
    ("/run/docker.sock", "/run is the system's own", "="),
    ("/usr", None, f"/usr {SYSTEM}"),
    ("/usr/local/lib", None, f"/usr {SYSTEM}"),
    ("/bin", None, f"/bin {SYSTEM}"),
    ("/lib64/x", None, f"/lib64 {SYSTEM}"),
    ("/etc", None, f"/etc {SYSTEM}"),
    ("/etc/ssl", None, f"/etc {SYSTEM}"),
    ("/boot/grub", None, f"/boot {SYSTEM}"),
    ("/var", None, f"/var {SYSTEM}"),
    ("/var/tmp", None, f"/var/tmp {SYSTEM}"),
    ("/tmp", None, f"/tmp {SYSTEM}"),
    ("/opt", None, f"/opt {SYSTEM}"),
]


def test_what_may_only_be_read_is_to_be_mounted_so() -> None:
    code = Protected("beddel-cli itself", "/opt/b", (OTHER_ID, ROOT_ID), True, may_be_read=True)
    with pytest.raises(RefusedError) as caught:
        judge_source(MountRequest("asked", "/data", True), source("/opt/b"), [code])
    assert caught.value.fix.startswith("mount it ro")


@pytest.mark.parametrize(("path", "ro", "rw"), VERDICTS)
def test_sources(path: str, ro: str | None, rw: str | None) -> None:
    assert verdict(source(path)) == ro
    assert verdict(source(path), "rw") == (ro if rw == "=" else rw)


@pytest.mark.parametrize(
    ("where", "found"),
    [
        (source("/srv/s", kind="a socket"), "it is a socket"),
        (source("/srv/s", kind="a character device"), "it is a character device"),
        (source("/srv/s", kind="a link"), "it is a link"),
        (source("/srv/p", file_system=PROC), "it lies on proc, a view of the kernel"),
        (source("/etc", by_root=True), "/etc holds secrets of the system"),
        (source("/etc/ssl", by_root=True), None),
        # Bind mounts: the same folder under another name.
        (source("/mnt/r", ROOT_ID), "it is the root of the file system, with everything in it"),
        (source("/mnt/r", ROOT_ID, (1, 80), ROOT_ID), "your home folder lies in it"),
        (source("/mnt/h", HOME_ID, (1, 80), ROOT_ID), "it is your home folder"),
        (source("/mnt/k", KEYS_ID, (1, 80), ROOT_ID), "it is beddel's home"),
        (source("/mnt/k/s", (1, 61), KEYS_ID, ROOT_ID), "it lies in beddel's home"),
        (source("/srv/file", kind="file"), None),
    ],
)
def test_sources_are_known_by_more_than_their_name(where: Source, found: str | None) -> None:
    assert verdict(where) == found


def test_a_workspace_is_a_folder() -> None:
    request = MountRequest("w", "/workspace", True)
    judge_workspace(request, source("/srv/w"), PROTECTED)
    judge_workspace(request, source("/usr/src"), PROTECTED)
    for where, found in (
        (source("/srv/w", kind="file"), "it is a file, and a workspace is a folder"),
        (source("/home/me"), "it is your home folder"),
    ):
        with pytest.raises(RefusedError) as caught:
            judge_workspace(request, where, PROTECTED)
        assert caught.value.found == found


@pytest.mark.parametrize(
    ("path", "changes", "found"),
    [
        ("/job/data", False, None),
        ("/job", False, None),
        ("/shared/x", False, None),
        ("/shared/x", True, None),
        ("/jobs", False, "it lies at '/jobs'; allowed: '/shared', '/job'"),
        ("/etc", False, "it lies at '/etc'; allowed: '/shared', '/job'"),
        ("/etc", True, "it lies at '/etc'; allowed: '/shared'"),
        ("/job/data", True, "the job's folder, which a job may read and not change"),
    ],
)
def test_what_a_job_may_name(path: str, changes: bool, found: str | None) -> None:
    request = MountRequest("x", "/data", changes, JOB)
    if found is None:
        judge_reach(request, path, "/job", ["/shared"], changes=changes)
        return
    with pytest.raises(RefusedError) as caught:
        judge_reach(request, path, "/job", ["/shared"], changes=changes)
    assert (caught.value.found, caught.value.place) == (found, JOB)
    assert caught.value.fix == "run with --allow-path DIR, a folder that holds it"


def test_a_job_without_a_folder_may_name_nothing() -> None:
    with pytest.raises(RefusedError) as caught:
        judge_reach(MountRequest("/x", "/d", False, JOB), "/x", None, [], changes=False)
    assert caught.value.found == "it lies at '/x'; allowed: no folder"


@pytest.mark.parametrize("path", ["/w", "/w/sub", "/"])
def test_nobody_writes_beneath_the_overlay(path: str) -> None:
    request = MountRequest("x", "/data", True)
    check_no_writer("/w", [(request, "/w2")])
    with pytest.raises(RefusedError) as caught:
        check_no_writer("/w", [(request, path)])
    assert caught.value.found == "it overlaps the workspace '/w', which must not change meanwhile"


def test_beneath() -> None:
    assert beneath("/a/b", "/a")
    assert beneath("/a", "/a")
    assert beneath("/a", "/")
    assert not beneath("/ab", "/a")
    assert not beneath("/a", "/a/b")


@pytest.mark.parametrize(
    ("mode", "mount", "workspace"),
    [(None, False, True), ("ro", False, False), ("rw", True, None), ("overlay", None, True)],
)
def test_modes_of_a_job(mode: str | None, mount: bool | None, workspace: bool | None) -> None:
    """None: not a mode of that kind."""
    for read, want, words in (
        (mount_of_job, mount, "ro or rw"),
        (workspace_of_job, workspace, "overlay or ro"),
    ):
        if want is not None:
            assert read("x", "/data", mode, JOB) == MountRequest("x", "/data", want, JOB)
            continue
        with pytest.raises(JobError) as caught:
            read("x", "/data", mode, JOB)
        assert (caught.value.message, caught.value.expected) == (f"unknown mode {mode!r}", words)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (3, "/data", "a mount's source is not a text"),
        ("", "/data", "an empty source names no folder"),
        ("x", ["/data"], "a mount's target is not a text"),
        ("x", "/etc", f"'/etc' cannot be a mount's target: /etc is {OWN}"),
    ],
)
def test_values_of_a_job(source: object, target: object, message: str) -> None:
    with pytest.raises(JobError) as caught:
        mount_of_job(source, target, None, JOB)
    assert (caught.value.message, caught.value.place) == (message, JOB)


def test_a_jobs_workspace_has_a_usual_place() -> None:
    assert workspace_of_job(".", None, None, JOB) == MountRequest(".", "/workspace", True, JOB)
