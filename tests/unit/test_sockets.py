"""What the sockets of a network namespace hold, asked of the kernel."""

from __future__ import annotations

import os
import socket
import struct
import time
from contextlib import ExitStack

import pytest

from beddel_cli.process.sockets import PROTOCOL, Sockets, parse_counts, parse_memory

FIGURES = (1000, 9, 500, 9, 30, 700, 9, 4)


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def test_an_entry() -> None:
    entry = b"x" * 28 + attribute(3, b"abcde") + attribute(0, struct.pack("=9I", *FIGURES, 0))
    assert parse_memory(entry, 28, 0) == 1000 + 700 + 30 + 9 + 4
    assert parse_memory(entry, 28, 7) is None


@pytest.mark.parametrize("rest", [b"", b"\0", attribute(0, b"short"), struct.pack("=HH", 0, 0)])
def test_an_entry_that_says_nothing(rest: bytes) -> None:
    assert parse_memory(b"x" * 28 + rest, 28, 0) is None


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("sockets: used 15\nTCP: inuse 1 orphan 0 tw 4\n", {"sockets": 15, "TCP": 1}),
        ("TCP6: inuse 2\nFRAG6: inuse 0 memory 0\n", {"TCP6": 2, "FRAG6": 0}),
        ("sockets: used\n", {}),
        ("sockets: used x\n", {}),
        ("sockets: memory 4\n", {}),
        ("", {}),
    ],
)
def test_the_counts(text: str, counts: dict[str, int]) -> None:
    assert parse_counts(text) == counts


@pytest.mark.parametrize("counted", [False, True])
def test_data_that_waits_is_seen(counted: bool) -> None:
    """Beside others of this namespace, in which tests run: never less than what waits."""
    asked = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, PROTOCOL)
    ours, theirs = socket.socketpair()
    with asked, ours, theirs:
        before = Sockets(os.getpid(), asked.fileno(), counted=counted)
        pairs = [socket.socketpair() for _ in range(20)]
        for sender, _ in pairs:
            sender.send(bytes(100_000))
        held = before.held_bytes()
        # What a cgroup counts is not asked for.
        assert (held >= 2_000_000) is not counted
        for sender, _ in pairs:
            sender.close()
        orphaned = before.held_bytes()
        for _, receiver in pairs:
            receiver.close()
        assert (orphaned >= 2_000_000) is not counted


def test_a_descriptor_that_does_not_answer() -> None:
    with open("/dev/null", "r+b") as nothing:
        assert Sockets(os.getpid(), nothing.fileno(), counted=True).held_bytes() == 0


def test_what_a_kernel_does_not_list_is_charged_in_full() -> None:
    with open("/dev/null", "r+b") as nothing:
        asked = Sockets(os.getpid(), nothing.fileno(), counted=False)
        with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
            client.connect(server.getsockname())
            other, _ = server.accept()
            with other, ExitStack() as many:
                # The namespace is everybody's here, and others may close theirs meanwhile.
                for _ in range(64):
                    many.enter_context(socket.socket(socket.AF_UNIX))
                # Connections are looked at every tenth of a second.
                time.sleep(0.15)
                assert asked.held_bytes() >= 4 * 212_992
