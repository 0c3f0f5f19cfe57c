"""From a seed to a JavaScript program, by the grammar in `javascript.grammar`.

A program is the body of a strict async function. It tells what it sees by `console.log`, and mostly
returns the number of its steps. Whatever the seed, it ends: loops are counted, and loops and
functions count their steps besides (`tick` in prelude.js). It reads no clock and no chance, and
asks for little memory. Its statements form a tree, of which `smaller_programs` gives what is left
when some are dropped.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from random import Random

_FOLDER = Path(__file__).parent
_PRELUDE = (_FOLDER / "prelude.js").read_text(encoding="utf-8")
_CHOICES = re.compile("⟨([^⟩]*)⟩")
_PLACEHOLDER = re.compile(r"@([a-z_0-9]+(?:\.leaf)?)")

# What may stand where another kind was asked for: programs do mistake values.
_MISTAKES = ("number", "string", "bigint", "boolean", "array", "object", "symbol", "function")
# Kinds that are what they are called: a number in place of `numbers` could be a huge length, and
# a float array in place of `integers` would show the bits of NaN.
_EXACT_KINDS = frozenset(("class", "buffer", "integers", "typed", "view", "numbers"))
# Expressions in one program: from the first on blocks are short, from the second on nothing nests.
_MUCH, _TOO_MUCH = 1000, 1500
_DEEPEST_BLOCK = 3
_ENDING = "return steps"
# How often another production is tried where one asks for a variable that is not there.
_ATTEMPTS = 30

# Private names that other members of a class use, for where chance gave it none.
_MEMBER_NAME = re.compile(r"(?<![.\w])(?:#\w+|constructor)(?=\(| =)")
_PRIVATE_MEMBERS = {
    "#method": "#method(x) { return x }",
    "#hidden": "#hidden = 2",
    "#made": "static #made = 1",
}

_RANDOM: dict[str, Callable[[Random], str]] = {
    "random_integer": lambda random: str(random.randint(-(2**33), 2**33)),
    "random_float": lambda random: repr(random.uniform(-1000, 1000)),
    "random_exponent": lambda random: f"{random.uniform(-9, 9)!r}e{random.randint(-320, 300)}",
    "random_instant": lambda random: str(random.randint(-(10**13), 10**13)),
    "random_bigint": lambda random: f"{random.choice((1, -1)) * random.getrandbits(140)}n",
    "random_power": lambda random: f"{_near_a_power(random)}n",
}


def _near_a_power(random: Random) -> int:
    """Give an integer where words end: 2 to the 31, 32, 63, 64 and the like, or next to it."""
    bits = random.choice((29, 30, 31, 32, 33, 52, 53, 62, 63, 64, 65, 95, 96, 127, 128))
    return random.choice((1, -1)) * (1 << bits) + random.randint(-2, 2)


@dataclass(frozen=True, slots=True)
class _Kind:
    productions: tuple[str, ...]
    wrapped: bool


def _read_grammar(text: str) -> dict[str, _Kind]:
    kinds: dict[str, _Kind] = {}
    for section in re.split("^== ", text, flags=re.MULTILINE)[1:]:
        heading, *lines = section.splitlines()
        name, _, mark = heading.partition(" ")
        lines = [line for line in lines if line]
        if mark == "|":
            lines = [item.strip() for line in lines for item in f"{line} ".split(" | ")]
        productions = tuple(each for line in lines for each in _expand_choices(line))
        kinds[name] = _Kind(productions, wrapped=not mark)
    return kinds


def _expand_choices(line: str) -> Iterator[str]:
    pieces = _CHOICES.split(line)
    choices = [piece.split(" ") if at % 2 else [piece] for at, piece in enumerate(pieces)]
    yield from map("".join, itertools.product(*choices))


@cache
def _pieces(template: str) -> tuple[str, ...]:
    return tuple(_PLACEHOLDER.split(template))


def _words(template: str) -> tuple[str, ...]:
    return _pieces(template)[1::2]


_GRAMMAR = _read_grammar((_FOLDER / "javascript.grammar").read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class Statement:
    """Source text, with the blocks of statements inside of it."""

    parts: tuple[str | Block, ...]

    def render(self) -> str:
        """Give the text."""
        return "".join(
            part if isinstance(part, str) else _render_block(part) for part in self.parts
        )


Block = tuple[Statement, ...]


def _render_block(block: Block) -> str:
    return "\n".join(("", *(f"{statement.render()};" for statement in block), ""))


@dataclass(frozen=True, slots=True)
class Program:
    """One program: where it comes from, and what it says."""

    seed: int
    statements: Block
    ending: str

    @property
    def body(self) -> str:
        """What differs from program to program."""
        return f"{_render_block(self.statements).lstrip()}{self.ending}"

    @property
    def source(self) -> str:
        """The whole text."""
        return f"{_PRELUDE}{self.body}"


@dataclass(frozen=True, slots=True)
class _Place:
    """What the language allows where a statement stands."""

    awaits: bool = False
    yields: bool = False
    returns: bool = False
    breaks: bool = False
    continues: bool = False
    label: str = ""
    label_loops: bool = False


_PLACES: dict[str, Callable[[_Place], _Place]] = {
    "block": lambda place: place,
    "loop": lambda place: replace(place, breaks=True, continues=True),
    "case": lambda place: replace(place, breaks=True),
    "body": lambda place: _Place(returns=True),
    "async": lambda place: _Place(awaits=True, returns=True),
    "generator": lambda place: _Place(yields=True, returns=True),
    "asyncgen": lambda place: _Place(awaits=True, yields=True, returns=True),
}
_NESTING = frozenset((*_PLACES, "labelled", "members", "heirs"))


@dataclass(frozen=True, slots=True)
class _Name:
    text: str
    kind: str
    assignable: bool


class _NothingFitsError(Exception):
    """A production asks for a variable, and none is in reach."""


class _Writer:
    """Writes one program, choice by choice."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.names: list[_Name] = []
        self.place = _Place(awaits=True)
        self.level = 0
        self.count = 0
        self.size = 0
        self.used: set[str] = set()

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def expand(self, template: str, depth: int) -> list[str | Block]:
        """Fill in a production. The names it makes are in reach of what follows in its block."""
        made: dict[str, _Name] = {}
        parts: list[str | Block] = []
        # Text and words by turns.
        for at, piece in enumerate(_pieces(template)):
            parts += self.fill(piece, template, made, depth) if at % 2 else [piece]
        self.names += [name for key, name in made.items() if key.startswith("new")]
        self.used.add(template)
        return parts

    def expand_any(self, templates: Iterable[str], depth: int) -> list[str | Block]:
        """Fill in the first production that finds the variables it asks for."""
        for template in templates:
            reach = len(self.names)
            try:
                return self.expand(template, depth)
            except _NothingFitsError:
                del self.names[reach:]
        raise _NothingFitsError

    def fill(
        self, word: str, template: str, made: dict[str, _Name], depth: int
    ) -> list[str | Block]:
        role, _, kind = word.partition("_")
        if role in ("new", "new2", "own", "own2", "label"):
            if word not in made:
                self.count += 1
                name = f"{'l' if role == 'label' else 'v'}{self.count}"
                made[word] = _Name(name, kind, template.startswith("let"))
            return [made[word].text]
        if role == "set" and kind:
            return [self.variable(kind, assigned=kind not in ("any", "function"))]
        if word in _RANDOM:
            return [_RANDOM[word](self.random)]
        if word in ("members", "heirs"):
            return [self.members(heir=word == "heirs")]
        if word == "labelled":
            loops = "for (" in template
            place = replace(self.place, label=made["label"].text, label_loops=loops)
            return [self.block(place, made)]
        if word in _PLACES:
            return [self.block(_PLACES[word](self.place), made)]
        return self.expression(word, depth - 1)

    def variable(self, kind: str, *, assigned: bool) -> str:
        names = [
            name.text
            for name in self.names
            if name.kind == kind and (name.assignable or not assigned or self.chance(0.02))
        ]
        if not names:
            raise _NothingFitsError
        # The latest names are the ones an author would use.
        return self.random.choice(names[-6:])

    def block(self, place: _Place, made: dict[str, _Name]) -> Block:
        before, reach = self.place, len(self.names)
        self.names += [name for key, name in made.items() if key.startswith("own")]
        self.place = place
        self.level += 1
        long = self.level < _DEEPEST_BLOCK and self.size < _MUCH
        length = self.random.randint(1, 7) if long else 1
        statements = tuple(self.statement() for _ in range(length))
        self.level -= 1
        self.place = before
        del self.names[reach:]
        return statements

    def statement(self) -> Statement:
        """Give a statement that fits this place."""
        depth = self.random.randint(1, 3)
        return Statement(tuple(self.expand_any(self.statement_templates(), depth)))

    def statement_templates(self) -> Iterator[str]:
        while True:
            template = self.random.choice(self.productions())
            if self.level < _DEEPEST_BLOCK or _NESTING.isdisjoint(_words(template)):
                yield template

    def productions(self) -> tuple[str, ...]:
        place = self.place
        if place.label and self.chance(0.25):
            return (f"break {place.label}", *(f"continue {place.label}",) * place.label_loops)
        if place.breaks and self.chance(0.12):
            return _GRAMMAR["loop_statement" if place.continues else "case_statement"].productions
        if place.yields and self.chance(0.4):
            return _GRAMMAR["generator_statement"].productions
        if place.awaits and self.chance(0.3):
            return _GRAMMAR["async_statement"].productions
        if place.returns and self.chance(0.25):
            return _GRAMMAR["function_statement"].productions
        kind = self.random.choices(("declaration", "statement", "probe"), (1, 3, 6))[0]
        return _GRAMMAR[kind].productions

    def members(self, *, heir: bool) -> Block:
        """Give a class's members, each private name once, and those that the others use."""
        templates = _GRAMMAR["member"].productions
        if heir:
            templates += _GRAMMAR["heir_member"].productions
        before, self.place = self.place, _Place()
        members = {"#secret": Statement(("#secret = 1",))}
        for template in self.random.choices(templates, k=self.random.randint(2, 6)):
            name = _MEMBER_NAME.search(template)
            key = name[0] if name else template
            if key not in members:
                members[key] = Statement(tuple(self.expand(template, 2)))
        self.place = before
        text = "".join(member.render() for member in members.values())
        for private, plain in _PRIVATE_MEMBERS.items():
            if f"this.{private}" in text and private not in members:
                members[private] = Statement((plain,))
        return tuple(members.values())

    def expression(self, word: str, depth: int) -> list[str | Block]:
        self.size += 1
        if word not in _EXACT_KINDS and f"{word}.leaf" in _GRAMMAR and self.chance(0.02):
            word = self.random.choice(_MISTAKES)
        if self.chance(0.35):
            try:
                return [self.variable(word.removesuffix(".leaf"), assigned=False)]
            except _NothingFitsError:
                pass
        if f"{word}.leaf" in _GRAMMAR and (
            depth <= 0 or self.size > _TOO_MUCH or word not in _GRAMMAR
        ):
            word = f"{word}.leaf"
        kind = _GRAMMAR[word]
        reach = len(self.names)
        for _ in range(_ATTEMPTS):
            template = self.random.choice(kind.productions)
            # Another name for a kind is no step down.
            alias = len(_words(template)) == 1 and not any(_pieces(template)[::2])
            try:
                parts = self.expand(template, max(depth, 0) + alias)
            except _NothingFitsError:
                del self.names[reach:]
                continue
            return ["(", *parts, ")"] if kind.wrapped and not alias else parts
        raise AssertionError(f"the grammar has nothing that always fits for {word!r}")


