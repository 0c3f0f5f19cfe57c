"""The matrix as Markdown, and what of it must not be so. No process is started here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.matrix.attack import Attack
from tests.matrix.benign import Program
from tests.matrix.verdicts import BROKE, FAILS, FAULT, HELD, REFUSES, WORKS, Verdict

# By person, column and name.
Cells = Mapping[tuple[str, str, str], Verdict]
CONTROL = "bare"
# What the walls that are left where namespaces are refused are known not to hold, or not always:
# they look at files and figures every 20 ms, and have the host's name, process ids and paths.
FALLBACK_MAY_BREAK = frozenset(
    (
        *("name_of_host", "files", "folders", "links", "bytes_in_workspace", "bytes_in_tmp"),
        *("bytes_over_places", "bytes_deleted_but_open", "memory_of_shm", "memory_of_pipes"),
        *("locks_of_system_file", "whole_locks_of_system_files"),
        *("existence_of_another", "size_of_anothers_file"),
    )
)
# What stands in a row of somebody for whom an attack works not even outside.
_NOTHING = "·"


def counts(cells: Cells, person: str, attack: Attack) -> bool:
    """Tell whether an attack works outside for somebody, so that holding it says something."""
    control = cells.get((person, CONTROL, attack.name))
    return control is not None and control.status == BROKE


def is_known(attack: Attack, cells: Cells, person: str) -> bool:
    """Tell whether it is said in SECURITY.md that an attack gets through here."""
    return bool(attack.accepted) and not (attack.without_cgroup and has_cgroup(cells, person))


def has_cgroup(cells: Cells, person: str) -> bool:
    """Tell whether ultra-secure, which requires a cgroup, ran for somebody."""
    mine = [each for (who, column, _), each in cells.items()
            if (who, column) == (person, "ultra-secure")]  # fmt: skip
    return any(each.status != REFUSES for each in mine)


def problems(
    cells: Cells, profiles: Sequence[str], attacks: Sequence[Attack], programs: Sequence[Program]
) -> list[str]:
    """Give, a line each, what beddel-cli did not hold, and what could not be told."""
    found = []
    known = {each.name: each for each in attacks}
    benign = {each.name: each for each in programs}
    for (person, column, name), verdict in cells.items():
        where = f"{name}, {column}, {person}: {verdict.status} {verdict.detail}".rstrip()
        if verdict.status == FAULT:
            found.append(where)
        elif column == "fallback" and name in known:
            if verdict.status == BROKE and name not in FALLBACK_MAY_BREAK:
                found.append(where)
        elif column not in profiles:
            continue
        elif name in known and verdict.status == BROKE and not is_known(known[name], cells, person):
            found.append(where)
        elif name in benign and verdict.status == FAILS:
            if column != "ultra-secure" or benign[name].strict:
                found.append(where)
        elif verdict.status == REFUSES and column != "ultra-secure":
            found.append(where)
    people = {person for person, _, _ in cells}
    for attack in attacks:
        if not any(counts(cells, person, attack) for person in people):
            found.append(f"{attack.name}: could not be shown to work outside, so it is not counted")
    return found


def totals(
    cells: Cells,
    persons: Sequence[str],
    columns: Sequence[str],
    groups: Mapping[str, Sequence[Attack]],
    programs: Sequence[Program],
) -> list[str]:
    """Give the tables of totals: of the attacks that work outside, how many each column held."""
    lines = []
    for person in persons:
        others = [each for each in columns if each != CONTROL]
        lines += _head([f"as {person}", "work outside", *others])
        sums = [0] * (len(others) + 1)
        for title, attacks in groups.items():
            row = _counts(cells, person, others, attacks)
            lines.append(_line([title, *_shown(cells, person, others, row)]))
            sums = [one + other for one, other in zip(sums, row, strict=True)]
        lines.append(_line(["**all**", *_shown(cells, person, others, sums)]))
        if programs:
            row = [
                sum(cells[person, each, one.name].status == WORKS for one in programs)
                for each in (CONTROL, *others)
            ]
            title = f"benign programs that work, of {len(programs)}"
            lines.append(_line([title, *_shown(cells, person, others, row)]))
        lines.append("")
    return lines


def _counts(
    cells: Cells, person: str, columns: Sequence[str], attacks: Sequence[Attack]
) -> list[int]:
    counted = [each for each in attacks if counts(cells, person, each)]
    held = [
        sum(cells[person, column, each.name].status == HELD for each in counted)
        for column in columns
    ]
    return [len(counted), *held]


def _shown(cells: Cells, person: str, columns: Sequence[str], numbers: Sequence[int]) -> list[str]:
    refused = {column for (who, column, _), each in cells.items()
               if who == person and each.status == REFUSES}  # fmt: skip
    told = [REFUSES if column in refused else str(number)
            for column, number in zip(columns, numbers[1:], strict=True)]  # fmt: skip
    return [str(numbers[0]), *told]


def rows(
    cells: Cells,
    persons: Sequence[str],
    columns: Sequence[str],
    title: str,
    tried: Sequence[Attack | Program],
) -> list[str]:
    """Give the table of a group: a row for each attack or program, a cell for each verdict."""
    heads = [f"{person}: {column}" for person in persons for column in columns]
    lines = [f"## {title}", "", *_head([title.lower(), *heads])]
    for each in tried:
        shown = [_cell(cells, person, column, each) for person in persons for column in columns]
        lines.append(_line([f"`{each.name}` {each.what}", *shown]))
    return [*lines, ""]


def _cell(cells: Cells, person: str, column: str, tried: Attack | Program) -> str:
    if isinstance(tried, Attack) and not counts(cells, person, tried):
        return _NOTHING
    verdict = cells[person, column, tried.name]
    return f"**{verdict.status}**" if verdict.status in (BROKE, FAILS, FAULT) else verdict.status


def _head(names: Sequence[str]) -> list[str]:
    return [_line(names), _line(["---"] * len(names))]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
