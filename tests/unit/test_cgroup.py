"""Finding cgroups in what the kernel shows, and leaves that come and go."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from beddel_cli.process import cgroup
from beddel_cli.process.cgroup import (
    Asked,
    Hierarchy,
    Leaf,
    cpu_quota,
    find_hierarchies,
    make_leaf,
    parse_flat,
    parse_membership,
    parse_mounts,
    read_hierarchies,
    settings,
    sweep,
)
from tests.support.capabilities import require

ASKED = Asked(memory_bytes=64 << 20, processes=16, cpus_milli=500)
V1_MOUNTS = """\
22 1 0:21 / /proc rw,relatime - proc proc rw
30 29 0:26 / /sys/fs/cgroup/systemd rw,nosuid - cgroup cgroup rw,xattr,name=systemd
33 29 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
34 29 0:31 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory
35 29 0:32 / /sys/fs/cgroup/pids rw,nosuid - cgroup cgroup rw,pids
"""
V1_OWN = "9:name=systemd:/a.scope\n4:pids:/x\n3:memory:/user:1/y\n2:cpu,cpuacct:/\n"
V2_MOUNTS = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V2_OWN = "0::/user.slice/user-1000.slice/session-3.scope\n"


def found(mounts: str, own: str) -> dict[str, tuple[int, str, str]]:
    places = find_hierarchies(parse_mounts(mounts), parse_membership(own))
    return {
        ",".join(sorted(place.controllers - {"xattr"})): (place.version, place.folder, place.top)
        for place in places
    }


PLACES = {
    "v1, one of them of two controllers": (
        V1_MOUNTS,
        V1_OWN,
        {
            "name=systemd": (1, "/sys/fs/cgroup/systemd/a.scope", "/sys/fs/cgroup/systemd"),
            "cpu,cpuacct": (1, "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct"),
            "memory": (1, "/sys/fs/cgroup/memory/user:1/y", "/sys/fs/cgroup/memory"),
            "pids": (1, "/sys/fs/cgroup/pids/x", "/sys/fs/cgroup/pids"),
        },
    ),
    "v2": (
        V2_MOUNTS,
        V2_OWN,
        {
            "": (
                2,
                "/sys/fs/cgroup/user.slice/user-1000.slice/session-3.scope",
                "/sys/fs/cgroup",
            )
        },
    ),
    "hybrid": (
        V1_MOUNTS.splitlines()[3] + "\n" + V2_MOUNTS.replace("cgroup rw", "cgroup/unified rw"),
        "3:memory:/\n0::/\n",
        {
            "memory": (1, "/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory"),
            "": (2, "/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified"),
        },
    ),
    "a container without a cgroup namespace": (
        "40 39 0:31 /docker/abc /sys/fs/cgroup/memory ro,nosuid - cgroup cgroup rw,memory\n",
        "3:memory:/docker/abc\n",
        {"memory": (1, "/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory")},
    ),
    "nested below a mount's root": (
        "40 39 0:31 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
        "3:memory:/docker/abc/inner\n",
        {"memory": (1, "/sys/fs/cgroup/memory/inner", "/sys/fs/cgroup/memory")},
    ),
    "another container's mount": (
        "40 39 0:31 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
        "3:memory:/docker/abcdef\n",
        {},
    ),
    "a foreign cgroup namespace": (
        "40 39 0:31 /../.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        "0::/../other\n",
        {},
    ),
    "mounted twice, once writable": (
        V2_MOUNTS.replace(" rw,nosuid", " ro,nosuid")
        + V2_MOUNTS.replace("/sys/fs/cgroup", "/run/my\\040groups"),
        "0::/\n",
        {"": (2, "/run/my groups", "/run/my groups")},
    ),
    "hidden by what was mounted over it": (
        V2_MOUNTS + "50 23 0:99 / /sys/fs/cgroup rw - tmpfs cgroup-tmpfs rw\n",
        "0::/\n",
        {},
    ),
    "none": ("22 1 0:21 / /proc rw - proc proc rw\n", "", {}),
    "broken lines": ("cgroup\n\n1 2 - cgroup\n - cgroup2\n", "x\n:\n", {}),
}


@pytest.mark.parametrize("name", PLACES)
def test_own_cgroups_are_found(name: str) -> None:
    mounts, own, expected = PLACES[name]
    assert found(mounts, own) == expected


@pytest.mark.parametrize(
    ("milli", "expected"),
    [
        (250, (25_000, 100_000)),
        (4000, (400_000, 100_000)),
        (10, (1000, 100_000)),
        (9, (9000, 1_000_000)),
        (1, (1000, 1_000_000)),
    ],
)
def test_a_share_of_a_cpu_as_quota_and_period(milli: int, expected: tuple[int, int]) -> None:
    assert cpu_quota(milli) == expected


def test_what_is_written_for_each_version() -> None:
    written = {
        (version, name): settings(version, name, ASKED)
        for version in (1, 2)
        for name in ("memory", "pids", "cpu", "cpuacct")
    }
    assert written == {
        (1, "memory"): (("memory.limit_in_bytes", "67108864"),),
        (1, "pids"): (("pids.max", "16"),),
        (1, "cpu"): (("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "50000")),
        (1, "cpuacct"): (),
        (2, "memory"): (("memory.max", "67108864"),),
        (2, "pids"): (("pids.max", "16"),),
        (2, "cpu"): (("cpu.max", "50000 100000"),),
        (2, "cpuacct"): (),
    }


def test_numbers_of_flat_files() -> None:
    text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\nodd\nmax max\nshare -1\n"
    assert parse_flat(text) == {"oom_kill_disable": 0, "under_oom": 0, "oom_kill": 3}


class TestUnifiedInAFolder:
    """Version 2's rules, on files that look like it: this says nothing of a kernel's answers."""

    def make(self, root: Path, path: str, controllers: str, passed_on: str) -> Path:
        folder = root / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup.controllers").write_text(controllers)
        (folder / "cgroup.subtree_control").write_text(passed_on)
        (folder / "cgroup.procs").write_text("")
        return folder

    def parent(self, own: Path, top: Path, enable: set[str]) -> tuple[str | None, set[str], list]:  # type: ignore[type-arg]
        problems: list[cgroup.Problem] = []
        place = Hierarchy(2, frozenset(), str(own), str(top))
        folder, given = cgroup._delegated_parent(place, enable, problems)
        return folder, given, problems

    def test_the_nearest_that_passes_on_what_is_needed(self, tmp_path: Path) -> None:
        self.make(tmp_path, ".", "cpu memory pids", "cpu memory pids")
        slice_ = self.make(tmp_path, "user.slice", "cpu memory pids", "cpu memory pids")
        own = self.make(tmp_path, "user.slice/own.scope", "", "")
        enable = {"cpu", "memory", "pids"}
        assert self.parent(own, tmp_path, enable) == (str(slice_), enable, [])

    def test_without_the_cpu_controller_it_says_so(self, tmp_path: Path) -> None:
        top = self.make(tmp_path, ".", "memory pids", "memory pids")
        folder, given, problems = self.parent(top, top, {"cpu", "memory", "pids"})
        assert (folder, given) == (str(top), {"memory", "pids"})
        assert [problem.what for problem in problems] == ["cpu"]

    def test_nothing_above_the_mount_is_touched(self, tmp_path: Path) -> None:
        self.make(tmp_path, ".", "memory pids", "memory pids")
        top = self.make(tmp_path, "mounted", "", "")
        folder, _, problems = self.parent(top, top, {"memory", "pids"})
        assert folder is None
        assert [problem.detail for problem in problems] == [f"{top} has no such controllers"]

    def test_the_search_ends_where_nothing_may_be_moved(self, tmp_path: Path) -> None:
        self.make(tmp_path, ".", "memory pids", "memory pids")
        own = self.make(tmp_path, "own", "", "")
        (own / "cgroup.procs").unlink()
        folder, _, problems = self.parent(own, tmp_path, {"memory", "pids"})
        assert folder is None
        assert [problem.errno for problem in problems] == [errno.ENOENT]


class TestReal:
    """On the cgroups of this machine, whichever version they are."""

    @pytest.fixture(autouse=True)
    def needs(self) -> None:
        require("cgroup")

    def test_limits_are_in_force_and_gone_afterwards(self) -> None:
        leaf, problems = make_leaf(ASKED)
        assert leaf is not None
        assert [problem for problem in problems if problem.what != "swap"] == []
        assert set(leaf.held) == {"memory", "pids", "cpu", "cpuacct"}
        version = leaf.held["memory"]
        files = {
            file: value for name in leaf.held for file, value in settings(version, name, ASKED)
        }
        for file, value in files.items():
            paths = [Path(folder, file) for folder in leaf.folders]
            assert [path.read_text().strip() for path in paths if path.exists()] == [value]
        assert leaf.remove() == ()
        assert not any(os.path.exists(folder) for folder in leaf.folders)

    def test_who_writes_to_the_descriptors_joins(self) -> None:
        leaf, _ = make_leaf(ASKED)
        assert leaf is not None
        joins = leaf.open_procs()
        child = subprocess.Popen(["sleep", "60"], preexec_fn=lambda: join(joins))
        for descriptor in joins:
            os.close(descriptor)
        assert leaf.processes() == (child.pid,)
        stays = leaf.remove()
        assert [problem.errno for problem in stays] == [errno.EBUSY] * len(leaf.folders)
        leaf.kill()
        assert child.wait() == -signal.SIGKILL
        assert leaf.remove() == ()

    def test_usage_is_counted_with_the_dead(self) -> None:
        leaf, _ = make_leaf(ASKED)
        assert leaf is not None
        joins = leaf.open_procs()
        code = "import time\nb=bytearray(20<<20)\nwhile time.process_time()<0.2: pass"
        subprocess.run([sys.executable, "-c", code], preexec_fn=lambda: join(joins), check=True)
        for descriptor in joins:
            os.close(descriptor)
        usage = leaf.usage()
        assert leaf.remove() == ()
        assert usage.cpu_ns is not None
        assert 150_000_000 < usage.cpu_ns < 2_000_000_000
        assert usage.memory_peak_bytes is not None
        assert 20 << 20 < usage.memory_peak_bytes < 64 << 20
        assert (usage.oom_kills, usage.processes_refused) == (0, 0)

    def test_one_that_cannot_be_made_says_why(self) -> None:
        places = tuple(
            Hierarchy(place.version, place.controllers, "/proc/self/no", place.top)
            for place in read_hierarchies()
        )
        leaf, problems = make_leaf(ASKED, places)
        assert leaf is None
        assert {problem.errno for problem in problems} == {errno.ENOENT}

    def test_leaves_of_the_dead_are_swept_and_no_others(self) -> None:
        code = (
            "from beddel_cli.process.cgroup import *\n"
            "leaf, _ = make_leaf(Asked(1 << 26, 16, None))\n"
            "print(*leaf.folders, sep='\\n', flush=True)\n"
            "import os, signal, sys; 'wait' in sys.argv and signal.pause(); os._exit(0)"
        )
        dead = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        stale = dead.stdout.decode().split()
        living = subprocess.Popen(
            [sys.executable, "-c", code, "wait"], stdout=subprocess.PIPE, text=True
        )
        assert living.stdout is not None
        alive = [living.stdout.readline().strip() for _ in stale]
        mine, _ = make_leaf(ASKED)
        assert mine is not None
        foreign = [f"{os.path.dirname(folder)}/beddel-notes" for folder in mine.folders]
        reused = [_reused(folder) for folder in mine.folders]
        other_namespace = [_elsewhere(folder) for folder in stale]
        for folder in (*foreign, *reused, *other_namespace):
            os.mkdir(folder)
        try:
            # Any run that starts meanwhile sweeps, too: what is dead may be gone by now.
            assert all(map(os.path.isdir, (*alive, *mine.folders)))
            sweep()
            gone = (*stale, *reused)
            assert not any(map(os.path.isdir, gone)), "dead, or its number is somebody else's now"
            assert all(map(os.path.isdir, (*alive, *mine.folders, *foreign, *other_namespace)))
        finally:
            living.kill()
            living.wait()
            living.stdout.close()
            for folder in (*foreign, *other_namespace):
                os.rmdir(folder)
            assert mine.remove() == ()
            assert set(sweep()) >= set(alive)

    def test_a_leaf_with_somebody_in_it_is_never_swept(self) -> None:
        leaf, _ = make_leaf(ASKED)
        assert leaf is not None
        stale = [_reused(folder) for folder in leaf.folders]
        assert leaf.remove() == ()
        for folder in stale:
            os.mkdir(folder)
        inside = Leaf({folder: (1, folder) for folder in stale})
        joins = inside.open_procs()
        child = subprocess.Popen(["sleep", "60"], preexec_fn=lambda: join(joins))
        for descriptor in joins:
            os.close(descriptor)
        assert not set(sweep()) & set(stale)
        assert child.poll() is None, "and nobody is killed for it"
        child.kill()
        child.wait()
        deadline = time.monotonic() + 5
        gone: set[str] = set()
        while not gone >= set(stale) and time.monotonic() < deadline:
            gone |= set(sweep())
        assert gone >= set(stale)


def join(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.write(descriptor, b"0")


def _reused(folder: str) -> str:
    """Give the name of a leaf whose supervisor had this process's number in another life."""
    return re.sub(r"-(\d+)-(\d+)-[0-9a-f]+$", r"-\1-1-00", folder)


def _elsewhere(folder: str) -> str:
    """Give the name of a leaf made in another process-id namespace."""
    return re.sub(r"beddel-\d+", "beddel-1", folder)


def test_the_real_unified_root_removes_what_is_killed() -> None:
    """Version 2's own kill and accounting, where it is mounted even without controllers."""
    require("root")
    unified = [place for place in read_hierarchies() if place.version == 2]
    if not unified or not os.access(unified[0].folder, os.W_OK):
        pytest.skip("no cgroup v2 is mounted where this process is")
    folder = f"{unified[0].folder}/beddel-test-{os.getpid()}"
    os.mkdir(folder)
    leaf = Leaf({"cpuacct": (2, folder)})
    joins = leaf.open_procs()
    code = "import os\nfor i in range(3): os.fork()\nwhile 1: pass"
    child = subprocess.Popen([sys.executable, "-c", code], preexec_fn=lambda: join(joins))
    os.close(joins[0])
    time.sleep(0.3)
    assert len(leaf.processes()) == 8
    spent = leaf.cpu_ns()
    assert spent is not None
    assert spent > 50_000_000
    leaf.kill()
    assert child.wait() == -signal.SIGKILL
    assert leaf.remove() == ()
