"""Look at processes from outside, through /proc.

Source: proc(5).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
# A kernel option (CONFIG_PROC_CHILDREN), which most have.
_LISTS_CHILDREN = os.path.exists(f"/proc/self/task/{os.getpid()}/children")


def wait_for(look: Callable[[], T | None], seconds: float = 10, *, what: str) -> T:
    """Look again and again until there is something; fails loudly when nothing comes."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found is not None:
            return found
        time.sleep(0.005)
    raise AssertionError(f"waited {seconds} s for {what}")


def children(pid: int) -> list[int]:
    """Give the process ids of a process's children."""
    if not _LISTS_CHILDREN:
        return [other for other in _all() if status(other).get("PPid") == str(pid)]
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(word) for word in text.split()]


def _all() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def status(pid: int) -> dict[str, str]:
    """Give the lines of /proc/PID/status by name; empty for a process that is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return {}
    lines = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in lines}


def is_alive(pid: int) -> bool:
    """Tell whether a process still runs; one that only waits to be reaped does not."""
    state = status(pid).get("State")
    return state is not None and not state.startswith(("Z", "X"))


def confined_child(pid: int) -> int | None:
    """Give the worker of a supervisor once seccomp binds it, None until then."""
    for child in children(pid):
        if status(child).get("Seccomp") == "2":
            return child
    return None


def confined(pid: int) -> list[int]:
    """Give the children of a supervisor of programs that have started a child of their own."""
    return [
        child for child in children(pid) if status(child).get("Seccomp") == "2" and children(child)
    ]


def busy_worker(pid: int, cpu_ticks: int = 5) -> int | None:
    """Give the worker of a supervisor once it has computed for a while, None until then.

    A job that loops makes its worker busy; waiting to be given one does not.
    """
    child = confined_child(pid)
    if child is None or int(status(child).get("Threads", "0")) < 2:
        return None
    return child if spent_ticks(child) >= cpu_ticks else None


def spent_ticks(pid: int) -> int:
    """Give the CPU time of a process, without its children, in clock ticks."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    fields = text[text.rindex(")") + 2 :].split()
    return int(fields[11]) + int(fields[12])


def open_descriptors(pid: int) -> dict[int, str] | None:
    """Give what each descriptor of a process leads to; None where the kernel will not say."""
    folder = f"/proc/{pid}/fd"
    try:
        return {int(name): os.readlink(f"{folder}/{name}") for name in os.listdir(folder)}
    except PermissionError:
        return None
