"""Measure the log, and print it: `python tests/benchmarks/log_benchmarks.py [--entries 1000000]`.

Appends are on the disk that BEDDEL_BENCH_FOLDER (default: the temporary folder) is on, each synced;
what a sync alone costs there stands beside them; on /dev/shm there is no disk in the figures. Logs
of different sizes take turns, so that what else the machine does falls on all of them alike: what
to compare is the ratio to the first. A size is what a log had when it was made; what is measured
adds up to 1,100 to it. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from time import perf_counter

from beddel_cli.log.checkpoint import checkpoint_text, ed25519_key_hash
from beddel_cli.log.ledger import Ledger, open_ledger
from beddel_cli.log.log_entry import finished_entry, started_entry
from beddel_cli.log.merkle import GrowingTree, inclusion_path, leaf_hash, verify_inclusion
from beddel_cli.trust.keys import SigningKey, load_log_key

AT = "2026-01-02T03:04:05.678Z"


def entries(count: int) -> Iterator[bytes]:
    """Give entries as runs write them, of their usual size."""
    for start in range(0, count, 2):
        run_id = f"{start:032x}"
        yield started_entry(
            at=AT,
            run_id=run_id,
            tenant="default",
            job=("order-totals", b"a job"),
            profile=("ultra-secure", "ab" * 32),
            runtime="javascript",
            key_id="cd" * 32,
        )
        yield finished_entry(
            at=AT,
            run_id=run_id,
            tenant="default",
            started=start,
            payload=b"a receipt",
            status="success",
            reason="ok",
            exit_code=0,
            key_id="cd" * 32,
        )


def fill(home: Path, key: SigningKey, count: int) -> None:
    """Make a log of many entries in one transaction, on disk."""
    with open_ledger(str(home), "default") as ledger:
        origin, path = ledger.origin, ledger.path
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("BEGIN")
    tree = GrowingTree()
    key_hash = ed25519_key_hash(origin, key.public_raw)

    def rows() -> Iterator[tuple[int, bytes, bytes, bytes]]:
        for index, data in enumerate(islice(entries(count), count)):
            leaf = leaf_hash(data)
            nodes = b"".join([leaf, *tree.add(leaf)])
            text = checkpoint_text(origin, tree.size, tree.root())
            yield index, nodes, key_hash + key.sign(text), data

    connection.executemany("INSERT INTO entry VALUES (?, ?, ?, ?)", rows())
    connection.execute("COMMIT")
    connection.close()
    # What is still to be written of it would otherwise be waited for by what is measured next.
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def times_ms(rounds: int, action: Callable[[], object]) -> list[float]:
    found = []
    for _ in range(rounds):
        started = perf_counter()
        action()
        found.append((perf_counter() - started) * 1e3)
    return found


def show(what: str, found: list[float], more: str = "") -> None:
    ordered = sorted(found)
    print(
        f"{what:<52} median {statistics.median(found):8.3f} ms"
        f"   p99 {ordered[int(len(ordered) * 0.99)]:8.3f} ms{more}"
    )


def sync_alone(folder: Path) -> list[float]:
    """Time what an append has to do of writing and syncing, with nothing else."""
    file = os.open(folder / "sync", os.O_RDWR | os.O_CREAT, 0o600)
    os.pwrite(file, bytes(4 << 20), 0)
    os.fsync(file)

    def one() -> None:
        os.pwrite(file, bytes(4120), 4096 * random.randrange(1000))
        os.fdatasync(file)

    found = times_ms(500, one)
    os.close(file)
    return found


def in_turns(
    rounds: int, sizes: list[int], action: Callable[[int], object]
) -> dict[int, list[float]]:
    """Time an action on the logs of these sizes in turns, in an order that is new in each round."""
    found: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(rounds):
        for size in random.sample(sizes, len(sizes)):
            found[size] += times_ms(1, partial(action, size))
    return found


def show_sizes(what: str, found: dict[int, list[float]]) -> None:
    """Show the times of logs by their sizes, and what each is to the first."""
    first = statistics.median(next(iter(found.values())))
    for size, times in found.items():
        ratio = statistics.median(times) / first
        show(f"{size:>9,} entries: {what}", times, f"   {ratio:5.2f} x")


def measure_opening(homes: dict[int, Path]) -> None:
    """Time opening a log, and what one visit takes that also adds an entry."""

    def open_it(size: int) -> Ledger:
        return open_ledger(str(homes[size]), "default")

    def visit(size: int) -> None:
        with open_it(size) as ledger:
            ledger.append(data, keys[size])

    data = next(entries(2))
    keys = {size: load_log_key(str(home)) for size, home in homes.items()}
    sizes = list(homes)
    show_sizes("open, close", in_turns(300, sizes, lambda size: open_it(size).close()))
    show_sizes("open, append, close", in_turns(100, sizes[1:], visit))


def measure_entries(homes: dict[int, Path]) -> None:
    """Time adding to logs and proving from them, while they stay open."""

    def prove(count: int) -> None:
        size = ledgers[count].size()
        inclusion_path(random.randrange(size), size, ledgers[count].read_node)

    data = next(entries(2))
    with ExitStack() as stack:
        keys = {count: load_log_key(str(home)) for count, home in homes.items()}
        ledgers = {
            count: stack.enter_context(open_ledger(str(home), "default"))
            for count, home in homes.items()
        }
        sizes = list(homes)
        added = in_turns(1000, sizes, lambda count: ledgers[count].append(data, keys[count]))
        show_sizes("append, signed checkpoint", added)
        show_sizes("inclusion proof", in_turns(1000, sizes, prove))


def check_a_proof(home: Path) -> None:
    """Make sure that what is timed proves something."""
    with open_ledger(str(home), "default") as ledger:
        size = ledger.size()
        row = ledger.row(size // 3)
        if row is None:
            raise SystemExit("an entry is missing")
        path = inclusion_path(row.index, size, ledger.read_node)
        verify_inclusion(leaf_hash(row.data), row.index, size, path, ledger.root(size))


def measure_verify(home: Path, count: int) -> None:
    """Time `audit verify` as a process of its own, and take its peak memory."""
    program = (
        "import json, resource, sys\n"
        "from beddel_cli.cli import run_app\n"
        "code = run_app(['audit', 'verify', '--json'], started_ns=0)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "BEDDEL_HOME": str(home)},
        capture_output=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0 or json.loads(done.stdout)["size"] != count:
        raise SystemExit(done.stderr.decode())
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    peak = int(done.stderr.split()[-1]) / 1024
    each = cpu / count * 1e6
    print(
        f"verify {count:>9,} entries: {cpu:7.2f} s CPU, {each:5.1f} µs each, {peak:6.1f} MiB peak"
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--entries", type=int, default=1_000_000)
    most = options.parse_args().entries
    folder = Path(tempfile.mkdtemp(prefix="beddel-log-", dir=os.environ.get("BEDDEL_BENCH_FOLDER")))
    try:
        homes = {count: folder / str(count) for count in (0, 1, 10, most // 10, most)}
        for count, home in homes.items():
            fill(home, load_log_key(str(home)), count)
        show("4 KiB written and synced, alone", sync_alone(folder))
        measure_opening(homes)
        measure_entries({count: homes[count] for count in (10, most // 10, most)})
        check_a_proof(homes[most])
        shutil.rmtree(homes[most])
        for count in (most // 100, most // 10, most):
            home = folder / f"v{count}"
            fill(home, load_log_key(str(home)), count)
            measure_verify(home, count)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
