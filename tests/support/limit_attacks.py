"""Programs that use up memory, processor, processes, output and disk, and how each ends.

Every one runs behind the walls only. `small` and `large` are the same program told to take little
or much: with little it ends well, which is the control. With much it ends as `counted` says where a
cgroup counts (root) and as `sampled` where /proc is looked at (an ordinary user).
"""

from __future__ import annotations

from dataclasses import dataclass

# What all of them run under, unless an attack says otherwise.
LIMITS = (
    *("--memory", "32MiB", "--processes", "16", "--cpu-time", "500ms", "--cpus", "0.5"),
    *("--timeout", "10s", "--disk", "16MiB", "--inodes", "100", "--max-output", "64KiB"),
)
MEMORY_BYTES, PROCESSES, OUTPUT_BYTES = 32 << 20, 16, 64 << 10


@dataclass(frozen=True, slots=True)
class Ending:
    """Exit code, `outcome.status`, `outcome.reason` and `outcome.limit`."""

    code: int
    status: str
    reason: str
    limit: str | None


WELL = Ending(0, "success", "ok", None)
MEMORY = Ending(137, "limit", "memory", "memory")
CPU = Ending(124, "limit", "cpu", "cpu_time")
WALL = Ending(124, "limit", "wall", "timeout")
OUTPUT = Ending(124, "limit", "output", "max_output")
DISK = Ending(124, "limit", "disk", "disk")
INODES = Ending(124, "limit", "inodes", "inodes")
REFUSED = Ending(1, "failure", "exit", None)


@dataclass(frozen=True, slots=True)
class Attack:
    """One program, with `N` in it for how much it takes.

    Attributes:
        sampled: the ending where no cgroup counts; None: the same as `counted`.
        denied: where no cgroup counts, even a little of it is refused to the program.
    """

    group: str
    name: str
    code: str
    small: int
    large: int
    counted: Ending
    sampled: Ending | None = None
    options: tuple[str, ...] = ()
    denied: bool = False

    @property
    def without(self) -> Ending:
        """The ending where no cgroup counts."""
        return self.sampled or self.counted


_HOLD = "time.sleep(0.3)\n"
# Who has as many descriptors as it may have waits, and a child goes on.
_PASS_ON = (
    "def pass_on(held=()):\n"
    " if os.fork(): os.wait(); os._exit(0)\n"
    " for each in held: each.close()\n"
    " os.closerange(3,999)\n return []\n"
)
_FILL = (
    "def fill(s):\n s.setblocking(False)\n"
    " try:\n"
    "  while 1: s.send(bytes(65536))\n"
    " except BlockingIOError: pass\n"
)
_ASK = "ask=struct.pack('=IHHIIBBHiII',32,18,1,1,0,0,0,0,1,0,0)\n"
_QUICK = ("--cpu-time", "5s", "--cpus", "0.5", "--timeout", "1s")
_BUSY = ("--cpu-time", "20s", "--cpus", "0.5")

