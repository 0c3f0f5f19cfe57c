"""YAML as data: which values come out, what is refused, and where everything stands."""

from __future__ import annotations

from typing import Any

import pytest

from beddel_cli.errors import JobError
from beddel_cli.yaml_safe import (
    MAX_ALIASES,
    MAX_BYTES,
    MAX_DEPTH,
    MAX_VALUES,
    Document,
    parse_yaml,
)


def parse(text: str) -> Document:
    return parse_yaml(text.encode(), "f.yaml")


def error_of(data: bytes) -> JobError:
    with pytest.raises(JobError) as caught:
        parse_yaml(data, "f.yaml")
    return caught.value


@pytest.mark.parametrize(
    ("written", "value"),
    [
        # Words that YAML 1.1 reads as something else.
        *((word, word) for word in ("no", "yes", "on", "off", "y", "n", "NO", "tRUE", "nULL")),
        *(
            (word, word)
            for word in ("-x", "12:30", "2001-01-01", "1_000", "0b1", "=", "0x", "0o8", "-0x1")
        ),
        *((word, True) for word in ("true", "True", "TRUE")),
        *((word, False) for word in ("false", "False", "FALSE")),
        *((word, None) for word in ("~", "null", "Null", "NULL", "")),
        ("0", 0),
        ("-0", 0),
        ("+12", 12),
        ("-7", -7),
        ("0o14", 12),
        ("0xFf", 255),
        ("12.5", 12.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e3", 1000.0),
        ("-1.5E-2", -0.015),
        ("012.5", 12.5),
        ("-.nan", "-.nan"),
        (".", "."),
        ("1.2.3", "1.2.3"),
        ("1e", "1e"),
        ('"12"', "12"),
        ("'true'", "true"),
        ("! 12", "12"),
        ('"\\u0041\\x42\\e\\n"', "AB\x1b\n"),
        ("9" * 400, int("9" * 400)),
    ],
)
def test_scalars_follow_the_core_schema(written: str, value: Any) -> None:
    got: Any = parse(f"a: {written}\n").value
    assert got == {"a": value}
    assert type(got["a"]) is type(value)


def test_block_scalars_keep_and_fold_lines_as_yaml_says() -> None:
    text = "a: |\n  x\n\n   y\nb: |-\n  z\nc: >\n  one\n  two\nd: |+\n  e\n\n"
    assert parse(text).value == {"a": "x\n\n y\n", "b": "z", "c": "one two\n", "d": "e\n\n"}


def test_lists_mappings_and_their_empty_forms_nest() -> None:
    value = parse("a: [1, {b: [], c: {}}]\nd:\n- e:\n  - f\n").value
    assert value == {"a": [1, {"b": [], "c": {}}], "d": [{"e": ["f"]}]}


# What is written -> where the error stands and what it says.
BAD: list[tuple[bytes, str]] = [
    (b"", "f.yaml: the file is empty"),
    (b"# nothing\n", "f.yaml: the file is empty"),
    (b"a: 012\n", "f.yaml:1:4: a number with leading zeros: 012"),
    (b"a: -00\n", "f.yaml:1:4: a number with leading zeros: -00"),
    (b"a: 0_1\n", "f.yaml:1:4: a number with leading zeros: 0_1"),
    (b"a: 1e400\n", "f.yaml:1:4: a number outside the range of JSON: 1e400"),
    (b"a: -1e400\n", "f.yaml:1:4: a number outside the range of JSON: -1e400"),
    (b"a: .inf\n", "f.yaml:1:4: JSON has no such number: .inf"),
    (b"a: -.INF\n", "f.yaml:1:4: JSON has no such number: -.INF"),
    (b"a: .NaN\n", "f.yaml:1:4: JSON has no such number: .NaN"),
    (b"a: " + b"1" * 401, "f.yaml:1:4: a number of more than 400 digits"),
    (b"a: 0x" + b"1" * 401, "f.yaml:1:4: a number of more than 400 digits"),
    (b"a: 1\nb: 2\na: 3\n", "f.yaml:3:1: duplicate key 'a'"),
    (b'a: 1\n"a": 3\n', "f.yaml:2:1: duplicate key 'a'"),
    (b"x: {a: 1, a: 1}\n", "f.yaml:1:11: duplicate key 'a'"),
    (b"b: &x {k: 1}\na:\n  <<: *x\n", "f.yaml:3:3: merge keys (<<) are not allowed"),
    (b"? [a]\n: 1\n", "f.yaml:1:3: keys must be plain text"),
    (b"? {a: 1}\n: 1\n", "f.yaml:1:3: keys must be plain text"),
    (b"a: &x [1]\n? *x\n: 1\n", "f.yaml:2:3: keys must be plain text"),
    (b"a: !!python/object:os.system x\n", "f.yaml:1:4: tags are not allowed: "),
    (b"a: !!str x\n", "f.yaml:1:4: tags are not allowed: 'tag:yaml.org,2002:str'"),
    (b"!!map\na: 1\n", "f.yaml:1:1: tags are not allowed: 'tag:yaml.org,2002:map'"),
    (b"a: !x [1]\n", "f.yaml:1:4: tags are not allowed: '!x'"),
    (b"%TAG ! tag:x,2000:\n---\na: !y 1\n", "f.yaml:3:4: tags are not allowed: 'tag:x,2000:y'"),
    (b"a: 1\n---\nb: 2\n", "f.yaml:2:1: a second document; only one is read"),
    (b"a: 1\n---\n", "f.yaml:2:1: a second document; only one is read"),
    (b"a: &x [*x]\n", "f.yaml:1:8: alias 'x' stands inside what it names"),
    (b"a: &x 1\nb: &x {c: *x}\n", "f.yaml:2:11: alias 'x' stands inside what it names"),
    (b"a: *x\n", "f.yaml:1:4: alias 'x' names nothing before it"),
    (b"*x", "f.yaml:1:1: alias 'x' names nothing before it"),
    (b"a: *x\nb: &x 1\n", "f.yaml:1:4: alias 'x' names nothing before it"),
    (b"\xef\xbb\xbfa: 1\n", "f.yaml:1:1: character U+FEFF is not allowed"),
    (b"a: 1\nb: \xef\xbb\xbf\n", "f.yaml:2:4: character U+FEFF is not allowed"),
    ("a: 1\n".encode("utf-16"), "f.yaml:1:1: not valid UTF-8"),
    ("a: é\n".encode("latin-1"), "f.yaml:1:4: not valid UTF-8"),
    (b"a: \x00\n", "f.yaml:1:4: character U+0000 is not allowed"),
    (b"a: 1\nb: \x1b[31m\n", "f.yaml:2:4: character U+001B is not allowed"),
    (b"a: \x7f\n", "f.yaml:1:4: character U+007F is not allowed"),
    ("a: \x9b\n".encode(), "f.yaml:1:4: character U+009B is not allowed"),
    ("a: \u2028\n".encode(), "f.yaml:1:4: character U+2028 is not allowed"),
    (b"a: \xed\xa0\x80\n", "f.yaml:1:4: not valid UTF-8"),
    ("a: \uffff\n".encode(), "f.yaml:1:4: character U+FFFF is not allowed"),
    # What libyaml reads and YAML 1.2 does not, or not so.
    (b"{ ?foo: bar }", "f.yaml:1:4: a space is missing after ?"),
    (b"[?x]", "f.yaml:1:3: a space is missing after ?"),
    (b'[?"x": 1]', "f.yaml:1:3: a space is missing after ?"),
    (b"{? , a: 1}", "f.yaml:1:4: a key is missing"),
    (b"[a, : 1]", "f.yaml:1:5: not valid YAML: "),
    (b"- &a b\n- {*a: 1}\n", "f.yaml:2:4: a space is missing after the name 'a'"),
    (b"a: &an:chor value\n", "f.yaml:1:4: a space is missing after the name 'an'"),
    (b"a: &an:chor [value]\n", "f.yaml:1:4: a space is missing after the name 'an'"),
    (b"a: ! &a?b c\n", "f.yaml:1:4: a space is missing after the name 'a'"),
    (b'a: "x"# y\n', "f.yaml:1:7: a space is missing before the comment"),
    (b"a: 'x'# y\n", "f.yaml:1:7: a space is missing before the comment"),
    (b"a: [x]# y\n", "f.yaml:1:7: a space is missing before the comment"),
    (b"a: {x: y}# y\n", "f.yaml:1:10: a space is missing before the comment"),
    (b"a: |# y\n  x\n", "f.yaml:1:4: a space is missing before the comment"),
    (b"a: >-1# y\n  x\n", "f.yaml:1:4: a space is missing before the comment"),
    (b"|\n\n# c\n", "f.yaml:1:1: a comment after a text that is empty and the whole file"),
    (b"--- >\n# c\n", "f.yaml:1:5: a comment after a text that is empty and the whole file"),
    (b"a: [-, x]\n", "f.yaml:1:5: an item that is only -"),
    (b"a: !" + b"x" * 100, f"f.yaml:1:4: tags are not allowed: '!{'x' * 79}'…"),
    (b"a: *" + b"x" * 100, f"f.yaml:1:4: alias '{'x' * 80}'… names nothing before it"),
    (b"a: b: c\n", "f.yaml:1:5: not valid YAML: "),
    (b"a: [1\n", "f.yaml:2:1: not valid YAML: "),
    (b"a: 'x\n", "f.yaml:2:1: not valid YAML: "),
    (b"\ta: 1\n", "f.yaml:1:1: not valid YAML: "),
    (b"a: `x`\n", "f.yaml:1:4: not valid YAML: "),
    (b"%YAML 3.0\n---\na: 1\n", "f.yaml:1:1: not valid YAML: "),
    (b" " * (MAX_BYTES + 1), f"f.yaml: larger than {MAX_BYTES} bytes"),
]


@pytest.mark.parametrize(("data", "wanted"), BAD, ids=range(len(BAD)))
def test_what_is_refused_says_where_it_stands(data: bytes, wanted: str) -> None:
    error = error_of(data)
    assert f"{error.place}: {error.message}".startswith(wanted)


def test_a_duplicate_key_says_where_the_first_one_stands() -> None:
    assert error_of(b"a: 1\nb: 2\na: 3\n").hint == "it stands first in line 1"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{? a : 1, "?b": 2, c?d: e?}', {"a": 1, "?b": 2, "c?d": "e?"}),
        ("? a\n: 1\n?\n  b\n: 2\n?c: 3\n", {"a": 1, "b": 2, "?c": 3}),
        ("- &a b\n- {*a : 1}\n- [*a]\n- &c [1]\n- &d\n  e", ["b", {"b": 1}, ["b"], [1], "e"]),
        ('a: "x" # y\nb: [z] # y\nc: | # y\n  #x\n', {"a": "x", "b": ["z"], "c": "#x\n"}),
        ("- '-'\n- [-1, --]\n- {'': 1}\n", ["-", [-1, "--"], {"": 1}]),
        # A last line of spaces belongs to a block text, with or without its line's end.
        ("foo: |\n  x\n   ", {"foo": "x\n \n"}),
        ("foo: |\n  x\n   \n", {"foo": "x\n \n"}),
        ("foo: |\r  x\r  \t", {"foo": "x\n\t\n"}),
        ("- |+\n   ", ["\n"]),
        ("foo: |\n  x", {"foo": "x"}),
        ("foo: 1\n  ", {"foo": 1}),
        ("|\n  x\n# c\n", "x\n"),
    ],
)
def test_what_stands_beside_the_refused_spellings_is_read(text: str, value: Any) -> None:
    assert parse(text).value == value


