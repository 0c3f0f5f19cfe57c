"""What travels between supervisor and init: fixed layouts, checked on arrival.

The channel keeps message boundaries (SOCK_SEQPACKET). The one long message, the request, travels in
a memory file beside the descriptors it speaks of. The supervisor treats what comes back as hostile,
although the program never holds the channel: lengths are bounded, each layout must add up exactly.
"""

from __future__ import annotations

import struct
from os import fsdecode, fsencode

from beddel_cli.process.program import Program
from beddel_cli.record import record

# From the launcher and the init; the largest of them.
BORN, FAILED, READY, STARTED, NOT_STARTED, FAULT, ENDED = range(1, 8)
MESSAGE_BYTES = 1024
# To the init.
REQUEST, GO, TERMINATE = b"R", b"G", b"T"
REQUEST_BYTES = 16 << 20
# SCM_MAX_FD of the kernel.
MAX_DESCRIPTORS = 253

# The step of a failure that is nobody else's.
OUR_FAULT = "our own fault"

_BORN = struct.Struct("<BiQ?")
_FAILED = struct.Struct("<Bi32s")
_READY = struct.Struct("<B8i?QQ")
_EVENT = struct.Struct("<BiiQ")
_NUMBERS = struct.Struct("<11QIIII")
_NOT_TRIED = -1
_MOST_ERRNO = 4096


class MessageError(Exception):
    """The other side sent something that is not of the agreed form."""


@record
class Born:
    """The init exists. `identity` is its user id on the host, thrown away after the run or not."""

    pid: int
    identity: int
    throw_away: bool


@record
class Failed:
    """A step without which there is no going on. `errno` 0: it was not the kernel that refused."""

    step: str
    errno: int
    detail: str


@record
class Ready:
    """How the walls stand. None: never tried.

    `starter` is the process that the program will be, where it is not to be forked from the init.
    """

    rlimits: int
    capabilities: int
    no_new_privs: int
    landlock: int
    landlock_abi: int
    landlock_probe: int | None
    seccomp: int
    own_proc: bool
    setup_ns: int
    waited_ns: int
    starter: int = 0


@record
class Event:
    """One thing the init said of the program after `go`; its word, checked for form only.

    Attributes:
        kind: STARTED: execve succeeded. NOT_STARTED: it failed with `errno`; nothing else comes.
            FAULT: a step of ours before it failed with `errno` (`detail` names it); nothing else
            comes. ENDED: the program itself ended with `status`; all its other processes are being
            killed.
        status: a wait status, as os.waitstatus_to_exitcode takes it (ENDED only, else 0).
        maxrss_bytes: ru_maxrss of the program and those it waited for. Never less than what the
            init itself had resident when it forked, some 15 MiB (ENDED only, else 0).
    """

    kind: int
    errno: int
    status: int
    maxrss_bytes: int
    detail: str


@record
class Shown:
    """A host file or folder to show; its descriptor travels beside, in the same order.

    Attributes:
        ready_made: the descriptor is a detached mount, to be put in place as it is. Otherwise it
            only says which file is meant, and `source` is resolved again.
    """

    source: str
    target: str
    writable: bool
    folder: bool
    ready_made: bool


@record
class Request:
    """One program for the init.

    Attributes:
        descriptors: how many there are of stdio, cgroup files and workspace and mounts.
    """

    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    workspace: Shown | None
    workspace_target: str
    workspace_writable: bool
    mounts: tuple[Shown, ...]
    terminal: tuple[int, int] | None
    counts_memory: bool
    counts_processes: bool
    memory_bytes: int
    cpu_ns: int
    processes: int
    disk_bytes: int
    inodes: int
    open_files: int
    cgroup_files: int


