"""Times as people give them on a command line: an instant, a day, or so long from now. Pure."""

from __future__ import annotations

from beddel_cli.errors import UsageError
from beddel_cli.trust.instants import parse_instant

_UNITS_MS = {"s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
_MOST_DAYS = 36_500


def parse_span(text: str, option: str) -> int:
    """Give the milliseconds of `90d`, `12h`, `15min` or `30s`.

    Raises:
        UsageError: it is none of these.
    """
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    factor = _UNITS_MS.get(text[len(number) :])
    if factor is None or not (number.isascii() and number.isdigit()) or len(number) > 12:
        raise _bad(option, text, "such as 90d, 12h, 15min, 30s")
    if int(number) * factor > _MOST_DAYS * _UNITS_MS["d"]:
        raise _bad(option, text, f"at most {_MOST_DAYS}d")
    return int(number) * factor


def parse_when(text: str, option: str, now_ms: int) -> int:
    """Give the instant, to the second, of `2027-01-31T12:00:00Z`, `2027-01-31`, `now`, or `90d`.

    Raises:
        UsageError: it is none of these.
    """
    if text == "now":
        return now_ms // 1000 * 1000
    if text[:1].isdigit() and text[-1:].islower():
        return (now_ms + parse_span(text, option)) // 1000 * 1000
    try:
        return parse_instant(f"{text}T00:00:00Z" if len(text) == 10 else text) // 1000 * 1000
    except ValueError:
        raise _bad(option, text, "2027-01-31T12:00:00Z, 2027-01-31, now, or 90d from now") from None


def _bad(option: str, text: str, expected: str) -> UsageError:
    return UsageError(f"{option}: no time: {text!r}", expected=expected)
