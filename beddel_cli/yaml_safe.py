"""YAML that is read as data only: parser events in, plain values with positions out.

PyYAML's C parser delivers events; limits are checked on each event before anything is built from
it, so a hostile file costs what it weighs and no more. Scalars follow the YAML 1.2 core schema
(`yaml_scalars`). Tags, merge keys, duplicate keys and second documents are errors.

The limits are such that whatever is refused is refused within 50 ms of processor time and 32 MiB.
A value costs up to two events, an event 1 to 2 microseconds in PyYAML, and half as much here: so
the number of values decides, and leaves room for a processor that other work slows down by half.

Sources: YAML 1.2.2; https://pyyaml.org/wiki/PyYAMLDocumentation.
"""

from __future__ import annotations

from beddel_cli.errors import JobError, Place
from beddel_cli.record import record
from beddel_cli.yaml_marks import Mark, Marks, Opened, split_lines, start_of
from beddel_cli.yaml_scalars import ScalarError, plain_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from beddel_cli.yaml_marks import Path as Path

    Value = None | bool | int | float | str | list[Any] | dict[str, Any]

__all__ = ("Document", "Mark", "decode", "parse_yaml")

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_VALUES = 5_000
MAX_ALIASES = 64
MAX_DIRECTIVES = 64
MAX_SHOWN_CHARACTERS = 80

# YAML 1.2.2 production c-printable, without what editors hide: the two line separators of Unicode
# and the byte-order mark. Surrogates are no UTF-8.
_LATIN_ALLOWED = bytes((9, 10, 13, *range(32, 127), 0x85, *range(0xA0, 0x100)))
_LINE_ENDS = ("\n", "\r", "\x85")
_SPACES = frozenset((" ", "\t", "\n", "\r", "\x85", ""))
_AFTER_NAME = _SPACES | frozenset(",]}")
_HIDDEN = "\u2028\u2029\ufeff\ufffe\uffff"


@record
class Document:
    """A parsed file: its value and the position of every value and key in it."""

    file: str
    value: Value
    marks: Marks
    key_marks: Marks

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
    # Whole-text operations only: a set of its characters alone would take a tenth of a second.
    bad = text.encode("latin-1", "ignore").translate(None, _LATIN_ALLOWED).decode("latin-1")
    found = [char for char in (*set(bad), *_HIDDEN) if char in text]
    if found:
        first = min(map(text.index, found))
        raise JobError(
            f"character U+{ord(text[first]):04X} is not allowed",
            place=_end_of(text[:first], file),
        )
    return text


def _last_line(text: str) -> str:
    return text[max(map(text.rfind, _LINE_ENDS)) + 1 :]


def _end_of(text: str, file: str) -> Place:
    """Give the place of what follows this beginning of a file."""
    text = split_lines(text)
    return Place(file, text.count("\n") + 1, len(text) - text.rfind("\n"))


def parse_yaml(data: bytes, file: str) -> Document:
    """Read one YAML document.

    Raises:
        JobError: with the line and column of what is wrong.
    """
    from beddel_cli.yaml_events import YamlSyntaxError, parse_events

    text = decode(data, file)
    _check_directives(text, file)
    if not text.endswith(_LINE_ENDS) and not _last_line(text).strip(" \t"):
        # libyaml drops a last line of spaces from a block scalar unless something ends it.
        text += "\n"
    builder = _Builder(file, text)
    take = builder.takers()
    try:
        for event in parse_events(text):
            taker = take.get(type(event).__name__)
            if taker is not None:
                taker(event)
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
    parts = ("\n" + split_lines(text)).split("\n%TAG", MAX_DIRECTIVES + 1)
    if len(parts) > MAX_DIRECTIVES + 1:
        line = sum(part.count("\n") for part in parts[:-1]) + MAX_DIRECTIVES + 1
        raise JobError(f"more than {MAX_DIRECTIVES} directives", place=Place(file, line, 1))


def _shown(text: str) -> str:
    """Give a quoted text for a message, which a name of a mebibyte must not fill."""
    if len(text) <= MAX_SHOWN_CHARACTERS:
        return repr(text)
    return f"{text[:MAX_SHOWN_CHARACTERS]!r}…"


