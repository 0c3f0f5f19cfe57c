"""Attacks on every limit through the command line: how each ends, and what its tree took at most.

Run as root with a cgroup and as an ordinary user without; the same program told to take little ends
well. What the machine feels of them is measured by tests/benchmarks/limits_under_attack.py.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.callers import PYTHON, Caller
from tests.support.cli import HANG_SECONDS
from tests.support.limit_attacks import (
    ALWAYS,
    ATTACKS,
    LIMITS,
    MEMORY_BYTES,
    OUTPUT_BYTES,
    PROCESSES,
    REFUSED,
    WELL,
    Attack,
    Ending,
)
from tests.support.processes import children

# Our own beside the program's: the command, its init, and whatever starts them.
OURS = 4
# Memory is looked at every 20 to 100 ms without a cgroup; this is how far two busy processors were
# ever seen to get in that time, several times over.
SLACK_BYTES = 512 << 20


def run(caller: Caller, attack: Attack, size: int) -> tuple[dict[str, Any], int]:
    """Run it; gives its --json and the most processes below ours that were there at once."""
    big = caller.work / "big"
    with big.open("wb") as file:
        file.truncate(200 << 20)
    options = [word.replace("BIG", str(big)) for word in attack.options]
    program = [PYTHON, "-I", "-S", "-c", f"N={size}\n{attack.code}"]
    # An attack's own limit takes the place of the usual one.
    pairs = zip(LIMITS[::2], LIMITS[1::2], strict=True)
    limits = [word for pair in pairs if pair[0] not in options for word in pair]
    words = ("--json", *limits, *options, "--", *program)
    command = caller.start(*words, profile="high-security")
    most = 0
    until = time.monotonic() + HANG_SECONDS
    while True:
        most = max(most, count_below(command.pid))
        try:
            told, _ = command.communicate(timeout=0.05)
        except subprocess.TimeoutExpired:
            assert time.monotonic() < until
        else:
            document: dict[str, Any] = json.loads(told)
            return document, most


def count_below(pid: int) -> int:
    """Give how many processes descend from one."""
    found = children(pid)
    for each in found:
        found += children(each)
    return len(found)


def ending(document: dict[str, Any]) -> Ending:
    outcome = document["outcome"]
    found = (outcome[key] for key in ("exit_code", "status", "reason", "limit"))
    return Ending(*found)


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(
            each,
            id=f"{each.group}-{each.name}",
            marks=() if each.name in ALWAYS else (pytest.mark.slow,),
        )
        for each in ATTACKS
    ],
)
def test_an_attack_on_a_limit(caller: Caller, attack: Attack) -> None:
    little, _ = run(caller, attack, attack.small)
    counted = little["memory"]["peak_bytes"] is not None
    denied = attack.denied and not counted
    assert ending(little) == (REFUSED if denied else WELL), little["stderr"]
    much, most = run(caller, attack, attack.large)
    assert ending(much) == (attack.counted if counted else attack.without), much["stderr"]
    assert most <= PROCESSES + OURS
    memory = much["memory"]
    if counted:
        assert memory["peak_bytes"] <= MEMORY_BYTES
        assert memory["processes_peak"] <= PROCESSES
    assert (memory["anonymous_peak_bytes"] or 0) <= MEMORY_BYTES + SLACK_BYTES
    assert much["stdout"]["bytes"] + much["stderr"]["bytes"] <= OUTPUT_BYTES
    big: Path = caller.work / "big"
    assert {each.name for each in caller.work.iterdir()} == {big.name}
