"""Immutable value types that cost nothing at start-up.

`@record` is what `dataclass(frozen=True, slots=True)` is, and a type checker sees it as that.
The real `dataclasses` module imports `inspect` and `re` and compiles source for every class:
20 to 35 ms of a command whose whole budget is three interpreter starts.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar, dataclass_transform

    T = TypeVar("T")

    @dataclass_transform(frozen_default=True)
    def record(cls: type[T]) -> type[T]: ...
else:

    def record(cls):
        """Turn an annotated class into a frozen, slotted value type.

        Fields are the class's own annotations in order; a class attribute of the same name is
        the field's default. Instances compare and hash by value.
        """
        fields = tuple(_annotations(cls))
        defaults = {name: cls.__dict__[name] for name in fields if name in cls.__dict__}
        dropped = {"__dict__", "__weakref__", *fields}
        body = {key: value for key, value in cls.__dict__.items() if key not in dropped}
        body["__slots__"] = fields
        body["__match_args__"] = fields
        body["_defaults"] = defaults
        for name, method in _METHODS.items():
            body.setdefault(name, method)
        return type(cls)(cls.__name__, cls.__bases__, body)

    def _annotations(cls):
        # From Python 3.14 on a class computes them when asked, and only `annotationlib` can ask
        # without evaluating; every module here postpones evaluation, so a plain read is enough.
        return getattr(cls, "__annotations__", ())

    def _init(self, *args, **kwargs):
        fields = self.__match_args__
        if len(args) > len(fields):
            raise TypeError(f"{type(self).__name__} takes {len(fields)} values, got {len(args)}")
        values = dict(zip(fields, args, strict=False))
        for name, value in kwargs.items():
            if name not in fields or name in values:
                raise TypeError(f"{type(self).__name__} got an unexpected value for {name!r}")
            values[name] = value
        put = object.__setattr__
        for name in fields:
            if name in values:
                put(self, name, values[name])
            elif name in self._defaults:
                put(self, name, self._defaults[name])
            else:
                raise TypeError(f"{type(self).__name__} is missing a value for {name!r}")

    def _values(self):
        return tuple(getattr(self, name) for name in self.__match_args__)

    def _equal(self, other):
        if type(other) is not type(self):
            return NotImplemented
        return _values(self) == _values(other)

    def _hash(self):
        return hash((type(self), _values(self)))

    def _repr(self):
        inner = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
        return f"{type(self).__name__}({inner})"

    def _refuse_set(self, name, value):
        raise AttributeError(f"cannot assign to {type(self).__name__}.{name}")

    def _refuse_delete(self, name):
        raise AttributeError(f"cannot delete {type(self).__name__}.{name}")

    _METHODS = {
        "__init__": _init,
        "__eq__": _equal,
        "__hash__": _hash,
        "__repr__": _repr,
        "__setattr__": _refuse_set,
        "__delattr__": _refuse_delete,
    }


def changed(value: T, **changes: Any) -> T:
    """Give a copy of a record with some fields replaced.

    Raises:
        TypeError: a name in `changes` is not a field.
    """
    fields: tuple[str, ...] = value.__match_args__  # type: ignore[attr-defined]
    return type(value)(**{name: getattr(value, name) for name in fields} | changes)
