"""Keys and types of a document, with the place of what does not fit."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from beddel_cli import shape
from beddel_cli.errors import JobError
from beddel_cli.yaml_safe import Document, parse_yaml

TEXT = """\
word: hello
yes: true
one: 1
half: 0.5
none: null
list: [a, {b: 1}]
inner:
  key: value
"""


@pytest.fixture
def document() -> Document:
    return parse_yaml(TEXT.encode(), "f.yaml")


def test_values_of_the_right_type_come_back(document: Document) -> None:
    assert shape.text(document, ("word",)) == "hello"
    assert shape.typed(document, ("yes",), bool) is True
    assert shape.typed(document, ("one",), int) == 1
    assert shape.typed(document, ("list",), list) == ["a", {"b": 1}]
    assert shape.mapping(document, ("inner",), ("key", "other")) == {"key": "value"}
    assert shape.one_of(document, ("inner", "key"), ("x", "value")) == "value"


def test_what_is_not_there_is_none(document: Document) -> None:
    assert shape.at(document, ()) == document.value
    for path in (("nope",), ("word", "x"), ("inner", "key", "x"), ("none", "x"), ("none",)):
        assert shape.at(document, path) is None


WRONG: list[tuple[Callable[[Document], object], str, str]] = [
    (lambda d: shape.typed(d, ("yes",), int), "f.yaml:2:6: yes is true or false", "a whole number"),
    (
        lambda d: shape.typed(d, ("one",), bool),
        "f.yaml:3:6: one is a whole number",
        "true or false",
    ),
    (lambda d: shape.typed(d, ("half",), int), "f.yaml:4:7: half is a number", "a whole number"),
    (lambda d: shape.text(d, ("one",)), "f.yaml:3:6: one is a whole number", "text"),
    (lambda d: shape.text(d, ("none",)), "f.yaml:5:7: none is nothing", "text"),
    (lambda d: shape.text(d, ("gone",)), "f.yaml:1:1: gone is nothing", "text"),
    (lambda d: shape.mapping(d, ("list",), ()), "f.yaml:6:7: list is a list", "a mapping"),
    (
        lambda d: shape.mapping(d, ("inner", "key"), ()),
        "f.yaml:8:8: inner.key is text",
        "a mapping",
    ),
    (
        lambda d: shape.one_of(d, ("inner", "key"), ("a", "b")),
        "f.yaml:8:8: inner.key is 'value'",
        "a or b",
    ),
    (
        lambda d: shape.mapping(d, ("inner",), ("kay", "z")),
        "f.yaml:8:3: unknown key 'key' in inner",
        "kay, z",
    ),
]


@pytest.mark.parametrize(("look", "shown", "expected"), WRONG, ids=range(len(WRONG)))
def test_what_does_not_fit_says_where_what_and_what_instead(
    document: Document, look: Callable[[Document], object], shown: str, expected: str
) -> None:
    with pytest.raises(JobError) as caught:
        look(document)
    assert f"{caught.value.place}: {caught.value.message}" == shown
    assert caught.value.expected == expected


def test_a_missing_key_names_the_mapping_it_is_missing_in(document: Document) -> None:
    with pytest.raises(JobError) as caught:
        shape.mapping(document, ("inner",), ("key", "other"), ("other",))
    assert str(caught.value) == "missing key 'other' in inner"
    assert str(caught.value.place) == "f.yaml:8:3"


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