class _Builder:
    """Turns events into values, one at a time, within the limits."""

    def __init__(self, file: str, text: str) -> None:
        self._file = file
        self._text = text
        self._stack: list[Opened] = []
        self._top: Opened | None = None
        self._anchors: dict[str, tuple[Value, int]] = {}
        self._root: list[tuple[Value, Any]] = []
        self._values = self._aliases = self._repeated = self._documents = 0

    def document(self) -> Document:
        if not self._root:
            raise JobError("the file is empty", place=Place(self._file))
        value, node = self._root[0]
        marks = Marks(self._text, node)
        return Document(self._file, value, marks, Marks(self._text, node, of_keys=True))

    def takers(self) -> dict[str, Callable[[Any], None]]:
        """Give what takes each kind of event; other kinds mean nothing here."""
        return {
            "ScalarEvent": self._scalar,
            "MappingStartEvent": self._open_mapping,
            "SequenceStartEvent": self._open_list,
            "MappingEndEvent": self._close,
            "SequenceEndEvent": self._close,
            "AliasEvent": self._alias,
            "DocumentStartEvent": self._start_document,
        }

    def _error(self, message: str, event: Any, hint: str | None = None) -> JobError:
        return JobError(message, place=Place(self._file, *start_of(event)), hint=hint)

    def _start_document(self, event: Any) -> None:
        self._documents += 1
        if self._documents > 1:
            raise self._error("a second document; only one is read", event)

    def _count(self, event: Any, values: int = 1) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            hint = "larger data is read from JSON: --input FILE"
            raise self._error(f"more than {MAX_VALUES} values", event, hint)

    def _check_tag(self, event: Any) -> None:
        if event.tag is not None and event.tag != "!":
            raise self._error(f"tags are not allowed: {_shown(event.tag)}", event)

    def _check_name(self, event: Any, end: int) -> None:
        """Refuse `&a:b` and `*a:`: a name to YAML 1.2, but to libyaml one that ends before it."""
        if self._text[end : end + 1] not in _AFTER_NAME:
            raise self._error(f"a space is missing after the name {_shown(event.anchor)}", event)

    def _check_anchor(self, event: Any) -> None:
        at = self._text.find("&", event.start_mark.index)
        self._check_name(event, at + 1 + len(event.anchor))

    def _check_comment(self, event: Any) -> None:
        """Refuse `"x"#y`: a comment to libyaml, not to YAML."""
        end = event.end_mark.index
        if self._text[end : end + 1] == "#":
            raise JobError(
                "a space is missing before the comment",
                place=Place(self._file, event.end_mark.line + 1, event.end_mark.column + 1),
            )

    def _check_style(self, event: Any, style: str) -> None:
        if style in ("'", '"'):
            self._check_comment(event)
        elif event.anchor is None and event.tag is None:
            header = self._text[event.start_mark.index : event.start_mark.index + 4]
            if "#" in header.lstrip("|>+-123456789")[:1]:
                raise self._error("a space is missing before the comment", event)
        if (
            style in "|>"
            and self._top is None
            and not event.value.strip("\n")
            and "#" in self._text[event.end_mark.index :]
        ):
            # Without indentation it would be text to YAML, and is a comment to libyaml.
            raise self._error("a comment after a text that is empty and the whole file", event)

    def _open_mapping(self, event: Any) -> None:
        self._open(event, {})

    def _open_list(self, event: Any) -> None:
        self._open(event, [])

    def _open(self, event: Any, value: list[Any] | dict[str, Any]) -> None:
        before = self._values
        self._count(event)
        self._check_tag(event)
        if len(self._stack) >= MAX_DEPTH:
            raise self._error(f"nested deeper than {MAX_DEPTH}", event)
        if self._wants_key():
            raise self._error("keys must be plain text", event)
        if event.anchor:
            self._check_anchor(event)
        # A name used again means the new value from its start on (YAML 1.2.2, 7.1).
        self._anchors.pop(event.anchor, None)
        self._top = Opened(event, value, before)
        self._stack.append(self._top)

    def _close(self, event: Any) -> None:
        done = self._stack.pop()
        if done.event.flow_style:
            self._check_comment(event)
        self._top = self._stack[-1] if self._stack else None
        if done.event.anchor:
            self._anchors[done.event.anchor] = (done.value, self._values - done.before)
        self._put(done.value, done)

    def _alias(self, event: Any) -> None:
        self._aliases += 1
        if self._aliases > MAX_ALIASES:
            raise self._error(f"more than {MAX_ALIASES} aliases", event)
        found = self._anchors.get(event.anchor)
        if found is None:
            inside = any(opened.event.anchor == event.anchor for opened in self._stack)
            why = "stands inside what it names" if inside else "names nothing before it"
            raise self._error(f"alias {_shown(event.anchor)} {why}", event)
        self._check_name(event, event.end_mark.index)
        value, size = found
        self._count(event, size)
        depth, characters = _measure(value)
        self._repeated += characters
        if self._repeated > MAX_BYTES:
            raise self._error(f"more than {MAX_BYTES} characters repeated by aliases", event)
        if self._wants_key():
            if not isinstance(value, str):
                raise self._error("keys must be plain text", event)
            self._key(value, event)
            return
        if len(self._stack) + depth > MAX_DEPTH:
            raise self._error(f"nested deeper than {MAX_DEPTH} through an alias", event)
        self._put(value, event)

    def _scalar(self, event: Any) -> None:
        self._count(event)
        self._check_tag(event)
        text, style = event.value, event.style
        if style:
            self._check_style(event, style)
        if event.anchor:
            self._check_anchor(event)
        if self._wants_key():
            if event.anchor:
                self._anchors[event.anchor] = (text, 1)
            self._key(text, event)
            return
        value: Value = text
        # A plain scalar's style is None from the Python parser, empty from the C one.
        if not style and event.tag is None:
            try:
                value = plain_value(text)
            except ScalarError as error:
                raise self._error(error.message, event, error.hint) from None
        if event.anchor:
            self._anchors[event.anchor] = (value, 1)
        self._put(value, event)

    def _wants_key(self) -> bool:
        top = self._top
        return top is not None and top.key is None and type(top.value) is dict

    def _key(self, key: str, event: Any) -> None:
        top = self._stack[-1]
        if key == "<<" and not getattr(event, "style", None):
            raise self._error("merge keys (<<) are not allowed", event)
        start = event.start_mark.index
        if self._text[start - 1 : start] == "?" and self._text[start : start + 1] not in _SPACES:
            raise self._error("a space is missing after ?", event, "or quote the whole key")
        if key == "" and not getattr(event, "style", None):
            raise self._error("a key is missing", event, 'write "" for the empty text')
        if key in top.keys:
            line, _ = start_of(top.keys[key])
            raise self._error(
                f"duplicate key {_shown(key)}", event, f"it stands first in line {line}"
            )
        top.key = key
        top.keys[key] = event

    def _put(self, value: Value, node: Any) -> None:
        top = self._top
        if top is None:
            self._root.append((value, node))
        elif top.key is None:
            top.value.append(value)  # type: ignore[union-attr]
            top.items.append(node)  # type: ignore[union-attr]
        else:
            top.value[top.key] = value  # type: ignore[call-overload]
            top.items[top.key] = node  # type: ignore[call-overload]
            top.key = None


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
