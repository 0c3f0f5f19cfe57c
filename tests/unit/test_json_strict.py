"""JSON without surprises, in both directions."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beddel_cli import json_strict
from beddel_cli.errors import JobError
from beddel_cli.json_strict import (
    UnportableError,
    canonical_json,
    compact_json,
    deeper_than,
    find_inexact,
    parse_json,
)

SURROGATES = st.characters(categories=["Cs"])
TEXT = st.text(st.characters() | SURROGATES | st.sampled_from('\x00"\\/\u2028\x7f'))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 53), 1 << 53)
    | TEXT
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@given(VALUES)
def test_what_is_written_reads_back_the_same_and_is_utf8(value: Any) -> None:
    """Any JSON value, lone surrogates and NUL included, survives both ways of writing."""
    for written in (compact_json(value), canonical_json(value)):
        assert parse_json(written, "f") == value
        assert b"\n" not in written
        written.decode("utf-8")


@given(st.dictionaries(TEXT, VALUES))
def test_canonical_json_does_not_depend_on_order(value: dict[str, Any]) -> None:
    """Two mappings that are equal give the same canonical bytes."""
    assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=6,
    )
)
def test_we_write_what_the_json_package_writes(value: Any) -> None:
    """Without loading it."""
    for sort_keys, written in ((True, canonical_json(value)), (False, compact_json(value))):
        text = json.dumps(value, ensure_ascii=False, sort_keys=sort_keys, separators=(",", ":"))
        assert written == text.encode()


def test_what_json_cannot_hold_is_not_written() -> None:
    with pytest.raises(TypeError, match="bytes is nothing that JSON has"):
        canonical_json({"a": [b""]})


def test_compact_json_keeps_the_order_of_keys() -> None:
    assert compact_json({"b": 1, "a": [2, "é"]}) == '{"b":1,"a":[2,"é"]}'.encode()
    assert canonical_json({"b": 1, "a": [2, "é"]}) == '{"a":[2,"é"],"b":1}'.encode()
    assert compact_json("\ud800\x00") == b'"\\ud800\\u0000"'


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_our_error(data: bytes) -> None:
    """Reading any bytes gives a value of JSON's types or a JobError that names the file."""
    try:
        value = parse_json(data, "f.json")
    except JobError as error:
        place = error.place
    else:
        assert json.loads(data) == value
        return
    assert place is not None
    assert place.file == "f.json"


BAD: list[tuple[bytes, str]] = [
    (b"", "f:1:1: not valid JSON: expecting value"),
    (b"{", "f:1:2: not valid JSON: expecting property name enclosed in double quotes"),
    (b"[1,\n 2,\n x]", "f:3:2: not valid JSON: expecting value"),
    (b"1 2", "f:1:3: not valid JSON: extra data"),
    (b"'a'", "f:1:1: not valid JSON: expecting value"),
    (b'"a\nb"', "f:1:3: not valid JSON: invalid control character at"),
    (b"\xef\xbb\xbf1", "f:1:1: not valid JSON: it begins with a byte order mark"),
    (b"[1,\n\xff]", "f:2:1: not valid UTF-8"),
    ("1".encode("utf-16"), "f:1:1: not valid UTF-8"),
    (b"\xed\xa0\x80", "f:1:1: not valid UTF-8"),
    ('"é"\n"é'.encode() + b"\xff", "f:2:3: not valid UTF-8"),
    (b"NaN", "f:1:1: JSON has no such number: NaN"),
    (b"[-Infinity]", "f:1:2: JSON has no such number: -Infinity"),
    (b'{"NaN": ["Infinity\\"", 1,\n Infinity]}', "f:2:2: JSON has no such number: Infinity"),
    (b"1e400", "f:1:1: a number outside the range of JSON: 1e400"),
    (b"1e999-", "f:1:1: a number outside the range of JSON: 1e999"),
    (b"[1,\n -1e400]", "f:2:2: a number outside the range of JSON: -1e400"),
    (b'{"a":1,"b":2,"a":1}', "f:1:14: duplicate key 'a'"),
    (b'{"a":1,"\\u0061":1}', "f:1:8: duplicate key 'a'"),
    (b'{"a":{"b":1},\n "c":[{"b":{}, "b" :1}]}', "f:2:16: duplicate key 'b'"),
    (b'{"a":1,"a":1,"b":NaN}', "f:1:8: duplicate key 'a'"),
    (b'{"%b":1,"%b":1}' % (b"k" * 99, b"k" * 99), f"f:1:106: duplicate key '{'k' * 80}'…"),
    (b"9" * 401, "f:1:1: a number of more than 400 digits"),
    (b"[0.5, 0." + b"9" * 399 + b"]", "f:1:7: a number of more than 400 digits"),
    (b"9" * 100_000, "f:1:1: a number of more than 400 digits"),
    (b"[" * 257, "f:1:257: nested deeper than 256"),
    (b"[" * 100_000, "f:1:257: nested deeper than 256"),
    (b'{"a":' * 100_000, "f:1:1281: nested deeper than 256"),
    (b'["\\\\", "[[\\"", ' + b"[\n" * 256, "f:256:1: nested deeper than 256"),
    (b"[" * 256 + b"]" * 254 + b",[" + b"[" * 254, "f:1:766: nested deeper than 256"),
    (b"[" + b"1," * 1_000_000 + b"1]", "f:1:1999999: more than 1000000 values"),
    (b"[" + b'"\\\\",' * 1_000_000 + b"1]", "f:1:4999996: more than 1000000 values"),
]


