"""YAML that is read as data only: parser events in, plain values with positions out.

PyYAML's C parser delivers events; limits are checked on each event before anything is built from
it, so a hostile file costs what it weighs and no more. Scalars follow the YAML 1.2 core schema:
`no` and `12:30` are text. Tags, merge keys, duplicate keys and second documents are errors.

Sources: YAML 1.2.2 chapter 10.3 (core schema); https://pyyaml.org/wiki/PyYAMLDocumentation.
"""

from __future__ import annotations

from beddel_cli.errors import JobError, Place
from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Value = None | bool | int | float | str | list[Any] | dict[str, Any]
    Path = tuple[str | int, ...]

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_VALUES = 20_000
MAX_ALIASES = 64
MAX_DIRECTIVES = 64
MAX_NUMBER_DIGITS = 400

_CONTROLS = frozenset(map(chr, (*range(9), 11, 12, *range(14, 32), 127)))
_DIGITS = frozenset("0123456789")
_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")
_FLOAT_CHARACTERS = frozenset("0123456789.eE+-")
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE = frozenset(("true", "True", "TRUE"))
_FALSE = frozenset(("false", "False", "FALSE"))
_NOT_FINITE = frozenset(
    (
        *(".nan", ".NaN", ".NAN"),
        *(sign + word for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")),
    )
)


@record
class Mark:
    """Where a value stands: 1-based line and column, and how its text maps to the source.

    Attributes:
        style: the scalar's style: `|`, `>`, `'`, `"`, or empty for plain ones and collections.
        first_line, first_column: where the first character of a text's content stands, and
            `linear` whether each later line of it is the next line of the file at that column.
    """

    line: int
    column: int
    style: str = ""
    first_line: int | None = None
    first_column: int | None = None
    linear: bool = False


@record
class Document:
    """A parsed file: its value and the position of every value and key in it."""

    file: str
    value: Value
    marks: dict[Path, Mark]
    key_marks: dict[Path, Mark]

    def place(self, path: Path) -> Place:
        """Give where the value at `path` stands, or its nearest parent that is there."""
        while path and path not in self.marks:
            path = path[:-1]
        mark = self.marks[path]
        return Place(self.file, mark.line, mark.column)

    def key_place(self, path: Path) -> Place:
        """Give where the key of the value at `path` stands."""
        mark = self.key_marks.get(path)
        return Place(self.file, mark.line, mark.column) if mark else self.place(path)


def decode(data: bytes, file: str) -> str:
    """Decode a file as UTF-8 without byte-order marks or control characters.

    Raises:
        JobError: too large, not UTF-8, or with characters YAML does not allow.
    """
    if len(data) > MAX_BYTES:
        raise JobError(
            f"larger than {MAX_BYTES} bytes", place=Place(file), got=f"{len(data)} bytes"
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        raise JobError(
            "not valid UTF-8",
            place=_end_of(before, file),
            got=f"byte 0x{data[error.start]:02x}",
        ) from None
    bad = [char for char in set(text) if not _allowed(char)]
    if bad:
        first = min(map(text.index, bad))
        raise JobError(
            f"character U+{ord(text[first]):04X} is not allowed",
            place=_end_of(text[:first], file),
        )
    return text


def _allowed(char: str) -> bool:
    """Tell whether a character may stand in a file: YAML's printable ones, on one line each.

    Source: YAML 1.2.2 production c-printable; without the two line separators of Unicode and the
    byte-order mark, which editors hide.
    """
    if char < "\x80":
        return char not in _CONTROLS
    code = ord(char)
    if code < 0xA0:
        return code == 0x85
    hidden = (0x2028, 0x2029, 0xFEFF, 0xFFFE, 0xFFFF)
    return code not in hidden and not 0xD800 <= code <= 0xDFFF


def _lines(text: str) -> list[str]:
    """Split where libyaml ends a line (YAML 1.1), so that our positions are its positions."""
    for ending in ("\r\n", "\r", "\x85"):
        text = text.replace(ending, "\n")
    return text.split("\n")


def _end_of(text: str, file: str) -> Place:
    """Give the place of what follows this beginning of a file."""
    lines = _lines(text)
    return Place(file, len(lines), len(lines[-1]) + 1)


def parse_yaml(data: bytes, file: str) -> Document:
    """Read one YAML document.

    Raises:
        JobError: with the line and column of what is wrong.
    """
    from beddel_cli.yaml_events import YamlSyntaxError, parse_events

    text = decode(data, file)
    _check_directives(text, file)
    builder = _Builder(file, text)
    try:
        for event in parse_events(text):
            builder.take(event)
    except YamlSyntaxError as error:
        place = Place(file)
        if error.line is not None and error.column is not None:
            place = Place(file, error.line + 1, error.column + 1)
        raise JobError(f"not valid YAML: {error.problem}", place=place) from None
    return builder.document()


def _check_directives(text: str, file: str) -> None:
    """Refuse a flood of %TAG lines: libyaml compares each with all before it, 15 s for 1 MiB."""
    if text.count("%TAG") <= MAX_DIRECTIVES:
        return
    lines = [n for n, line in enumerate(_lines(text), 1) if line.startswith("%TAG")]
    if len(lines) > MAX_DIRECTIVES:
        raise JobError(
            f"more than {MAX_DIRECTIVES} directives", place=Place(file, lines[MAX_DIRECTIVES], 1)
        )


class _Open:
    """A collection still being filled."""

    __slots__ = ("anchor", "key", "path", "size", "value")

    def __init__(self, value: list[Any] | dict[str, Any], path: Path, anchor: str | None) -> None:
        self.value = value
        self.path = path
        self.anchor = anchor
        self.key: str | None = None
        self.size = 1


class _Builder:
    """Turns events into values, one at a time, within the limits."""

    def __init__(self, file: str, text: str) -> None:
        self._file = file
        self._text = text
        self._lines: list[str] | None = None
        self._stack: list[_Open] = []
        self._anchors: dict[str, tuple[Value, int]] = {}
        self._root: list[Value] = []
        self._marks: dict[Path, Mark] = {}
        self._key_marks: dict[Path, Mark] = {}
        self._values = self._aliases = self._repeated = self._documents = 0

    def document(self) -> Document:
        if not self._root:
            raise JobError("the file is empty", place=Place(self._file))
        return Document(self._file, self._root[0], self._marks, self._key_marks)

    def take(self, event: Any) -> None:
        kind = type(event).__name__
        if kind == "ScalarEvent":
            self._scalar(event)
        elif kind == "MappingStartEvent":
            self._open(event, {})
        elif kind == "SequenceStartEvent":
            self._open(event, [])
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            self._close()
        elif kind == "AliasEvent":
            self._alias(event)
        elif kind == "DocumentStartEvent":
            self._documents += 1
            if self._documents > 1:
                raise self._error("a second document; only one is read", event)

    def _error(self, message: str, event: Any, **more: str) -> JobError:
        mark = event.start_mark
        return JobError(message, place=Place(self._file, mark.line + 1, mark.column + 1), **more)

    def _count(self, event: Any, values: int = 1) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            raise self._error(f"more than {MAX_VALUES} values", event)

    def _check_tag(self, event: Any) -> None:
        if event.tag is not None and event.tag != "!":
            raise self._error(f"tags are not allowed: {event.tag!r}", event)

    def _open(self, event: Any, value: list[Any] | dict[str, Any]) -> None:
        self._count(event)
        self._check_tag(event)
        if len(self._stack) >= MAX_DEPTH:
            raise self._error(f"nested deeper than {MAX_DEPTH}", event)
        path = self._next_path(event)
        self._marks[path] = Mark(event.start_mark.line + 1, event.start_mark.column + 1)
        # A name used again means the new value from its start on (YAML 1.2.2, 7.1).
        self._anchors.pop(event.anchor, None)
        self._stack.append(_Open(value, path, event.anchor))

    def _close(self) -> None:
        done = self._stack.pop()
        if done.anchor:
            self._anchors[done.anchor] = (done.value, done.size)
        self._put(done.path, done.value, done.size)

    def _alias(self, event: Any) -> None:
        self._aliases += 1
        if self._aliases > MAX_ALIASES:
            raise self._error(f"more than {MAX_ALIASES} aliases", event)
        found = self._anchors.get(event.anchor)
        if found is None:
            inside = any(opened.anchor == event.anchor for opened in self._stack)
            why = "stands inside what it names" if inside else "names nothing before it"
            raise self._error(f"alias {event.anchor!r} {why}", event)
        value, size = found
        self._count(event, size)
        depth, characters = _measure(value)
        self._repeated += characters
        if self._repeated > MAX_BYTES:
            raise self._error(f"more than {MAX_BYTES} characters repeated by aliases", event)
        if self._is_key():
            if not isinstance(value, str):
                raise self._error("keys must be plain text", event)
            self._key(value, event)
            return
        path = self._next_path(event)
        self._marks[path] = Mark(event.start_mark.line + 1, event.start_mark.column + 1)
        if len(self._stack) + depth > MAX_DEPTH:
            raise self._error(f"nested deeper than {MAX_DEPTH} through an alias", event)
        self._put(path, value, size)

    def _scalar(self, event: Any) -> None:
        self._count(event)
        self._check_tag(event)
        if self._is_key():
            self._key(event.value, event)
            return
        path = self._next_path(event)
        plain = not event.style  # None from the Python parser, empty from the C one
        value: Value = self._plain(event) if plain and event.tag is None else event.value
        self._marks[path] = self._scalar_mark(event)
        if event.anchor:
            self._anchors[event.anchor] = (value, 1)
        self._put(path, value, 1)

    def _is_key(self) -> bool:
        top = self._stack[-1] if self._stack else None
        return top is not None and isinstance(top.value, dict) and top.key is None

    def _key(self, key: str, event: Any) -> None:
        top = self._stack[-1]
        if key == "<<" and not getattr(event, "style", None):
            raise self._error("merge keys (<<) are not allowed", event)
        if key in top.value:
            first = self._key_marks[(*top.path, key)]
            raise self._error(
                f"duplicate key {key!r}", event, hint=f"it stands first in line {first.line}"
            )
        top.key = key
        mark = event.start_mark
        self._key_marks[(*top.path, key)] = Mark(mark.line + 1, mark.column + 1)

    def _next_path(self, event: Any) -> Path:
        if not self._stack:
            return ()
        top = self._stack[-1]
        if isinstance(top.value, list):
            return (*top.path, len(top.value))
        if top.key is None:
            raise self._error("keys must be plain text", event)
        return (*top.path, top.key)

    def _put(self, path: Path, value: Value, size: int) -> None:
        if not self._stack:
            self._root.append(value)
            return
        top = self._stack[-1]
        top.size += size
        if isinstance(top.value, list):
            top.value.append(value)
        else:
            top.value[str(path[-1])] = value
            top.key = None

    def _plain(self, event: Any) -> Value:
        text: str = event.value
        if text in _NULLS:
            return None
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        if text[0] in "-+.0123456789":
            return self._number(text, event)
        return text

    def _number(self, text: str, event: Any) -> Value:
        digits = text[1:] if text[0] in "-+" else text
        if not set(digits) <= _DIGITS:
            return self._other_number(text, digits, event)
        self._check_digits(text, event)
        if len(digits) > 1 and digits[0] == "0":
            raise self._leading_zeros(text, event)
        return int(text) if digits else text

    def _other_number(self, text: str, digits: str, event: Any) -> Value:
        if digits[0] == "0" and set(digits) <= _DIGITS | {"_"}:
            raise self._leading_zeros(text, event)
        for prefix, characters, base in (("0o", frozenset("01234567"), 8), ("0x", _HEX_DIGITS, 16)):
            if text.startswith(prefix) and len(text) > 2 and set(text[2:]) <= characters:
                self._check_digits(text, event)
                return int(text[2:], base)
        if text in _NOT_FINITE:
            raise self._error(f"JSON has no such number: {text}", event)
        if not set(text) <= _FLOAT_CHARACTERS:
            return text
        try:
            value = float(text)
        except ValueError:
            return text
        self._check_digits(text, event)
        if value in (float("inf"), float("-inf")):
            raise self._error(f"a number outside the range of JSON: {text}", event)
        return value

    def _check_digits(self, text: str, event: Any) -> None:
        if len(text) > MAX_NUMBER_DIGITS:
            raise self._error(f"a number of more than {MAX_NUMBER_DIGITS} digits", event)

    def _leading_zeros(self, text: str, event: Any) -> JobError:
        hint = f'write "{text}" for text, 0o… for octal'
        return self._error(f"a number with leading zeros: {text}", event, hint=hint)

    def _scalar_mark(self, event: Any) -> Mark:
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        style = event.style or ""
        if event.anchor or event.tag:
            # The event starts at its anchor or tag; where its text starts is not told.
            return Mark(line, column, style)
        if style == "|":
            return self._literal_mark(event, line, column)
        quote = 1 if style in ("'", '"') else 0
        begin, end = event.start_mark.index + quote, event.end_mark.index - quote
        if self._text[begin:end] == event.value and style != ">":
            return Mark(line, column, style, line, column + quote, linear=True)
        return Mark(line, column, style)

    def _literal_mark(self, event: Any, line: int, column: int) -> Mark:
        if self._lines is None:
            self._lines = _lines(self._text)
        # Content starts on the line after the header; its indentation is that of its first line
        # that is not empty, or what the header says.
        content = event.value.split("\n")
        for offset, wanted in enumerate(content):
            if wanted and line + offset < len(self._lines):
                found = self._lines[line + offset]
                if found.endswith(wanted):
                    first_column = len(found) - len(wanted) + 1
                    return Mark(line, column, "|", line + 1, first_column, linear=True)
                break
        return Mark(line, column, "|")


def _measure(value: Value) -> tuple[int, int]:
    """Give how deep collections stand in each other, and how many characters their texts have."""
    deepest, characters, layer = 0, 0, [value]
    while layer:
        characters += sum(len(item) for item in layer if isinstance(item, str))
        inner = [item for item in layer if isinstance(item, (list, dict))]
        deepest += bool(inner)
        layer = []
        for item in inner:
            if isinstance(item, dict):
                characters += sum(map(len, item))
                layer.extend(item.values())
            else:
                layer.extend(item)
    return deepest, characters
