"""How limits are written, compared and combined."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beddel_cli.errors import JobError
from beddel_cli.limits import (
    BY_KEY,
    FIELDS,
    LimitField,
    Limits,
    as_json,
    exceeding,
    fields_of,
    format_limit,
    parse_limit,
    tightest,
)

MEMORY, TIMEOUT, FUEL = BY_KEY["memory"], BY_KEY["timeout"], BY_KEY["fuel"]
CPUS = BY_KEY["cpus"]
SMALLEST = {"size": 1, "time": 1_000_000, "count": 1, "cpus": 1}
LARGEST = {"size": 1 << 40, "time": 86_400_000_000_000, "count": (1 << 53) - 1, "cpus": 1 << 20}


@pytest.mark.parametrize(
    ("field", "written", "number"),
    [
        (MEMORY, "2MiB", 2 << 20),
        (MEMORY, "1.5 KiB", 1536),
        (MEMORY, " 7B ", 7),
        (MEMORY, "1GiB", 1 << 30),
        (MEMORY, "1024GiB", 1 << 40),
        (TIMEOUT, "500ms", 500_000_000),
        (TIMEOUT, "1.5ms", 1_500_000),
        (TIMEOUT, "2s", 2_000_000_000),
        (TIMEOUT, "2min", 120_000_000_000),
        (TIMEOUT, "1440min", 86_400_000_000_000),
        (FUEL, 50_000_000, 50_000_000),
        (FUEL, "50_000_000", 50_000_000),
        (FUEL, "1", 1),
        (FUEL, (1 << 53) - 1, (1 << 53) - 1),
    ],
)
def test_a_limit_is_read_in_its_smallest_unit(
    field: LimitField, written: object, number: int
) -> None:
    assert parse_limit(field, written) == number


@pytest.mark.parametrize(
    ("field", "written", "message", "hint"),
    [
        (MEMORY, "2MB", "memory has no known unit: '2MB'", "write 2MiB"),
        (MEMORY, "2mb", "memory has no known unit: '2mb'", "write 2MiB"),
        (MEMORY, "2G", "memory has no known unit: '2G'", "write 2GiB"),
        (MEMORY, 2, "memory has no known unit: 2", "write 2MiB"),
        (MEMORY, "2", "memory has no known unit: '2'", "write 2MiB"),
        (MEMORY, "2TiB", "memory has no known unit: '2TiB'", None),
        (MEMORY, "MiB", "memory is not a number with a unit: 'MiB'", None),
        (MEMORY, "", "memory has no known unit: ''", None),
        (MEMORY, "-2MiB", "memory has no known unit: '-2MiB'", None),
        (MEMORY, "1e3KiB", "memory has no known unit: '1e3KiB'", None),
        (MEMORY, "\uff12MiB", "memory has no known unit: '\uff12MiB'", None),
        (MEMORY, "1.2.3MiB", "memory is not a number with a unit: '1.2.3MiB'", None),
        (MEMORY, ".5MiB", "memory is not a number with a unit: '.5MiB'", None),
        (MEMORY, "5.MiB", "memory is not a number with a unit: '5.MiB'", None),
        (MEMORY, "9" * 19 + "B", f"memory is not a number with a unit: '{'9' * 19}B'", None),
        (MEMORY, "0.3B", "memory is not a whole number of its smallest unit: '0.3B'", None),
        (MEMORY, "0B", "memory is out of range: '0B'", None),
        (MEMORY, "1025GiB", "memory is out of range: '1025GiB'", None),
        (MEMORY, True, "memory is not a quantity: True", None),
        (MEMORY, None, "memory is not a quantity: None", None),
        (MEMORY, ["2MiB"], "memory is not a quantity: ['2MiB']", None),
        (MEMORY, 2.5, "memory is not a quantity: 2.5", None),
        (TIMEOUT, "2", "timeout has no known unit: '2'", "write 2s"),
        (TIMEOUT, "2sec", "timeout has no known unit: '2sec'", "write 2s"),
        (TIMEOUT, "2m", "timeout has no known unit: '2m'", "write 2min"),
        (TIMEOUT, "2MiB", "timeout has no known unit: '2MiB'", None),
        (TIMEOUT, "0.5ms", "timeout is out of range: '0.5ms'", None),
        (TIMEOUT, "0s", "timeout is out of range: '0s'", None),
        (TIMEOUT, "1441min", "timeout is out of range: '1441min'", None),
        (FUEL, 0, "fuel is out of range: 0", None),
        (FUEL, -5, "fuel is out of range: -5", None),
        (FUEL, 1 << 53, "fuel is out of range: 9007199254740992", None),
        (FUEL, "1e6", "fuel is not a whole number: '1e6'", None),
        (FUEL, "9" * 21, f"fuel is out of range: '{'9' * 21}'", None),
        (FUEL, "___", "fuel is not a whole number: '___'", None),
        (FUEL, "\u0665", "fuel is not a whole number: '\u0665'", None),
        (FUEL, 1.0, "fuel is not a whole number: 1.0", None),
        (FUEL, True, "fuel is not a whole number: True", None),
    ],
)
def test_anything_else_is_an_error_that_suggests_the_right_form(
    field: LimitField, written: object, message: str, hint: str | None
) -> None:
    with pytest.raises(JobError) as caught:
        parse_limit(field, written)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_an_error_of_range_says_the_range_as_a_job_would() -> None:
    with pytest.raises(JobError) as caught:
        parse_limit(TIMEOUT, "0s")
    assert (caught.value.expected, caught.value.got) == ("1ms to 1440min", "0s")


@given(data=st.data(), field=st.sampled_from(FIELDS))
def test_a_limit_that_is_written_out_reads_back_as_itself(
    data: st.DataObject, field: LimitField
) -> None:
    """Writing a limit and reading it again gives the same number."""
    number = data.draw(st.integers(max(field.least, SMALLEST[field.kind]), LARGEST[field.kind]))
    assert parse_limit(field, format_limit(field, number)) == number


@pytest.mark.parametrize(
    ("field", "number", "written"),
    [
        (MEMORY, 2 << 20, "2MiB"),
        (MEMORY, 1537, "1537B"),
        (TIMEOUT, 1_500_000_000, "1500ms"),
        (TIMEOUT, 1_500_000, "1.5ms"),
        (TIMEOUT, 120_000_000_000, "2min"),
        (FUEL, 50_000_000, "50000000"),
        (CPUS, 250, "0.25"),
        (CPUS, 2000, "2"),
        (CPUS, 1, "0.001"),
    ],
)
def test_a_limit_is_written_in_its_largest_whole_unit(
    field: LimitField, number: int, written: str
) -> None:
    assert format_limit(field, number) == written


@given(text=st.text(max_size=30), field=st.sampled_from(FIELDS))
def test_any_text_is_a_limit_in_range_or_our_error(text: str, field: LimitField) -> None:
    """Whatever is written as a limit gives a number in its range, or a JobError."""
    try:
        number = parse_limit(field, text)
    except JobError:
        return
    assert SMALLEST[field.kind] <= number <= LARGEST[field.kind]


def test_the_tightest_takes_the_smaller_of_each_and_what_only_one_side_has() -> None:
    a = Limits(memory_bytes=10, wall_ns=5, fuel=None, output_bytes=None)
    b = Limits(memory_bytes=3, wall_ns=7, fuel=8, output_bytes=None)
    assert tightest(a, b) == Limits(memory_bytes=3, wall_ns=5, fuel=8, output_bytes=None)


def test_exceeding_names_the_limits_that_are_looser_and_no_others() -> None:
    granted = Limits(memory_bytes=10, wall_ns=10, fuel=10)
    asked = Limits(memory_bytes=11, wall_ns=10, fuel=None, output_bytes=99)
    assert [field.key for field in exceeding(asked, granted)] == ["memory"]
    assert exceeding(granted, granted) == ()


def test_every_limit_is_in_the_table_once_and_in_json() -> None:
    names = [field.field for field in FIELDS]
    assert sorted(names) == sorted(Limits.__match_args__)
    for use in ("isolate", "program"):
        assert list(as_json(Limits(), use)) == [field.field for field in fields_of(use)]
    assert as_json(Limits(fuel=3), "isolate")["fuel"] == 3
    assert "fuel" not in as_json(Limits(), "program")
