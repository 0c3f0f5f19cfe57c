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

# Each list: request, length of an entry before its attributes, which attribute is the memory.
_NETLINK_LIST = (struct.pack("=BBHIIII", _NETLINK, 255, 0, 0, 1, _ALL, _ALL), 28, 0)
_UNIX_LIST = (struct.pack("=BBHIIIII", _UNIX, 0, 0, _ALL, 0, 0x20, _ALL, _ALL), 16, 5)
_LISTS = (
    _NETLINK_LIST,
    _UNIX_LIST,
    *(
        (struct.pack("=BBBBI48x", family, protocol, 1 << 6, 0, _ALL), 72, 7)
        for family in (_INET, _INET6)
        for protocol in (_TCP, _UDP)
    ),
)


class Sockets:
    """The sockets of the namespace that an init is in. Made before its program starts.

    Args:
        init: whose network namespace it is.
        descriptor: a sock_diag socket of that namespace; stays the caller's.
        counted: whether a cgroup counts all but netlink sockets.
    """

    def __init__(self, init: int, descriptor: int, *, counted: bool) -> None:
        self._count = f"/proc/{init}/net/sockstat"
        self._descriptor = descriptor
        # An answer is there at once or never comes.
        os.set_blocking(descriptor, False)
        self._lists = (_NETLINK_LIST,) if counted else _LISTS
        self._counted = counted
        self._most_bytes = _most_bytes()
        self._before = parse_count(_read(self._count))
        self._unlisted_before = 0
        self._unlisted_before = self._look()[1]

    def held_bytes(self) -> int:
        """Give what all of them hold now, in bytes; a figure that is never too small but for
        sockets of kinds that this kernel does not list."""
        if self._before is not None and parse_count(_read(self._count)) == self._before:
            return 0
        held, unlisted = self._look()
        return held + (0 if self._counted else unlisted * self._most_bytes)

    def _look(self) -> tuple[int, int]:
        """Give what the listed ones hold, and how many more there are than are listed."""
        listed = [memory for asked in self._lists for memory in _dump(self._descriptor, *asked)]
        there = parse_count(_read(self._count)) or 0
        return sum(listed), max(0, there - len(listed) - self._unlisted_before)


def parse_count(sockstat: str) -> int | None:
    """Read how many sockets a namespace has out of its sockstat; None where it does not say."""
    words = sockstat.partition("\n")[0].split()
    if words[:2] == ["sockets:", "used"] and len(words) > 2 and words[2].isdigit():
        return int(words[2])
    return None


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
            received, _, sent, _, ahead, queued, _, backlog = _MEMORY.unpack_from(value)
            return int(received + max(sent, queued) + ahead + backlog)
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
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(4096)
    except OSError:
        return ""
