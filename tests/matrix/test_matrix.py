"""Every attack and every benign program of the matrix, under each profile, as root and as a user.

The verdicts of a column come from a few runs, made when the first of them is asked for. An attack
on the machine's means has a run of its own; of these the default suite tries one profile for each
user, `pytest -m slow` the others. That each attack works outside is a test too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest

from tests.matrix import attacks_denial
from tests.matrix.attack import Attack
from tests.matrix.benign import PROGRAMS, SLOW, Program
from tests.matrix.groups import (
    GROUPS,
    TOGETHER,
    names_are_unique,
    run_denial,
    run_group,
    run_together,
)
from tests.matrix.runners import BARE, BEDDEL, COLUMNS, Column, people
from tests.matrix.table import FALLBACK_MAY_BREAK, problems, totals
from tests.matrix.verdicts import (
    BROKE,
    FAILS,
    FAULT,
    HELD,
    REFUSES,
    WORKS,
    Verdict,
    judge,
    run_alone,
    run_pairs,
    run_programs,
)
from tests.matrix.world import Person, World
from tests.support.capabilities import give_up, has, require

PEOPLE = {each.name: each for each in people()}
# Where a denial of service is tried by default; everywhere takes minutes.
DENIAL = {("root", "ultra-secure"), ("user", "high-security")}
SHARING = {each.name for each in attacks_denial.TOGETHER}


@pytest.fixture(autouse=True, scope="module")
def _machine() -> None:
    require("user-namespaces")
    require("system-python")


@cache
def together(column: str, person: str) -> dict[str, Verdict]:
    return run_together(COLUMNS[column], PEOPLE[person], TOGETHER)


@cache
def tenants(column: str, person: str) -> dict[str, Verdict]:
    return run_group(COLUMNS[column], PEOPLE[person], "tenants")


@cache
def at_terminal(column: str, person: str) -> dict[str, Verdict]:
    return run_group(COLUMNS[column], PEOPLE[person], "terminal")


@cache
def sharing(column: str, person: str) -> dict[str, Verdict]:
    return run_denial(COLUMNS[column], PEOPLE[person], attacks_denial.TOGETHER)


@cache
def alone(column: str, person: str, name: str) -> Verdict:
    attack = next(each for each in GROUPS["denial"] if each.name == name)
    return run_denial(COLUMNS[column], PEOPLE[person], [attack])[name]


@cache
def benign(column: str, person: str) -> dict[str, Verdict]:
    return run_programs(COLUMNS[column], PEOPLE[person], PROGRAMS)


def verdict_of(group: str, attack: Attack, column: str, person: str) -> Verdict:
    """Give what came of an attack; runs what it takes to know."""
    if group == "tenants":
        return tenants(column, person)[attack.name]
    if group == "terminal":
        return at_terminal(column, person)[attack.name]
    if group != "denial":
        return together(column, person)[attack.name]
    if attack.name in SHARING:
        return sharing(column, person)[attack.name]
    return alone(column, person, attack.name)


def _cases() -> list[Any]:
    cases = []
    for person in PEOPLE:
        for column in BEDDEL:
            for group, attacks in GROUPS.items():
                # Behind the walls of high-security, with more of everything granted.
                alike = column.name == "tenant-isolated"
                slow = alike or (group == "denial" and (person, column.name) not in DENIAL)
                marks = [pytest.mark.slow] if slow else []
                for attack in attacks:
                    name = f"{person}-{column.name}-{attack.name}"
                    case = (group, attack, column, person)
                    cases.append(pytest.param(*case, marks=marks, id=name))
    return cases


@pytest.mark.parametrize(("group", "attack", "column", "person"), _cases())
def test_an_attack_is_held(group: str, attack: Attack, column: Column, person: str) -> None:
    verdict = verdict_of(group, attack, column.name, person)
    if column.name == "ultra-secure" and not _has_cgroup(person):
        assert verdict.status == REFUSES
        assert "cgroup" in verdict.detail
        return
    if attack.accepted and not (attack.without_cgroup and _has_cgroup(person)):
        # Nothing is said to be held that is not, nor the other way round.
        assert verdict.status == BROKE
        return
    assert verdict.status == HELD, verdict


@pytest.mark.parametrize("person", PEOPLE)
@pytest.mark.parametrize(
    ("group", "attack"),
    [
        pytest.param(group, attack, id=attack.name)
        for group, attacks in GROUPS.items()
        for attack in attacks
        if group != "denial" and attack.name not in FALLBACK_MAY_BREAK
    ],
)
def test_an_attack_is_held_where_namespaces_are_refused(
    group: str, attack: Attack, person: str
) -> None:
    """By weaker walls, or by not running at all."""
    verdict = verdict_of(group, attack, "fallback", person)
    assert verdict.status in (HELD, REFUSES), verdict


@pytest.mark.parametrize(
    ("group", "attack"),
    [
        pytest.param(group, attack, id=attack.name)
        for group, attacks in GROUPS.items()
        for attack in attacks
    ],
)
def test_an_attack_works_outside(group: str, attack: Attack) -> None:
    """As somebody: some take root, and nothing else takes another user than the last."""
    found = []
    for person in reversed(PEOPLE):
        found.append(verdict_of(group, attack, BARE.name, person))
        if found[-1].status == BROKE:
            return
    assert FAULT not in {each.status for each in found}
    if not has("root"):
        give_up(f"{attack.name}: only root could show that it works outside")
    pytest.fail(f"{attack.name} works nowhere: {found}")


@pytest.mark.parametrize("person", PEOPLE)
@pytest.mark.parametrize("column", BEDDEL, ids=lambda column: column.name)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_benign_program_works(program: Program, column: Column, person: str) -> None:
    verdict = benign(column.name, person)[program.name]
    if column.name == "ultra-secure" and not _has_cgroup(person):
        assert verdict.status == REFUSES
        return
    if program.strict or column.name != "ultra-secure":
        assert verdict.status == WORKS, verdict
    else:
        assert verdict.status in (WORKS, FAILS), verdict


@pytest.mark.slow
@pytest.mark.parametrize("person", PEOPLE)
@pytest.mark.parametrize("column", BEDDEL[1:], ids=lambda column: column.name)
def test_slow_benign_programs_work(column: Column, person: str) -> None:
    found = run_programs(column, PEOPLE[person], SLOW)
    assert {each.status for each in found.values()} == {WORKS}, found


def test_there_are_as_many_as_we_say() -> None:
    assert names_are_unique()
    assert sum(map(len, GROUPS.values())) >= 200
    assert len(PROGRAMS) >= 30


@cache
def _has_cgroup(person: str) -> bool:
    return PEOPLE[person].user is None and has("cgroup")


ATTACK = Attack("one", "one", "", "word")
PROGRAM = Program("two", "two", ("/bin/true",), strict=False)


def _problems(*said: tuple[str, str, str], attack: Attack = ATTACK) -> list[str]:
    cells = {("root", column, name): Verdict(status) for column, name, status in said}
    return problems(cells, [each.name for each in BEDDEL], [attack], [PROGRAM])


def test_the_command_finds_what_must_not_be() -> None:
    shown = ("bare", "one", BROKE)
    assert _problems(shown, ("high-security", "one", HELD)) == []
    assert _problems(shown, ("bubblewrap", "one", BROKE)) == []
    assert _problems(shown, ("ultra-secure", "one", REFUSES), ("ultra-secure", "two", FAILS)) == []
    for said in (
        [shown, ("high-security", "one", BROKE)],
        [shown, ("high-security", "one", REFUSES)],
        [shown, ("bubblewrap", "one", FAULT)],
        [shown, ("high-security", "two", FAILS)],
        [shown, ("fallback", "one", BROKE)],
        [("bare", "one", HELD), ("high-security", "one", HELD)],
    ):
        assert len(_problems(*said)) == 1, said


def test_what_is_accepted_without_a_cgroup_is_not_with_one() -> None:
    known = Attack("one", "one", "", "word", accepted="why", without_cgroup=True)
    broke = [("bare", "one", BROKE), ("high-security", "one", BROKE)]
    assert _problems(*broke, ("ultra-secure", "one", REFUSES), attack=known) == []
    assert len(_problems(*broke, ("ultra-secure", "one", HELD), attack=known)) == 1


def test_only_what_works_outside_is_counted() -> None:
    cells = {
        ("root", "bare", "one"): Verdict(BROKE),
        ("root", "high-security", "one"): Verdict(HELD),
        ("root", "bare", "three"): Verdict(HELD),
        ("root", "high-security", "three"): Verdict(HELD),
    }
    three = Attack("three", "three", "", "word")
    lines = totals(cells, ["root"], ["bare", "high-security"], {"Files": [ATTACK, three]}, ())
    assert lines[2:4] == ["| Files | 1 | 1 |", "| **all** | 1 | 1 |"]


def test_a_canary_counts_only_when_it_was_seen(tmp_path: Any) -> None:
    attack = Attack("one", "one", "", "canary secret")
    world = World(Person("us", None), tmp_path, "t", {"secret": "xyz"}, {}, {})
    assert judge(world, attack, {"one": {"said": "--xyz--"}}).status == BROKE
    assert judge(world, attack, {"one": {"said": "broke"}}).status == HELD
    assert judge(world, attack, {"one": {"errno": "EPERM"}}) == Verdict(HELD, "EPERM")
    assert judge(world, attack, {"one": {"fault": "NameError"}}).status == FAULT
    assert judge(world, attack, {}).status == FAULT


def test_a_run_that_ended_before_its_probe_began_tells_nothing() -> None:
    person = next(iter(PEOPLE.values()))
    attack = next(each for each in GROUPS["denial"] if each.name == "time_of_one")
    column = COLUMNS["high-security"]
    held = run_alone(column, person, attack, attacks_denial.LIMITS)
    assert held == Verdict(HELD, "the run was ended with 124")
    # Not even an interpreter is there by then.
    early = run_alone(column, person, attack, ("--cpu-time", "10ms"))
    assert early.status == FAULT


class _OneThatEnds(Column):
    """The first tenant's run is over before the second has looked."""

    def line(
        self,
        program: Sequence[str],
        world: World,
        limits: Sequence[str] = (),
        tenant: str = "default",
    ) -> list[str]:
        return super().line(
            program, world, ("--timeout", "500ms") if tenant == "first" else limits, tenant
        )


def test_nothing_is_held_from_whom_nothing_is_hidden_any_more() -> None:
    plant, hunt = "def slow(w): return ''", "def slow(w):\n    time.sleep(1.5)\n    return ''"
    slow = Attack("slow", "slow", hunt, "pair canary", plant=plant)
    person = next(iter(PEOPLE.values()))
    kept = run_pairs(COLUMNS["high-security"], person, [slow])
    assert kept == {"slow": Verdict(HELD, "nothing came of it")}
    gone = run_pairs(_OneThatEnds("high-security", "high-security"), person, [slow])
    assert gone == {"slow": Verdict(FAULT, "who planted was ended: exit code 124")}
