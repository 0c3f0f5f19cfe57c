"""Memory that belongs to no process: data in sockets and pipes, huge pages held by a small part.

A memory cgroup counts some of it, and without one nothing does but the supervisor. Each attack is
bounded, and the same code with less of it ends well.
"""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from beddel_cli.process.meters import ProgramLimits
from beddel_cli.record import changed
from tests.support.capabilities import give_up, require
from tests.support.supervised import LIMITS, Setting, Supervised, python, require_setting

MIB = 1 << 20
SMALL: ProgramLimits = changed(LIMITS, memory_bytes=64 * MIB)

_FILL = (
    "import os,socket,struct,time\nheld=[]\n"
    "def fill(s):\n"
    " s.setblocking(False)\n"
    " for size in (65536,4096):\n"
    "  try:\n"
    "   while 1: s.send(bytes(size))\n"
    "  except BlockingIOError: pass\n"
)
_SPREAD = "for i in range(N//100-1):\n if os.fork()==0: break\n"
_HELD = "time.sleep(0.5)\nos.write(1,b'had it\\n') if os.getpid()==2 else 0\n"
# Each of N sockets is filled, a hundred to a process.
SOCKETS = {
    "unix pairs": "for i in range(min(N,100)):\n a,b=socket.socketpair()\n fill(a)\n held+=[a,b]\n",
    "senders that are gone": (
        "for i in range(min(N,100)):\n a,b=socket.socketpair()\n fill(a)\n a.close()\n"
        " held.append(b)\n"
    ),
    "datagrams": (
        "for i in range(min(N,100)):\n a,b=socket.socketpair(socket.AF_UNIX,socket.SOCK_DGRAM)\n"
        " fill(a)\n held+=[a,b]\n"
    ),
    "connections": (
        "l=socket.create_server(('127.0.0.1',0),backlog=200)\n"
        "for i in range(min(N,100)):\n a=socket.create_connection(l.getsockname())\n"
        " b,_=l.accept()\n fill(a)\n fill(b)\n held+=[a,b]\n"
    ),
    "netlink": (
        "ask=struct.pack('=IHHIIBBHiII',32,18,1,1,0,0,0,0,1,0,0)\n"
        "for i in range(min(N,100)):\n s=socket.socket(socket.AF_NETLINK,socket.SOCK_RAW,0)\n"
        " s.setsockopt(socket.SOL_SOCKET,socket.SO_RCVBUF,1<<20)\n s.setblocking(False)\n"
        " for j in range(1000):\n"
        "  try: s.send(ask)\n"
        "  except OSError: break\n"
        " held.append(s)\n"
    ),
}


# Where a cgroup counts them as it does all else, it is looked at before a release.
@pytest.mark.parametrize(
    ("name", "leaf"),
    [
        pytest.param(name, leaf, marks=pytest.mark.slow if leaf and name != "netlink" else ())
        for name in SOCKETS
        for leaf in (False, True)
    ],
)
def test_data_in_sockets(name: str, leaf: bool) -> None:
    setting = Setting(leaf=leaf, walls=True)
    require_setting(setting)
    run = Supervised(leaf=setting.leaf, walls=True, limits=SMALL)
    code = f"{_FILL}{_SPREAD}{SOCKETS[name]}{_HELD}"
    within = run.run(python(f"N=30\n{code}"))
    assert (within.limit, within.stdout.head) == (None, b"had it\n"), within.stderr.head
    if name == "connections" and setting.leaf:
        return  # version 1 counts those apart and makes them wait
    answer = run.run(python(f"N=800\n{code}"))
    assert (answer.limit, answer.signal) == ("memory", 9), answer
    assert b"had it" not in answer.stdout.head
    if name == "netlink" or not setting.leaf:
        assert not answer.by_kernel
        assert answer.usage.anonymous_peak_bytes is not None
        assert answer.usage.anonymous_peak_bytes > 64 * MIB
        assert "sock_diag" in answer.usage.anonymous_peak_source


def test_how_much_a_socket_may_hold_is_not_raised_where_nothing_counts_it() -> None:
    code = (
        "import socket\na,b=socket.socketpair()\n"
        "for option in (socket.SO_SNDBUF,socket.SO_RCVBUF):\n"
        " before=a.getsockopt(1,option)\n a.setsockopt(1,option,1<<19)\n"
        " print(a.getsockopt(1,option)==before)\n"
        "a.setsockopt(1,socket.SO_PASSCRED,1)\nprint(a.getsockopt(1,socket.SO_PASSCRED))"
    )
    require_setting(Setting(leaf=False, walls=True))
    done = subprocess.run(python(code), capture_output=True, check=True)
    assert done.stdout == b"False\nFalse\n1\n"
    assert Supervised(walls=True).run(python(code)).stdout.head == b"True\nTrue\n1\n"
    if os.geteuid() == 0:
        require("cgroup")
        answer = Supervised(walls=True, leaf=True).run(python(code))
        assert answer.stdout.head == b"False\nFalse\n1\n"


