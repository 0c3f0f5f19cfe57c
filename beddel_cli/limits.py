"""Limits of a run: what they are called, how they are written, which of two is tighter.

One table serves the job's `limits`, the profile's, the command line's flags and the receipt. Some
limits are for isolates, some for programs, some for both. Units are written out, since `2MB` and
`500` have meant too many things.
"""

from __future__ import annotations

from beddel_cli.errors import JobError
from beddel_cli.record import changed, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_SIZE_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_TIME_UNITS = {"ms": 1_000_000, "s": 1_000_000_000, "min": 60_000_000_000}
_WRONG_UNITS = {
    "B": {"K": "KiB", "KB": "KiB", "k": "KiB", "kB": "KiB", "M": "MiB", "MB": "MiB", "m": "MiB"}
    | {"mb": "MiB", "G": "GiB", "GB": "GiB", "gb": "GiB", "kib": "KiB", "mib": "MiB"},
    "s": {"sec": "s", "secs": "s", "seconds": "s", "S": "s", "m": "min", "mins": "min"}
    | {"minutes": "min", "msec": "ms", "millis": "ms", "MS": "ms"},
}
# Beyond these no figure means anything, and none fits every field it travels in.
_LARGEST = {"size": 1 << 40, "time": 86_400_000_000_000, "count": (1 << 53) - 1, "cpus": 1 << 20}
_SMALLEST = {"size": 1, "time": 1_000_000, "count": 1, "cpus": 1}


@record
class Limits:
    """The limits of one run. None: not limited here.

    Attributes:
        memory_bytes: linear memory of the isolate, or memory of all processes of a program.
        wall_ns: time from the job entering the walls to its ending.
        fuel: instructions of the engine's own accounting.
        output_bytes: the result as JSON, or both output streams of a program together.
        console_bytes: what `console` may keep.
        cpu_ns: CPU time of all processes together.
        milli_cpus: how many thousandths of a CPU all processes may use at once.
        processes: how many processes and threads there may be at once.
        disk_bytes, inodes: what all processes may have written at once, and files they may have.
        open_files: descriptors of one process.
    """

    memory_bytes: int | None = None
    wall_ns: int | None = None
    fuel: int | None = None
    output_bytes: int | None = None
    console_bytes: int | None = None
    cpu_ns: int | None = None
    milli_cpus: int | None = None
    processes: int | None = None
    disk_bytes: int | None = None
    inodes: int | None = None
    open_files: int | None = None


ISOLATE, PROGRAM = "isolate", "program"


@record
class LimitField:
    """One limit: its key in YAML and (with hyphens) on the command line, field, kind and use.

    Attributes:
        kind: `size` in bytes, `time` in nanoseconds, `count`, or `cpus` in thousandths.
        uses: what can be limited so: `isolate`, `program` or both.
        least: the smallest that can work.
    """

    key: str
    field: str
    kind: str
    help: str
    uses: tuple[str, ...] = (PROGRAM,)
    least: int = 1


_BOTH = (ISOLATE, PROGRAM)
FIELDS = (
    LimitField("memory", "memory_bytes", "size", "memory of the job, such as 1MiB", _BOTH),
    LimitField("timeout", "wall_ns", "time", "wall-clock time of the job, such as 500ms", _BOTH),
    LimitField("fuel", "fuel", "count", "engine instructions the job may spend", (ISOLATE,)),
    LimitField("max_output", "output_bytes", "size", "size of the output, such as 64KiB", _BOTH),
    LimitField(
        "max_console", "console_bytes", "size", "what console.* may keep, such as 16KiB", (ISOLATE,)
    ),
    LimitField("cpu_time", "cpu_ns", "time", "CPU time of all processes, such as 2s"),
    LimitField("cpus", "milli_cpus", "cpus", "CPUs all processes may use at once, such as 0.5"),
    LimitField("processes", "processes", "count", "processes and threads at once, such as 8"),
    LimitField("disk", "disk_bytes", "size", "bytes written and kept, such as 8MiB"),
    LimitField("inodes", "inodes", "count", "files and folders made and kept, such as 500"),
    # Standard input, output and error are open from the start.
    LimitField(
        "open_files", "open_files", "count", "descriptors of one process, such as 32", least=3
    ),
)
BY_KEY = {field.key: field for field in FIELDS}


def fields_of(use: str) -> tuple[LimitField, ...]:
    """Give the limits that an `isolate` or a `program` can have, in the order of the table."""
    return tuple(field for field in FIELDS if use in field.uses)


def use_of(runtime: str) -> str:
    """Give what a runtime runs: a `program`, or code in an `isolate`."""
    return PROGRAM if runtime == "process" else ISOLATE


