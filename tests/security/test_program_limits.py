"""Programs that try to use more than they may, with a cgroup leaf and without.

Each attack has a control: the same code within the limits ends well.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from beddel_cli.process.meters import ProgramLimits
from beddel_cli.record import changed
from tests.support.capabilities import require
from tests.support.supervised import (
    LIMITS,
    SETTINGS,
    Setting,
    Supervised,
    python,
    require_setting,
)

MIB = 1 << 20


# Without the walls an attack is held by the limits alone; that is looked at before a release.
_PARAMETERS = [
    pytest.param(name, marks=() if found.walls else (pytest.mark.slow,))
    for name, found in SETTINGS.items()
]


@pytest.fixture(params=_PARAMETERS)
def setting(request: pytest.FixtureRequest) -> Setting:
    """Each attack with a cgroup leaf and without, behind the walls and without them."""
    require_setting(SETTINGS[request.param])
    return SETTINGS[request.param]


# Each takes N MiB and says so. Without a leaf nobody can see memory that no process has mapped; the
# walls deny such memory then.
HEAP = "b=[]\nfor i in range(N): b.append(bytearray(1<<20))\nprint('had it')"
SHARED = (
    "import mmap\nb=[]\n"
    "for i in range(N):\n m=mmap.mmap(-1,1<<20)\n m[:]=bytes(1<<20)\n b.append(m)\n"
    "print('had it')"
)
CHILDREN = (
    "import os,time\n"
    "for i in range(8):\n"
    " if os.fork()==0:\n"
    "  b=bytearray((N//8)<<20)\n"
    "  for j in range(0,len(b),4096): b[j]=1\n"
    "  time.sleep(0.5)\n"
    "  os._exit(0)\n"
    "time.sleep(0.6)\nprint('had it')"
)
MEMFD = (
    "import os\nf=os.memfd_create('x')\n"
    "for i in range(N): os.write(f,bytes(1<<20)) # all of it\nprint('had it')"
)
TMPFS = (
    "f=open('/dev/shm/beddel-test','wb')\nimport os\nos.unlink('/dev/shm/beddel-test')\n"
    "for i in range(N):\n f.write(bytes(1<<20))\n f.flush()\nprint('had it')"
)
MEMORY = {"heap": HEAP, "shared": SHARED, "children": CHILDREN, "memfd": MEMFD, "tmpfs": TMPFS}

DENIED = {
    "memfd": b"OSError: [Errno 38] Function not implemented\n",
    "shared": b"PermissionError: [Errno 1] Operation not permitted\n",
}


@pytest.mark.parametrize("name", MEMORY)
def test_memory(name: str, setting: Setting) -> None:
    if name in ("memfd", "tmpfs") and not setting.leaf and not setting.walls:
        return  # memory that no process has mapped is held by the walls, not by a look at /proc
    limits = changed(LIMITS, memory_bytes=64 * MIB)
    if name in DENIED and setting == Setting(leaf=False, walls=True):
        denied = Supervised(walls=True, limits=limits).run(python(f"N=16\n{MEMORY[name]}"))
        assert denied.exit_code == 1
        assert denied.stderr.head.endswith(DENIED[name])
        return
    within = Supervised(leaf=setting.leaf, walls=setting.walls, limits=limits).run(
        python(f"N=16\n{MEMORY[name]}")
    )
    assert (within.exit_code, within.limit, within.stdout.head) == (0, None, b"had it\n")
    answer = Supervised(leaf=setting.leaf, walls=setting.walls, limits=limits).run(
        python(f"N=1000\n{MEMORY[name]}")
    )
    assert (answer.exit_code, answer.signal, answer.limit) == (None, 9, "memory")
    assert answer.stdout.head == b""
    if setting.leaf:
        # Looked at now and then, and the kernel may be quicker than the first look.
        assert answer.usage.memory_peak_bytes is not None
        assert answer.usage.memory_peak_bytes <= 65 * MIB
    else:
        assert answer.usage.anonymous_peak_bytes is not None
        assert answer.usage.memory_peak_bytes is None


# Memory that a process would hide from whoever looks at it. The name it gives itself holds
# something that separates lines for Python, and not for the kernel.
_TOUCH = "b=bytearray(N<<20)\nfor i in range(0,len(b),4096): b[i]=1\ntime.sleep(0.3)\n"
HIDDEN = {
    "a name": (
        "import ctypes,time\nassert not ctypes.CDLL(None).prctl(15,b'\\x1cVmHWM:x',0,0,0)\n"
        f"{_TOUCH}print('had it')"
    ),
    "a first thread that ended": (
        "import ctypes,os,threading,time\ndef hold():\n time.sleep(0.1)\n b=bytearray(N<<20)\n"
        " for i in range(0,len(b),4096): b[i]=1\n time.sleep(0.3)\n"
        " os.write(1,b'had it\\n'); os._exit(0)\n"
        "threading.Thread(target=hold).start()\n"
        "ctypes.CDLL(None).syscall({'x86_64': 60, 'aarch64': 93}[os.uname().machine], 0)"
    ),
    # A page table for each byte that is read, of memory that is nowhere.
    "page tables": (
        "import mmap,time\nm=mmap.mmap(-1,N<<29,flags=0x4022,prot=1)\nm.madvise(15)\n"
        "for i in range(0,N<<29,2<<20): m[i]\ntime.sleep(0.3)\nprint('had it')"
    ),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_memory_that_hides(name: str, setting: Setting) -> None:
    limits = changed(LIMITS, memory_bytes=64 * MIB)
    for mebibytes, limit, said in ((16, None, b"had it\n"), (200, "memory", b"")):
        answer = Supervised(leaf=setting.leaf, walls=setting.walls, limits=limits).run(
            python(f"N={mebibytes}\n{HIDDEN[name]}")
        )
        assert (answer.limit, answer.stdout.head) == (limit, said), answer.stderr.head


def test_one_killed_child_ends_the_whole_tree() -> None:
    """Version 1 kills one task and lets the others go on; here memory ends the run."""
    require("cgroup")
    code = (
        "import os,time\n"
        "if os.fork()==0:\n b=[]\n while 1: b.append(bytearray(1<<20))\n"
        "os.wait()\nopen('/dev/null')\ntime.sleep(60)"
    )
    answer = Supervised(leaf=True).run(python(code))
    assert answer.limit == "memory"
    assert answer.wall_ns < 5_000_000_000


def test_page_cache_is_charged_and_gives_way(tmp_path: Path) -> None:
    require("cgroup")
    code = f"f=open({str(tmp_path / 'big')!r},'wb')\nfor i in range(200): f.write(bytes(1<<20))"
    answer = Supervised(leaf=True).run(python(code))
    assert (answer.exit_code, answer.limit) == (0, None)


SPIN = "while 1: pass"
CPU = {
    "one": SPIN,
    "threads": "import threading\ndef f():\n while 1: pass\n"
    "for i in range(4): threading.Thread(target=f).start()",
    "children": f"import os\nfor i in range(3):\n if os.fork()==0: break\n{SPIN}",
    "one after the other": "import os\nwhile 1:\n if os.fork()==0:\n"
    "  for i in range(300000): pass\n  os._exit(0)\n os.wait()",
    "orphans": "import os\nwhile 1:\n p=os.fork()\n if p==0:\n  if os.fork()==0:\n"
    "   for i in range(900000): pass\n  os._exit(0)\n os.waitpid(p,0)",
    "unwaited for": "import os,signal\nsignal.signal(signal.SIGCHLD,signal.SIG_IGN)\n"
    "while 1:\n p=os.fork()\n if p==0:\n  for i in range(2000000): pass\n  os._exit(0)\n"
    " try: os.waitpid(p,0)\n except OSError: pass",
}


@pytest.mark.parametrize("name", CPU)
def test_cpu_time(name: str, setting: Setting) -> None:
    limits = changed(LIMITS, cpu_ns=500_000_000, wall_ns=15_000_000_000)
    answer = Supervised(leaf=setting.leaf, walls=setting.walls, limits=limits).run(
        python(CPU[name])
    )
    if name == "orphans" and answer.reached == ("processes",):
        assert answer.limit in ("cpu_time", "processes")
        return
    assert answer.limit == "cpu_time"
    assert answer.usage.cpu_ns is not None
    assert 500_000_000 <= answer.usage.cpu_ns < 1_200_000_000
    assert answer.usage.cpu_exact is setting.leaf


def test_cpu_time_of_one_that_does_not_listen(setting: Setting) -> None:
    limits = changed(LIMITS, cpu_ns=300_000_000)
    code = "import signal\nsignal.signal(15,signal.SIG_IGN)\nwhile 1: pass"
    answer = Supervised(leaf=setting.leaf, walls=setting.walls, limits=limits).run(python(code))
    assert (answer.limit, answer.signal, answer.killed) == ("cpu_time", 9, True)
    assert answer.usage.cpu_ns is not None
    assert answer.usage.cpu_ns < 800_000_000


def test_a_share_of_a_cpu_slows_down_or_is_a_budget(setting: Setting) -> None:
    limits = changed(LIMITS, cpus_milli=200, wall_ns=1_000_000_000)
    answer = Supervised(leaf=setting.leaf, walls=setting.walls, limits=limits).run(python(SPIN))
    assert answer.usage.cpu_ns is not None
    assert answer.usage.cpu_ns < 600_000_000
    assert answer.limit == ("timeout" if setting.leaf else "cpus")


BOMB = "import os\nwhile 1:\n try: os.fork()\n except OSError: pass"


def test_a_fork_bomb(setting: Setting) -> None:
    limits = changed(LIMITS, wall_ns=1_000_000_000)
    started = time.monotonic()
    answer = Supervised(leaf=setting.leaf, walls=setting.walls, limits=limits).run(python(BOMB))
    assert answer.reached == ("processes",)
    # An ordinary user's rlimit holds as the controller does. Root's does not hold without the
    # walls' own user id, and then the look at the tree ends the run.
    held = setting.leaf or setting.walls or os.geteuid() != 0
    assert answer.limit == ("timeout" if held else "processes")
    assert time.monotonic() - started < 6
    if setting.leaf:
        assert answer.usage.processes_peak == 16


def test_a_thread_bomb() -> None:
    require("cgroup")
    code = (
        "import threading,time\n"
        "try:\n while 1: threading.Thread(target=time.sleep,args=(1,)).start()\n"
        "except RuntimeError: print('refused',flush=True)\n"
    )
    answer = Supervised(leaf=True).run(python(code))
    assert (answer.reached, answer.stdout.head) == (("processes",), b"refused\n")
    assert answer.usage.processes_peak == 16


DISK = {
    "within": ("open('f','wb').write(bytes(1<<20))", ()),
    "bytes": (
        "f=open('f','wb',0)\ntry:\n while 1: f.write(bytes(65536))\nexcept OSError: pass",
        ("disk",),
    ),
    "bytes of /tmp": (
        "f=open('/tmp/f','wb',0)\ntry:\n while 1: f.write(bytes(65536))\nexcept OSError: pass",
        ("disk",),
    ),
    "inodes": (
        "try:\n for i in range(99): open(str(i),'w').close()\nexcept OSError: pass",
        ("inodes",),
    ),
    "a sparse file": ("open('f','wb').truncate(1<<20)", ()),
}


@pytest.mark.parametrize("name", DISK)
def test_disk(name: str, setting: Setting) -> None:
    if not setting.walls:
        return  # the disk is part of the walls
    code, reached = DISK[name]
    run = Supervised(leaf=setting.leaf, walls=True, disk_bytes=4 * MIB, inodes=50)
    answer = run.run(python(f"import os\n{code}"))
    assert (answer.exit_code, answer.limit, answer.reached) == (0, None, reached)
    assert answer.usage.disk_bytes is not None
    assert answer.usage.inodes is not None
    if "disk" in reached:
        assert 3 * MIB < answer.usage.disk_bytes <= 4 * MIB
    else:
        assert answer.usage.disk_bytes == (MIB if name == "within" else 0)
    if "inodes" in reached:
        assert 30 < answer.usage.inodes < 60
    else:
        assert answer.usage.inodes == 1


def test_an_attack_on_everything_leaves_nothing(setting: Setting) -> None:
    limits: ProgramLimits = changed(LIMITS, wall_ns=500_000_000, output_bytes=100_000)
    code = (
        "import os,signal\nsignal.signal(15,signal.SIG_IGN)\n"
        "for i in range(10):\n try: os.fork()\n except OSError: break\n"
        "os.setsid() if os.getpid()!=os.getsid(0) else 0\n"
        "b=[]\nwhile 1:\n b.append(bytearray(1<<16)); os.write(1,b'x'*99)"
    )
    run = Supervised(leaf=setting.leaf, walls=setting.walls, limits=limits)
    answer = run.run(python(code))
    assert answer.limit in ("memory", "max_output", "timeout", "processes")
    assert answer.stdout.passed_bytes <= 100_000
    if run.made is not None:
        assert not any(os.path.exists(folder) for folder in run.made.folders)
