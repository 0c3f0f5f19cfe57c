"""Hold a parsed document against a JSON Schema and say everything that does not fit, at its place.

The interpreter of the part of JSON Schema 2020-12 that our schema uses: $ref into $defs, allOf,
not, if/then/else, type, const, enum, pattern, minLength, maxLength, minimum, maximum, properties,
required, additionalProperties, items, minItems, uniqueItems, and boolean schemas. Editors read
`errorMessage` and `patternErrorMessage` of the same document, and so do we: both say the same. A
`title` of a value names it in messages. Keywords that are not listed here are not looked at.

Two differences from the letter of the standard: 1.0 is no whole number, since nobody who writes it
means one, and a pattern is `^…$` over the whole text, a newline at its end included.

Source: https://json-schema.org/draft/2020-12/json-schema-validation.
"""

from __future__ import annotations

from beddel_cli.errors import JobError, Place
from beddel_cli.pattern import fits
from beddel_cli.record import changed, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from beddel_cli.yaml_safe import Document, Path

    Schema = bool | dict[str, Any]
    Definitions = Callable[[str], Schema]
    Reader = Callable[[Path, Any], "Problem | None"]

# More would not be read. No collection is searched further than that either, since a hostile file
# has thousands; its members come in the order of the file, so these are the first.
MAX_PROBLEMS = 20
_REFERENCE = "#/$defs/"
_TYPES = {
    str: "string",
    int: "integer",
    bool: "boolean",
    dict: "object",
    list: "array",
    float: "number",
    type(None): "null",
}
_NAMES = {
    "string": "text",
    "integer": "a whole number",
    "boolean": "true or false",
    "object": "a mapping",
    "array": "a list",
    "number": "a number",
    "null": "nothing",
}


@record
class Problem:
    """One thing that does not fit.

    Attributes:
        path: of the value, of the key that should not be there, or of the key that is missing.
        where: what of it to show: its `value`, its `key`, or where it is `missing` in its parent.
        word, known: what was written, and the words one of which may have been meant.
    """

    path: Path
    message: str
    where: str = "value"
    expected: str | None = None
    got: str | None = None
    hint: str | None = None
    word: str = ""
    known: tuple[str, ...] = ()


def find_problems(
    value: Any, schema: Schema, definitions: Definitions, readers: Mapping[str, Reader]
) -> list[Problem]:
    """Give everything in a value that a schema does not allow; empty means it fits.

    Args:
        definitions: gives the schema in `$defs` of a name.
        readers: what checks a value instead of the definition of that name, because it knows
            more than a schema can say.
    """
    return _Check(definitions, readers).problems((), value, schema)


class _Check:
    def __init__(self, definitions: Definitions, readers: Mapping[str, Reader]) -> None:
        self._definitions = definitions
        self._readers = readers

    def problems(self, path: Path, value: Any, schema: Schema) -> list[Problem]:
        if isinstance(schema, bool):
            return [] if schema else [_forbidden(path, {})]
        found: list[Problem] = []
        if "$ref" in schema:
            found += self._referred(path, value, schema["$ref"].removeprefix(_REFERENCE))
        for part in schema.get("allOf", ()):
            found += self.problems(path, value, part)
        if "if" in schema:
            fits = not self.problems(path, value, schema["if"])
            found += self.problems(path, value, schema.get("then" if fits else "else", True))
        if "not" in schema and not self.problems(path, value, schema["not"]):
            found.append(_forbidden(path, schema))
        if "type" in schema and not _is_of(value, schema["type"]):
            return [*found, _wrong_type(path, value, schema["type"])]
        found += _wrong_word(path, value, schema)
        if isinstance(value, str):
            found += _wrong_text(path, value, schema)
        elif isinstance(value, dict):
            found += self._wrong_mapping(path, value, schema)
        elif isinstance(value, list):
            found += self._wrong_list(path, value, schema)
        elif value is not None and not isinstance(value, bool):
            found += _wrong_number(path, value, schema)
        return found

    def _referred(self, path: Path, value: Any, name: str) -> list[Problem]:
        if name in self._readers:
            problem = self._readers[name](path, value)
            return [] if problem is None else [problem]
        return self.problems(path, value, self._definitions(name))

    def _wrong_mapping(
        self, path: Path, value: dict[str, Any], schema: dict[str, Any]
    ) -> list[Problem]:
        found: list[Problem] = []
        properties = schema.get("properties", {})
        more = schema.get("additionalProperties", True)
        # A mapping about which nothing is said, such as a large input, is not walked.
        for key, item in value.items() if properties or more is not True else ():
            if len(found) > MAX_PROBLEMS:
                break
            if key in properties:
                found += self.problems((*path, key), item, properties[key])
            elif more is False:
                found.append(_unknown(path, key, properties))
            else:
                found += self.problems((*path, key), item, more)
        for key in schema.get("required", ()):
            if key not in value:
                found.append(self._missing(path, key, schema))
        return found

    def _missing(self, path: Path, key: str, schema: dict[str, Any]) -> Problem:
        wanted = schema.get("properties", {}).get(key, True)
        if isinstance(wanted, dict) and "$ref" in wanted:
            wanted = self._definitions(wanted["$ref"].removeprefix(_REFERENCE))
        constant = wanted.get("const", "…") if isinstance(wanted, dict) else "…"
        where = f" in {dotted(path)}" if path else ""
        said = schema.get("errorMessage")
        return Problem(
            (*path, key),
            said or f"missing key {key!r}{where}",
            "missing",
            hint=None if said else f"add `{key}: {constant}`",
        )

    def _wrong_list(self, path: Path, value: list[Any], schema: dict[str, Any]) -> list[Problem]:
        found = []
        if len(value) < schema.get("minItems", 0):
            message = f"{dotted(path)} has {len(value)} items"
            expected = f"at least {schema['minItems']}"
            found.append(Problem(path, schema.get("errorMessage") or message, expected=expected))
        if schema.get("uniqueItems"):
            found += _repeated(path, value)
        if "items" in schema:
            for index, item in enumerate(value):
                if len(found) > MAX_PROBLEMS:
                    break
                found += self.problems((*path, index), item, schema["items"])
        return found


