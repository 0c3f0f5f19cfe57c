"""Memory figures against programs whose memory is known: none claims more than it can.

A figure called exact is never below the truth, one called a lower bound never above it, and shared
pages count once.
"""

from __future__ import annotations

import pytest

from tests.support.callers import PYTHON, Caller
from tests.support.memory_workloads import (
    INTERPRETER_BYTES,
    MIB,
    OPTIONS,
    WORKLOADS,
    Workload,
)

# All of them run before a release; these are run each time.
ALWAYS = ("parallel", "shared by forks", "page cache")
# So short that a look may miss it.
SHORT = "a spike"


def kind(each: Workload) -> str:
    return each.name.partition(":")[0]


@pytest.mark.parametrize(
    "workload",
    [
        pytest.param(each, id=kind(each), marks=() if kind(each) in ALWAYS else pytest.mark.slow)
        for each in WORKLOADS
    ],
)
def test_memory_figures_are_true(caller: Caller, workload: Workload) -> None:
    big = caller.work / "big"
    with big.open("wb") as file:
        file.truncate(200 * MIB)
    command = ("--json", *OPTIONS, "--mount", f"{big}:/big", "--", PYTHON, "-I", "-S", "-c")
    done = caller.cli("exec", *command, workload.code)
    assert done.returncode == 0, done.message
    memory = done.json["memory"]
    slack = workload.processes * INTERPRETER_BYTES
    if memory["peak_bytes"] is not None:
        truth = workload.with_cache * MIB
        assert truth <= memory["peak_bytes"] <= truth + slack
        assert "exact" in memory["peak_source"]
    truth = workload.anonymous * MIB
    assert memory["anonymous_peak_bytes"] <= truth + slack
    assert "a lower bound" in memory["anonymous_peak_source"]
    if kind(workload) != SHORT:
        assert memory["anonymous_peak_bytes"] >= truth // 2
        # What a process had at most is remembered for it by the kernel.
        assert memory["largest_process_bytes"] >= workload.largest * MIB
    assert memory["largest_process_bytes"] <= workload.largest * MIB + INTERPRETER_BYTES
    assert memory["samples"] > 0