def test_a_quoted_merge_key_is_a_key_like_any_other() -> None:
    assert parse("'<<': 1\n").value == {"<<": 1}


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


def test_depth_ends_at_its_limit_and_not_before() -> None:
    assert parse(nested(MAX_DEPTH)).value is not None
    assert error_of(nested(MAX_DEPTH + 1).encode()).message == f"nested deeper than {MAX_DEPTH}"


def test_depth_counts_through_aliases_too() -> None:
    deep = f"- &a {nested(20)}\n- " + "[" * 11 + "*a" + "]" * 11 + "\n"
    assert isinstance(parse(deep).value, list)
    deeper = f"- &a {nested(20)}\n- " + "[" * 12 + "*a" + "]" * 12 + "\n"
    error = error_of(deeper.encode())
    assert error.message == f"nested deeper than {MAX_DEPTH} through an alias"
    assert str(error.place) == "f.yaml:2:15"


def test_the_number_of_values_ends_at_its_limit_and_not_before() -> None:
    # The list is a value too.
    assert parse("[" + "1," * (MAX_VALUES - 1) + "]").value == [1] * (MAX_VALUES - 1)
    error = error_of(("[" + "1," * MAX_VALUES + "]").encode())
    assert error.message == f"more than {MAX_VALUES} values"


