"""How much memory the sockets of one network namespace hold, where no cgroup counts it.

Data that waits in a socket is in no process. A memory cgroup counts that of UNIX and internet
sockets, and never that of netlink sockets; without one nobody counts any. The init opens a
sock_diag socket in the program's network namespace, which belongs to that namespace for good, and
hands it to the supervisor, who asks it what each socket holds.

Not listed are sockets that are not bound, and senders of UNIX messages who closed before they were
read. The namespace still counts them, so each that is missing from the lists is charged what a
socket may hold at most, which the filter lets nobody raise.

Sources: sock_diag(7); include/uapi/linux/{unix,inet,netlink,sock}_diag.h; net/core/sock.c,
sock_diag_put_meminfo; net/ipv4/proc.c, sockstat_seq_show.
"""

from __future__ import annotations

import os
import struct
from time import monotonic_ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# linux/netlink.h, linux/sock_diag.h
PROTOCOL = 4
_BY_FAMILY = 20
_REQUEST_DUMP = 0x301
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16
_TCP, _UDP = 6, 17
_ALL = 0xFFFFFFFF
# rmem_alloc, rcvbuf, wmem_alloc, sndbuf, fwd_alloc, wmem_queued, optmem, backlog
_MEMORY = struct.Struct("=8I")
_PART_BYTES = 1 << 16
# What a socket may hold where the machine does not say.
_USUAL_BYTES = 212_992

# Walking the table of connections of the whole machine takes milliseconds, so it is done only where
# there are any, and not at every look.
_CONNECTIONS_NS = 100_000_000

# Each list: request, length of an entry before its attributes, which attribute is the memory.
_NETLINK_LIST = (struct.pack("=BBHIIII", _NETLINK, 255, 0, 0, 1, _ALL, _ALL), 28, 0)
_UNIX_LIST = (struct.pack("=BBHIIIII", _UNIX, 0, 0, _ALL, 0, 0x20, _ALL, _ALL), 16, 5)


def _internet_list(family: int, protocol: int) -> tuple[bytes, int, int]:
    return struct.pack("=BBBBI48x", family, protocol, 1 << 6, 0, _ALL), 72, 7


_SHORT_LISTS = (
    _NETLINK_LIST,
    _UNIX_LIST,
    *(_internet_list(each, _UDP) for each in (_INET, _INET6)),
)
# By the name that sockstat has for their number.
_CONNECTIONS = {"TCP": _internet_list(_INET, _TCP), "TCP6": _internet_list(_INET6, _TCP)}


class Sockets:
    """The sockets of the namespace that an init is in. Made before its program starts.

    Args:
        init: whose network namespace it is.
        descriptor: a sock_diag socket of that namespace; stays the caller's.
        counted: whether a cgroup counts all but netlink sockets.
    """

    def __init__(self, init: int, descriptor: int, *, counted: bool) -> None:
        self._folder = f"/proc/{init}/net"
        self._descriptor = descriptor
        # An answer is there at once or never comes.
        os.set_blocking(descriptor, False)
        self._counted = counted
        self._most_bytes = 0 if counted else _most_bytes()
        self._connections_bytes = self._connections_at = 0
        self._before = self._count().get("sockets")
        self._unlisted_before = 0
        if self._before != 1:
            # Else there is only the one that asks.
            self._unlisted_before = self._look()[1]

    def held_bytes(self) -> int:
        """Give what all of them hold now, in bytes.

        Never too little but for kinds of sockets that this kernel does not list, and for what
        connections took in the last tenth of a second.
        """
        if self._before is not None and self._count().get("sockets") == self._before:
            return 0
        held, unlisted = self._look()
        return held + unlisted * self._most_bytes

    def _look(self) -> tuple[int, int]:
        """Give what the listed ones hold, and how many more there are than are listed."""
        lists = (_NETLINK_LIST,) if self._counted else _SHORT_LISTS
        listed = [memory for asked in lists for memory in _dump(self._descriptor, *asked)]
        if self._counted:
            return sum(listed), 0
        counts = self._count("6") | self._count()
        there = {name: counts[name] for name in _CONNECTIONS if counts.get(name)}
        unlisted = counts.get("sockets", 0) - len(listed) - sum(there.values())
        held = sum(listed) + self._held_by_connections(there)
        return held, max(0, unlisted - self._unlisted_before)

    def _held_by_connections(self, there: dict[str, int]) -> int:
        now = monotonic_ns()
        if now - self._connections_at > _CONNECTIONS_NS:
            self._connections_at = now
            found = [
                memory for name in there for memory in _dump(self._descriptor, *_CONNECTIONS[name])
            ]
            # More than are listed: a kernel that has no such list.
            missing = max(0, sum(there.values()) - len(found))
            self._connections_bytes = sum(found) + missing * self._most_bytes
        return self._connections_bytes if there else 0

    def _count(self, version: str = "") -> dict[str, int]:
        return parse_counts(_read(f"{self._folder}/sockstat{version}"))


def parse_counts(sockstat: str) -> dict[str, int]:
    """Read how many sockets a namespace has, by kind, and as `sockets` in all."""
    found = {}
    for line in sockstat.splitlines():
        name, _, rest = line.partition(": ")
        words = rest.split()
        if len(words) > 1 and words[0] in ("used", "inuse") and words[1].isdigit():
            found[name] = int(words[1])
    return found


def parse_memory(entry: bytes, before: int, wanted: int) -> int | None:
    """Read what one listed socket holds, in bytes; None where it does not say.

    Args:
        before: length of the entry before its attributes.
        wanted: the attribute that holds the memory figures.
    """
    at = before
    while at + _ATTRIBUTE.size <= len(entry):
        length, kind = _ATTRIBUTE.unpack_from(entry, at)
        value = entry[at + _ATTRIBUTE.size : at + length]
        if kind == wanted and len(value) >= _MEMORY.size:
            received, _, sent, _, ahead, queued, options, backlog = _MEMORY.unpack_from(value)
            return int(received + max(sent, queued) + ahead + options + backlog)
        at += max(length + 3 & ~3, _ATTRIBUTE.size)
    return None


def _dump(descriptor: int, request: bytes, before: int, wanted: int) -> Iterator[int]:
    """Ask for one list; gives what each socket in it holds. Nothing where the kernel has none."""
    header = _HEADER.pack(_HEADER.size + len(request), _BY_FAMILY, _REQUEST_DUMP, 1, 0)
    try:
        os.write(descriptor, header + request)
        while part := os.read(descriptor, _PART_BYTES):
            for kind, entry in _messages(part):
                if kind in (_DONE, _ERROR):
                    return
                memory = parse_memory(entry, before, wanted)
                if memory is not None:
                    yield memory
    except OSError:
        return  # no answer; what is not listed is charged as unlisted


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        yield kind, data[at + _HEADER.size : at + length]
        at += max(length + 3 & ~3, _HEADER.size)


def _most_bytes() -> int:
    found = [_read(f"/proc/sys/net/core/{name}mem_default").strip() for name in ("r", "w")]
    return max(_USUAL_BYTES, *(int(each) if each.isdigit() else 0 for each in found))


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(4096)
    except OSError:
        return ""
