"""Attacks run in a column, and what came of each."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from tests.matrix.attack import Attack
from tests.matrix.runners import REFUSED, Column
from tests.matrix.world import BOOT, PYTHON, Person, World, settle, world_of

PROGRAM = (PYTHON, "-I", "-S", "-c", BOOT)
HANG_SECONDS = 40

BROKE, HELD, REFUSES, FAULT = "broke", "held", "refused", "fault"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of an attack in a column.

    Attributes:
        status: it `broke` through or was `held`; the column `refused` to run it at all; `fault`: it
            tells nothing, which is our fault.
        detail: the errno or reason it met.
    """

    status: str
    detail: str = ""


def run_batch(column: Column, person: Person, attacks: Sequence[Attack]) -> dict[str, Verdict]:
    """Run attacks one after the other in one run of a column."""
    with world_of(person, attacks) as world:
        process = column.start(PROGRAM, world)
        probes = {each.name: each.code for each in attacks}
        out, err = process.communicate(world.task("attack", probes), timeout=HANG_SECONDS)
        settle(world, attacks)
        if process.returncode == REFUSED and not out:
            return {each.name: Verdict(REFUSES, err.decode()) for each in attacks}
        answers = _answers(out)
        return {each.name: judge(world, each, answers, err) for each in attacks}


def run_alone(
    column: Column, person: Person, attack: Attack, limits: Sequence[str] = ()
) -> Verdict:
    """Run an attack that may end its run, under limits where the column has any."""
    with world_of(person, [attack], victim=False) as world:
        process = column.start(PROGRAM, world, limits)
        task = world.task("attack", {attack.name: attack.code}, seconds=20)
        out, err = process.communicate(task, timeout=HANG_SECONDS)
        settle(world, [attack])
        world.output_bytes = len(out) + len(err)
        if process.returncode == REFUSED and not out:
            return Verdict(REFUSES, err.decode())
        answers = _answers(out)
        if attack.name not in answers and process.returncode and column.profile is not None:
            answers[attack.name] = {"held": f"the run was ended with {process.returncode}"}
        return judge(world, attack, answers, err)


def _answers(out: bytes) -> dict[str, dict[str, str]]:
    lines = (json.loads(line) for line in out.splitlines() if line.startswith(b'{"name"'))
    return {line["name"]: line for line in lines}


def judge(
    world: World, attack: Attack, answers: dict[str, dict[str, str]], err: bytes = b""
) -> Verdict:
    """Judge one attack by what it said and by what is seen outside."""
    answer = answers.get(attack.name)
    if answer is None:
        return Verdict(FAULT, f"it never ran: {err.decode(errors='replace')[-300:]}")
    if world.broke(attack, answer.get("said")):
        return Verdict(BROKE)
    if "fault" in answer:
        return Verdict(FAULT, answer["fault"])
    return Verdict(HELD, answer.get("errno") or answer.get("held") or "nothing came of it")
