"""Keep this process's memory to itself, before it holds a key."""

from __future__ import annotations

import ctypes
import os

_PR_SET_DUMPABLE = 4


def not_dumpable() -> None:
    """Leave no core dump, and let no other process of this user look into this one's memory.

    Raises:
        OSError: refused.

    Source: PR_SET_DUMPABLE in prctl(2).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    zeros = (ctypes.c_ulong(0),) * 4
    if libc.prctl(_PR_SET_DUMPABLE, *zeros) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
