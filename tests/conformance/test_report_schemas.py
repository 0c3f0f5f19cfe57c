"""What each command prints fits its schema exactly: nothing more, nothing less, nothing unseen."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator

from beddel_cli import shape
from beddel_cli.schema_document import REPORTS, standalone, whole
from tests.support.reports import collect_reports

WHOLE: dict[str, Any] = json.loads(whole())
DEFINITIONS: dict[str, Any] = WHOLE["$defs"]
STANDALONE = {kind: json.loads(standalone(kind)) for kind in REPORTS}
VALIDATORS = {kind: Draft202012Validator(STANDALONE[kind]) for kind in REPORTS}
Path = tuple[str | int, ...]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Documents of each kind, as commands printed them."""
    return collect_reports(tmp_path_factory.mktemp("reports"))


def fits(kind: str, document: Any) -> bool:
    """Ask an independent validator and our own interpreter, which agree."""
    theirs: bool = VALIDATORS[kind].is_valid(document)
    problems = shape.find_problems(document, DEFINITIONS[kind], DEFINITIONS.__getitem__, {})
    assert theirs == (not problems), (kind, problems, document)
    return theirs


def described(schema: Any, value: Any, path: Path = ()) -> Iterator[tuple[Any, Path]]:
    """Give each object of a document that a schema describes, with what it says of that object."""
    while "$ref" in schema:
        schema = DEFINITIONS[schema["$ref"].removeprefix("#/$defs/")]
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from described(schema.get("items", {}), item, (*path, index))
    if not isinstance(value, dict):
        return
    properties, more = schema.get("properties", {}), schema.get("additionalProperties", {})
    if properties:
        yield schema, path
    for key, item in value.items():
        inner = properties.get(key, more)
        yield from described({} if isinstance(inner, bool) else inner, item, (*path, key))


def at(document: Any, path: Path) -> Any:
    """Give what a document holds at a path."""
    for key in path:
        document = document[key]
    return document


def named(schema: Any, place: str, seen: set[str]) -> Iterator[tuple[str, Any]]:
    """Give each object that a schema describes, directly or through others, with its place."""
    while "$ref" in schema:
        place = schema["$ref"].removeprefix("#/$defs/")
        if place in seen:
            return
        seen.add(place)
        schema = DEFINITIONS[place]
    if "properties" in schema:
        yield place, schema
    for key, inner in schema.get("properties", {}).items():
        yield from named(inner, f"{place}.{key}", seen)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from named(schema[key], f"{place}[]", seen)


@pytest.mark.parametrize("kind", REPORTS)
def test_the_schema_is_a_valid_schema_that_names_its_form(kind: str) -> None:
    Draft202012Validator.check_schema(STANDALONE[kind])
    Draft7Validator.check_schema(STANDALONE[kind])
    named = STANDALONE[kind]["properties"].get("schema")
    if named is not None:
        assert named["const"] == f"beddel-cli/{kind}/v1"


@pytest.mark.parametrize("kind", REPORTS)
def test_what_a_command_prints_fits(kind: str, reports: dict[str, list[Any]]) -> None:
    assert reports[kind]
    for document in reports[kind]:
        assert list(VALIDATORS[kind].iter_errors(document)) == []
        assert fits(kind, document)


@pytest.mark.parametrize("kind", REPORTS)
def test_one_key_more_or_less_does_not_fit(kind: str, reports: dict[str, list[Any]]) -> None:
    tried = set()
    for document in reports[kind]:
        for schema, path in described(DEFINITIONS[kind], document):
            form = (id(schema), *at(document, path))
            if form in tried:
                continue
            tried.add(form)
            wrong = copy.deepcopy(document)
            at(wrong, path)["colour"] = 1
            assert not fits(kind, wrong), path
            for key in at(document, path):
                wrong = copy.deepcopy(document)
                del at(wrong, path)[key]
                assert not fits(kind, wrong), (path, key)
    assert tried


# A log line has a sentence where documents have an object.
TELLING = [
    kind
    for kind in REPORTS
    if DEFINITIONS[kind]["properties"].get("error") == {"$ref": "#/$defs/error"}
]


@pytest.mark.parametrize("kind", TELLING)
def test_a_document_tells_of_an_error_or_of_anything_else(
    kind: str, reports: dict[str, list[Any]]
) -> None:
    good = [document for document in reports[kind] if document["error"] is None]
    bad = [document for document in reports[kind] if document["error"] is not None]
    assert good
    assert bad
    # Of several places one may fail and the others be told.
    told_beside = kind == "audit-anchor"
    for document in good:
        assert fits(kind, {**document, "error": bad[0]["error"]}) == told_beside
    for document in bad:
        alone = document.get("places") is None
        assert fits(kind, {**document, "error": None}) == (told_beside and not alone)


def test_every_key_that_the_schemas_name_is_in_some_document(
    reports: dict[str, list[Any]],
) -> None:
    met: dict[int, set[str]] = {}
    for kind in REPORTS:
        for document in reports[kind]:
            for schema, path in described(DEFINITIONS[kind], document):
                held = at(document, path)
                keys = {key for key in held if held[key] is not None}
                met.setdefault(id(schema), set()).update(keys)
    seen: set[str] = set()
    dead = {
        f"{place}.{key}"
        for kind in REPORTS
        for place, schema in named({"$ref": f"#/$defs/{kind}"}, kind, seen)
        for key in schema["properties"]
        if key not in met.get(id(schema), ())
    }
    assert dead == set()