def make_program(seed: int, used: set[str] | None = None) -> Program:
    """Write the program of a seed, always the same one.

    Args:
        seed: any integer.
        used: gets the productions that were taken.
    """
    writer = _Writer(Random(seed))
    statements: list[Statement] = []
    for _ in range(writer.random.randint(5, 11)):
        statements += _section(writer)
    if writer.chance(0.01):
        broken = writer.random.choice(broken_statements())
        statements.insert(writer.random.randrange(len(statements)), broken)
    ending = _ENDING
    if writer.chance(0.15):
        template = writer.random.choice(_GRAMMAR["ending"].productions)
        ending = Statement(tuple(writer.expand(template, 2))).render()
    if used is not None:
        used |= writer.used
    return Program(seed, tuple(statements), ending)


def _section(writer: _Writer) -> Iterator[Statement]:
    """Give some statements; mostly a failure among them does not end the program."""
    for _ in range(writer.random.randint(0, 2)):
        # In reach of all that follows, and simple, so that it seldom fails.
        template = writer.random.choice(_GRAMMAR["declaration"].productions)
        yield Statement(tuple(writer.expand(template, 1)))
    if writer.chance(0.1):
        yield writer.statement()
        return
    block = writer.block(writer.place, {})
    yield Statement(("try { ", block, " } catch (error) { put('caught', error) }"))


