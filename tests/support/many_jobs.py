"""Run many small jobs in one process: the guest and the engine host alone, without the walls.

Started as a program with requests on standard input, since a trap in native code should never be
one of the test process.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Script:
    """One job for the bare guest."""

    code: str
    input: str = ""
    allow_function: bool = False
    memory_bytes: int = 2 << 20
    wall_ns: int = 2_000_000_000
    fuel: int = 10**11
    output_bytes: int = 1 << 18
    console_bytes: int = 1 << 14
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Said:
    """What the guest reported."""

    ending: int
    status: int
    trap_code: int
    output: bytes
    error_name: str
    error_message: str
    fuel_used: int
    memory_digest: str
    console: bytes


def run_scripts(scripts: Sequence[Script], *, timeout: float = 120) -> list[Said]:
    """Run each job in a fresh isolate, all in one child process."""
    done = subprocess.run(
        [sys.executable, "-P", str(Path(__file__).resolve())],
        input=json.dumps([asdict(script) for script in scripts]).encode(),
        capture_output=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, (done.returncode, done.stderr.decode("utf-8", "replace"))
    said = []
    for line in done.stdout.splitlines():
        fields = json.loads(line)
        for name in ("output", "console"):
            fields[name] = base64.b64decode(fields[name])
        said.append(Said(**fields))
    assert len(said) == len(scripts)
    return said


def _main() -> None:
    from beddel_cli.isolate.frames import Request
    from beddel_cli.isolate.guest_code import load_guest
    from beddel_cli.isolate.javascript import read_pristine, run_javascript
    from beddel_cli.isolate.wasm import Engine, load_library

    engine = Engine(load_library())
    module = load_guest(engine).module
    pristine = read_pristine(engine, module)
    for script in json.load(sys.stdin):
        code, text = script.pop("code"), script.pop("input")
        request = Request(
            **script,
            clock_us=946_684_800_000_000,
            want_snapshot=False,
            code=code.encode("utf-8", "surrogatepass"),
            input=text.encode("utf-8", "surrogatepass"),
        )
        report, _ = run_javascript(engine, module, pristine, request)
        said = {
            "ending": report.ending,
            "status": report.status,
            "trap_code": report.trap_code,
            "output": base64.b64encode(report.output).decode(),
            "error_name": report.error_name.decode("utf-8", "replace"),
            "error_message": report.error_message.decode("utf-8", "replace"),
            "fuel_used": report.fuel_used,
            "memory_digest": report.memory_digest.hex(),
            "console": base64.b64encode(report.console).decode(),
        }
        print(json.dumps(said))


if __name__ == "__main__":
    _main()
