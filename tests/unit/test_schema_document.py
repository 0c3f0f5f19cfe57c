"""The schema document: what it says is what the code does, and each part stands alone."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import beddel_cli
from beddel_cli import (
    errors,
    explain,
    outcome,
    program_outcome,
    render,
    render_verify,
    replay,
    schema_document,
    shape,
)
from beddel_cli.commands.replay_command import NOT_VALID
from beddel_cli.limits import BY_KEY, FIELDS, ISOLATE, PROGRAM, LimitField, fields_of, parse_limit
from beddel_cli.log.log_entry import ABANDONED, FINISHED, FORMAT, STARTED
from beddel_cli.plan import TIERS, camel_case
from beddel_cli.profile import PROGRAM_PROTECTIONS, PROTECTIONS, protections_of
from beddel_cli.receipt import PREDICATE_TYPE, STATEMENT_TYPE
from beddel_cli.schema_document import (
    FORMATS,
    KINDS,
    REPORTS,
    REPORTS_FILE,
    Definitions,
    standalone,
    whole,
)
from tests.support.command import CommandLine

ROOT = Path(__file__).parents[2]
WHOLE: dict[str, Any] = json.loads(whole())
DEFS: dict[str, Any] = WHOLE["$defs"]
# What the second file defines, which no run reads.
REPORTED = json.loads(Path(REPORTS_FILE).read_bytes())["$defs"]


def schemas(schema: Any) -> Iterator[dict[str, Any]]:
    """Give every mapping in a schema."""
    if isinstance(schema, dict):
        yield schema
    for item in schema.values() if isinstance(schema, dict) else schema:
        if isinstance(item, dict | list):
            yield from schemas(item)


def test_a_definition_read_alone_is_the_one_in_the_document() -> None:
    definitions = Definitions()
    here = {name: DEFS[name] for name in DEFS if name not in REPORTED}
    assert {name: definitions(name) for name in here} == here
    assert set(here) >= {*FORMATS, "error", "size"}
    with pytest.raises(ValueError, match="substring not found"):
        definitions("properties")


@pytest.mark.parametrize("kind", KINDS)
def test_a_standalone_schema_holds_all_it_refers_to_and_nothing_else(kind: str) -> None:
    schema = json.loads(standalone(kind))
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"{WHOLE['$id']}/{kind}"
    references = {item["$ref"] for item in schemas(schema) if "$ref" in item}
    assert references == {f"#/$defs/{name}" for name in schema["$defs"]}
    assert schema["properties"] == DEFS[kind]["properties"]
    assert standalone(kind).isascii()


CHECKED = {
    *("$ref", "allOf", "not", "if", "then", "else", "type", "const", "enum", "pattern"),
    *("minLength", "maxLength", "minimum", "maximum", "properties", "required"),
    *("additionalProperties", "items", "minItems", "uniqueItems"),
}
SAID = {"title", "description", "examples", "errorMessage", "patternErrorMessage", "doNotSuggest"}


def keywords(schema: Any) -> Iterator[str]:
    """Give the keywords of a schema, which names of properties are not."""
    if not isinstance(schema, dict):
        return
    yield from schema
    inner = [*schema.get("properties", {}).values(), *schema.get("allOf", ())]
    inner += [schema.get(key) for key in ("not", "if", "then", "else", "items")]
    for item in (*inner, schema.get("additionalProperties")):
        yield from keywords(item)


def test_the_schema_uses_no_keyword_that_our_interpreter_would_pass_over() -> None:
    used = {word for schema in DEFS.values() for word in keywords(schema)}
    assert used <= CHECKED | SAID
    described = shape.__doc__ or ""
    assert all(f"{word}" in described for word in CHECKED)
    assert {"if", "pattern", "uniqueItems", "not"} <= used, "the control: the walk sees them"


def test_every_definition_is_of_use_and_says_what_it_is() -> None:
    used = {name for kind in KINDS for name in json.loads(standalone(kind))["$defs"]}
    assert used | set(KINDS) == set(DEFS)
    for name, schema in DEFS.items():
        assert schema["description"], name
        for key, inner in schema.get("properties", {}).items():
            plain = schema_document.KINDS[:2]
            assert name not in plain or "description" in inner or "$ref" in inner, (name, key)


def test_the_schema_beside_the_samples_is_the_one_of_jobs() -> None:
    assert (Path(beddel_cli.__file__).parent / "samples" / "job.schema.json").read_bytes() == (
        standalone("job")
    )


def test_each_sample_tells_editors_where_its_schema_is() -> None:
    samples = sorted((Path(beddel_cli.__file__).parent / "samples").glob("*.yaml"))
    assert len(samples) >= 6
    for sample in samples:
        first = sample.read_text("utf-8").splitlines()[0]
        name = first.removeprefix("# yaml-language-server: $schema=")
        assert first != name, sample
        assert (sample.parent / name).read_bytes() == standalone("job")


def words(*path: str) -> list[Any]:
    item: Any = DEFS
    for key in path:
        item = item[key]
    return list(item["enum"])


def keys_of(use: str) -> list[str]:
    return [field.key for field in fields_of(use)]


def never(schema: dict[str, Any]) -> set[str]:
    """Give the members that a schema does not allow."""
    return {name for name, inner in schema["properties"].items() if inner.get("not") == {}}


def test_keys_of_limits_in_the_schema_are_those_of_the_code() -> None:
    limits = DEFS["job-limits"]["properties"]
    assert list(limits) == [field.key for field in FIELDS]
    parts = DEFS["profile"]["properties"]
    tables = [limits]
    for use, part, job in (
        (ISOLATE, "isolate", "isolate-job"),
        (PROGRAM, "process", "program-job"),
    ):
        granted = parts[part]["properties"]["limits"]
        assert list(granted["properties"]) == granted["required"] == keys_of(use)
        tables.append(granted["properties"])
        others = {field.key for field in FIELDS} - set(keys_of(use))
        assert never(DEFS[job]["properties"]["limits"]) == others
    for table in tables:
        for key, inner in table.items():
            assert inner["$ref"] == f"#/$defs/{BY_KEY[key].kind}"


def test_limits_in_receipts_and_documents_are_those_of_the_code() -> None:
    for whole_one, name, spelt in (
        (DEFS["plan"], "predicate", camel_case),
        (DEFS["json-output"], "output", str),
    ):
        limits = whole_one["properties"]["limits"]
        assert list(limits["properties"]) == [spelt(field.field) for field in FIELDS]
        for use in (ISOLATE, PROGRAM):
            part = DEFS[f"{use}-{name}"]["properties"]
            part = part["plan"]["properties"]["limits"] if name == "predicate" else part["limits"]
            mine = {spelt(field.field) for field in fields_of(use)}
            assert set(part["required"]) == mine
            assert never(part) == set(limits["properties"]) - mine
            assert set(limits["required"]) <= mine
    origins = DEFS["predicate"]["properties"]["limitOrigins"]["properties"]
    assert list(origins) == [camel_case(field.field) for field in FIELDS]
    for field in FIELDS:
        by_tier = any(getattr(tier, field.field) is not None for tier in TIERS.values())
        tier_word = ["tier"] if by_tier else []
        assert origins[camel_case(field.field)]["enum"] == [
            *("profile", *tier_word, "job", "command line")
        ]


def test_protections_and_tiers_in_the_schema_are_those_of_the_code() -> None:
    for use, part in ((ISOLATE, "isolate"), (PROGRAM, "process")):
        known = set(protections_of(use))
        profile = DEFS["profile"]["properties"][part]["properties"]
        assert set(profile["required"]["items"]["enum"]) == known
        plan = DEFS[f"{use}-predicate"]["properties"]["plan"]["properties"]
        assert set(plan["required"]["items"]["enum"]) == known
        assert plan["runtime"]["const"] == {"isolate": "javascript", "process": "process"}[part]
    both = {*PROTECTIONS, *PROGRAM_PROTECTIONS}
    assert set(words("plan", "properties", "required", "items")) == both
    assert words("plan", "properties", "tier") == [*TIERS, None]


# Endings that only one of the two kinds of job can have.
OF_ISOLATES = {
    *("thrown", "syntax", "stack", "trap", "not-json", "unsettled", "unhandled", "fuel"),
    "worker-fault",
}
OF_PROGRAMS = {
    *("exit", "signal", "not-executable", "not-found", "cpu", "processes", "disk", "inodes"),
    "sandbox-fault",
}


def test_endings_in_the_schema_are_those_of_the_code() -> None:
    ending = DEFS["predicate"]["properties"]["outcome"]["properties"]
    assert ending["status"]["enum"] == list(outcome.STATUSES)
    assert ending["reason"]["enum"] == list(outcome.REASONS)
    isolate, program = (
        DEFS[f"{use}-predicate"]["properties"]["outcome"]["properties"]
        for use in (ISOLATE, PROGRAM)
    )
    assert isolate["reason"]["enum"] == [x for x in outcome.REASONS if x not in OF_PROGRAMS]
    assert program["reason"]["enum"] == [x for x in outcome.REASONS if x not in OF_ISOLATES]
    codes = {outcome.REASONS[word][1] for word in isolate["reason"]["enum"]}
    assert set(isolate["exitCode"]["enum"]) == codes
    # What each judge can say, from its own source.
    source = Path(program_outcome.__file__).read_text("utf-8")
    said = set(re.findall(r'_make\(\s*"([a-z-]+)"', source))
    said |= set(program_outcome._REASON_OF_LIMIT.values())
    assert said >= OF_PROGRAMS
    assert said & OF_ISOLATES == set()
    source = Path(outcome.__file__).read_text("utf-8").partition("_GUEST_REASONS")[2]
    assert not any(f'"{word}"' in source for word in OF_PROGRAMS)


def test_names_of_formats_in_the_schema_are_those_of_the_code() -> None:
    statement = DEFS["receipt"]["properties"]
    assert statement["_type"]["const"] == STATEMENT_TYPE
    assert statement["predicateType"]["const"] == PREDICATE_TYPE
    assert DEFS["json-output"]["properties"]["schema"]["const"] == render.JSON_SCHEMA


def test_the_two_files_define_nothing_twice() -> None:
    first = json.loads(Path(schema_document.FILE).read_bytes())["$defs"]
    assert set(first) & set(REPORTED) == set()
    assert set(first) | set(REPORTED) == set(DEFS)
    assert set(REPORTS) <= set(REPORTED)
    assert [item["$ref"] for item in WHOLE["anyOf"]] == [f"#/$defs/{kind}" for kind in KINDS]


def test_the_readme_names_each_kind() -> None:
    text = (ROOT / "README.md").read_text("utf-8").partition("The rules are a JSON Schema")[2]
    for kind in KINDS:
        assert f"`{kind}`" in text.partition("```")[0] or kind == "job", kind


def test_words_and_limits_in_reports_are_those_of_the_code() -> None:
    profile, shown = DEFS["profile"]["properties"], DEFS["profiles-show"]["properties"]
    isolate, part = profile["isolate"]["properties"], shown["process"]["properties"]
    assert shown["level"]["enum"] == [*profile["level"]["enum"], None]
    assert (
        words("explain", "properties", "profile", "properties", "level")
        == (profile["level"]["enum"])
    )
    for key in ("dynamic_code", "clock", "network"):
        assert shown[key]["enum"] == [*isolate[key]["enum"], None]
    assert part["network"]["enum"] == profile["process"]["properties"]["network"]["enum"]
    for use, limits in ((ISOLATE, shown["limits"]), (PROGRAM, part["limits"])):
        assert list(limits["properties"]) == limits["required"] == keys_of(use)
        for key, inner in limits["properties"].items():
            assert inner == {"$ref": f"#/$defs/{BY_KEY[key].kind}"}
    assert words("explained-value", "properties", "origin") == [
        *(explain.PROFILE, explain.TIER, explain.JOB, explain.COMMAND_LINE, explain.VERSION)
    ]
    assert words("replay", "properties", "verdict") == [*replay.EXIT_CODES, NOT_VALID]
    assert words("verified-because") == [*render_verify._BECAUSE.values(), None]
    assert words("log-entry", "properties", "event") == [STARTED, FINISHED, ABANDONED]
    assert DEFS["log-entry"]["properties"]["entry"]["const"] == FORMAT


def test_the_keys_of_a_job_are_those_its_reader_looks_at() -> None:
    source = (Path(beddel_cli.__file__).parent / "job.py").read_text("utf-8")
    read = set(re.findall(r'at\(document, \("(\w+)",\)\)', source))
    never = {key for key, item in DEFS["job"]["properties"].items() if item.get("not") == {}}
    assert read | {"beddel", "network"} == set(DEFS["job"]["properties"]) - never


def test_an_error_in_json_has_the_keys_of_the_schema() -> None:
    error = errors.JobError("a")
    error.more = (errors.JobError("b"),)
    shown = json.loads(render.json_of_error(error))["error"]
    assert set(shown) == set(DEFS["error"]["properties"])
    assert set(shown["more"][0]) == set(DEFS["problem"]["properties"])
    assert DEFS["json-output"]["properties"]["error"] == {"$ref": "#/$defs/error"}


PATTERNS = sorted(
    {item["pattern"] for item in schemas(DEFS) if isinstance(item.get("pattern"), str)}
)
# Our patterns are a row of pieces, each a class or character with one bounded or starred
# repetition, or an optional or alternative group of such pieces.
PIECE = r"(?:\[[^]\\]*(?:\\(?:t|x00)[^]\\]*)?\]|\\\.|[A-Za-z:-])(?:\*|\{[0-9]+(?:,[0-9]+)?\})?"
GROUP = rf"\((?:{PIECE})+(?:\|(?:{PIECE})+)*\)\??"
SHAPE = re.compile(rf"\^(?:{PIECE}|{GROUP})+\$")


# What may match nothing, so that what stands before and after it meets.
NOTHING = re.compile(r"\([^)]*\)\?|(?:\[[^]]*\]|\\.|[^]\\])\{0,[0-9]+\}")


def is_plain(pattern: str) -> bool:
    """Tell whether a pattern has our shape, and something certain between any two stars."""
    between = NOTHING.sub("", pattern).split("*")[1:-1]
    apart = all(
        re.fullmatch(rf"(?:{PIECE}|{GROUP})+(?:\[[^]]*\]|[^]\\])", part) for part in between
    )
    return bool(SHAPE.fullmatch(pattern)) and apart


def test_patterns_are_of_a_shape_that_cannot_be_slow_and_means_the_same_in_javascript() -> None:
    assert len(PATTERNS) >= 6
    for pattern in PATTERNS:
        assert is_plain(pattern), pattern
    for slow in (r"^(a*)*$", r"^(a|a)*$", r"^a*.*$", r"^\d*$", r"^(?=a)$", r"a*$", "^a|b$"):
        assert not is_plain(slow), slow
    for slow in ("^a*a*$", "^a*(b)?a*$", "^[ab]*b{0,3}[ab]*$"):
        assert not is_plain(slow), slow


def cpu_seconds(act: Callable[[], object]) -> float:
    def once() -> float:
        started = time.process_time()
        act()
        return time.process_time() - started

    return min(once() for _ in range(3))


HOSTILE = ("0", "a", "1.", " ", "\t", " \t", "0_", "9" * 18 + " ", "-", "0.0", "2MiB", "\n", "a-")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_no_pattern_takes_long_over_hostile_text(pattern: str) -> None:
    compiled = re.compile(pattern)
    for unit in HOSTILE:
        for end in ("", "!", "\n", "B", "Z"):
            text = unit * (100_000 // len(unit)) + end
            assert cpu_seconds(lambda text=text: compiled.fullmatch(text)) < 0.05  # type: ignore[misc]
            assert cpu_seconds(lambda text=text: compiled.search(text)) < 0.05  # type: ignore[misc]


def kind_matches(kind: str, value: object) -> bool:
    schema = DEFS[kind]
    if isinstance(value, int | float):
        known = {"number"} | ({"integer"} if isinstance(value, int) else set())
        return bool(known & {*schema["type"]}) and (schema["minimum"] <= value <= schema["maximum"])
    return isinstance(value, str) and bool(re.fullmatch(schema["pattern"][1:-1], value))


NUMBERS = (
    "0",
    "1",
    "1.5",
    "1.",
    ".5",
    "1_0",
    "_1",
    "9" * 18,
    "9" * 19,
    "9" * 21,
    "9" * 22,
    "٣",
    "-1",
)
UNITS = (
    "",
    "B",
    "KiB",
    "MiB",
    "MB",
    "GiB",
    "ms",
    "s",
    "min",
    "m",
    " s",
    "\ts ",
    "\ns",
    "s\n",
    "\u2003B",
)
OTHERS = (0, 1, -1, 1 << 53, 1 << 20, 0.25, 0.001, 0.0001, 1048.576, 1048.577, 2.5e-7, 1e300)
# No schema says how many decimals a number may have.
MANY_DECIMALS = 0.12345
BEYOND = ("is out of range", "is not a whole number of its", "is not a number with a unit")


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.key)
def test_a_limit_that_is_read_fits_the_schema_and_one_beyond_it_has_a_reason(
    field: LimitField,
) -> None:
    seen = set()
    for value in [number + unit for number in NUMBERS for unit in UNITS] + [*OTHERS, MANY_DECIMALS]:
        try:
            parse_limit(field, value)
            problem = None
        except errors.JobError as error:
            problem = error.message
        fits = kind_matches(field.kind, value)
        seen.add((fits, problem is None))
        assert fits or problem is not None, value
        if fits and problem is not None:
            known = value == MANY_DECIMALS or any(reason in problem for reason in BEYOND)
            assert known, (value, problem)
    assert {(True, True), (False, False)} <= seen


def test_the_command_prints_the_whole_or_one_part(capsys: pytest.CaptureFixture[str]) -> None:
    beddel = CommandLine(capsys)
    assert beddel("schema").out.encode() == whole()
    for kind in KINDS:
        done = beddel("schema", kind)
        assert (done.out.encode(), done.err) == (standalone(kind), "")
    wrong = beddel("schema", "jobs", code=2)
    assert wrong.out == ""
    assert wrong.err == (
        "beddel-cli: no schema 'jobs'\n"
        f"  expected  {', '.join(KINDS)}\n"
        "  hint      did you mean 'job'?\n"
    )
