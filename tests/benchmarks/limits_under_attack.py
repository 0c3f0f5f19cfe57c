"""Measure what a machine feels of each attack: `python tests/benchmarks/limits_under_attack.py`.

While a program attacks behind the walls, this process, outside of them, starts /bin/true every
20 ms and keeps the longest that took, the least memory that was available, and the most processes.
Prints the table of limits.md beside this file. Nothing is asserted. As root the program
gets a cgroup, as anybody else it is looked at through /proc. Needs an installed beddel-cli.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# At the end, so that the installed package is what is measured.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from tests.support.limit_attacks import ATTACKS, LIMITS, Attack

EVERY_SECONDS = 0.02
MIB = 1 << 20


@dataclass
class Felt:
    """The worst of a stretch of time outside of the walls."""

    start_ms: float = 0.0
    available_bytes: int = 1 << 62
    processes: int = 0

    def look(self) -> None:
        """Start a process, and look at the machine."""
        started = time.perf_counter()
        os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
        self.start_ms = max(self.start_ms, (time.perf_counter() - started) * 1000)
        with open("/proc/meminfo", encoding="ascii") as file:
            row = next(row for row in file if row.startswith("MemAvailable:"))
        self.available_bytes = min(self.available_bytes, int(row.split()[1]) * 1024)
        self.processes = max(self.processes, sum(name.isdigit() for name in os.listdir("/proc")))


def attack(command: Sequence[str], felt: Felt) -> dict[str, object]:
    """Run one attack to its end; gives its --json."""
    with tempfile.TemporaryFile() as answer:
        run = subprocess.Popen(command, stdout=answer, stderr=subprocess.DEVNULL)
        while run.poll() is None:
            felt.look()
            time.sleep(EVERY_SECONDS)
        answer.seek(0)
        document: dict[str, object] = json.load(answer)
        return document


def command_of(each: Attack, big: Path) -> list[str]:
    """Give the command line of an attack at its largest."""
    options = [word.replace("BIG", str(big)) for word in each.options]
    program = ["/usr/bin/python3", "-I", "-S", "-c", f"N={each.large}\n{each.code}"]
    chosen = [sys.executable, "-m", "beddel_cli", "exec", "--profile", "high-security", "--json"]
    return [*chosen, *LIMITS, *options, "--", *program]


def main() -> None:
    """Print one row for each attack, and one for a quiet second before them."""
    quiet = Felt()
    for _ in range(50):
        quiet.look()
        time.sleep(EVERY_SECONDS)
    print(
        "| group | attack | ends with | exit | slowest start of /bin/true | memory taken "
        "| processes more |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    print(f"| | none, for a second | | | {quiet.start_ms:.0f} ms | | |")
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="attack-") as folder:
        os.environ["BEDDEL_HOME"] = f"{folder}/home"
        big = Path(folder) / "big"
        with big.open("wb") as file:
            file.truncate(200 * MIB)
        for each in ATTACKS:
            before = Felt()
            before.look()
            felt = Felt()
            document = attack(command_of(each, big), felt)
            outcome = document["outcome"]
            assert isinstance(outcome, dict)
            taken = max(0, before.available_bytes - felt.available_bytes) / MIB
            print(
                f"| {each.group} | {each.name} | {outcome['status']}, {outcome['reason']} |"
                f" {outcome['exit_code']} | {felt.start_ms:.0f} ms | {taken:.0f} MiB |"
                f" {felt.processes - before.processes} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
