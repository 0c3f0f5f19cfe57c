"""Immutable values without the `dataclasses` module."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from beddel_cli.record import changed, record


@record
class Point:
    """Two numbers and a word."""

    x: int
    y: int = 2
    name: str = "p"

    @property
    def total(self) -> int:
        """Give their sum."""
        return self.x + self.y


@record
class Other:
    """The fields of a Point under another name."""

    x: int
    y: int = 2
    name: str = "p"


def test_values_come_by_place_and_by_name_and_defaults_fill_the_rest() -> None:
    assert (Point(1).x, Point(1).y, Point(1).name) == (1, 2, "p")
    assert Point(1, name="q") == Point(1, 2, "q")
    assert Point(1, 5).total == 6


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "Point is missing a value for 'x'"),
        ((1, 2, "a", 4), {}, "Point takes 3 values, got 4"),
        ((1,), {"x": 2}, "Point got an unexpected value for 'x'"),
        ((1,), {"z": 2}, "Point got an unexpected value for 'z'"),
    ],
)
def test_wrong_values_are_a_type_error(
    args: tuple[Any, ...], kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError, match=f"^{message}$"):
        Point(*args, **kwargs)


def test_nothing_can_be_changed_added_or_removed() -> None:
    point: Any = Point(1)
    with pytest.raises(AttributeError, match=r"cannot assign to Point\.x"):
        point.x = 2
    with pytest.raises(AttributeError, match=r"cannot assign to Point\.z"):
        point.z = 2
    with pytest.raises(AttributeError, match=r"cannot delete Point\.x"):
        del point.x
    assert not hasattr(point, "__dict__")
    assert point == Point(1)


def test_equal_values_of_one_type_are_equal_and_hash_alike() -> None:
    assert Point(1) == Point(1)
    assert hash(Point(1)) == hash(Point(1))
    assert Point(1) != Point(2)
    different: object = Other(1)
    assert Point(1) != different


def test_a_record_behaves_as_the_frozen_dataclass_it_stands_for() -> None:
    real: Any = dataclasses.make_dataclass(
        "Point", [("x", int), ("y", int, 2), ("name", str, "p")], frozen=True
    )
    assert repr(Point(3, name="q")) == repr(real(3, name="q"))
    match Point(3, 4, "q"):
        case Point(x, y, name):
            assert (x, y, name) == (3, 4, "q")


def test_changed_gives_a_copy_and_knows_the_fields() -> None:
    point = Point(1)
    assert changed(point, y=9) == Point(1, 9)
    assert point == Point(1)
    with pytest.raises(TypeError, match="unexpected value for 'z'"):
        changed(point, z=1)
