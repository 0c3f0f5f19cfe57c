"""Any bytes are a value or our error, and a position in code is a position in its file."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from beddel_cli.errors import JobError
from beddel_cli.job import parse_job
from beddel_cli.yaml_safe import MAX_DEPTH, Document, parse_yaml

# Pieces that YAML means something by, so that random text is not just one plain scalar.
PIECES = st.sampled_from(
    (
        *(
            "a",
            "b",
            "x y",
            ": ",
            ":",
            "- ",
            "\n",
            "\n  ",
            "\n    ",
            "[",
            "]",
            "{",
            "}",
            ", ",
            "&a ",
        ),
        *("|\n", ">\n", "'", '"', "\\", "# c\n", "---\n", "...\n", "!", "!!str ", "? ", "<<", "*a"),
        *(
            "1",
            "0",
            "012",
            "0o7",
            "1e9",
            ".inf",
            "~",
            "true",
            "no",
            "\t",
            "\r\n",
            "\r",
            "\x85",
            "é",
        ),
        *("\x00", "\ufeff", "|2\n", "|+\n", "|-\n", "-", "@", "`", "*b", "&b ", "😀", "%YAML"),
    )
)
SOUP = st.lists(PIECES, max_size=40).map("".join)
LINE_END = re.compile("\r\n|[\n\r\x85]")


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


def read(data: bytes) -> Document | JobError:
    try:
        return parse_yaml(data, "f.yaml")
    except JobError as error:
        return error


def check_any_bytes(data: bytes) -> None:
    document = read(data)
    if isinstance(document, JobError):
        place = document.place
        assert place is not None
        assert place.file == "f.yaml"
        if place.line is not None and place.column is not None:
            lines = [*LINE_END.split(data.decode("utf-8", "surrogateescape")), ""]
            assert 1 <= place.line <= len(lines)
            assert 1 <= place.column <= len(lines[place.line - 1]) + 1
        return
    assert depth(document.value) <= MAX_DEPTH
    assert () in document.marks
    for path in document.marks:
        assert str(document.place(path)).startswith("f.yaml:")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_our_error_inside_the_file(data: bytes) -> None:
    """Reading any bytes gives a document or a JobError whose place lies in the file."""
    check_any_bytes(data)


@settings(max_examples=300)
@given(SOUP)
def test_any_pieces_of_yaml_are_a_value_or_our_error_inside_the_file(text: str) -> None:
    """Reading any mixture of YAML's own tokens gives a document or a JobError in the file."""
    check_any_bytes(text.encode("utf-8"))


@settings(max_examples=300)
@given(SOUP)
def test_what_is_accepted_is_what_another_reader_makes_of_the_texts(text: str) -> None:
    """Every accepted document has the shape that PyYAML's own loader of plain texts gives."""
    ours = read(text.encode("utf-8"))
    if isinstance(ours, Document):
        theirs = yaml.load(text, Loader=yaml.CBaseLoader)  # noqa: S506
        assert shape_of(ours.value) == shape_of(theirs)


