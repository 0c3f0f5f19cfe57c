"""Turn an explanation into what people and programs read. Pure: values in, text out."""

from __future__ import annotations

from beddel_cli.explain import COMMAND_LINE, JOB, PROFILE, TIER, VERSION
from beddel_cli.offer import NOT_TRIED
from beddel_cli.profile_comparison import profile_warnings
from beddel_cli.render import object_of_error
from beddel_cli.terminal import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from beddel_cli.errors import BeddelError, Place, RefusedError
    from beddel_cli.explain import Digest, Explanation, SourceLine, Value, Wall

JSON_SCHEMA = "beddel-cli/explain/v1"
EXIT_WOULD_RUN, EXIT_WOULD_BE_REFUSED, EXIT_COULD_NOT_TELL = 0, 1, 2
_FROM = {JOB: "the job", PROFILE: "the profile", COMMAND_LINE: "the command line", TIER: "the tier"}
_NOTE = (
    "This machine was asked, and nothing was tried or started: `run` puts each protection in\n"
    "force, confirms it before it sends the job, and refuses if one that is required fails."
)


def exit_code(explanation: Explanation) -> int:
    """Give 0 for a job that would run, 1 for one that would be refused."""
    return EXIT_WOULD_BE_REFUSED if explanation.refusals else EXIT_WOULD_RUN


def explanation_text(explanation: Explanation) -> str:
    """Give the answer for people: verdict, reasons, values, walls, lines, digests."""
    question = explanation.question
    built_in = question.profile.built_in
    verdict = "would be refused" if explanation.refusals else "would run"
    own = "" if built_in else " (your own file)"
    name = visible(question.profile.name)
    parts = [f"{verdict}  {visible(question.job.id)}  under {name}{own}"]
    parts += [f"  warning  {visible(text)}" for text in _warnings(explanation)]
    parts += _refusal_lines(explanation.refusals)
    # A built-in profile lies deep in the installation; its name says which file is meant.
    name_of_file = question.profile_file.rpartition("/")[2]
    folder = question.profile_file.removesuffix(name_of_file) if built_in else ""

    def where(place: Place | None) -> str:
        return "" if place is None else visible(str(place).removeprefix(folder))

    table = [
        _value_row(value, where(value.place), where(value.granted_place))
        for value in explanation.values
    ]
    heads = ("it gets", "", "from", "at", "the profile grants", "at")
    parts += ["", *_table([heads, *table])]
    walls = [_wall_row(wall, where(wall.required_place)) for wall in explanation.walls]
    parts += ["", *_table([("wall", "required", "at", "this machine"), *walls])]
    lines = [line for line in explanation.lines if line.place.file != question.profile_file]
    parts += ["", "  the job's lines that decide", *_table(map(_line_row, lines))]
    parts += ["", *_table(_digest_row(digest, folder) for digest in explanation.digests)]
    return "\n".join([*parts, "", _NOTE]) + "\n"


def _refusal_lines(refusals: Sequence[RefusedError]) -> list[str]:
    lines = []
    for refusal in refusals:
        place = f" ({visible(str(refusal.place))})" if refusal.place else ""
        lines.append(f"  reason   {visible(refusal.message)}{place}")
        lines += [
            f"    {label:<7}{visible(text)}"
            for label, text in (
                ("needs", refusal.needs),
                ("found", refusal.found),
                ("fix", refusal.fix),
            )
        ]
    return lines


def _value_row(value: Value, where: str, granted: str) -> tuple[str, ...]:
    source = _FROM.get(value.origin, value.origin)
    text = f"{visible(value.value)} REFUSED" if value.refused else visible(value.value)
    grants = "" if value.origin == VERSION else visible(value.granted)
    return (value.field, text, source, where, grants, granted if value.origin != PROFILE else "")


def _wall_row(wall: Wall, where: str) -> tuple[str, ...]:
    offered = "offered: " if wall.available else "MISSING: "
    return (wall.name, "yes" if wall.required else "no", where, offered + visible(wall.how))


