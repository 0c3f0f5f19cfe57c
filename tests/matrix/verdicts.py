"""Attacks run in a column, and what came of each."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.matrix.attack import Attack
from tests.matrix.benign import COMMAND, Program
from tests.matrix.caller_terminal import caller_terminal, take
from tests.matrix.runners import REFUSED, Column
from tests.matrix.world import BOOT, BOOT_FROM_FILE, PYTHON, Person, World, settle, world_of

PROGRAM = (PYTHON, "-I", "-S", "-c", BOOT)
# Only for what hangs: a busy machine takes its time.
HANG_SECONDS = 200

BROKE, HELD, REFUSES, FAULT = "broke", "held", "refused", "fault"
WORKS, FAILS = "works", "fails"
# ultra-secure gives a run 30 s and a quarter of a processor; a slow machine needs room.
_PROGRAMS_OF_A_RUN = 13
# What beddel-cli ends with when a limit ended a program.
_LIMITS = (124, 137)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of an attack in a column.

    Attributes:
        status: it `broke` through or was `held`; the column `refused` to run it at all; `fault`: it
            tells nothing, which is our fault. A benign program `works` or `fails`.
        detail: the errno or reason it met.
    """

    status: str
    detail: str = ""


def run_batch(
    column: Column, person: Person, attacks: Sequence[Attack], limits: Sequence[str] = ()
) -> dict[str, Verdict]:
    """Run attacks one after the other in one run of a column."""
    with world_of(person, attacks) as world:
        process = column.start(PROGRAM, world, limits)
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
        ended = process.returncode in _LIMITS and column.profile is not None
        if attack.name not in answers and ended and f"begun {attack.name}\n".encode() in out:
            answers[attack.name] = {"held": f"the run was ended with {process.returncode}"}
        return judge(world, attack, answers, err)


def run_at_terminal(column: Column, person: Person, attack: Attack) -> dict[str, Verdict]:
    """Run an attack with the streams at a terminal that the caller sits at."""
    with world_of(person, [attack], victim=False) as world, caller_terminal() as terminal:
        task = world.work / "task"
        task.write_bytes(world.task("attack", {attack.name: attack.code}))
        person.own(task)
        slave = terminal.slave
        streams: dict[str, Any] = {"stdin": slave, "stdout": slave, "stderr": slave}
        program = (*PROGRAM[:-1], BOOT_FROM_FILE)
        process = column.start(program, world, preexec_fn=lambda: take(slave), **streams)
        terminal.watch(process, HANG_SECONDS)
        terminal.look()
        world.terminal = terminal.facts
        if process.returncode == REFUSED and b'{"name"' not in terminal.shown:
            return {attack.name: Verdict(REFUSES, terminal.shown.decode(errors="replace"))}
        lines = [line for line in terminal.shown.splitlines() if b'{"name"' in line]
        answers = _answers(b"\n".join(line[line.index(b'{"name"') :] for line in lines))
        return {attack.name: judge(world, attack, answers, terminal.shown)}


def run_pairs(column: Column, person: Person, attacks: Sequence[Attack]) -> dict[str, Verdict]:
    """Run two tenants at once: one plants canaries and keeps them there, the other hunts."""
    with world_of(person, attacks, victim=False) as world:
        first = column.start(PROGRAM, world, tenant="first")
        assert first.stdin is not None
        assert first.stdout is not None
        plants = {each.name: each.plant for each in attacks}
        first.stdin.write(world.task("plant", plants, pairs=world.pairs))
        first.stdin.flush()
        planted = b""
        for line in first.stdout:
            if line == b"planted\n":
                break
            planted += line
        second = column.start(PROGRAM, world, tenant="second")
        hunts = {each.name: each.code for each in attacks}
        out, err = second.communicate(world.task("attack", hunts), timeout=HANG_SECONDS)
        first.communicate(b"\n", timeout=HANG_SECONDS)
        if first.returncode == second.returncode == REFUSED and not out:
            return {each.name: Verdict(REFUSES, err.decode()) for each in attacks}
        if first.returncode:
            # What it planted may have been gone before anybody hunted for it.
            text = f"who planted was ended: exit code {first.returncode}"
            return {each.name: Verdict(FAULT, text) for each in attacks}
        made, found = _answers(planted), _answers(out)
        return {each.name: _judge_pair(world, each, made, found, err) for each in attacks}


def _judge_pair(
    world: World,
    attack: Attack,
    made: dict[str, dict[str, str]],
    found: dict[str, dict[str, str]],
    err: bytes,
) -> Verdict:
    planted = made.get(attack.name, {"fault": "nothing was planted"})
    if "fault" in planted:
        return Verdict(FAULT, planted["fault"])
    verdict = judge(world, attack, found, err)
    if verdict.status == HELD and "held" in planted:
        reason = planted.get("errno") or planted["held"]
        return Verdict(HELD, f"it cannot even plant: {reason}")
    return verdict


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


def run_programs(column: Column, person: Person, programs: Sequence[Program]) -> dict[str, Verdict]:
    """Run programs that have to work, one after the other, some of them to a run of a column."""
    found: dict[str, Verdict] = {}
    for start in range(0, len(programs), _PROGRAMS_OF_A_RUN):
        found |= _run_programs(column, person, programs[start : start + _PROGRAMS_OF_A_RUN])
    return found


def _run_programs(
    column: Column, person: Person, programs: Sequence[Program]
) -> dict[str, Verdict]:
    with world_of(person, [], victim=False) as world:
        process = column.start(COMMAND, world)
        told = json.dumps([[each.name, each.arguments] for each in programs]).encode() + b"\n"
        out, err = process.communicate(told, timeout=HANG_SECONDS)
        if process.returncode == REFUSED and not out:
            return {each.name: Verdict(REFUSES, err.decode()) for each in programs}
        lines = [json.loads(line) for line in out.splitlines()]
        found = {name: rest for name, *rest in lines}
        lost = [None, "", f"it never ran: {err.decode(errors='replace')[-300:]}"]
        return {each.name: _judge_program(each, *found.get(each.name, lost)) for each in programs}


def _judge_program(program: Program, code: int | None, output: str, errors: str) -> Verdict:
    if (code, base64.b64decode(output)) == (program.code, program.output):
        return Verdict(WORKS)
    return Verdict(FAILS, f"exit code {code}: {errors.strip()[-200:]}")