def shape_of(value: Any) -> Any:
    """Give lists, mappings and keys; a scalar is only a scalar."""
    if isinstance(value, dict):
        return {key: shape_of(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape_of(item) for item in value]
    return "scalar"


INTEGER = re.compile("[-+]?(0|[1-9][0-9]*)")
LEADING_ZERO = re.compile("[-+]?0[0-9_]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
NUMBER_LIKE = st.text(st.sampled_from("0011.eE+-_oxaF"), min_size=1, max_size=7).filter(
    lambda text: text[0] in "-+.01" and text not in ("-", "---", "...")
)


@settings(max_examples=300)
@given(NUMBER_LIKE)
def test_plain_numbers_are_those_of_the_core_schema(text: str) -> None:
    """A plain scalar is a number just when YAML 1.2's core schema says so, leading zeros aside."""
    got = read(f"a: {text}\n".encode())
    if LEADING_ZERO.fullmatch(text):
        assert isinstance(got, JobError)
        assert got.message == f"a number with leading zeros: {text}"
        return
    if isinstance(got, JobError):
        assert got.message.startswith(("not valid YAML", "a number outside the range of JSON"))
        return
    wanted: object = text
    if INTEGER.fullmatch(text):
        wanted = int(text)
    elif re.fullmatch("0o[0-7]+", text) or re.fullmatch("0x[0-9a-fA-F]+", text):
        wanted = int(text, 0)
    elif FLOAT.fullmatch(text):
        wanted = float(text)
    assert got.value == {"a": wanted}
    assert isinstance(got.value, dict)
    assert type(got.value["a"]) is type(wanted)


HEAD = "beddel: 1\nid: a\nruntime: javascript\n# é\n"
CHARACTERS = st.characters(
    codec="utf-8",
    exclude_categories=("Cs", "Cc", "Zl", "Zp"),
    exclude_characters="\ufeff\ufffe\uffff",
)
CODE_LINE = st.text(CHARACTERS | st.sampled_from(" {}();'\"\\#:-|>&*!%@`,é😀"), max_size=12)
CODE = st.lists(CODE_LINE, min_size=1, max_size=6).map("\n".join)


def block(code: str, header: str, indent: int) -> str:
    pad = " " * indent
    lines = (f"{pad}{line}\n" if line else "\n" for line in code.split("\n"))
    return f"code: {header}\n" + "".join(lines)


def written(data: st.DataObject, code: str) -> str:
    """Write code into a job in one of YAML's ways; a way that does not fit gives other code."""
    indent = data.draw(st.integers(1, 5))
    style = data.draw(st.sampled_from(["|", "|-", "|+", "|n", "'", '"', "plain", ">", "&", "next"]))
    flat = code.replace("\n", " ")
    return {
        "|": block(code, "|", indent),
        "|-": block(code, "|-  # why", indent),
        "|+": block(code, "|+", indent),
        "|n": block(code, f"|{indent}", indent),
        "'": "code: '" + flat.replace("'", "''") + "'\n",
        '"': 'code: "' + flat.replace("\\", "\\\\").replace('"', '\\"') + '"\n',
        "plain": f"code: {flat}\n",
        ">": block(code, ">", indent),
        "&": block(code, "&x |", indent),
        "next": "code: &x\n" + block(code, "|", indent).replace("code:", "  "),
    }[style]


def check_places(text: str) -> None:
    """Hold every place that is claimed for a character of the code against the file."""
    try:
        job = parse_job(text.encode(), "job.yaml")
    except JobError:
        return
    lines = LINE_END.split(text)
    for number, line in enumerate(job.code.decode().split("\n"), 1):
        for index, char in enumerate(line):
            place = job.code_place.locate(number, index + 1)
            if place.line is not None and place.column is not None:
                assert lines[place.line - 1][place.column - 1] == char, (place, number, index)


@settings(max_examples=400)
@given(
    code=CODE,
    data=st.data(),
    tail=st.sampled_from(["", "name: x\n", "\n\nlimits: {memory: 1MiB}\n"]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    head=st.sampled_from([HEAD, "# one\r# two\x85# three\r\n" + HEAD]),
)
def test_a_position_in_code_points_at_that_character_or_is_not_claimed(
    code: str, data: st.DataObject, tail: str, end: str, head: str
) -> None:
    """Each character of a job's code is at the place that is given for it, if one is given."""
    check_places(head + (written(data, code) + tail).replace("\n", end))


@pytest.mark.parametrize(
    "text",
    [
        "code: ''''''\n",
        'code: "\\\\\\\\"\n',
        'code: &x "x"\n',
        "code: &a\n  |\n  |\n  y\n",
        "code: ! '! '\n",
        "code: |1\n   x\n  y\n",
        "code: |\n\n\n  x\n   \n  y\n",
        "code: |\n  \u202ex\n",
        "name: &n x\ncode: *n\n",
    ],
)
def test_tricky_spellings_do_not_mislead(text: str) -> None:
    assert parse_job((HEAD + text).encode(), "job.yaml").code
    check_places(HEAD + text)


def test_block_code_is_always_located() -> None:
    text = HEAD + block("if (é) {\n\n    boom()\n}", "|2", 2)
    job = parse_job(text.encode(), "job.yaml")
    assert str(job.code_place.locate(1, 5)) == "job.yaml:6:7"
    assert str(job.code_place.locate(3, 5)) == "job.yaml:8:7"
    assert str(job.code_place.locate(3, None)) == "job.yaml:8"


def test_quoted_and_plain_code_is_located_and_folded_code_is_not() -> None:
    for written_as in ("code: 'ab c'\n", 'code: "ab c"\n'):
        job = parse_job((HEAD + written_as).encode(), "job.yaml")
        assert str(job.code_place.locate(1, 4)) == "job.yaml:5:11"
    plain = parse_job((HEAD + "code: ab c\n").encode(), "job.yaml")
    assert str(plain.code_place.locate(1, 4)) == "job.yaml:5:10"
    folded = ("code: >\n  ab\n  c\n", "code: ab\n  c\n")
    escaped = ('code: "a\\tb"\n', "code: 'it''s'\n")
    for unknown in folded + escaped:
        job = parse_job((HEAD + unknown).encode(), "job.yaml")
        assert str(job.code_place.locate(1, 3)) == "job.yaml"
