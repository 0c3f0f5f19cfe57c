"""Jobs and inputs that attack their reader: refused or read, within 50 ms and 32 MiB.

The bound is that of a job file, up to its cap of 1 MiB. An input may be 16 MiB of JSON: what is
refused there costs a bounded number of passes over its bytes, and the bound is looser.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.capabilities import require
from tests.support.cost import Cost, cost_of
from tests.support.hostile_texts import Case, json_cases, yaml_cases

YAML, JSON = list(yaml_cases()), list(json_cases())
# Processor time swells when other work shares the core, so the best of many readings counts.
ATTEMPTS = 8
CPU_SECONDS, PEAK_BYTES = 0.050, 32 << 20
JSON_CPU_SECONDS, JSON_PEAK_BYTES = 0.500, 64 << 20

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")


def measure(
    kind: str, case: Case, tmp_path: Path, enough: Callable[[Cost], bool]
) -> tuple[Cost, float, int]:
    """Read a case in fresh processes until the bound was held once; give the least of each."""
    file = tmp_path / "hostile"
    file.write_bytes(case[1])
    costs: list[Cost] = []
    for _ in range(ATTEMPTS):
        costs.append(cost_of(kind, file))
        if enough(costs[-1]):
            break
    seconds = min(cost.cpu_seconds for cost in costs)
    return costs[0], seconds, min(cost.peak_bytes for cost in costs)


def check_said(case: Case, said: str | None) -> None:
    wanted = case[2]
    assert said == wanted or (wanted is not None and (said or "").startswith(wanted))


def test_no_two_cases_have_one_name() -> None:
    for cases in (YAML, JSON):
        assert len({name for name, _, _ in cases}) == len(cases) > 25


@pytest.mark.parametrize("case", YAML, ids=[name for name, _, _ in YAML])
def test_a_hostile_job_is_answered_within_the_bound(case: Case, tmp_path: Path) -> None:
    require("linux")
    assert len(case[1]) <= (1 << 20) + 1
    cost, seconds, peak = measure(
        "yaml", case, tmp_path, lambda c: c.cpu_seconds < CPU_SECONDS and c.peak_bytes < PEAK_BYTES
    )
    check_said(case, cost.said)
    assert seconds < CPU_SECONDS
    assert peak < PEAK_BYTES


@pytest.mark.parametrize("case", JSON, ids=[name for name, _, _ in JSON])
def test_a_hostile_input_is_answered_within_its_bound(case: Case, tmp_path: Path) -> None:
    require("linux")
    assert len(case[1]) <= 16 << 20
    cost, seconds, peak = measure(
        "json",
        case,
        tmp_path,
        lambda c: c.cpu_seconds < JSON_CPU_SECONDS and c.peak_bytes < JSON_PEAK_BYTES,
    )
    check_said(case, cost.said)
    assert seconds < JSON_CPU_SECONDS
    assert peak < JSON_PEAK_BYTES


def test_the_measurement_sees_what_is_built(tmp_path: Path) -> None:
    """A control: a large value that is within every limit costs what it weighs."""
    require("linux")
    file = tmp_path / "large.json"
    file.write_bytes(b"[" + b"[1.5]," * 450_000 + b"1]")
    cost = cost_of("json", file, 1)
    assert cost.said is None
    assert cost.peak_bytes > PEAK_BYTES
    assert cost.cpu_seconds > CPU_SECONDS


def print_costs() -> None:
    """Print what each case costs: `python -c 'from tests.security.… import print_costs'`."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for kind, case in itertools.chain(
            (("yaml", case) for case in YAML), (("json", case) for case in JSON)
        ):
            _, seconds, peak = measure(kind, case, Path(folder), lambda cost: cost is None)
            print(f"{kind} {seconds * 1e3:6.1f} ms {peak / (1 << 20):5.1f} MiB {case[0]}")
