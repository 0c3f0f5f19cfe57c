"""What reading a hostile file costs: processor time and memory, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from beddel_cli.record import record

_CHILD = """
import json, sys, time
from beddel_cli.errors import JobError
from beddel_cli.json_strict import parse_json
from beddel_cli.yaml_safe import parse_yaml

def resident(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field))

def read(data):
    try:
        parse(data, "f")
    except JobError as error:
        return f"{error.place}: {error.message}"
    return None

parse = parse_json if sys.argv[1] == "json" else parse_yaml
with open(sys.argv[2], "rb") as file:
    data = file.read()
assert read(b"[1]") is None and read(b"[1") is not None
with open("/proc/self/clear_refs", "w") as peak:
    peak.write("5")
before = resident("VmRSS")
times = []
for _ in range(int(sys.argv[3])):
    start = time.process_time()
    said = read(data)
    times.append(time.process_time() - start)
    if len(times) == 1:
        peak_kib = resident("VmHWM") - before
print(json.dumps([said, min(times), peak_kib]))
"""


@record
class Cost:
    """What one file cost.

    Attributes:
        said: the error's place and message, None for a value.
        cpu_seconds: the least processor time of several readings; what a trivial file costs, the
            imports, comes before.
        peak_bytes: resident memory at the peak of the first reading, over that after a trivial
            file, the file's own bytes not counted.
    """

    said: str | None
    cpu_seconds: float
    peak_bytes: int


def cost_of(kind: str, file: Path, times: int = 3) -> Cost:
    """Read a file as `yaml` or `json` in a fresh process, some times over."""
    command = [sys.executable, "-c", _CHILD, kind, str(file), str(times)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    said, seconds, peak_kib = json.loads(done.stdout)
    return Cost(said, seconds, peak_kib * 1024)
