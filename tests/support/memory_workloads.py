"""Eight programs whose memory is known, to hold each figure of a run against the truth."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
# Roomy, so that nothing but the workload decides.
OPTIONS = (
    *("--profile", "tenant-isolated", "--memory", "2GiB", "--disk", "256MiB", "--timeout", "60s"),
)
# What an interpreter and the libraries it shares may add, for each process.
INTERPRETER_BYTES = 16 * MIB


@dataclass(frozen=True, slots=True)
class Workload:
    """One program and what is true of it, the interpreter not counted.

    Attributes:
        code: Python; /big is a file of 200 MiB.
        anonymous: MiB of private and shared memory at the peak, what lies in /dev/shm included.
        with_cache: the same with the page cache of files that it read.
        largest: MiB of the largest process.
        processes: how many there are at once.
    """

    name: str
    code: str
    anonymous: int
    with_cache: int
    largest: int
    processes: int = 1


_HOLD = "def hold(n,s):\n b=bytearray(b'x')*(n<<20)\n time.sleep(s)\n return b\n"
_START = f"import mmap,os,time\n{_HOLD}"

WORKLOADS = (
    Workload("single: 100 MiB in one process", f"{_START}hold(100,0.3)", 100, 100, 100),
    Workload(
        "parallel: 50 MiB in each of 4 processes",
        f"{_START}for i in range(4):\n if os.fork()==0: hold(50,0.5); os._exit(0)\n"
        "for i in range(4): os.wait()",
        *(200, 200, 50, 5),
    ),
    Workload(
        "sequential: 50 MiB in 4 processes, one after the other",
        f"{_START}for i in range(4):\n if os.fork()==0: hold(50,0.15); os._exit(0)\n os.wait()",
        *(50, 50, 50, 2),
    ),
    Workload(
        "shared by forks: 100 MiB, then 3 forks that read it",
        f"{_START}b=hold(100,0)\nfor i in range(3):\n"
        " if os.fork()==0: b.count(b'y'); time.sleep(0.4); os._exit(0)\n"
        "for i in range(3): os.wait()",
        *(100, 100, 100, 4),
    ),
    Workload(
        "/dev/shm: a file of 60 MiB",
        f"{_START}f=open('/dev/shm/f','wb')\nfor i in range(60): f.write(bytes(1<<20))\n"
        "time.sleep(0.3)",
        *(60, 60, 0),
    ),
    Workload(
        "page cache: a file of 200 MiB read",
        f"{_START}f=open('/big','rb',0)\nwhile f.read(1<<20): pass\ntime.sleep(0.3)",
        *(0, 200, 0),
    ),
    Workload(
        "a spike: 100 MiB for 30 ms",
        f"{_START}time.sleep(0.2)\nhold(100,0.03)\ntime.sleep(0.2)",
        *(100, 100, 100),
    ),
    Workload(
        "reserved only: 1 GiB that nobody touches",
        f"{_START}m=mmap.mmap(-1,1<<30,flags=0x22)\ntime.sleep(0.3)",
        *(0, 0, 0),
    ),
)