def parse_limit(field: LimitField, value: object) -> int:
    """Read one limit as a job, a profile or a flag writes it, in the unit of its kind.

    Raises:
        JobError: wrong type, unit or range, with what was expected.
    """
    if field.kind == "count":
        number = _parse_count(field, value)
    elif field.kind == "cpus":
        number = _parse_cpus(field, value)
    else:
        units = _SIZE_UNITS if field.kind == "size" else _TIME_UNITS
        number = _parse_quantity(field, value, units)
    least = max(field.least, _SMALLEST[field.kind])
    if not least <= number <= _LARGEST[field.kind]:
        raise JobError(
            f"{field.key} is out of range: {value!r}",
            expected=f"{format_limit(field, least)} to {format_limit(field, _LARGEST[field.kind])}",
            got=str(value),
        )
    return number


def _parse_count(field: LimitField, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    # As `count` in schema.json says.
    if isinstance(value, str) and len(value) <= 21 and value.isascii() and value[:1].isdigit():
        digits = value.replace("_", "")
        if digits.isdigit():
            return int(digits)
    raise JobError(
        f"{field.key} is not a whole number: {value!r}", expected="a number such as 50000000"
    )


def _parse_cpus(field: LimitField, value: object) -> int:
    text = str(value)
    if not isinstance(value, bool) and isinstance(value, (int, float, str)):
        whole, point, fraction = text.partition(".")
        digits = whole + fraction
        proper = whole and (fraction or not point) and len(fraction) <= 3 and len(digits) <= 10
        if proper and digits.isascii() and digits.isdigit():
            return int(whole + fraction.ljust(3, "0"))
    raise JobError(
        f"{field.key} is not a number of CPUs: {value!r}",
        expected="a number with at most three decimals, such as 0.25",
    )


def _parse_quantity(field: LimitField, value: object, units: dict[str, int]) -> int:
    example = "2MiB" if "B" in units else "500ms"
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise JobError(
            f"{field.key} is not a quantity: {value!r}", expected=f"a text such as {example}"
        )
    # Spaces and tabs alone, as `size` and `time` in schema.json say.
    text = str(value).strip(" \t")
    digits = len(text) - len(text.lstrip("0123456789."))
    number, unit = text[:digits], text[digits:].strip(" \t")
    if unit not in units:
        suggestion = _WRONG_UNITS["B" if "B" in units else "s"].get(unit)
        if not unit:
            large = number.isdigit() and len(number) > 4
            suggestion = ("B" if large else "MiB") if "B" in units else "ms" if large else "s"
        hint = f"write {number}{suggestion}" if suggestion and number else None
        raise JobError(
            f"{field.key} has no known unit: {value!r}",
            expected=f"a number with {', '.join(units)}, such as {example}",
            hint=hint,
        )
    return _scale(field, value, number, units[unit])


def _scale(field: LimitField, value: object, number: str, factor: int) -> int:
    whole, point, fraction = number.partition(".")
    if not whole or (point and not fraction) or "." in fraction or len(number) > 18:
        raise JobError(f"{field.key} is not a number with a unit: {value!r}")
    scaled = int(whole + fraction) * factor
    divisor: int = 10 ** len(fraction)
    if scaled % divisor:
        raise JobError(
            f"{field.key} is not a whole number of its smallest unit: {value!r}",
            expected="a quantity without a rest",
        )
    return scaled // divisor


def format_limit(field: LimitField, number: int) -> str:
    """Write a limit as a job would, exactly: 2MiB, 1500ms, 50000000, 0.25."""
    if field.kind == "count":
        return str(number)
    if field.kind == "cpus":
        return f"{number // 1000}.{number % 1000:03}".rstrip("0").rstrip(".")
    units = _SIZE_UNITS if field.kind == "size" else _TIME_UNITS
    for unit, factor in sorted(units.items(), key=lambda item: -item[1]):
        if number % factor == 0 and number >= factor:
            return f"{number // factor}{unit}"
    # Bytes always divide; what is left is a time with a fraction of a millisecond.
    whole, rest = divmod(number, _TIME_UNITS["ms"])
    return f"{whole}.{rest:06}".rstrip("0") + "ms"


def tightest(a: Limits, b: Limits) -> Limits:
    """Give the smaller of each limit; a limit only one side has is that one."""
    return _combine(a, b, min)


def _combine(a: Limits, b: Limits, choose: Callable[[int, int], int]) -> Limits:
    values: dict[str, int | None] = {}
    for field in FIELDS:
        left, right = getattr(a, field.field), getattr(b, field.field)
        if left is None or right is None:
            values[field.field] = right if left is None else left
        else:
            values[field.field] = choose(left, right)
    return changed(a, **values)


def exceeding(asked: Limits, granted: Limits) -> tuple[LimitField, ...]:
    """Give the limits in which `asked` is looser than `granted`; empty means it fits."""
    over = []
    for field in FIELDS:
        want, have = getattr(asked, field.field), getattr(granted, field.field)
        if want is not None and have is not None and want > have:
            over.append(field)
    return tuple(over)


def as_json(limits: Limits, use: str) -> dict[str, int | None]:
    """Give the limits of an `isolate` or `program` by field name, in the order of the table."""
    return {field.field: getattr(limits, field.field) for field in fields_of(use)}
