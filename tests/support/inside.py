"""What probes inside the walls use; sent in as text, so it needs nothing but the system's Python.

`answers(...)` tries each probe in a child of its own and prints, as JSON, the errno it met (0: it
worked), or the name of the signal that killed it.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import signal
import sys
from collections.abc import Callable

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long


def call(number: int, *arguments: object) -> int:
    """Make a system call; gives 0 or its errno."""
    words = [
        each if isinstance(each, bytes) else ctypes.c_long(int(str(each))) for each in arguments
    ]
    ctypes.set_errno(0)
    return ctypes.get_errno() if LIBC.syscall(ctypes.c_long(number), *words) < 0 else 0


def attempt(action: Callable[[], object]) -> int:
    """Do something; gives 0 or the errno of the OSError it raised."""
    try:
        action()
    except OSError as error:
        return error.errno or -1
    return 0


def forks(number: int, *arguments: object) -> int:
    """Make a call that returns twice; gives 0 or its errno."""
    words = [ctypes.c_long(int(str(each))) for each in arguments]
    pid = LIBC.syscall(ctypes.c_long(number), *words)
    if pid == 0:
        os._exit(0)
    if pid < 0:
        return ctypes.get_errno()
    os.waitpid(pid, 0)
    return 0


def machine_code(hexadecimal: str) -> int:
    """Run instructions; gives 0 or the errno they returned."""
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(bytes.fromhex(hexadecimal))
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    result = int(function())
    return -result if result < 0 else 0


def answers(probes: dict[str, Callable[[], int]]) -> None:
    """Try every probe and print what came of each."""
    found: dict[str, int | str] = {}
    for name, probe in probes.items():
        sys.stdout.flush()
        out, into = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(into, str(probe()).encode())
            except BaseException as error:  # noqa: BLE001
                # A probe that is broken must not look like one that was refused.
                os.write(into, f"{type(error).__name__}: {error}".encode()[:200])
            finally:
                os._exit(0)
        os.close(into)
        text = os.read(out, 300).decode()
        os.close(out)
        _, status = os.waitpid(child, 0)
        killed = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else None
        found[name] = killed or (int(text) if text.lstrip("-").isdigit() else text or "no answer")
    json.dump(found, sys.stdout)