def _is_of(value: Any, wanted: str | list[str]) -> bool:
    name = _TYPES[type(value)]
    names = [wanted] if isinstance(wanted, str) else wanted
    return name in names or (name == "integer" and "number" in names)


def _wrong_type(path: Path, value: Any, wanted: str | list[str]) -> Problem:
    names = [wanted] if isinstance(wanted, str) else [name for name in wanted if name != "null"]
    what = dotted(path) if path else "the document"
    return Problem(
        path,
        f"{what} is {_NAMES[_TYPES[type(value)]]}",
        expected=" or ".join(_NAMES[name] for name in names),
        got=_short(value),
    )


def _wrong_word(path: Path, value: Any, schema: dict[str, Any]) -> list[Problem]:
    said, title = schema.get("errorMessage"), schema.get("title")
    if "const" in schema and not _same(value, schema["const"]):
        message = f"{title} {_short(value)} is not known" if title else _is(path, value)
        expected = f"{path[-1]}: {schema['const']}" if path else _short(schema["const"])
        return [Problem(path, said or message, expected=expected)]
    words = schema.get("enum")
    if words is None or any(_same(value, word) for word in words):
        return []
    message = f"unknown {title} {_short(value)}" if title else _is(path, value)
    known = tuple(str(word) for word in words if word is not None)
    expected = (", " if title else " or ").join(known)
    return [Problem(path, said or message, expected=expected, word=str(value), known=known)]


def _is(path: Path, value: Any) -> str:
    return f"{dotted(path)} is {value!r}"


def _wrong_text(path: Path, value: str, schema: dict[str, Any]) -> list[Problem]:
    said = schema.get("errorMessage")
    pattern = schema.get("pattern")
    # Without the anchors: `$` would let a newline at the end of the text pass.
    if pattern is not None and not fits(pattern, value):
        title = schema.get("title", dotted(path))
        expected = schema.get("patternErrorMessage", pattern)
        return [Problem(path, said or f"not a valid {title}: {value!r}", expected=expected)]
    what = f"{dotted(path)} has {len(value)} characters"
    return _out_of_range(
        path, len(value), what, said, schema.get("minLength"), schema.get("maxLength")
    )


def _wrong_number(path: Path, value: float, schema: dict[str, Any]) -> list[Problem]:
    said, what = schema.get("errorMessage"), f"{dotted(path)} is {value}"
    return _out_of_range(path, value, what, said, schema.get("minimum"), schema.get("maximum"))


def _out_of_range(
    path: Path, size: float, what: str, said: str | None, least: float | None, most: float | None
) -> list[Problem]:
    if least is not None and size < least:
        return [Problem(path, said or what, expected=f"at least {least}")]
    if most is not None and size > most:
        return [Problem(path, said or what, expected=f"at most {most}")]
    return []