@pytest.mark.parametrize(("data", "shown"), BAD, ids=range(len(BAD)))
def test_what_is_refused_says_where_and_why(data: bytes, shown: str) -> None:
    with pytest.raises(JobError) as caught:
        parse_json(data, "f")
    assert f"{caught.value.place}: {caught.value.message}" == shown
    portable_grammar = not caught.value.message.startswith("not valid")
    assert isinstance(caught.value, UnportableError) == portable_grammar


FAULTS = (
    b'{"a": 1 "b"}',
    b'["\x01"]',
    b"[1 2]",
    b'{"a" 1}',
    b"{1: 2}",
    b'"\\x"',
    b'"a',
    b"[1,]",
    b"[",
)


@pytest.mark.parametrize("data", FAULTS)
def test_what_is_wrong_is_said_in_a_process_that_has_not_loaded_json(data: bytes) -> None:
    """As on the way of a plain run; CPython 3.11's scanner alone raises a SystemError there."""
    code = (
        "import sys\n"
        "from beddel_cli.errors import JobError\n"
        "from beddel_cli.json_strict import parse_json\n"
        "assert 'json' not in sys.modules, 'the control'\n"
        "try:\n"
        "    parse_json(sys.stdin.buffer.read(), 'f')\n"
        "except JobError as error:\n"
        "    print(error.place, error.message)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=data, capture_output=True, check=True, text=False
    )
    with pytest.raises(JobError) as here:
        parse_json(data, "f")
    assert done.stdout.decode().strip() == f"{here.value.place} {here.value.message}"


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 256 + b"]" * 256,
        b'{"a":' * 254 + b"[[]" + b"]" + b"}" * 254,
        b"[" + b",".join([b"[" * 255 + b"]" * 255] * 300) + b"]",
        b"[" + b"1," * 999_998 + b"1]",
        b'["' + b"[{,:" * 1_000_000 + b'", "\\"[[", "\\\\", []]',
        b'["' + b"\\\\" * 40_000 + b'", "' + b"[" * 300 + b'"]',
        b'["' + b"x" * 65_533 + b'\\"' + b"[" * 300 + b'"]',
        b'["' + b"x" * 65_532 + b"\\\\" + b'", [], "' + b"[" * 300 + b'"]',
        b"-" + b"9" * 399,
    ],
    ids=range(9),
)
def test_what_is_at_a_limit_or_only_looks_beyond_it_is_read(data: bytes) -> None:
    assert parse_json(data, "f") == json.loads(data)


def _nesting(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max(map(_nesting, inner), default=0) if isinstance(value, (dict, list)) else 0


PIECES = st.sampled_from(
    (
        b"[",
        b"]",
        b"{",
        b"}",
        b'"',
        b"\\",
        b'\\"',
        b"\\\\",
        b",",
        b":",
        b"1",
        b'"a":',
        b"[" * 200,
        b" ",
    )
)


@given(st.lists(PIECES, max_size=30).map(b"".join), st.sampled_from((1, 2, 3, 1 << 16)))
def test_depth_is_judged_on_bytes_as_a_parser_judges_it(data: bytes, piece: int) -> None:
    """A text that is JSON is too deep by its bytes just when its value is, however it is cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_strict, "MAX_DEPTH", 2)
        patch.setattr(json_strict, "_PIECE_BYTES", piece)
        excess = json_strict.find_excess(data)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return
    assert (excess is not None) == (_nesting(value) > 2)


@given(VALUES)
def test_values_are_judged_alike_however_they_are_cut(value: Any) -> None:
    """Any value is found too deep just when it is, in pieces of any size."""
    data = compact_json([value, value])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_strict, "MAX_DEPTH", 3)
        whole = json_strict.find_excess(data)
        patch.setattr(json_strict, "_PIECE_BYTES", 5)
        assert json_strict.find_excess(data) == whole
    assert (whole is not None) == (_nesting([value, value]) > 3)


@pytest.mark.parametrize(
    ("value", "path", "why"),
    [
        (1 << 53, (), "a whole number"),
        ({"a": [0, {"b": -(1 << 53)}]}, ("a", 1, "b"), "a whole number"),
    ],
)
def test_numbers_that_javascript_would_change_are_found(
    value: Any, path: tuple[Any, ...], why: str
) -> None:
    found = find_inexact(value)
    assert found is not None
    assert found[0] == path
    assert found[1].startswith(why)


@pytest.mark.parametrize("value", [(1 << 53) - 1, 0.1, 1e300, True, {"a": ["9" * 30]}])
def test_numbers_that_arrive_are_not_found(value: Any) -> None:
    assert find_inexact(value) is None


def nested(levels: int) -> Any:
    value: Any = 0
    for level in range(levels):
        value = [value] if level % 2 else {"k": value, "a": 1}
    return value


def test_depth_is_counted_exactly_and_without_recursion() -> None:
    assert not deeper_than(nested(256), 256)
    assert deeper_than(nested(257), 256)
    assert deeper_than(nested(50_000), 256)
    assert not deeper_than(0, 0)
    assert deeper_than([], 0)
    assert find_inexact(nested(256)) is None
    assert find_inexact(nested(257)) is not None
