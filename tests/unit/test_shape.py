"""The interpreter of our schema: what each keyword refuses, in which words, and where."""

from __future__ import annotations

from typing import Any

import pytest

from beddel_cli import shape
from beddel_cli.errors import JobError
from beddel_cli.yaml_safe import parse_yaml

DEFINITIONS: dict[str, Any] = {"small": {"type": "integer", "maximum": 9}}
THREE = {"a": 1, "b": True, "c": "x"}


def problems(value: Any, schema: shape.Schema) -> list[shape.Problem]:
    return shape.find_problems(value, schema, DEFINITIONS.__getitem__, {})


def obj(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties}


# A schema, values that fit, and one that does not: with its path, message and expectation.
KEYWORDS: list[tuple[shape.Schema, list[Any], Any, tuple[Any, ...], str, str | None]] = [
    (True, [1, None, {}], 0, (), "", None),
    (False, [], 1, (), "the document is not allowed", None),
    ({"type": "string"}, ["", "x"], 1, (), "the document is a whole number", "text"),
    ({"type": "integer"}, [0, -1], True, (), "the document is true or false", "a whole number"),
    ({"type": "integer"}, [1], 1.0, (), "the document is a number", "a whole number"),
    ({"type": "number"}, [1, 0.5], False, (), "the document is true or false", "a number"),
    ({"type": "boolean"}, [True, False], 1, (), "the document is a whole number", "true or false"),
    ({"type": ["object", "null"]}, [{}, None], [], (), "the document is a list", "a mapping"),
    (
        {"type": ["integer", "string"]},
        [1, "1"],
        None,
        (),
        "the document is nothing",
        "a whole number or text",
    ),
    (obj(a={"const": 1}), [{"a": 1}, {"a": 1.0}], {"a": True}, ("a",), "a is True", "a: 1"),
    (
        obj(a={"const": 1, "title": "format"}),
        [{"a": 1}],
        {"a": 2},
        ("a",),
        "format 2 is not known",
        "a: 1",
    ),
    (obj(a={"enum": ["x", "y"]}), [{"a": "y"}], {"a": "z"}, ("a",), "a is 'z'", "x or y"),
    (
        obj(a={"enum": ["x", None], "title": "word"}),
        [{"a": None}],
        {"a": ["x"]},
        ("a",),
        "unknown word ['x']",
        "x",
    ),
    (
        obj(a={"pattern": "^[a-z]{1,2}$"}),
        [{"a": "ab"}, {"a": 1}],
        {"a": "ab\n"},
        ("a",),
        "not a valid a: 'ab\\n'",
        "^[a-z]{1,2}$",
    ),
    (
        obj(a={"pattern": "^[a-z]$", "patternErrorMessage": "a letter", "title": "initial"}),
        [{"a": "a"}],
        {"a": "\na"},
        ("a",),
        "not a valid initial: '\\na'",
        "a letter",
    ),
    (
        obj(a={"minLength": 2, "maxLength": 3}),
        [{"a": "xx"}, {"a": "xxx"}],
        {"a": "x"},
        ("a",),
        "a has 1 characters",
        "at least 2",
    ),
    (
        obj(a={"maxLength": 3}),
        [{"a": "€€€"}],
        {"a": "xxxx"},
        ("a",),
        "a has 4 characters",
        "at most 3",
    ),
    (obj(a={"minimum": 1}), [{"a": 1}, {"a": "0"}], {"a": 0.5}, ("a",), "a is 0.5", "at least 1"),
    (obj(a={"$ref": "#/$defs/small"}), [{"a": 9}], {"a": 10}, ("a",), "a is 10", "at most 9"),
    ({"required": ["a"]}, [THREE, []], {}, ("a",), "missing key 'a'", None),
    (obj(a={}), [{}, {"a": 1}], {"z": 1}, ("z",), "unknown key 'z'", "a"),
    (
        {"additionalProperties": {"type": "string"}},
        [{"z": "x"}],
        {"z": 1},
        ("z",),
        "z is a whole number",
        "text",
    ),
    (
        {"items": {"type": "string"}},
        [["a"], [], {}],
        ["a", 1],
        (1,),
        "[1] is a whole number",
        "text",
    ),
    (obj(a={"minItems": 1}), [{"a": [0]}], {"a": []}, ("a",), "a has 0 items", "at least 1"),
    (
        obj(a={"uniqueItems": True}),
        [{"a": [1, True, "1", [1], {"x": 1}]}],
        {"a": [{"x": 1, "y": [2]}, {"y": [2], "x": 1}]},
        ("a", 1),
        "{'y': [2], 'x': 1} stands twice in a",
        "each item once",
    ),
    ({"allOf": [{"type": "integer"}, {"minimum": 5}]}, [5], 4, (), " is 4", "at least 5"),
    ({"not": {"const": 3}}, [4], 3, (), "the document is not allowed", None),
    ({"not": {}, "errorMessage": "no such thing"}, [], 3, (), "no such thing", None),
    (
        {"if": {"required": ["a"]}, "then": {"required": ["b"]}},
        [{}, {"a": 1, "b": 2}],
        {"a": 1},
        ("b",),
        "missing key 'b'",
        None,
    ),
    (
        {"if": {"required": ["a"]}, "else": {"required": ["b"], "errorMessage": "a or b"}},
        [{"b": 1}, {"a": 1}],
        {},
        ("b",),
        "a or b",
        None,
    ),
]