def request_of(
    program: Program,
    shown: tuple[Shown, ...],
    cgroup_files: int,
    *,
    counts_memory: bool,
    counts_processes: bool,
) -> Request:
    """Give the request for a program. `shown` holds its workspace, if any, before its mounts."""
    has_workspace = program.workspace is not None
    return Request(
        arguments=program.arguments,
        environment=program.environment,
        workspace=shown[0] if has_workspace else None,
        workspace_target=program.workspace_target,
        workspace_writable=program.workspace_writable,
        mounts=shown[1:] if has_workspace else shown,
        terminal=program.terminal,
        counts_memory=counts_memory,
        counts_processes=counts_processes,
        memory_bytes=program.memory_bytes,
        cpu_ns=program.cpu_ns,
        processes=program.processes,
        disk_bytes=program.disk_bytes,
        inodes=program.inodes,
        open_files=program.open_files,
        cgroup_files=cgroup_files,
    )


def pack_request(request: Request) -> bytes:
    """Give the bytes of the request's memory file."""
    shown = request.mounts if request.workspace is None else (request.workspace, *request.mounts)
    rows, columns = request.terminal or (0, 0)
    numbers = _NUMBERS.pack(
        request.memory_bytes,
        request.cpu_ns,
        request.processes,
        request.disk_bytes,
        request.inodes,
        request.open_files,
        request.cgroup_files,
        rows,
        columns,
        request.terminal is not None,
        request.workspace is not None,
        request.workspace_writable | request.counts_memory << 1 | request.counts_processes << 2,
        len(request.arguments),
        len(request.environment),
        len(shown),
    )
    texts = [*request.arguments]
    for name, value in request.environment:
        texts += [name, value]
    texts.append(request.workspace_target)
    for each in shown:
        flags = each.writable | each.folder << 1 | each.ready_made << 2
        texts += [each.source, each.target, str(flags)]
    encoded = [fsencode(text) for text in texts]
    return numbers + b"".join(struct.pack("<I", len(text)) + text for text in encoded)


def parse_request(data: bytes) -> Request:
    """Read a request; it comes from our own supervisor.

    Raises:
        MessageError: lengths that do not add up.
    """
    try:
        numbers = _NUMBERS.unpack_from(data)
    except struct.error:
        raise MessageError(f"request of {len(data)} bytes") from None
    texts = _texts(data, _NUMBERS.size)
    has_terminal, has_workspace, flags, argument_count, variable_count, count = numbers[9:]
    arguments, rest = texts[:argument_count], texts[argument_count:]
    variables, rest = rest[: 2 * variable_count], rest[2 * variable_count :]
    if len(rest) != 1 + 3 * count or (has_workspace and not count):
        raise MessageError("request whose parts do not add up")
    shown = [
        Shown(
            source=source,
            target=target,
            writable=bool(int(bits) & 1),
            folder=bool(int(bits) & 2),
            ready_made=bool(int(bits) & 4),
        )
        for source, target, bits in zip(rest[1::3], rest[2::3], rest[3::3], strict=True)
    ]
    return Request(
        arguments=tuple(arguments),
        environment=tuple(zip(variables[::2], variables[1::2], strict=True)),
        workspace=shown.pop(0) if has_workspace else None,
        workspace_target=rest[0],
        workspace_writable=bool(flags & 1),
        mounts=tuple(shown),
        terminal=(numbers[7], numbers[8]) if has_terminal else None,
        counts_memory=bool(flags & 2),
        counts_processes=bool(flags & 4),
        memory_bytes=numbers[0],
        cpu_ns=numbers[1],
        processes=numbers[2],
        disk_bytes=numbers[3],
        inodes=numbers[4],
        open_files=numbers[5],
        cgroup_files=numbers[6],
    )


def _texts(data: bytes, start: int) -> list[str]:
    texts = []
    while start < len(data):
        if start + 4 > len(data):
            raise MessageError("request that ends within a length")
        (size,) = struct.unpack_from("<I", data, start)
        start += 4
        if start + size > len(data):
            raise MessageError("request that ends within a text")
        texts.append(fsdecode(data[start : start + size]))
        start += size
    return texts


