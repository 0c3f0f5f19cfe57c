"""The second system-call filter and the Landlock rules of the landlock rung, without a kernel."""

from __future__ import annotations

import errno
import struct

import pytest

from beddel_cli.process.filter import NUMBERS
from beddel_cli.process.strict_rules import (
    ASKED,
    ATTRIBUTES,
    BY_NAME,
    INSTANT_BYTES,
    NEW_ATTRIBUTES,
    QUEUES,
    SOCKETS,
    STRICT_NUMBERS,
    Places,
    Strict,
    asked_numbers,
    ruleset_attributes,
    strict_filter,
    written_devices,
)
from tests.unit.test_process_filter import ALLOW, ARCHES, decide

GUARDIAN = 4321
OWN, THROWN = (Strict(own_id=own, landlock_abi=7, guardian=GUARDIAN) for own in (True, False))
BOTH = pytest.mark.parametrize("machine", ARCHES)
# The registers of a call that names a file at address 4096.
A_NAME = (0, 4096)


def nr(name: str, machine: str) -> int | None:
    return STRICT_NUMBERS[name][list(ARCHES).index(machine)]


def answer(machine: str, strict: Strict, name: str, *arguments: int) -> str | int:
    number = nr(name, machine)
    assert number is not None
    return decide(strict_filter(machine, strict), ARCHES[machine], number, *arguments)


@BOTH
@pytest.mark.parametrize("strict", [OWN, THROWN])
def test_every_number_is_judged_by_the_tables(machine: str, strict: Strict) -> None:
    program = strict_filter(machine, strict)
    wanted: dict[int | None, str | int] = dict.fromkeys(range(600), ALLOW)
    refused = dict.fromkeys(SOCKETS, errno.EPERM)
    refused |= dict.fromkeys((*QUEUES, *NEW_ATTRIBUTES), errno.ENOSYS)
    refused |= dict.fromkeys((*ATTRIBUTES, INSTANT_BYTES), errno.EOPNOTSUPP)
    # With arguments of zero: no pair of such a family.
    refused |= {"socketpair": errno.EAFNOSUPPORT, "ioctl": errno.ENOTTY}
    if strict.own_id:
        refused |= dict.fromkeys((*BY_NAME, *ASKED), errno.EPERM)
        # With arguments of zero: IOPRIO_WHO_PROCESS is 1.
        refused["ioprio_set"] = errno.EPERM
    wanted |= {nr(name, machine): code for name, code in refused.items()}
    for number in range(600):
        gap = range(335 if machine == "x86_64" else 295, 424)
        unknown = number in gap or number > 469
        right = errno.ENOSYS if unknown else wanted[number]
        assert decide(program, ARCHES[machine], number) == right, number


def test_numbers_that_both_filters_name_are_the_same() -> None:
    for name in NUMBERS.keys() & STRICT_NUMBERS.keys():
        assert NUMBERS[name] == STRICT_NUMBERS[name], name
    for numbers in zip(*STRICT_NUMBERS.values(), strict=True):
        known = [number for number in numbers if number is not None]
        assert len(known) == len(set(known))


@BOTH
@pytest.mark.parametrize("strict", [OWN, THROWN])
@pytest.mark.parametrize(("kind", "code"), [(1, ALLOW), (5, ALLOW), (2, 1), (3, 1), (10, 1)])
@pytest.mark.parametrize("flags", [0, 0o4000, 0o2000000])
def test_pairs_are_of_streams_or_packets(
    machine: str, strict: Strict, kind: int, code: str | int, flags: int
) -> None:
    assert answer(machine, strict, "socketpair", 1, kind | flags) == code
    assert answer(machine, strict, "socketpair", 1, kind | flags | 1 << 40) == code


@BOTH
@pytest.mark.parametrize("strict", [OWN, THROWN])
def test_requests_concern_one_file_or_terminal(machine: str, strict: Strict) -> None:
    # TCGETS, FIONREAD, FIOCLEX, FS_IOC_GETFLAGS, FICLONE
    for request in (0x5401, 0x541B, 0x5451, 0x80086601, 0x40049409):
        assert answer(machine, strict, "ioctl", 3, request) == ALLOW
    # SIOCGIFCONF, SIOCGIFHWADDR, FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR, BTRFS_IOC_SUBVOL_CREATE,
    # FS_IOC_ENABLE_VERITY, and one that agrees only in its lower half.
    for request in (0x8912, 0x8927, 0x40086602, 0x401C5820, 0x5000940E, 0x40806685, 0x15401):
        assert answer(machine, strict, "ioctl", 3, request) == errno.ENOTTY