@pytest.mark.parametrize(
    ("schema", "fitting", "wrong", "path", "message", "expected"),
    KEYWORDS,
    ids=range(len(KEYWORDS)),
)
def test_each_keyword_refuses_what_it_says_and_nothing_else(
    schema: shape.Schema,
    fitting: list[Any],
    wrong: Any,
    path: tuple[Any, ...],
    message: str,
    expected: str | None,
) -> None:
    for value in fitting:
        assert problems(value, schema) == []
    found = problems(wrong, schema)
    assert [(item.path, item.message, item.expected) for item in found] == (
        [(path, message, expected)] if message else []
    )


def test_a_reader_checks_instead_of_the_definition_it_stands_for() -> None:
    def read(path: tuple[str | int, ...], value: Any) -> shape.Problem | None:
        return None if value == 10 else shape.Problem(path, "not ten")

    schema = obj(a={"$ref": "#/$defs/small"})
    for value, messages in ((10, []), (1, ["not ten"])):
        found = shape.find_problems({"a": value}, schema, DEFINITIONS.__getitem__, {"small": read})
        assert [item.message for item in found] == messages


class Untouched(dict[str, Any]):
    """A mapping that nobody may walk."""

    def items(self) -> Any:
        raise AssertionError("walked")


def test_a_value_about_which_nothing_is_said_is_not_looked_at() -> None:
    large = {"input": Untouched(a=1)}
    assert problems(large, obj(input={"description": "any"})) == []
    with pytest.raises(AssertionError, match="walked"):
        problems(large, obj(input={"properties": {"a": True}}))


SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["first", "second"],
    "properties": {
        "first": {"type": "integer", "const": 1},
        "second": {},
        "inner": obj(key={"enum": ["red", "green"]}, gone={"not": {}, "errorMessage": "not now"}),
    },
}
TEXT = """\
inner:
  gone: 1
  kee: x
  key: gren
first: one
other: x
"""


def check(text: str, schema: shape.Schema) -> None:
    document = parse_yaml(text.encode(), "f.yaml")
    shape.check(document, problems(document.value, schema))


def test_everything_wrong_is_told_at_once_in_the_order_of_the_file() -> None:
    with pytest.raises(JobError) as caught:
        check(TEXT, SCHEMA)
    told = [
        (str(error.place), error.message, error.expected, error.hint)
        for error in (caught.value, *caught.value.more)
    ]
    assert told == [
        ("f.yaml:1:1", "missing key 'second'", None, "add `second: …`"),
        ("f.yaml:2:3", "not now", None, "remove 'gone'"),
        ("f.yaml:3:3", "unknown key 'kee' in inner", "key", "did you mean 'key'?"),
        ("f.yaml:4:8", "inner.key is 'gren'", "red or green", "did you mean 'green'?"),
        ("f.yaml:5:8", "first is text", "a whole number", None),
        ("f.yaml:6:1", "unknown key 'other'", "first, second, inner", None),
    ]
    assert all(error.more == () for error in caught.value.more)


def test_a_misspelt_key_is_not_missing_as_well() -> None:
    with pytest.raises(JobError) as caught:
        check("frist: 1\nzzz: 1\n", SCHEMA)
    told = [error.message for error in (caught.value, *caught.value.more)]
    assert told == ["unknown key 'frist'", "missing key 'second'", "unknown key 'zzz'"]


def test_what_fits_raises_nothing() -> None:
    check("first: 1\nsecond: [x]\ninner: {key: red}\n", SCHEMA)


def test_one_value_has_one_problem() -> None:
    with pytest.raises(JobError) as caught:
        check("a: x\n", obj(a={"allOf": [{"const": 1}, {"const": 2}], "type": "integer"}))
    assert caught.value.more == ()
    assert caught.value.expected == "a: 1"


FLOODS: list[tuple[str, shape.Schema]] = [
    ("".join(f"k{n}: 1\n" for n in range(500)), obj()),
    ("- 1\n" * 500, {"items": {"type": "string"}}),
    ("- 1\n" * 500, {"uniqueItems": True}),
    ("".join(f"- k{n}: 1\n" for n in range(500)), {"items": obj()}),
]


@pytest.mark.parametrize(("text", "schema"), FLOODS, ids=range(len(FLOODS)))
def test_a_flood_of_problems_is_cut_and_told_from_its_start(text: str, schema: Any) -> None:
    with pytest.raises(JobError) as caught:
        check(text, schema)
    lines = [error.place.line for error in (caught.value, *caught.value.more) if error.place]
    first = lines[0]
    assert first is not None
    assert lines == [*range(first, first + shape.MAX_PROBLEMS), None]
    assert first <= 2
    assert caught.value.more[-1].message == "and more; these are the first"
    assert len(problems(parse_yaml(text.encode(), "f").value, schema)) == shape.MAX_PROBLEMS + 1


def test_what_is_not_there_is_none() -> None:
    document = parse_yaml(b"word: x\ninner: {key: value}\n", "f.yaml")
    assert shape.at(document, ()) == document.value
    assert shape.at(document, ("inner", "key")) == "value"
    for path in (("nope",), ("word", "x"), ("inner", "key", "x")):
        assert shape.at(document, path) is None


def test_a_near_miss_is_suggested_and_a_far_one_is_not() -> None:
    assert shape.suggestion("memroy", ("memory", "timeout")) == "did you mean 'memory'?"
    assert shape.suggestion("x", ("memory", "timeout")) is None
    assert shape.suggestion("m" * 1_000_000, ("memory", "timeout")) is None


@pytest.mark.parametrize(
    ("path", "text"),
    [((), ""), (("a",), "a"), (("a", "b"), "a.b"), (("a", 3, "b"), "a[3].b"), ((0, "b"), "[0].b")],
)
def test_a_path_is_written_as_people_write_it(path: tuple[str | int, ...], text: str) -> None:
    assert shape.dotted(path) == text
