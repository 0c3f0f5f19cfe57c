"""A program looks for files, sockets and devices of the host, and writes where it may not."""

from __future__ import annotations

import errno
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.security.process.conftest import Person, Run

READ = """
answers({path: (lambda path=path: attempt(lambda: os.close(os.open(path, os.O_RDONLY))))
         for path in sys.argv[1:]})
"""
LIST = """
print(json.dumps({path: sorted(os.listdir(path)) for path in sys.argv[1:]}))
"""


def test_the_root_holds_nothing_but_what_was_put_there(probe: Run) -> None:
    found = probe(LIST, "/", "/etc", "/dev", "/run", "/var", "/tmp", "/workspace")
    system = {"bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr"}
    assert set(found["/"]) - system == {
        *("dev", "etc", "proc", "run", "tmp", "var", "workspace"),
    }
    assert found["/dev"] == sorted(
        [
            *("fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout"),
            *("urandom", "zero"),
        ]
    )
    assert found["/run"] == found["/tmp"] == found["/workspace"] == []
    assert found["/var"] == ["empty", "tmp"]
    secrets = {"shadow", "gshadow", "ssh", "sudoers", "sudoers.d", "machine-id", "fstab", "ssl"}
    assert set(found["/etc"]) & secrets <= {"ssl"}


@pytest.mark.parametrize(
    "path",
    ["/etc/shadow", "/root", "/home", "/var/log", "/var/lib", "/sys", "/etc/machine-id", "/boot"],
)
def test_a_place_of_the_host_is_not_there(probe: Run, path: str) -> None:
    if not os.path.lexists(path):
        pytest.skip(f"{path} is not on this machine either")
    assert probe(READ, path) == {path: errno.ENOENT}


def test_files_of_the_host_beside_the_workspace_are_not_there(
    probe: Run, control: Run, place: Path
) -> None:
    (place / "work").mkdir()
    (place / "work" / "mine").write_text("1")
    (place / "secret").write_text("2")
    (place / "work" / "out").symlink_to(place / "secret")
    paths = [str(place / "secret"), "/workspace/../secret", "/workspace/out", "/workspace/mine"]
    found = probe(READ, *paths, workspace=str(place / "work"))
    assert found == {**dict.fromkeys(paths, errno.ENOENT), "/workspace/mine": 0}
    assert control(READ, paths[0]) == {paths[0]: 0}


def test_the_passwords_are_made_up(behind: Run) -> None:
    answer = behind(["/bin/cat", "/etc/passwd", "/etc/group"])
    assert {line.split(":")[0] for line in answer["stdout"].splitlines()} == {
        *("sandbox", "nobody", "nogroup"),
    }


WRITE = """
def write(path):
    return attempt(lambda: os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)))
def change(path):
    return attempt(lambda: os.chmod(path, 0o777))
probes = {path: (lambda path=path: write(path)) for path in json.loads(sys.argv[1])}
probes |= {f"chmod {path}": (lambda path=path: change(path)) for path in json.loads(sys.argv[2])}
answers(probes)
"""


def test_only_its_own_places_can_be_written_to(probe: Run, place: Path) -> None:
    may = ["/workspace/new", "/tmp/new", "/dev/shm/new", "/dev/null", "/dev/full", "/dev/zero"]
    may_not = ["/new", "/etc/passwd", "/etc/new", "/usr/new", "/usr/bin/env", "/run/new", "/var/x"]
    may_not += ["/var/empty/new", "/dev/new", "/proc/new", "/dev/random", "/dev/urandom"]
    modes = ["/dev/null", "/usr/bin/env", "/etc/passwd", "/", "/proc"]
    found = probe(WRITE, json.dumps(may + may_not), json.dumps(modes), workspace=str(place))
    assert {path: found.pop(path) for path in may} == dict.fromkeys(may, 0)
    assert set(found.values()) <= {errno.EACCES, errno.EROFS, errno.ENOENT}, found
    assert list(place.iterdir()) == []


def test_what_it_writes_comes_out_by_descriptor_and_not_into_the_folder(
    behind: Run, place: Path
) -> None:
    (place / "old").write_text("before")
    os.chown(place / "old", place.stat().st_uid, place.stat().st_gid)
    script = "cat old; echo after > old; echo new > made; rm -f gone; echo x > /tmp/y"
    answer = behind(["/bin/sh", "-c", script], workspace=str(place))
    assert (answer["code"], answer["stdout"]) == (0, "before")
    assert answer["written"] == {"old": "after\n", "made": "new\n"}
    assert (place / "old").read_text() == "before"
    assert [path.name for path in place.iterdir()] == ["old"]


