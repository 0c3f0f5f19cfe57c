"""Hold each memory figure of a run against the truth: `python tests/benchmarks/peak_memory.py`.

Runs eight programs whose memory is known behind the walls and prints the table of limits.md
beside this file: what is true beside what a run reports, in MiB. The first row is an interpreter
that does nothing, which all others contain. Nothing is asserted. As root a program gets a cgroup,
as anybody else it is looked at through /proc. Needs an installed beddel-cli.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# At the end, so that the installed package is what is measured.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from tests.support.memory_workloads import MIB, OPTIONS, WORKLOADS, Workload

NOTHING = Workload("nothing: the interpreter alone", "import time\ntime.sleep(0.3)", 0, 0, 0)
FIGURES = ("peak_bytes", "anonymous_peak_bytes", "largest_process_bytes")


def measure(each: Workload, big: Path) -> dict[str, int | str | None]:
    """Run one; gives the memory part of its --json."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "beddel_cli", "exec", *OPTIONS, "--json"),
            *("--mount", f"{big}:/big", "--", "/usr/bin/python3", "-I", "-S", "-c", each.code),
        ],
        capture_output=True,
        check=True,
    )
    memory: dict[str, int | str | None] = json.loads(done.stdout)["memory"]
    return memory


def written(number: int | str | None) -> str:
    """Write a figure in MiB; a dash for what was not measured."""
    return "–" if number is None else f"{int(number) / MIB:.0f}"


def main() -> None:
    """Print the table, and below it where each column's figures come from."""
    print("| workload | true | with page cache | peak | anonymous peak | largest process |")
    print("| --- | --- | --- | --- | --- | --- |")
    sources: dict[str, set[str]] = {name: set() for name in FIGURES}
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="memory-") as folder:
        os.environ["BEDDEL_HOME"] = f"{folder}/home"
        big = Path(folder) / "big"
        for each in (NOTHING, *WORKLOADS):
            # Anew for each: what is in the page cache already is charged to whoever read it first.
            big.unlink(missing_ok=True)
            with big.open("wb") as file:
                file.truncate(200 * MIB)
            memory = measure(each, big)
            found = " | ".join(written(memory[name]) for name in FIGURES)
            print(f"| {each.name} | {each.anonymous} | {each.with_cache} | {found} |", flush=True)
            for name in FIGURES:
                sources[name].add(str(memory[name.replace("_bytes", "_source")]))
    for name, words in sources.items():
        print(f"{name}: {'; '.join(sorted(words))}")


if __name__ == "__main__":
    main()