def pack_born(born: Born) -> bytes:
    """Give the message that the init exists."""
    return _BORN.pack(BORN, born.pid, born.identity, born.throw_away)


def pack_failed(failed: Failed) -> bytes:
    """Give the message that a step failed, its detail cut to size."""
    head = _FAILED.pack(FAILED, failed.errno, failed.step.encode())
    return head + failed.detail.encode("utf-8", "replace")[: MESSAGE_BYTES - len(head)]


def pack_ready(ready: Ready) -> bytes:
    """Give the message that the walls stand."""
    probe = _NOT_TRIED if ready.landlock_probe is None else ready.landlock_probe
    return _READY.pack(
        READY,
        ready.rlimits,
        ready.capabilities,
        ready.no_new_privs,
        ready.landlock,
        ready.landlock_abi,
        probe,
        ready.seccomp,
        ready.starter,
        ready.own_proc,
        ready.setup_ns,
        ready.waited_ns,
    )


def pack_event(event: Event) -> bytes:
    """Give the message of an event."""
    head = _EVENT.pack(event.kind, event.errno, event.status, event.maxrss_bytes)
    return head + event.detail.encode("utf-8", "replace")[: MESSAGE_BYTES - len(head)]


def parse_before_start(data: bytes) -> Born | Ready | Failed:
    """Read what may come before the program is started.

    Raises:
        MessageError: it is none of these, or has a value out of range.
    """
    kind = data[0] if data else 0
    if kind == BORN and len(data) == _BORN.size:
        _, pid, identity, throw_away = _BORN.unpack(data)
        if pid <= 1:
            raise MessageError(f"an init with process id {pid}")
        return Born(pid=pid, identity=identity, throw_away=throw_away)
    if kind == FAILED:
        return _failed(data)
    if kind == READY and len(data) == _READY.size:
        return _ready(_READY.unpack(data))
    raise MessageError(f"message of type {kind} and {len(data)} bytes before the start")


def _failed(data: bytes) -> Failed:
    if len(data) < _FAILED.size:
        raise MessageError(f"message of {len(data)} bytes of a step that failed")
    _, errno, step = _FAILED.unpack_from(data)
    if not 0 <= errno < _MOST_ERRNO:
        raise MessageError("a failed step with a value out of range")
    return Failed(
        step=step.rstrip(b"\0").decode("utf-8", "replace"),
        errno=errno,
        detail=data[_FAILED.size :].decode("utf-8", "replace"),
    )


def _ready(values: tuple[int, ...]) -> Ready:
    probe = values[6]
    if min(values[1:6]) < 0 or probe < _NOT_TRIED or min(values[7:9]) < 0:
        raise MessageError("ready message with a value out of range")
    return Ready(
        rlimits=values[1],
        capabilities=values[2],
        no_new_privs=values[3],
        landlock=values[4],
        landlock_abi=values[5],
        landlock_probe=None if probe == _NOT_TRIED else probe,
        seccomp=values[7],
        own_proc=bool(values[9]),
        setup_ns=values[10],
        waited_ns=values[11],
        starter=values[8],
    )


def parse_event(data: bytes) -> Event | Failed:
    """Read what may come once the program was to be started.

    Raises:
        MessageError: it is not an event nor a step that failed, or has a value out of range.
    """
    if data[:1] == bytes([FAILED]):
        return _failed(data)
    if len(data) < _EVENT.size or not STARTED <= data[0] <= ENDED:
        raise MessageError(f"message of {len(data)} bytes that is no event")
    kind, errno, status, maxrss_bytes = _EVENT.unpack_from(data)
    if not 0 <= errno < _MOST_ERRNO or not 0 <= status < 1 << 16:
        raise MessageError("event with a value out of range")
    return Event(
        kind=kind,
        errno=errno,
        status=status,
        maxrss_bytes=maxrss_bytes,
        detail=data[_EVENT.size :].decode("utf-8", "replace"),
    )
