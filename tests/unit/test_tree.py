"""Figures of a tree out of /proc."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from beddel_cli.process import tree
from beddel_cli.process.tree import ProcessStat, Resident, Tree, parse_resident, parse_share
from tests.support.processes import status, wait_for

STAT = (
    "41 (a) b (c) R 40 41 41 0 -1 4194304 90 0 0 0 7 3 20 5 20 0 2 0 12345 2252800 200 "
    "18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
)
STATUS = (
    "Name:\tVmHWM: 9\nVmHWM:\t    2048 kB\nVmRSS:\t 1500 kB\nRssAnon:\t 1000 kB\n"
    "RssFile:\t 400 kB\nRssShmem:\t 100 kB\nVmPTE:\t 8 kB\nThreads:\t1\n"
)
ROLLUP = (
    "55-7f ---p 00:00 0 [rollup]\nRss: 9 kB\nPss_Anon: 12 kB\nPss_File: 4 kB\nPss_Shmem: 3 kB\n"
)


def test_a_stat_line_whose_name_tries_to_mislead() -> None:
    expected = ProcessStat(
        pid=41, parent=40, own_ticks=10, children_ticks=25, threads=2, start=12345
    )
    assert tree.parse_stat(STAT) == expected


@pytest.mark.parametrize("text", ["", "1", "1 (x) R", "x (y) " + "z " * 40])
def test_what_is_no_stat_line(text: str) -> None:
    with pytest.raises((ValueError, IndexError)):
        tree.parse_stat(text)


def test_memory_of_a_process() -> None:
    assert parse_resident(STATUS) == Resident(1000 << 10, 100 << 10, 2048 << 10, 8 << 10)
    assert parse_resident("Name:\tzombie\nState:\tZ (zombie)\n") == Resident(0, 0, 0, 0)


@pytest.mark.parametrize(
    "separator", ["\x0b", "\x0c", "\r", "\x1c", "\x1d", "\x1e", "\x85", "\u2028"]
)
def test_a_name_is_one_line_whatever_is_in_it(separator: str) -> None:
    status = STATUS.replace("Name:\t", f"Name:\t{separator}VmHWM:x{separator}VmPTE:")
    assert parse_resident(status) == parse_resident(STATUS)


def test_a_process_whose_first_thread_has_ended_still_has_its_memory() -> None:
    code = (
        "import ctypes,threading,time,os\nb=bytearray(40<<20)\n"
        "threading.Thread(target=time.sleep,args=(60,)).start()\n"
        # exit(2) of one thread: x86_64, aarch64
        "ctypes.CDLL(None).syscall({'x86_64': 60, 'aarch64': 93}[os.uname().machine], 0)"
    )
    process = start(code)
    try:
        wait_for(
            lambda: (status(process.pid).get("State") or "").startswith("Z") or None,
            what="the first thread to end",
        )
        assert "VmHWM" not in status(process.pid), "the case this is about"
        (found,) = tree.resident(process.pid)
        assert found.anonymous > 40 << 20
        assert found.peak > found.anonymous
    finally:
        process.kill()
        process.wait()
    assert tree.resident(process.pid) == ()


def test_share_of_a_process() -> None:
    assert parse_share(ROLLUP) == (12 << 10, 3 << 10)
    assert parse_share("Rss: 9 kB\nPss: 3 kB\n") is None, "a kernel that does not tell them apart"


def start(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-I", "-S", "-c", code])


FORKS = (
    "import os,time\nb=bytearray(40<<20)\n"
    "for i in range(3):\n if os.fork()==0: break\ntime.sleep(60)"
)


@pytest.mark.parametrize("lists", [True, False], ids=["children", "scan"])
def test_shared_pages_count_once_near_the_limit(lists: bool) -> None:
    process = start(FORKS)
    try:
        found = Tree(process.pid)
        found._lists_children = lists
        wait_for(lambda: len(found._walk(99)) == 3 or None, what="three children")
        reading = found.read(50 << 20, 99)
        assert (reading.processes, reading.threads, reading.exact) == (3, 3, True)
        # Three quarters of the pages are theirs, one quarter is that of the init.
        assert 30 << 20 < reading.memory_bytes < 45 << 20
    finally:
        for child in found._walk(99):
            os.kill(child.pid, 9)
        process.kill()
        process.wait()


def test_the_walk_ends_at_as_many_as_were_asked_for() -> None:
    process = start(FORKS)
    try:
        found = Tree(process.pid)
        wait_for(lambda: len(found._walk(99)) == 3 or None, what="three children")
        assert found.read(1 << 40, 2).processes == 2
    finally:
        for child in found._walk(99):
            os.kill(child.pid, 9)
        process.kill()
        process.wait()


def test_cpu_time_of_the_dead_is_kept() -> None:
    code = (
        "import os,time\n"
        "for i in range(4):\n"
        " if os.fork()==0:\n"
        "  while time.process_time()<0.1: pass\n"
        "  os._exit(0)\n"
        " os.wait()\n"
        "time.sleep(60)"
    )
    process = start(code)
    try:
        found = Tree(process.pid)
        deadline = time.monotonic() + 20
        while found.read(1 << 40, 99).cpu_ns < 300_000_000 and time.monotonic() < deadline:
            time.sleep(0.02)
        last = found.read(1 << 40, 99)
        while last.processes and time.monotonic() < deadline:
            time.sleep(0.02)
            last = found.read(1 << 40, 99)
        assert last.processes == 0
        assert 300_000_000 <= last.cpu_ns < 600_000_000
    finally:
        process.kill()
        process.wait()


def test_a_tree_that_cannot_be_seen_is_refused() -> None:
    process = start("pass")
    process.wait()
    with pytest.raises(FileNotFoundError):
        Tree(process.pid)
