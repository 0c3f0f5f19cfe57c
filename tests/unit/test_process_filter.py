"""The program's system-call filter, run by an interpreter over every number and many arguments."""

from __future__ import annotations

import errno
import struct
from itertools import product

import pytest

from beddel_cli.process.filter import (
    ATTRIBUTES,
    CLONE_NAMESPACES,
    FORBIDDEN,
    HARMLESS_PERSONALITIES,
    MISSING,
    NUMBERS,
    OWNERLESS_MEMORY,
    PROCESS_OPTIONS,
    SET_THP_DISABLE,
    Grants,
    filter_program,
)

ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALL = Grants(unix_sockets=True, ownerless_memory=True)
NONE = Grants(unix_sockets=False, ownerless_memory=False)
ALLOW, KILL = "allow", "kill"


def decide(program: bytes, arch: int, number: int, *arguments: int) -> str | int:
    """Run a filter as the kernel would: `allow`, `kill` or the errno it answers with."""
    padded = (*arguments, *(0,) * 6)[:6]
    words = [argument & 0xFFFFFFFFFFFFFFFF for argument in padded]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, arch, 0, *words)
    steps = list(struct.iter_unpack("<HBBI", program))
    accumulator = at = 0
    while True:
        code, when_true, when_false, k = steps[at]
        at += 1
        if code == 0x20:
            assert k % 4 == 0
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif code == 0x54:
            accumulator &= k
        elif code in (0x15, 0x35, 0x45):
            outcome = {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: accumulator & k}[code]
            at += when_true if outcome else when_false
        elif code == 0x06:
            action = k & 0xFFFF0000
            named = {0x7FFF0000: ALLOW, 0x80000000: KILL, 0x7FC00000: "hand over"}
            return named[action] if action in named else int(k & 0xFFFF)
        else:
            raise AssertionError(f"an instruction that is not used: {code:#x}")


def nr(name: str, machine: str) -> int:
    number = NUMBERS[name][list(ARCHES).index(machine)]
    assert number is not None
    return number


@pytest.mark.parametrize("machine", ARCHES)
@pytest.mark.parametrize("grants", [ALL, NONE])
def test_every_number_is_judged_by_the_tables(machine: str, grants: Grants) -> None:
    program = filter_program(machine, grants)
    assert len(program) // 8 <= 4096
    index = list(ARCHES).index(machine)
    refused = {NUMBERS[name][index]: errno.EPERM for name in FORBIDDEN}
    gone = MISSING if grants.ownerless_memory else (*MISSING, *OWNERLESS_MEMORY)
    refused |= {NUMBERS[name][index]: errno.ENOSYS for name in gone}
    refused |= {NUMBERS[name][index]: errno.EOPNOTSUPP for name in ATTRIBUTES}
    # Judged by its arguments: option 0 is none.
    refused[nr("prctl", machine)] = errno.EINVAL
    last_of_old = 334 if machine == "x86_64" else 294
    # Judged by their arguments, of which none is harmful here but a family of sockets: AF_UNSPEC.
    by_argument = {nr("socket", machine), nr("socketpair", machine)}
    for number in range(600):
        wanted: str | int = refused.get(number, ALLOW)
        if last_of_old < number < 424 or number > 469:
            wanted = errno.ENOSYS
        if number in by_argument:
            wanted = errno.EAFNOSUPPORT
        assert decide(program, ARCHES[machine], number) == wanted, number


@pytest.mark.parametrize("machine", ARCHES)
def test_other_tables_of_calls(machine: str) -> None:
    program = filter_program(machine, ALL)
    for arch in (0x40000003, 0x40000028, 0, *(set(ARCHES.values()) - {ARCHES[machine]})):
        assert decide(program, arch, 1) == KILL
    for number in (0x40000000, 0x40000000 | 39, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000):
        assert decide(program, ARCHES[machine], number) == errno.ENOSYS


HIGH = (0, 1 << 32, 0xFFFFFFFF << 32)
SET_ID = (0o4755, 0o2755, 0o6000, 0o106755, 0o4000 | 1 << 20)
PLAIN = (0, 0o755, 0o1777, 0o100644)


