"""Load jobs that name files, in a process that may lack openat2, and say how each loading ended.

`named_files.py` reads `{"jobs": […], "allowed": […], "rounds": N, "naive": false}` from standard
input and prints one `{ending: count}` per job. An ending is `read TEXT`, or the error's class and
message. `naive` opens the file that each job names as any program would, until one of them was led
to the canary: the control.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support import block_syscalls

if TYPE_CHECKING:
    from beddel_cli.job import Job

# With openat2, and as old kernels and as old containers without it.
WAYS = ("none", "openat2-missing", "openat2-not-permitted")
HEAD = "beddel: 1\nid: named\nruntime: javascript\nfile: "
CANARY = "return 'outside'"
ALLOWED = "return 'allowed'"
_EXCHANGE = """
import ctypes, os, sys
call = 276 if os.uname().machine == "aarch64" else 316  # renameat2
one, two = map(os.fsencode, sys.argv[1:3])
libc = ctypes.CDLL(None, use_errno=True)
exchange = lambda: libc.syscall(call, -100, one, -100, two, 2)
if exchange():
    sys.exit(os.strerror(ctypes.get_errno()))
print("exchanging", flush=True)
while os.getppid() == int(sys.argv[3]):
    exchange()
"""


def job_naming(folder: Path, name: str, job: str = "job.yaml") -> Path:
    """Write a job whose code is in a file of that name; JSON escapes are YAML's."""
    path = folder / job
    path.write_text(HEAD + json.dumps(name) + "\n", encoding="utf-8")
    return path


def load_each(
    way: str,
    jobs: Sequence[Path],
    *,
    allowed: Sequence[Path] = (),
    rounds: int = 1,
    naive: bool = False,
) -> list[Counter[str]]:
    """Load each job so many times and count how that ended."""
    request = {
        "jobs": [str(job) for job in jobs],
        "allowed": [str(folder) for folder in allowed],
        "rounds": rounds,
        "naive": naive,
    }
    program = "from tests.support.named_files import answer; answer()"
    python = (sys.executable, "-P", "-c", _start(program))
    launcher = (sys.executable, "-P", block_syscalls.__file__, way)
    done = subprocess.run(
        [*launcher, *python],
        input=json.dumps(request).encode(),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return [Counter(each) for each in json.loads(done.stdout)]


def load(way: str, job: Path, *allowed: Path) -> str:
    """Load a job once; gives its ending."""
    (counts,) = load_each(way, [job], allowed=allowed)
    (ending,) = counts
    return ending


@contextmanager
def exchanging(one: Path, two: Path) -> Iterator[None]:
    """Have another process exchange two names as fast as it can."""
    command = [sys.executable, "-c", _EXCHANGE, str(one), str(two), str(os.getpid())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stderr is not None
        if not other.stdout.readline():
            raise AssertionError(other.stderr.read().decode())
        try:
            yield
            assert other.poll() is None, "the control: it exchanged them to the end"
        finally:
            other.kill()


def _start(program: str) -> str:
    """Let a child find the tests as `tests.…` and the installed package, as conftest does."""
    tests = Path(__file__).parents[1]
    return (
        "import sys, types\n"
        "module = types.ModuleType('tests')\n"
        f"module.__path__ = [{str(tests)!r}]\n"
        "sys.modules['tests'] = module\n"
        f"{program}\n"
    )


def answer() -> None:
    """Be the child: load what standard input asks for and print the counts."""
    request = json.load(sys.stdin)
    counts: list[Counter[str]] = [Counter() for _ in request["jobs"]]
    for _ in range(request["rounds"]):
        if request["naive"] and any(f"read {CANARY}" in count for count in counts):
            break
        for job, count in zip(request["jobs"], counts, strict=True):
            count[_naively(job) if request["naive"] else _ending(job, request["allowed"])] += 1
    json.dump(counts, sys.stdout)


def load_job(path: str, allowed: Sequence[str] = ()) -> Job:
    """Read a job whose code file, if it names one, it may have; raises its refusal else."""
    from beddel_cli.job import read_job

    job, refusal = read_job(path, allowed)
    if refusal is not None:
        raise refusal
    return job


def _ending(job: str, allowed: Sequence[str]) -> str:
    from beddel_cli.errors import BeddelError

    try:
        return "read " + load_job(job, allowed).code.decode("utf-8")
    except BeddelError as error:
        return f"{type(error).__name__} {error.message}"


def _naively(job: str) -> str:
    try:
        text = Path(job).read_text("utf-8")
        name: str = json.loads(text.partition("file: ")[2])
        return "read " + (Path(job).parent / name).read_text("utf-8")
    except OSError as error:
        return f"{type(error).__name__}"