def _line_row(line: SourceLine) -> tuple[str, ...]:
    # Our word first: CI systems take a line for a command by how it begins.
    return (", ".join(line.decides), visible(str(line.place)), visible(line.text))


def _digest_row(digest: Digest, folder: str) -> tuple[str, ...]:
    text = f"none: {digest.absent}" if digest.sha256 is None else f"sha256:{digest.sha256}"
    return (digest.name, text, visible(digest.source.removeprefix(folder)))


def _table(rows: Iterable[Sequence[str]]) -> list[str]:
    """Align columns; each is as wide as its widest cell."""
    cells = list(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  "
        + "  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def _warnings(explanation: Explanation) -> tuple[str, ...]:
    return profile_warnings(explanation.question.profile, explanation.question.beyond)


def explanation_json(explanation: Explanation) -> dict[str, Any]:
    """Give the one JSON document of `--json`: always all keys, null when unknown."""
    question, host = explanation.question, explanation.host
    profile = question.profile
    return {
        "schema": JSON_SCHEMA,
        "would_run": not explanation.refusals,
        "exit_code": exit_code(explanation),
        "job": {
            "id": question.job.id,
            "runtime": question.job.runtime,
            "file": question.job.file,
            "code_file": question.job.code_file,
            "input_from": question.input_from,
        },
        "profile": {
            "name": profile.name,
            "file": question.profile_file,
            "built_in": profile.built_in,
            "level": profile.level,
            "looser_than_built_in": [item.name for item in question.beyond],
        },
        "values": [_json_value(value) for value in explanation.values],
        "protections": [_json_wall(wall) for wall in explanation.walls],
        "source_lines": [
            {**_json_place(line.place), "text": line.text, "decides": list(line.decides)}
            for line in explanation.lines
        ],
        "refusals": [_json_refusal(refusal) for refusal in explanation.refusals],
        "digests": {item.name: item.sha256 for item in explanation.digests},
        "machine": {
            "system": host.system,
            "machine": host.machine,
            "kernel": host.kernel,
            "isolate_bytes": host.isolate_bytes or None,
            "verified": NOT_TRIED,
        },
        "warnings": list(_warnings(explanation)),
        "error": None,
    }


def explanation_json_of_error(error: BeddelError) -> dict[str, Any]:
    """Give the JSON document of a question without an answer: the same keys, null but two."""
    keys = ("job", "profile", "values", "protections", "source_lines", "refusals", "digests")
    return {
        "schema": JSON_SCHEMA,
        "would_run": None,
        "exit_code": EXIT_COULD_NOT_TELL,
        **dict.fromkeys((*keys, "machine")),
        "warnings": [],
        "error": object_of_error(error),
    }


def _json_place(place: Place | None) -> dict[str, Any]:
    names = ("file", "line", "column")
    return {name: getattr(place, name) if place else None for name in names}


def _json_value(value: Value) -> dict[str, Any]:
    return {
        "field": value.field,
        "value": value.value,
        "number": value.number,
        "origin": value.origin,
        "place": _json_place(value.place) if value.place else None,
        "granted": value.granted,
        "granted_place": _json_place(value.granted_place) if value.granted_place else None,
        "refused": value.refused,
    }


def _json_wall(wall: Wall) -> dict[str, Any]:
    return {
        "name": wall.name,
        "required": wall.required,
        "required_place": _json_place(wall.required_place) if wall.required_place else None,
        "available": wall.available,
        "how": wall.how,
        "verified": wall.verified,
        "fix": wall.fix,
    }


def _json_refusal(refusal: RefusedError) -> dict[str, Any]:
    return {
        "reason": refusal.reason,
        "message": refusal.message,
        "place": _json_place(refusal.place) if refusal.place else None,
        "needs": refusal.needs,
        "found": refusal.found,
        "fix": refusal.fix,
    }
