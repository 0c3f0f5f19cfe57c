"""Where values stand in a YAML file, worked out when asked: most places never are.

A path for each of ten thousand values would cost more than the values. What is kept is the parser's
event of each value, in a tree of the same shape.
"""

from __future__ import annotations

from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Path = tuple[str | int, ...]


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


# A list has none: ten thousand empty mappings would weigh as much as all its items.
_NO_KEYS: dict[str, Any] = {}


class Opened:
    """A list or mapping with the events that its items and keys came from.

    Attributes:
        items: for a list, the event or Opened of each item; for a mapping, by key.
        keys: for a mapping, the event of each key.
        key: the key whose value comes next.
        before: how many values had been counted when it opened.
    """

    __slots__ = ("before", "event", "items", "key", "keys", "value")

    def __init__(self, event: Any, value: list[Any] | dict[str, Any], before: int) -> None:
        self.event = event
        self.value = value
        self.before = before
        self.items: list[Any] | dict[str, Any]
        self.keys: dict[str, Any]
        if isinstance(value, list):
            self.items, self.keys = [], _NO_KEYS
        else:
            self.items, self.keys = {}, {}
        self.key: str | None = None


class Marks:
    """The mark of each value of a document, by its path; with `of_keys`, that of its key."""

    __slots__ = ("_of_keys", "_root", "_text")

    def __init__(self, text: str, root: Any, *, of_keys: bool = False) -> None:
        self._text = text
        self._root = root
        self._of_keys = of_keys

    def get(self, path: Path) -> Mark | None:
        """Give the mark at a path, or None where no value, or no key, is written."""
        if not self._of_keys:
            found = self._find(path)
            return None if found is None else _mark(found, self._text)
        parent = self._find(path[:-1]) if path else None
        key = path[-1] if path else None
        if isinstance(parent, Opened) and isinstance(key, str) and key in parent.keys:
            return Mark(*start_of(parent.keys[key]))
        return None

    def __getitem__(self, path: Path) -> Mark:
        found = self.get(path)
        if found is None:
            raise KeyError(path)
        return found

    def __contains__(self, path: Path) -> bool:
        return self.get(path) is not None if self._of_keys else self._find(path) is not None

    def __iter__(self) -> Iterator[Path]:
        waiting: list[tuple[Path, Any]] = [((), self._root)]
        while waiting:
            path, node = waiting.pop()
            if not self._of_keys or (path and isinstance(path[-1], str)):
                yield path
            if isinstance(node, Opened):
                inside = node.items
                pairs = inside.items() if isinstance(inside, dict) else enumerate(inside)
                waiting.extend(((*path, key), item) for key, item in pairs)

    def _find(self, path: Path) -> Any:
        node = self._root
        for part in path:
            inside = node.items if isinstance(node, Opened) else {}
            if isinstance(inside, list):
                node = inside[part] if isinstance(part, int) and part < len(inside) else None
            else:
                node = inside.get(part) if isinstance(part, str) else None
            if node is None:
                return None
        return node


def start_of(event: Any) -> tuple[int, int]:
    """Give the 1-based line and column at which an event begins."""
    return event.start_mark.line + 1, event.start_mark.column + 1


def split_lines(text: str) -> str:
    """Give a text with each line end of libyaml (YAML 1.1) as one newline."""
    for ending in ("\r\n", "\r", "\x85"):
        text = text.replace(ending, "\n")
    return text


def _mark(node: Any, text: str) -> Mark:
    if isinstance(node, Opened):
        return Mark(*start_of(node.event))
    line, column = start_of(node)
    style = getattr(node, "style", None) or ""
    if not hasattr(node, "value") or node.anchor or node.tag:
        # An alias; or the event starts at its anchor or tag, and where its text starts is not told.
        return Mark(line, column, style)
    if style == "|":
        return _literal_mark(node, text)
    quote = 1 if style in ("'", '"') else 0
    begin, end = node.start_mark.index + quote, node.end_mark.index - quote
    if text[begin:end] == node.value and style != ">":
        return Mark(line, column, style, line, column + quote, linear=True)
    return Mark(line, column, style)


def _literal_mark(event: Any, text: str) -> Mark:
    line, column = start_of(event)
    # Content starts on the line after the header; its indentation is that of its first line that
    # is not empty, or what the header says.
    content: str = event.value.lstrip("\n")
    empty = len(event.value) - len(content)
    lines = split_lines(text[event.start_mark.index :]).split("\n", empty + 2)
    wanted = content.partition("\n")[0]
    if wanted and len(lines) > empty + 1 and lines[empty + 1].endswith(wanted):
        first_column = len(lines[empty + 1]) - len(wanted) + 1
        return Mark(line, column, "|", line + 1, first_column, linear=True)
    return Mark(line, column, "|")
