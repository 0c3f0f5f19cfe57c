"""Instants as our documents spell them: RFC 3339 in UTC, one spelling each. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECONDS, _MILLISECONDS = "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S.%fZ"


def parse_instant(text: str) -> int:
    """Give the milliseconds since 1970 of `2026-11-22T05:00:00Z` or `2026-11-22T05:00:00.123Z`.

    Raises:
        ValueError: it is spelt otherwise, or no such instant exists.
    """
    form = _MILLISECONDS if "." in text else _SECONDS
    instant = datetime.strptime(text, form).replace(tzinfo=UTC)
    number = (instant - _EPOCH) // timedelta(milliseconds=1)
    # strptime also takes one-digit months, and more or fewer digits of a second than we write.
    if show_instant(number, milliseconds="." in text) != text:
        raise ValueError(f"not an instant as it is spelt here: {text!r}")
    return number


def show_instant(instant_ms: int, *, milliseconds: bool = False) -> str:
    """Give the instant in its spelling, to the second unless milliseconds are asked for."""
    instant = _EPOCH + timedelta(milliseconds=instant_ms)
    text = f"{instant.year:04}-{instant.month:02}-{instant.day:02}T{instant:%H:%M:%S}"
    return f"{text}.{instant.microsecond // 1000:03}Z" if milliseconds else f"{text}Z"
