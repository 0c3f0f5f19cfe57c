"""How figures are written for people: with their unit, and `not measured` where there is none."""

from __future__ import annotations

NOT_MEASURED = "not measured"


def milliseconds(nanoseconds: int | None) -> str:
    """Write a time as `12.3 ms`."""
    return NOT_MEASURED if nanoseconds is None else f"{nanoseconds / 1e6:.1f} ms"


def seconds(nanoseconds: int | None) -> str:
    """Write a time as `1.234 s`."""
    return NOT_MEASURED if nanoseconds is None else f"{nanoseconds / 1e9:.3f} s"


def mebibytes(size: int | None) -> str:
    """Write a size as `1.25 MiB`."""
    return NOT_MEASURED if size is None else f"{size / (1 << 20):.2f} MiB"


def size_text(size: int) -> str:
    """Write a size to the byte: `1,234 B`."""
    return f"{size:,} B"


def counted(number: int, noun: str) -> str:
    """Write a number of things: `1 sample`, `2 samples`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