def test_a_read_only_workspace_stays_so(behind: Run, place: Path) -> None:
    (place / "old").write_text("before")
    script = "cat old; echo x > old; echo x > new; touch /tmp/y && echo tmp"
    answer = behind(["/bin/sh", "-c", script], workspace=str(place), workspace_writable=False)
    assert answer["stdout"] == "beforetmp\n"
    assert answer["stderr"].count("Read-only file system") == 2
    assert answer["written"] == {}


FILL = """
def fill(path):
    with open(path, "wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
def many(folder):
    for number in range(10000):
        open(f"{folder}/{number}", "w").close()
answers({"bytes": lambda: attempt(lambda: fill(sys.argv[1] + "/full")),
         "after": lambda: attempt(lambda: fill("/tmp/full")),
         "inodes": lambda: attempt(lambda: many(sys.argv[1]))})
"""


@pytest.mark.parametrize("folder", ["/workspace", "/tmp", "/dev/shm"])
def test_bytes_and_inodes_are_capped_over_all_its_places(
    probe: Run, place: Path, folder: str
) -> None:
    found = probe(FILL, folder, workspace=str(place), disk_bytes=1 << 20, inodes=50)
    assert set(found.values()) == {errno.ENOSPC}


MOUNTED = """
def write(path):
    return attempt(lambda: os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)))
answers({"read": lambda: attempt(lambda: open("/data/file").read()),
         "write": lambda: write("/data/file"), "make": lambda: write("/data/new"),
         "up": lambda: attempt(lambda: open("/data/../secret").read())})
"""


@pytest.mark.parametrize("writable", [False, True])
def test_a_mount_is_what_was_asked_for(probe: Run, place: Path, writable: bool) -> None:
    (place / "data").mkdir()
    (place / "secret").write_text("no")
    (place / "data" / "file").write_text("yes")
    for path in (place / "data", place / "data" / "file"):
        os.chown(path, place.stat().st_uid, place.stat().st_gid)
    mounts = [{"source": str(place / "data"), "target": "/data", "writable": writable}]
    found = probe(MOUNTED, mounts=mounts)
    refused = 0 if writable else errno.EROFS
    assert found == {"read": 0, "write": refused, "make": refused, "up": errno.ENOENT}
    assert (place / "data" / "new").exists() == writable
    if writable:
        made = (place / "data" / "new").stat()
        assert (made.st_uid, made.st_gid) == (place.stat().st_uid, place.stat().st_gid)


def test_a_single_file_can_be_shown(behind: Run, place: Path) -> None:
    (place / "file").write_text("text")
    mounts = [{"source": str(place / "file"), "target": "/etc/app/file", "writable": False}]
    answer = behind(["/bin/sh", "-c", "cat /etc/app/file; echo x > /etc/app/file"], mounts=mounts)
    assert answer["stdout"] == "text"
    assert "Read-only" in answer["stderr"]


@pytest.mark.parametrize("target", ["/workspace/link/in", "/workspace/link"])
def test_a_link_in_the_workspace_leads_no_mount_astray(
    behind: Run, place: Path, target: str
) -> None:
    for name in ("work", "data", "victim"):
        (place / name).mkdir()
        os.chown(place / name, place.stat().st_uid, place.stat().st_gid)
    (place / "work" / "link").symlink_to("/../" + str(place / "victim"))
    mounts = [{"source": str(place / "data"), "target": target, "writable": True}]
    answer = behind(["/bin/true"], workspace=str(place / "work"), mounts=mounts)
    walls = answer["walls"]
    assert (walls["failed_step"], walls["failed_errno"]) == ("mounts", errno.ELOOP)
    assert target in walls["failed_detail"]
    assert list((place / "victim").iterdir()) == []


@pytest.mark.parametrize("target", ["/", "/proc/x", "/dev", "/a/../b", "//x", "x", "/a/./b"])
def test_nothing_is_mounted_on_places_of_ours(behind: Run, place: Path, target: str) -> None:
    mounts = [{"source": str(place), "target": target, "writable": False}]
    walls = behind(["/bin/true"], mounts=mounts)["walls"]
    assert (walls["failed_step"], walls["failed_errno"]) == ("mounts", errno.EINVAL)


def test_no_folder_is_made_on_the_host_to_mount_on(behind: Run, place: Path) -> None:
    (place / "one").mkdir()
    os.chown(place / "one", place.stat().st_uid, place.stat().st_gid)
    mounts = [
        {"source": str(place / "one"), "target": "/data", "writable": True},
        {"source": str(place), "target": "/data/inner", "writable": False},
    ]
    walls = behind(["/bin/true"], mounts=mounts)["walls"]
    assert (walls["failed_step"], walls["failed_errno"]) == ("mounts", errno.ENOENT)
    assert list((place / "one").iterdir()) == []


