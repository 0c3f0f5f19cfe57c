"""All attacks by group, and how a group is run in a column."""

from __future__ import annotations

from collections.abc import Sequence

from tests.matrix import (
    attacks_denial,
    attacks_escape,
    attacks_filesystem,
    attacks_leak,
    attacks_surface,
    attacks_tenants,
    attacks_terminal,
)
from tests.matrix.attack import Attack, attacks_in
from tests.matrix.benign import PROGRAMS, SLOW
from tests.matrix.runners import Column
from tests.matrix.verdicts import Verdict, run_alone, run_at_terminal, run_batch, run_pairs
from tests.matrix.world import Person

GROUPS = {
    "filesystem": attacks_in(attacks_filesystem),
    "escape": attacks_in(attacks_escape),
    "leak": attacks_in(attacks_leak),
    "surface": attacks_in(attacks_surface),
    "terminal": attacks_in(attacks_terminal),
    "denial": attacks_in(attacks_denial),
    "tenants": attacks_in(attacks_tenants),
}
TITLES = {
    "filesystem": "Files",
    "escape": "Escapes",
    "leak": "Leaks",
    "surface": "Attack surface",
    "terminal": "The caller's terminal",
    "denial": "Denial of service",
    "tenants": "Between tenants",
}
# Those that share one run.
TOGETHER = ("filesystem", "escape", "leak", "surface")


def run_together(column: Column, person: Person, groups: Sequence[str]) -> dict[str, Verdict]:
    """Run groups that disturb nothing in one run."""
    return run_batch(column, person, [each for name in groups for each in GROUPS[name]])


def run_group(column: Column, person: Person, name: str) -> dict[str, Verdict]:
    """Run a group as it has to be run."""
    if name == "denial":
        return run_denial(column, person, GROUPS[name])
    if name == "terminal":
        found: dict[str, Verdict] = {}
        for attack in GROUPS[name]:
            found |= run_at_terminal(column, person, attack)
        return found
    if name == "tenants":
        return run_pairs(column, person, GROUPS[name])
    return run_together(column, person, [name])


def run_denial(column: Column, person: Person, attacks: Sequence[Attack]) -> dict[str, Verdict]:
    """Run attacks that use things up: in one run those that end none, the others alone."""
    together = {each.name for each in attacks_denial.TOGETHER}
    shared = [each for each in attacks_denial.TOGETHER if each in attacks]
    limits = attacks_denial.LIMITS_TOGETHER
    found = run_batch(column, person, shared, limits) if shared else {}
    for each in attacks:
        if each.name not in together:
            found[each.name] = run_alone(column, person, each, attacks_denial.LIMITS)
    return found


def names_are_unique() -> bool:
    """Tell whether every attack and program has a name of its own; they are keys."""
    names = [each.name for each in (*PROGRAMS, *SLOW)]
    names += [each.name for attacks in GROUPS.values() for each in attacks]
    return len(names) == len(set(names))
