"""Start a command as the same user without any capability, as an ordinary user has none.

Root may write where a mode forbids it, by CAP_DAC_OVERRIDE. Without it modes bind root too,
and nothing else about the user changes.

Source: capabilities(7), "Transformation of capabilities during execve()".
"""

from __future__ import annotations

import ctypes
import os
import sys

_PR_CAPBSET_DROP = 24


def drop() -> None:
    """Empty the bounding set, so that not even root has a capability after the next exec."""
    libc = ctypes.CDLL(None, use_errno=True)
    capability = 0
    while libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
        capability += 1


if __name__ == "__main__":
    drop()
    os.execv(sys.argv[1], sys.argv[1:])