def productions() -> frozenset[str]:
    """Give every production of the grammar."""
    return frozenset(each for kind in _GRAMMAR.values() for each in kind.productions)


def broken_statements() -> Block:
    """Give statements that cannot be parsed, for reasons that show before the program's end."""
    return tuple(Statement((line,)) for line in _GRAMMAR["broken"].productions)


def smaller_programs(program: Program) -> Iterator[Program]:
    """Give what a program becomes when statements are dropped, the largest cuts first."""
    statements = program.statements
    width = len(statements) // 2
    while width > 1:
        for start in range(0, len(statements), width):
            yield replace(program, statements=statements[:start] + statements[start + width :])
        width //= 2
    for block in _smaller_blocks(statements):
        yield replace(program, statements=block)
    if program.ending != _ENDING:
        yield replace(program, ending=_ENDING)


def _smaller_blocks(block: Block) -> Iterator[Block]:
    for index, statement in enumerate(block):
        before, after = block[:index], block[index + 1 :]
        yield before + after
        for place, part in enumerate(statement.parts):
            if isinstance(part, str):
                continue
            # The statements inside, without what is around them.
            yield before + part + after
            for smaller in _smaller_blocks(part):
                parts = (*statement.parts[:place], smaller, *statement.parts[place + 1 :])
                yield (*before, Statement(parts), *after)