@pytest.mark.parametrize("machine", ARCHES)
@pytest.mark.parametrize(
    ("name", "argument"),
    [
        *(("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("fchmodat2", 2), ("creat", 1)),
        *(("mkdir", 1), ("mkdirat", 2), ("mknod", 1), ("mknodat", 2)),
    ],
)
def test_modes(machine: str, name: str, argument: int) -> None:
    if NUMBERS[name][list(ARCHES).index(machine)] is None:
        return
    program = filter_program(machine, ALL)
    for high, (modes, wanted) in product(HIGH, ((SET_ID, errno.EPERM), (PLAIN, ALLOW))):
        for mode in modes:
            arguments = [0] * argument + [mode | high]
            got = decide(program, ARCHES[machine], nr(name, machine), *arguments)
            assert got == wanted, (oct(mode), high)
            # The neighbouring argument is not the mode.
            shifted = [mode] * argument + [0o644, mode]
            assert decide(program, ARCHES[machine], nr(name, machine), *shifted) == ALLOW


@pytest.mark.parametrize("machine", ARCHES)
@pytest.mark.parametrize(("name", "flags_at"), [("open", 1), ("openat", 2)])
def test_opening(machine: str, name: str, flags_at: int) -> None:
    if NUMBERS[name][list(ARCHES).index(machine)] is None:
        return
    program = filter_program(machine, ALL)
    creating = (0o100, 0o101, 0o20200000, 0o20040002, 0o20000100)
    for high in HIGH:
        for flags, mode in product((*creating, 0, 2, 0o2000000), (*SET_ID, *PLAIN)):
            arguments = [0] * flags_at + [flags | high, mode | high]
            wanted = errno.EPERM if flags in creating and mode in SET_ID else ALLOW
            got = decide(program, ARCHES[machine], nr(name, machine), *arguments)
            assert got == wanted, (oct(flags), oct(mode))


@pytest.mark.parametrize("machine", ARCHES)
def test_devices(machine: str) -> None:
    program = filter_program(machine, ALL)
    kinds: dict[int, str | int] = {0o010000: ALLOW, 0o140000: ALLOW, 0o100000: ALLOW, 0: ALLOW}
    kinds |= {0o020000: errno.EPERM, 0o060000: errno.EPERM}
    for kind, wanted in kinds.items():
        number = nr("mknodat", machine)
        assert decide(program, ARCHES[machine], number, 0, 0, kind | 0o644) == wanted


@pytest.mark.parametrize("machine", ARCHES)
def test_clone(machine: str) -> None:
    program = filter_program(machine, ALL)
    for bit in range(32):
        wanted = errno.EPERM if CLONE_NAMESPACES >> bit & 1 else ALLOW
        for high in HIGH:
            flags = 1 << bit | high
            got = decide(program, ARCHES[machine], nr("clone", machine), flags)
            assert got == wanted, hex(flags)
    assert decide(program, ARCHES[machine], nr("clone", machine), 0x3D0F00) == ALLOW, "a thread"


@pytest.mark.parametrize("machine", ARCHES)
@pytest.mark.parametrize("grants", [ALL, NONE])
def test_sockets(machine: str, grants: Grants) -> None:
    program = filter_program(machine, grants)
    flags = (0, 0o2000000, 0o4000)
    for family, kind, protocol, extra in product(range(60), range(7), (0, 1, 6, 17, 132), flags):
        arguments = (family, kind | extra, protocol)
        wanted: str | int = errno.EAFNOSUPPORT
        if family == 1:
            wanted = ALLOW if grants.unix_sockets else errno.EPERM
        elif family == 16:
            wanted = ALLOW if protocol == 0 else errno.EPROTONOSUPPORT
        elif family in (2, 10) and kind not in (1, 2):
            wanted = errno.EPERM
        elif family in (2, 10):
            wanted = errno.EPROTONOSUPPORT if protocol == 132 else ALLOW
        got = decide(program, ARCHES[machine], nr("socket", machine), *arguments)
        assert got == wanted, arguments
    for family, kind, extra in product(range(60), range(7), flags):
        asked = (family | 1 << 32, kind | extra)
        wanted = errno.EAFNOSUPPORT
        if family == 1:
            # A half of any other kind can send to a socket that has a name.
            wanted = ALLOW if grants.unix_sockets or kind in (1, 5) else errno.EPERM
        got = decide(program, ARCHES[machine], nr("socketpair", machine), *asked)
        assert got == wanted, asked


@pytest.mark.parametrize("machine", ARCHES)
def test_terminals_and_personalities(machine: str) -> None:
    program = filter_program(machine, ALL)
    forbidden = (0x5412, 0x541C, 0x541D, 0x5423)
    for request, high in product(range(0x5400, 0x5480), HIGH):
        got = decide(program, ARCHES[machine], nr("ioctl", machine), 0, request | high)
        assert got == (errno.EPERM if request in forbidden else ALLOW)
    for value in (*HARMLESS_PERSONALITIES, 1, 0x40000, 0x400000, 0x20001):
        got = decide(program, ARCHES[machine], nr("personality", machine), value)
        assert got == (ALLOW if value in HARMLESS_PERSONALITIES else errno.EPERM)


@pytest.mark.parametrize("machine", ARCHES)
def test_watches_and_leases(machine: str) -> None:
    program = filter_program(machine, ALL)
    for command, high in product((*range(20), *range(1020, 1050)), HIGH):
        wanted = errno.EPERM if command in (1024, 1026) else ALLOW
        got = decide(program, ARCHES[machine], nr("fcntl", machine), 0, command | high)
        assert got == wanted, command


@pytest.mark.parametrize("machine", ARCHES)
@pytest.mark.parametrize("grants", [ALL, NONE])
def test_mappings(machine: str, grants: Grants) -> None:
    program = filter_program(machine, grants)
    # Shared, private, shared and validated; then with a file, without, and with other flags.
    for kind, more, high in product((1, 2, 3), (0, 0x20, 0x4020, 0x4000, 0x100020), HIGH):
        ownerless = kind != 2 and more & 0x20
        wanted: str | int = errno.EPERM if ownerless and not grants.ownerless_memory else ALLOW
        arguments = (0, 4096, 3, kind | more | high)
        assert decide(program, ARCHES[machine], nr("mmap", machine), *arguments) == wanted
        huge = (0, 4096, 3, kind | more | high | 0x40000)
        assert decide(program, ARCHES[machine], nr("mmap", machine), *huge) == errno.ENOMEM
    for flags, high in product(range(16), HIGH):
        wanted = errno.ENOMEM if flags & 4 else ALLOW
        wanted = wanted if grants.ownerless_memory else errno.ENOSYS
        got = decide(program, ARCHES[machine], nr("memfd_create", machine), 0, flags | high)
        assert got == wanted, flags


@pytest.mark.parametrize("machine", ARCHES)
@pytest.mark.parametrize(
    "name",
    ["prlimit64", "sched_setparam", "sched_setscheduler", "sched_setaffinity", "sched_setattr"],
)
def test_the_init_is_out_of_reach(machine: str, name: str) -> None:
    program = filter_program(machine, ALL)
    for process, high in product((0, 1, 2, 3, 1000, 0xFFFFFFFF), HIGH):
        wanted = errno.EPERM if process == 1 else ALLOW
        got = decide(program, ARCHES[machine], nr(name, machine), process | high, 1)
        assert got == wanted, process


@pytest.mark.parametrize("machine", ARCHES)
@pytest.mark.parametrize(("name", "kinds"), [("setpriority", (0, 1, 2)), ("ioprio_set", (1, 2, 3))])
def test_priority_is_a_matter_of_its_own(
    machine: str, name: str, kinds: tuple[int, int, int]
) -> None:
    """Of a process and of a group but not of process 1; not of all of a user, the init's too."""
    program = filter_program(machine, ALL)
    for place, kind in enumerate(kinds):
        for who, high in product((0, 1, 2, 1000, 0xFFFFFFFF), HIGH):
            wanted = errno.EPERM if place == 2 or who == 1 else ALLOW
            number = nr(name, machine)
            got = decide(program, ARCHES[machine], number, kind | high, who | high, 19)
            assert got == wanted, (kind, who)


@pytest.mark.parametrize("machine", ARCHES)
@pytest.mark.parametrize("grants", [ALL, NONE])
def test_only_known_options_of_a_process_are_let_through(machine: str, grants: Grants) -> None:
    program = filter_program(machine, grants)
    large = (0x59616D61, 0x41555856, 0x53564D41, 0xFFFFFFFF)
    # Up to beyond the newest, and the large ones: PR_SET_PTRACER, PR_GET_AUXV, PR_SET_VMA.
    for option, high in product((*range(300), *large), HIGH):
        wanted: str | int = ALLOW if option in PROCESS_OPTIONS else errno.EINVAL
        if option == SET_THP_DISABLE and not grants.ownerless_memory:
            wanted = errno.EPERM
        got = decide(program, ARCHES[machine], nr("prctl", machine), option | high, 1)
        assert got == wanted, option
    # PR_SET_MM, PR_SCHED_CORE, PR_SET_MEMORY_MERGE, PR_FUTEX_HASH, PR_SET_VMA, and what comes next.
    assert not {35, 62, 67, 78, 79, 0x53564D41} & set(PROCESS_OPTIONS)


@pytest.mark.parametrize("machine", ARCHES)
@pytest.mark.parametrize("grants", [ALL, NONE])
def test_options_of_sockets(machine: str, grants: Grants) -> None:
    program = filter_program(machine, grants)
    joins = {(0, 35), (0, 39), (0, 42), (0, 46), (41, 20), (41, 27), (41, 42), (41, 46)}
    kept = {(1, 7): 0, (1, 8): 0} | {(1, option): errno.EPERM for option in (26, 50, 51, 52)}
    for level, option, high in product((0, 1, 6, 17, 41, 58, 255, 270), range(90), HIGH):
        wanted: str | int = errno.ENODEV if (level, option) in joins else ALLOW
        if not grants.ownerless_memory:
            wanted = kept.get((level, option), wanted)
        number = nr("setsockopt", machine)
        got = decide(program, ARCHES[machine], number, 3 | high, level | high, option | high)
        assert got == wanted, (level, option)


def test_the_tables_name_each_call_once() -> None:
    judged = [*FORBIDDEN, *MISSING, *OWNERLESS_MEMORY, *ATTRIBUTES]
    assert len(judged) == len(set(judged))
    assert set(judged) <= set(NUMBERS)
    for column in range(2):
        numbers = [pair[column] for pair in NUMBERS.values() if pair[column] is not None]
        assert len(numbers) == len(set(numbers))
    with pytest.raises(KeyError):
        filter_program("riscv64", ALL)