# A filter of 4,096 steps takes a hundred kilobytes, 65,536 rules of one set four megabytes.
OF_THE_KERNEL = (
    "import ctypes,errno,socket,struct\n"
    "steps=struct.pack('HBBI',6,0,0,1)\nhere=ctypes.create_string_buffer(steps,8)\n"
    "pair=socket.socketpair()\n"
    "def tell(code): print(errno.errorcode.get(code,'works'))\n"
    "for option in (26,51):\n"
    " try: pair[0].setsockopt(1,option,struct.pack('HxxxxxxQ',1,ctypes.addressof(here)))\n"
    " except OSError as error: tell(error.errno)\n"
    " else: tell(0)\n"
    "made=ctypes.CDLL(None,use_errno=True).syscall(444,struct.pack('QQ',0,3),16,0)\n"
    "tell(ctypes.get_errno() if made<0 else 0)"
)


def test_the_kernel_keeps_no_filters_and_rules_where_nothing_counts_them() -> None:
    require_setting(Setting(leaf=False, walls=True))
    done = subprocess.run(python(OF_THE_KERNEL), capture_output=True, check=True)
    # The second is for those who share a port, which a pair cannot.
    assert done.stdout in (b"works\nEOPNOTSUPP\nworks\n", b"works\nEINVAL\nworks\n")
    answer = Supervised(walls=True).run(python(OF_THE_KERNEL))
    assert answer.stdout.head == b"EPERM\nEPERM\nENOSYS\n"
    if os.geteuid() == 0:
        require("cgroup")
        counted = Supervised(walls=True, leaf=True).run(python(OF_THE_KERNEL))
        assert counted.stdout.head == done.stdout


HUGE = (
    "import ctypes,mmap\n"
    "off=ctypes.CDLL(None,use_errno=True).prctl(41,0,0,0,0) and ctypes.get_errno()\n"
    "m=mmap.mmap(-1,8<<20,flags=0x22)\nm.madvise(14)\n"
    "for i in range(0,8<<20,4096): m[i]=1\n"
    "rows=[r for r in open('/proc/self/smaps') if r.startswith('AnonHugePages:')]\n"
    "print(off,sum(int(r.split()[1]) for r in rows)>=2048)"
)


def test_no_huge_page_is_held_by_a_small_part_of_it() -> None:
    """Sixteen bytes in a pipe kept 32 MiB that no process had any more."""
    require_setting(Setting(leaf=False, walls=True))
    control = subprocess.run(python(HUGE), capture_output=True, check=True)
    if control.stdout != b"0 True\n":
        give_up("this machine gives no huge pages to those who ask")
    assert Supervised(walls=True).run(python(HUGE)).stdout.head == b"1 False\n"
    if os.geteuid() == 0:
        require("cgroup")
        answer = Supervised(walls=True, leaf=True).run(python(HUGE))
        assert answer.stdout.head == b"0 True\n"


CLOSED = (
    "import socket\n"
    "l=socket.create_server(('127.0.0.1',0))\n"
    "for i in range(300):\n"
    " a=socket.create_connection(l.getsockname())\n b,_=l.accept()\n a.close()\n b.close()\n"
    "row=[r.split() for r in open('/proc/net/sockstat') if r.startswith('TCP:')][0]\n"
    "print(int(row[row.index('tw')+1])<=64)"
)


@pytest.mark.parametrize("leaf", [False, True])
def test_few_closed_connections_are_remembered(leaf: bool) -> None:
    """A minute's worth of them was 59 MiB beside a limit of 32, which no cgroup counts either."""
    setting = Setting(leaf=leaf, walls=True)
    require_setting(setting)
    if os.statvfs("/proc/sys").f_flag & os.ST_RDONLY:
        give_up("settings of the kernel can only be read here, a network's own among them")
    assert subprocess.run(python(CLOSED), capture_output=True, check=True).stdout == b"False\n"
    assert Supervised(leaf=leaf, walls=True).run(python(CLOSED)).stdout.head == b"True\n"


PIPES = (
    "import json,os,time\n"
    "for i in range(5):\n"
    " if os.fork()==0: break\n"
    "else:\n"
    " for i in range(5): os.wait()\n"
    " os._exit(0)\n"
    "held=[];took=0\n"
    "for i in range(240):\n"
    " r,w=os.pipe()\n os.set_blocking(w,False)\n"
    " try:\n"
    "  while 1: took+=os.write(w,bytes(4096))\n"
    " except BlockingIOError: pass\n"
    " os.close(w)\n held.append(r)\n"
    "os.write(1,(json.dumps([len(held),took])+'\\n').encode())\ntime.sleep(1)"
)


def test_pipes_are_bounded_by_the_kernel_where_nothing_counts_them() -> None:
    """So much a user and two pages for each further pipe: the bound that SECURITY.md states."""
    require_setting(Setting(leaf=False, walls=True))
    with open("/proc/sys/fs/pipe-user-pages-soft", encoding="ascii") as file:
        usual = int(file.read()) * 4096
    answer = Supervised(walls=True, limits=changed(LIMITS, memory_bytes=256 * MIB)).run(
        python(PIPES)
    )
    assert (answer.exit_code, answer.limit) == (0, None), answer.stderr.head
    told = [json.loads(line) for line in answer.stdout.head.splitlines()]
    pipes, took = sum(each[0] for each in told), sum(each[1] for each in told)
    assert pipes == 1200
    # More than that many pages were asked for, so that the bound shows.
    assert pipes * 65536 > usual
    assert usual // 2 < took <= usual + pipes * 2 * 4096
    counted = Supervised(walls=True, leaf=True, limits=SMALL) if os.geteuid() == 0 else None
    if counted is not None:
        require("cgroup")
        assert counted.run(python(PIPES)).limit == "memory"