def test_a_mount_in_the_workspace_is_shown(behind: Run, place: Path) -> None:
    (place / "work").mkdir()
    (place / "data").mkdir()
    (place / "data" / "file").write_text("text")
    mounts = [{"source": str(place / "data"), "target": "/workspace/a/b", "writable": False}]
    answer = behind(["/bin/cat", "a/b/file"], workspace=str(place / "work"), mounts=mounts)
    assert answer["stdout"] == "text"
    assert list((place / "work").iterdir()) == []


CONNECT = """
import socket
def connect(name):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(name)
def fifo(path):
    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
probes = {name: (lambda name=name: attempt(lambda: connect(name)))
          for name in json.loads(sys.argv[1])}
probes |= {name: (lambda name=name: attempt(lambda: fifo(name)))
           for name in json.loads(sys.argv[2])}
answers(probes)
"""


def test_nobody_answers_at_the_hosts_sockets_and_fifos(
    probe: Run, control: Run, person: Person, place: Path
) -> None:
    (place / "data").mkdir()
    abstract = f"\0walls-{os.getpid()}-{person.name}"
    servers = []
    for name in (str(place / "data" / "socket"), abstract):
        server = socket.socket(socket.AF_UNIX)
        server.bind(name)
        server.listen()
        servers.append(server)
    (place / "data" / "socket").chmod(0o777)
    os.mkfifo(place / "data" / "fifo")
    (place / "data" / "fifo").chmod(0o666)
    reader = os.open(place / "data" / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    try:
        mounts = [{"source": str(place / "data"), "target": "/data", "writable": False}]
        found = probe(
            CONNECT,
            json.dumps(["/workspace/socket", "/data/socket", abstract]),
            json.dumps(["/workspace/fifo", "/data/fifo"]),
            workspace=str(place / "data"),
            mounts=mounts,
        )
        assert found.pop("/data/fifo") in (errno.ENXIO, errno.EROFS, errno.EACCES)
        assert found == {
            "/workspace/socket": errno.ECONNREFUSED,
            "/data/socket": errno.ECONNREFUSED,
            abstract: errno.ECONNREFUSED,
            "/workspace/fifo": errno.ENXIO,
        }
        names = json.dumps([str(place / "data" / "socket"), abstract])
        outside = control(CONNECT, names, json.dumps([str(place / "data" / "fifo")]))
        assert set(outside.values()) == {0}
    finally:
        os.close(reader)
        for server in servers:
            server.close()


SEND = """
import socket
def send(name):
    for half in socket.socketpair(socket.AF_UNIX, int(sys.argv[2])):
        with half:
            half.sendto(b"from inside", name)
answers({"send": lambda: attempt(lambda: send(sys.argv[1]))})
"""


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_RAW], ids=["dgram", "raw"])
def test_no_half_of_a_pair_sends_to_the_hosts_socket_in_a_writable_mount(
    probe: Run, control: Run, place: Path, kind: int
) -> None:
    (place / "data").mkdir()
    (place / "data").chmod(0o777)
    name = place / "data" / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(name))
        server.setblocking(False)
        name.chmod(0o777)
        mounts = [{"source": str(place / "data"), "target": "/data", "writable": True}]
        assert probe(SEND, "/data/socket", str(kind), mounts=mounts) == {"send": errno.EPERM}
        with pytest.raises(BlockingIOError):
            server.recv(99)
        # Without such a mount a pair is to be had, and there is nobody to send to.
        assert probe(SEND, "/data/socket", str(kind)) == {"send": errno.ENOENT}
        assert control(SEND, str(name), str(kind)) == {"send": 0}
        assert server.recv(99) == b"from inside"


def test_a_device_node_in_a_mount_is_no_device(behind: Run, place: Path, person: Person) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to make a device node")
    os.mknod(place / "zero", 0o020666, os.makedev(1, 5))
    (place / "zero").chmod(0o666)
    mounts = [
        {"source": str(place), "target": "/read", "writable": False},
        {"source": str(place), "target": "/write", "writable": True},
    ]
    script = "for f in /read/zero /write/zero zero /dev/zero; do head -c1 $f >&2 && echo $f; done"
    answer: dict[str, Any] = behind(["/bin/sh", "-c", script], mounts=mounts, workspace=str(place))
    assert answer["stdout"] == "/dev/zero\n"
    assert answer["stderr"].count("Permission denied") == 3