def _repeated(path: Path, value: list[Any]) -> list[Problem]:
    found: list[Problem] = []
    seen = set()
    for index, item in enumerate(value):
        if len(found) > MAX_PROBLEMS:
            break
        key = _comparable(item)
        if key in seen:
            message = f"{_short(item)} stands twice in {dotted(path)}"
            found.append(Problem((*path, index), message, expected="each item once"))
        seen.add(key)
    return found


def _comparable(value: Any) -> Any:
    """Give something hashable that is equal where JSON values are."""
    if isinstance(value, list):
        return ("array", *map(_comparable, value))
    if isinstance(value, dict):
        return frozenset((key, _comparable(item)) for key, item in value.items())
    # To Python, true is 1.
    return ("boolean", value) if isinstance(value, bool) else value


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, str):
        return bool(a == b)
    return bool(_comparable(a) == _comparable(b))


def _unknown(path: Path, key: str, properties: dict[str, Any]) -> Problem:
    where = f" in {dotted(path)}" if path else ""
    known = tuple(name for name, schema in properties.items() if not _never(schema))
    return Problem(
        (*path, key),
        f"unknown key {_short(key)}{where}",
        "key",
        expected=", ".join(known),
        word=key,
        known=known,
    )


def _never(schema: Schema) -> bool:
    return schema is False or (isinstance(schema, dict) and schema.get("not") == {})


def _forbidden(path: Path, schema: dict[str, Any]) -> Problem:
    what = dotted(path) or "the document"
    # A value that is wrong stands for itself, a key that no value makes right is what to remove.
    never = not schema or schema.get("not") == {}
    hint = f"remove {path[-1]!r}" if never and path else None
    return Problem(
        path,
        schema.get("errorMessage", f"{what} is not allowed"),
        "key" if never else "value",
        hint=hint,
    )


def check(document: Document, problems: Iterable[Problem]) -> None:
    """Do nothing if there are no problems.

    Raises:
        JobError: the first problem in the file, and in its `more` all others, each with its place;
            of several at one value the first found.
    """
    first: dict[Path, Problem] = {}
    for problem in problems:
        first[problem.path] = _fuller(first.get(problem.path, problem), problem)
    # A misspelt key and the one that is missing for it are one mistake.
    for problem in list(first.values())[: 2 * MAX_PROBLEMS]:
        meant = _nearest(problem.word, problem.known) if problem.where == "key" else None
        missing = first.get((*problem.path[:-1], meant or ""))
        if missing is not None and missing.where == "missing":
            del first[missing.path]
    if not first:
        return
    placed = [(_place(document, problem), problem) for problem in first.values()]
    placed.sort(key=lambda item: (item[0].line or 0, item[0].column or 0))
    errors = [_error(place, problem) for place, problem in placed[:MAX_PROBLEMS]]
    if len(placed) > MAX_PROBLEMS:
        errors.append(JobError("and more; these are the first", place=Place(document.file)))
    errors[0].more = tuple(errors[1:])
    raise errors[0]


def _fuller(said: Problem, later: Problem) -> Problem:
    """Give what is said of a value with what a later rule knows of it besides."""
    if not said.where == later.where == "value":
        return said
    return changed(said, expected=said.expected or later.expected, hint=said.hint or later.hint)


def _place(document: Document, problem: Problem) -> Place:
    if problem.where == "key":
        return document.key_place(problem.path)
    return document.place(problem.path[:-1] if problem.where == "missing" else problem.path)


def _error(place: Place, problem: Problem) -> JobError:
    hint = problem.hint or (suggestion(problem.word, problem.known) if problem.known else None)
    return JobError(
        problem.message, place=place, expected=problem.expected, got=problem.got, hint=hint
    )


def at(document: Document, path: Path) -> Any:
    """Give the value at `path`, or None where there is none."""
    value: Any = document.value
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return value


def suggestion(word: str, known: Iterable[str]) -> str | None:
    """Give `did you mean …?` for a near miss, else None."""
    near = _nearest(word, known)
    return f"did you mean {near!r}?" if near else None


def _nearest(word: str, known: Iterable[str]) -> str | None:
    # The time it takes grows with the word, which a hostile file chooses; no key of ours is long.
    if len(word) > 64:
        return None
    import difflib

    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return near[0] if near else None


def dotted(path: Path) -> str:
    """Write a path as `limits.memory` or `items[3].price`."""
    out = ""
    for key in path:
        out += f"[{key}]" if isinstance(key, int) else f".{key}" if out else str(key)
    return out


def _short(value: object) -> str:
    written = repr(value)
    return written if len(written) <= 60 else written[:57] + "..."
