"""Mutants of DER by its structure: one element spoiled, the lengths around it made to fit."""

from __future__ import annotations

from collections.abc import Iterator

Element = tuple[int, bytes]
OTHER_TAGS = (0x02, 0x03, 0x04, 0x30, 0x80, 0xA1, 0x1F)
OTHER_VALUES = (b"", b"\x05", b"\xff", b"\x7f" * 300, b"00000101000000Z")
LENGTHS_THAT_LIE = (b"\x80", b"\x84\xff\xff\xff\xff", b"\x88" + b"\xff" * 8)
NESTINGS = 200


def element(tag: int, value: bytes) -> bytes:
    """Give one element, as DER."""
    size = len(value)
    if size < 128:
        return bytes([tag, size]) + value
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + value


def elements(data: bytes) -> list[Element]:
    """Give the elements that stand side by side; none if it is not DER throughout.

    Only what an element's own length says is looked at, and tags of one byte.
    """
    found, at = [], 0
    while at < len(data):
        head = data[at : at + 2]
        if len(head) < 2 or head[0] & 0x1F == 0x1F:
            return []
        begin, size = at + 2, head[1]
        if size > 127:
            begin += size & 0x7F
            size = int.from_bytes(data[at + 2 : begin], "big")
        value = data[begin : begin + size]
        at = begin + size
        found.append((head[0], value))
    whole = b"".join(element(tag, value) for tag, value in found)
    return found if whole == data else []


def mutants(data: bytes) -> Iterator[bytes]:
    """Give the data with each of its elements, however deep, spoiled in each way."""
    inside = elements(data)
    for at, (tag, value) in enumerate(inside):
        before = b"".join(element(*each) for each in inside[:at])
        after = b"".join(element(*each) for each in inside[at + 1 :])
        for spoiled in _spoiled(tag, value):
            yield before + spoiled + after
        # An OCTET STRING often holds further DER.
        if tag & 0x20 or tag == 0x04:
            for value_spoiled in mutants(value):
                yield before + element(tag, value_spoiled) + after


def _spoiled(tag: int, value: bytes) -> Iterator[bytes]:
    good = element(tag, value)
    yield b""
    yield good + good
    yield good[:-1]
    for other in OTHER_TAGS:
        yield element(other, value)
    for other_value in OTHER_VALUES:
        yield element(tag, other_value)
    for length in LENGTHS_THAT_LIE:
        yield bytes([tag]) + length + value
    yield nested(good, NESTINGS)


def nested(inner: bytes, depth: int) -> bytes:
    """Give a SEQUENCE in a SEQUENCE in …, with this in the innermost."""
    for _ in range(depth):
        inner = element(0x30, inner)
    return inner


def inserted(data: bytes, extra: bytes, beside: bytes) -> bytes:
    """Give the data with more in a set that has one element, in a set's order."""
    if data == beside:
        return b"".join(sorted((extra, data)))
    return b"".join(
        element(tag, inserted(value, extra, beside) if beside in value else value)
        for tag, value in elements(data)
    )
