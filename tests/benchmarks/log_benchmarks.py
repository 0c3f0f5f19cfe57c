"""Measure the log, and print it: `python tests/benchmarks/log_benchmarks.py [--entries 1000000]`.

Appends are on the disk that BEDDEL_BENCH_FOLDER (default: the temporary folder) is on, each synced;
what a sync alone costs there stands beside them. Nothing is asserted.
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
from pathlib import Path
from time import perf_counter

from beddel_cli.log.checkpoint import checkpoint_text, ed25519_key_hash
from beddel_cli.log.ledger import open_ledger
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
    """Make a log of many entries in one transaction; only its head is signed."""
    with open_ledger(str(home), "default") as ledger:
        origin, path = ledger.origin, ledger.path
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("BEGIN")
    tree = GrowingTree()

    def rows() -> Iterator[tuple[int, bytes, bytes, bytes]]:
        for index, data in enumerate(entries(count)):
            leaf = leaf_hash(data)
            nodes = b"".join([leaf, *tree.add(leaf)])
            signature = bytes(68)
            if tree.size == count:
                text = checkpoint_text(origin, count, tree.root())
                signature = ed25519_key_hash(origin, key.public_raw) + key.sign(text)
            yield index, nodes, signature, data

    connection.executemany("INSERT INTO entry VALUES (?, ?, ?, ?)", rows())
    connection.execute("COMMIT")
    connection.close()


def times_ms(rounds: int, action: Callable[[], object]) -> list[float]:
    found = []
    for _ in range(rounds):
        started = perf_counter()
        action()
        found.append((perf_counter() - started) * 1e3)
    return found


def show(what: str, found: list[float]) -> None:
    ordered = sorted(found)
    print(
        f"{what:<52} median {statistics.median(found):8.3f} ms"
        f"   p99 {ordered[int(len(ordered) * 0.99)]:8.3f} ms"
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


def measure_log(home: Path, key: SigningKey, name: str) -> None:
    """Time opening, appending to and proving from a log that is there."""
    show(f"{name}: open and close", times_ms(50, lambda: open_ledger(str(home), "default").close()))
    data = next(entries(2))
    with open_ledger(str(home), "default") as ledger:
        show(f"{name}: append, signed checkpoint", times_ms(1000, lambda: ledger.append(data, key)))
        size = ledger.size()

        def prove() -> None:
            inclusion_path(random.randrange(size), size, ledger.read_node)

        show(f"{name}: inclusion proof", times_ms(1000, prove))
        index = size // 3
        row = ledger.row(index)
        tree_root = ledger.root(size)
        path = inclusion_path(index, size, ledger.read_node)
        if row is None:
            raise SystemExit("an entry is missing")
        verify_inclusion(leaf_hash(row.data), index, size, path, tree_root)


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
        show("4 KiB written and synced, alone", sync_alone(folder))
        for count in (0, most):
            home = folder / str(count)
            key = load_log_key(str(home))
            if count:
                fill(home, key, count)
            measure_log(home, key, f"{count:,} entries")
        for count in (most // 100, most // 10, most):
            home = folder / f"v{count}"
            fill(home, load_log_key(str(home)), count)
            measure_verify(home, count)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