@BOTH
@pytest.mark.parametrize(
    "name", ["prlimit64", "sched_setparam", "sched_setscheduler", "sched_setaffinity"]
)
def test_other_processes_are_not_changed_under_an_own_id(machine: str, name: str) -> None:
    assert answer(machine, OWN, name, 0) == ALLOW
    assert answer(machine, OWN, name, 1234) == errno.EPERM
    # The kernel reads 32 bits, so these are its own.
    assert answer(machine, OWN, name, 1 << 32) == ALLOW
    assert answer(machine, THROWN, name, 1234) == ALLOW
    # The guardian counts as one of the same id.
    for pid in (GUARDIAN, GUARDIAN + (1 << 32)):
        assert answer(machine, THROWN, name, pid) == errno.EPERM


@BOTH
@pytest.mark.parametrize(("name", "process"), [("setpriority", 0), ("ioprio_set", 1)])
def test_only_the_own_priority_is_changed_under_an_own_id(
    machine: str, name: str, process: int
) -> None:
    assert answer(machine, OWN, name, process, 0) == ALLOW
    for which, who in ((process, 77), (process + 1, 0), (process + 2, 0), (9, 9)):
        assert answer(machine, OWN, name, which, who) == errno.EPERM
    for which, who in ((process, 0), (process, 77), (process + 1, 0), (process + 2, 0)):
        assert answer(machine, THROWN, name, which, who) == ALLOW
    for which, who in ((process, GUARDIAN), (process + 1, 77), (process + 2, 77)):
        assert answer(machine, THROWN, name, which, who) == errno.EPERM


@BOTH
@pytest.mark.parametrize("strict", [OWN, THROWN])
def test_where_landlock_knows_no_truncation_it_is_refused_by_name(
    machine: str, strict: Strict
) -> None:
    old = Strict(own_id=strict.own_id, landlock_abi=2)
    assert answer(machine, old, "truncate", *A_NAME) == errno.EPERM
    assert answer(machine, strict, "truncate", *A_NAME) == ALLOW


@pytest.mark.parametrize(
    ("abi", "words"),
    [
        (1, (0x1FFF,)),
        (2, (0x3FFF,)),
        (3, (0x7FFF,)),
        (4, (0x7FFF, 3)),
        (5, (0xFFFF, 3)),
        (6, (0xFFFF, 3, 3)),
        (7, (0xFFFF, 3, 3)),
    ],
)
def test_everything_a_version_can_handle_is_handled(abi: int, words: tuple[int, ...]) -> None:
    assert struct.unpack(f"<{len(words)}Q", ruleset_attributes(abi)) == words


def test_devices_are_written_to_as_far_as_somebody_counts() -> None:
    def of(*, terminal: bool, counts: bool) -> tuple[str, ...]:
        return written_devices(Places((), (), terminal=terminal, counts_memory=counts))

    assert of(terminal=False, counts=False) == ("/dev/null", "/dev/full")
    assert of(terminal=True, counts=True) == ("/dev/null", "/dev/full", "/dev/zero", "/dev/tty")


@BOTH
def test_what_somebody_listens_for_is_handed_over(machine: str) -> None:
    asking = Strict(own_id=True, landlock_abi=7, asks=True)
    numbers = asked_numbers(machine)
    assert set(numbers.values()) == {name for name in ASKED if nr(name, machine) is not None}
    program = strict_filter(machine, asking)
    for number in numbers:
        assert decide(program, ARCHES[machine], number, *A_NAME) == "hand over"
    # Of what is open, too: who may only read it owns it all the same.
    assert answer(machine, asking, "utimensat", 3, 0) == "hand over"
    assert answer(machine, asking, "fchmod", 3, 0o755) == "hand over"
    assert answer(machine, asking, "fchown", 3, 0) == errno.EPERM
    assert answer(machine, asking, "fchownat", *A_NAME) == errno.EPERM