def test_keys_count_as_values() -> None:
    pairs = "".join(f"k{n}: 1\n" for n in range(MAX_VALUES // 2))
    assert error_of(pairs.encode()).message == f"more than {MAX_VALUES} values"


def test_aliases_end_at_their_number() -> None:
    text = "- &a 1\n" + "- *a\n" * MAX_ALIASES
    assert parse(text).value == [1] * (MAX_ALIASES + 1)
    error = error_of((text + "- *a\n").encode())
    assert error.message == f"more than {MAX_ALIASES} aliases"
    assert str(error.place) == f"f.yaml:{MAX_ALIASES + 2}:3"


def test_an_anchor_on_a_key_names_its_text() -> None:
    assert parse("&k a: 1\nb: *k\n").value == {"a": 1, "b": "a"}


def test_what_aliases_repeat_counts_as_if_it_were_written_out() -> None:
    # Each line repeats the one before it nine times: a billion laughs.
    lines = ["- &l0 [x]"]
    for n in range(1, 10):
        lines.append(f"- &l{n} [" + ", ".join([f"*l{n - 1}"] * 6) + "]")
    error = error_of("\n".join(lines).encode())
    assert error.message == f"more than {MAX_VALUES} values"


def test_long_text_cannot_be_multiplied_by_aliases() -> None:
    text = "- &a " + "x" * (MAX_BYTES // 2) + "\n- *a\n- *a\n"
    value: Any = parse(text).value
    assert [len(item) for item in value] == [MAX_BYTES // 2] * 3
    error = error_of((text + "- *a\n").encode())
    assert error.message == f"more than {MAX_BYTES} characters repeated by aliases"
    in_keys = "- &a {" + "k" * 1000 + ": 1}\n" + "- [" + "*a, " * 60 + "]\n"
    assert parse(in_keys).value is not None


def test_an_alias_gives_the_value_and_may_stand_for_a_key() -> None:
    assert parse("a: &x word\n*x : 1\nb: [*x]\n").value == {"a": "word", "word": 1, "b": ["word"]}


def test_a_name_that_is_used_again_means_the_later_value() -> None:
    assert parse("- &x 1\n- &x 2\n- *x\n").value == [1, 2, 2]


def test_every_value_and_key_knows_its_place() -> None:
    text = 'a: 1\nbé: "x"\nc:\n  - 7\n  -   {d: e}\n'
    document = parse(text)
    wanted = {
        ("a",): "f.yaml:1:4",
        ("bé",): "f.yaml:2:5",
        ("c",): "f.yaml:4:3",
        ("c", 0): "f.yaml:4:5",
        ("c", 1): "f.yaml:5:7",
        ("c", 1, "d"): "f.yaml:5:11",
    }
    assert {path: str(document.place(path)) for path in wanted} == wanted
    assert str(document.key_place(("c", 1, "d"))) == "f.yaml:5:8"
    assert str(document.key_place(("bé",))) == "f.yaml:2:1"
    assert str(document.place(())) == "f.yaml:1:1"


def test_the_place_of_what_is_not_there_is_that_of_its_nearest_parent() -> None:
    document = parse("a:\n  b: 1\n")
    assert str(document.place(("a", "x", "y"))) == "f.yaml:2:3"
    assert str(document.key_place(("nope",))) == "f.yaml:1:1"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_places_count_lines_alike_whatever_ends_them(end: str) -> None:
    document = parse(end.join(["a: 1", "b:", "  - x", "c: |", "  y", ""]))
    assert document.value == {"a": 1, "b": ["x"], "c": "y\n"}
    assert str(document.place(("b", 0))) == "f.yaml:3:5"
    mark = document.marks[("c",)]
    assert (mark.first_line, mark.first_column) == (5, 3)