ATTACKS = (
    Attack(
        "memory",
        "heap",
        f"import time\nb=[bytearray(b'x'*(1<<20)) for i in range(N)]\n{_HOLD}",
        *(8, 300, MEMORY),
    ),
    Attack(
        "memory",
        "shared memory",
        "import mmap,time\nb=[mmap.mmap(-1,1<<20) for i in range(N)]\n"
        f"for m in b: m[:]=bytes(1<<20)\n{_HOLD}",
        *(8, 300, MEMORY, REFUSED),
        denied=True,
    ),
    Attack(
        "memory",
        "tmpfs",
        "import time\nf=open('/dev/shm/f','wb')\n"
        f"for i in range(N): f.write(bytes(1<<20))\n{_HOLD}",
        *(8, 60, MEMORY),
        options=("--disk", "64MiB"),
    ),
    Attack(
        "memory",
        "memfd",
        "import os,time\nf=os.memfd_create('f')\n"
        f"for i in range(N): os.write(f,bytes(1<<20))\n{_HOLD}",
        *(8, 60, MEMORY, REFUSED),
        options=("--disk", "64MiB"),
        denied=True,
    ),
    Attack(
        "memory",
        "page cache",
        "import time\nf=open('/big','rb',0)\n"
        f"for i in range(N): assert len(f.read(1<<20))==1<<20\n{_HOLD}",
        *(8, 200, WELL),
        options=("--mount", "BIG:/big"),
    ),
    Attack(
        "memory",
        "pipe buffers",
        f"import os,time\nheld=[]\n{_PASS_ON}"
        "for i in range(N):\n r,w=os.pipe()\n os.set_blocking(w,False)\n"
        " try:\n  while 1: os.write(w,bytes(4096))\n"
        " except BlockingIOError: pass\n"
        " os.close(w)\n held.append(r)\n"
        f" if i%200==199: pass_on()\n{_HOLD}",
        *(50, 1000, MEMORY, WELL),
        options=_BUSY,
    ),
    Attack(
        "memory",
        "socket buffers",
        f"import os,socket,time\nheld=[]\n{_PASS_ON}{_FILL}"
        "for i in range(N):\n a,b=socket.socketpair()\n fill(a)\n fill(b)\n held+=[a,b]\n"
        f" if i%100==99: held=pass_on(held)\n{_HOLD}",
        *(10, 400, MEMORY),
        options=_BUSY,
    ),
    Attack(
        "memory",
        "netlink buffers",
        f"import os,socket,struct,time\nheld=[]\n{_PASS_ON}{_ASK}"
        "for i in range(N):\n s=socket.socket(16,3,0)\n s.setblocking(False)\n held.append(s)\n"
        " try:\n  for j in range(1000): s.send(ask)\n"
        " except OSError: pass\n"
        f" if i%200==199: held=pass_on(held)\n{_HOLD}",
        *(10, 600, MEMORY),
        options=_BUSY,
    ),
    Attack(
        "memory",
        "many children",
        "import os,time\nfor i in range(8):\n if os.fork()==0:\n"
        f"  b=bytearray(b'x'*(N<<17))\n  time.sleep(0.5)\n  os._exit(0)\n{_HOLD}"
        "for i in range(8): os.wait()\n",
        *(8, 200, MEMORY),
    ),
    Attack("cpu", "one process", "for i in range(N): pass", *(1000, 10**10, CPU)),
    Attack(
        "cpu",
        "threads",
        "import threading\ndef f():\n for i in range(N): pass\n"
        "for i in range(4): threading.Thread(target=f).start()",
        *(1000, 10**10, CPU),
    ),
    Attack(
        "cpu",
        "one child after the other",
        "import os\nfor j in range(N):\n if os.fork()==0:\n  for i in range(300000): pass\n"
        "  os._exit(0)\n os.wait()",
        *(2, 10**6, CPU),
    ),
    Attack(
        "cpu",
        "children that die unheard",
        "import os,signal\nsignal.signal(signal.SIGCHLD,signal.SIG_IGN)\nfor j in range(N):\n"
        " p=os.fork()\n if p==0:\n  for i in range(1000000): pass\n  os._exit(0)\n"
        " try: os.waitpid(p,0)\n"
        " except OSError: pass",
        *(2, 10**6, CPU),
    ),
    Attack(
        "processes",
        "fork bomb",
        "import os,time\nfor i in range(N):\n try: os.fork()\n except OSError: time.sleep(0.01)\n",
        *(2, 10**6, WALL),
        options=_QUICK,
    ),
    Attack(
        "processes",
        "threads",
        "import threading,time\n"
        "for i in range(N): threading.Thread(target=time.sleep,args=(0.3,)).start()",
        *(5, 100, REFUSED),
    ),
    Attack(
        "processes",
        "a deep tree",
        "import os\ndef go(n):\n if n==0: return 0\n"
        " try: p=os.fork()\n except OSError: return 3\n"
        " if p==0: os._exit(go(n-1))\n"
        " return os.waitstatus_to_exitcode(os.waitpid(p,0)[1])\nos._exit(go(N))",
        *(5, 100, Ending(3, "failure", "exit", None)),
    ),
    Attack(
        "output",
        "stdout",
        "import os\nfor i in range(N): os.write(1,bytes(1024))",
        10,
        10**6,
        OUTPUT,
    ),
    Attack(
        "output",
        "stderr",
        "import os\nfor i in range(N): os.write(2,bytes(1024))",
        10,
        10**6,
        OUTPUT,
    ),
    Attack(
        "output",
        "both",
        "import os\nfor i in range(N): os.write(1+i%2,bytes(1024))",
        *(10, 10**6, OUTPUT),
    ),
    Attack(
        "disk",
        "files",
        "for i in range(N):\n with open(str(i),'wb') as f: f.write(bytes(1<<20))",
        *(4, 40, DISK),
    ),
    Attack("disk", "inodes", "for i in range(N): open(str(i),'w').close()", 20, 1000, INODES),
    Attack(
        "disk",
        "a sparse file",
        "with open('f','wb') as f: f.truncate(N<<20)",
        *(4, 1 << 20, REFUSED),
    ),
    Attack(
        "disk",
        "hard links",
        "import os\nopen('f','w').close()\nfor i in range(N): os.link('f',f'l{i}')",
        *(20, 1000, INODES),
    ),
)
# All of them run before a release; these are run each time.
ALWAYS = ("netlink buffers", "children that die unheard", "a deep tree", "hard links")
