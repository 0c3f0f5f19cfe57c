"""What the walls decide without touching the machine: ids, layouts, rights, messages."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beddel_cli.process import filesystem, init, kernel, messages, rights
from beddel_cli.process.init import choose_identity, parse_id_map
from beddel_cli.process.messages import Born, Event, Failed, MessageError, Ready, Request, Shown

EVERYBODY = ((0, 4294967295),)


def test_an_id_map_is_read() -> None:
    assert parse_id_map("         0          0 4294967295\n") == EVERYBODY
    assert parse_id_map("0 1000 1\n1 100000 65536\n") == ((0, 1), (1, 65536))


@given(seed=st.integers(0, 2**64 - 1))
def test_a_throw_away_id_is_one_that_nobody_has(seed: int) -> None:
    identity = choose_identity(EVERYBODY, EVERYBODY, frozenset(), seed)
    assert identity is not None
    assert 1879048192 <= identity <= 2013265919
    taken = frozenset({identity})
    assert choose_identity(EVERYBODY, EVERYBODY, taken, seed) not in (None, identity)
    small = ((0, 1), (1, 65536))
    chosen = choose_identity(small, small, frozenset({65534}), seed)
    assert chosen is not None
    assert 32768 <= chosen <= 65536
    assert choose_identity(((0, 1),), ((0, 1),), frozenset(), seed) is None
    assert choose_identity(EVERYBODY, ((0, 1),), frozenset(), seed) is None


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("/data", ("data",)),
        ("/workspace/a/b", ("workspace", "a", "b")),
        ("/device", ("device",)),
        ("/...", ("...",)),
    ],
)
def test_targets(target: str, parts: tuple[str, ...]) -> None:
    assert filesystem.target_parts(target) == parts


@pytest.mark.parametrize(
    "target",
    ["", "/", "data", "/a//b", "/a/", "/./a", "/a/..", "/proc", "/proc/x", "/dev", "/dev/shm/x"],
)
def test_targets_that_are_none(target: str) -> None:
    with pytest.raises(OSError, match="not a place to mount on") as caught:
        filesystem.target_parts(target)
    assert caught.value.errno == errno.EINVAL


def test_only_listed_names_of_etc_are_shown() -> None:
    present = ["shadow", "passwd", "ssl", "python3.11", "ssh", "java-17", "ld.so.cache", "pythonx"]
    shown = ["ld.so.cache", "ssl/certs", "ssl/openssl.cnf", "java-17", "python3.11"]
    assert filesystem.etc_names(present) == shown
    assert not any("private" in name for name in filesystem.ETC_SHOWN)


@pytest.mark.parametrize("abi", range(1, 8))
def test_landlock_handles_what_its_version_knows(abi: int) -> None:
    handled = rights.handled_rights(abi)
    bits = 13 + (abi >= 2) + (abi >= 3) + (abi >= 5)
    assert handled == (1 << bits) - 1
    attributes = rights.ruleset_attributes(abi)
    words = struct.unpack(f"<{len(attributes) // 8}Q", attributes)
    assert words == ((handled, 0, 3) if abi >= 6 else (handled,))
    folder, file = (rights.written_rights(abi, folder=is_folder) for is_folder in (True, False))
    assert handled & ~folder == 1 << 6 | 1 << 11, "all but making devices"
    # Rights that only folders have make a rule on a file invalid.
    assert file & ~(1 | 2 | 4 | 1 << 14 | 1 << 15) == 0


def test_rlimits() -> None:
    limits = rights.Limits(processes=16, file_bytes=1 << 20, cpu_seconds=11, data_bytes=None)
    values = dict(rights.rlimits(limits))
    assert values[resource.RLIMIT_CORE] == 0
    assert values[resource.RLIMIT_NPROC] == 17
    assert values[resource.RLIMIT_FSIZE] == (1 << 20) + 4096
    assert resource.RLIMIT_AS not in values
    assert resource.RLIMIT_DATA not in values


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
SHOWN = st.builds(
    Shown,
    source=TEXT,
    target=TEXT,
    writable=st.booleans(),
    folder=st.booleans(),
    ready_made=st.booleans(),
)
NUMBER = st.integers(0, 2**63)
REQUESTS = st.builds(
    Request,
    arguments=st.lists(TEXT, min_size=1, max_size=4).map(tuple),
    environment=st.lists(st.tuples(TEXT, TEXT), max_size=4).map(tuple),
    workspace=st.none() | SHOWN,
    workspace_target=TEXT,
    workspace_writable=st.booleans(),
    mounts=st.lists(SHOWN, max_size=3).map(tuple),
    terminal=st.none() | st.tuples(st.integers(0, 999), st.integers(0, 999)),
    counts_memory=st.booleans(),
    counts_processes=st.booleans(),
    memory_bytes=NUMBER,
    cpu_ns=NUMBER,
    processes=NUMBER,
    disk_bytes=NUMBER,
    inodes=NUMBER,
    open_files=NUMBER,
    cgroup_files=st.integers(0, 9),
)


@given(request=REQUESTS)
def test_a_request_arrives_as_it_was_sent(request: Request) -> None:
    assert messages.parse_request(messages.pack_request(request)) == request


@given(request=REQUESTS, cut=st.integers(1, 200))
def test_a_request_that_was_cut_is_refused(request: Request, cut: int) -> None:
    data = messages.pack_request(request)
    with pytest.raises(MessageError):
        messages.parse_request(data[: max(0, len(data) - cut)])


READY = Ready(
    rlimits=0,
    capabilities=1,
    no_new_privs=0,
    landlock=38,
    landlock_abi=0,
    landlock_probe=None,
    seccomp=22,
    own_proc=True,
    setup_ns=12,
    waited_ns=3,
)


def test_messages_before_the_start_arrive_as_sent() -> None:
    born = Born(pid=4242, identity=1999999999, throw_away=True)
    failed = Failed(step="user namespace", errno=28, detail="No space left on device")
    for message, packed in (
        (born, messages.pack_born(born)),
        (failed, messages.pack_failed(failed)),
        (READY, messages.pack_ready(READY)),
    ):
        assert messages.parse_before_start(packed) == message
        assert len(packed) <= messages.MESSAGE_BYTES
    long = messages.pack_failed(Failed("mounts", 2, "x" * 5000))
    assert len(long) == messages.MESSAGE_BYTES


@given(data=st.binary(max_size=80))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    for parse in (messages.parse_before_start, messages.parse_event):
        try:
            parse(data)
        except MessageError:
            continue


def test_messages_with_values_out_of_range_are_refused() -> None:
    for born in (Born(1, 5, False), Born(-1, 5, False)):
        with pytest.raises(MessageError, match="process id"):
            messages.parse_before_start(messages.pack_born(born))
    event = Event(kind=messages.ENDED, errno=0, status=256, maxrss_bytes=1 << 20, detail="")
    packed = messages.pack_event(event)
    assert messages.parse_event(packed) == event
    failed = Failed("start", 11, "Resource temporarily unavailable")
    assert messages.parse_event(messages.pack_failed(failed)) == failed
    for bad in (b"\x01" + packed[1:], packed[:-1], b"", b"\x08" + packed[1:]):
        with pytest.raises(MessageError):
            messages.parse_event(bad)
    with pytest.raises(MessageError, match="out of range"):
        messages.parse_event(messages.pack_event(Event(messages.ENDED, 0, 1 << 16, 0, "")))


def test_a_first_process_that_cannot_be_had_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_process() -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", no_process)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    wake, said = init._make_wake(), os.pipe()
    before = signal.getsignal(signal.SIGCHLD), signal.set_wakeup_fd(-1)
    try:
        init._serve(theirs, None, wake, said)  # type: ignore[arg-type]
        told = messages.parse_event(ours.recv(messages.MESSAGE_BYTES))
    finally:
        signal.signal(signal.SIGCHLD, before[0])
        signal.set_wakeup_fd(before[1])
        for each in (*wake, *said):
            os.close(each)
        ours.close()
        theirs.close()
    assert told == Event(messages.FAULT, errno.EAGAIN, 0, 0, "its first process")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.ENOMEM, errno.E2BIG])
def test_rules_that_cannot_be_made_are_no_missing_landlock(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(_: object = None) -> None:
        raise OSError(number, os.strerror(number))

    def missing() -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(kernel, "prctl", lambda *_: 0)
    monkeypatch.setattr(rights, "_lower", lambda _: None)
    monkeypatch.setattr(kernel, "landlock_abi", lambda: 7)
    limits = rights.Limits(16, 1 << 20, 11, None)
    with pytest.raises(rights.StepError) as caught:
        rights.give_up_by(limits, lambda: None, fail, lambda: None)
    assert (caught.value.step, caught.value.errno) == ("landlock", number)
    if number != errno.EACCES:
        with pytest.raises(rights.StepError) as caught:
            rights.give_up_by(limits, lambda: None, lambda _: None, fail)
        assert (caught.value.step, caught.value.errno) == ("seccomp", number)
    # The control: a kernel that has none says so, and that is for the plan to judge.
    monkeypatch.setattr(kernel, "landlock_abi", missing)
    given = rights.give_up_by(limits, lambda: None, fail, lambda: None)
    assert (given.landlock, given.seccomp) == (errno.ENOSYS, 0)
