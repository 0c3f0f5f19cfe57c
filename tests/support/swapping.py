"""Another process that changes names in folders as fast as it can, as somebody who may write there.

`swapping.py` reads a JSON list of steps from standard input and repeats them until that is closed,
then prints how often it went through all of them and how many single steps worked. A step is a word
and paths: `exchange A B` (renameat2), `rename A B`, `symlink TARGET NAME`, `link A B`, `unlink A`,
`take FOLDER TARGET` renames what appears in a folder and leaves a link in its place.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

_AT_FDCWD, _EXCHANGE = -100, 2
_TURNS_BETWEEN_LOOKS = 64


@dataclass(slots=True)
class Swapped:
    """How much was changed; known at the end."""

    rounds: int = 0
    steps: int = 0


@contextmanager
def swapping(steps: Sequence[Sequence[str]], user: int | None = None) -> Iterator[Swapped]:
    """Have another process repeat these steps, as somebody else where a user id is given."""
    identity: dict[str, Any] = {}
    if user is not None:
        identity = {"user": user, "group": user, "extra_groups": []}
    told = Swapped()
    # The system's interpreter: others may not be able to use ours.
    command = ["/usr/bin/python3", __file__]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, **identity) as other:  # type: ignore[call-overload]
        try:
            other.stdin.write(json.dumps(steps).encode() + b"\n")
            other.stdin.flush()
            assert other.stdout.readline() == b"swapping\n"
            yield told
        finally:
            other.stdin.close()
            answer = other.stdout.readline()
        told.rounds, told.steps = map(int, answer.split())
    assert told.steps > 0, "the control: something was changed"


def _exchange(one: str, two: str) -> None:
    number = 276 if os.uname().machine == "aarch64" else 316
    names = (os.fsencode(one), os.fsencode(two))
    failed = _libc.syscall(number, _AT_FDCWD, names[0], _AT_FDCWD, names[1], _EXCHANGE)
    if failed:
        raise OSError(ctypes.get_errno(), "exchange")


def _take(folder: str, target: str) -> None:
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        # In the same folder: to move somebody's folder to another, one would have to own it.
        if not name.startswith("taken-") and not os.path.islink(path):
            os.rename(path, f"{folder}/taken-{os.urandom(4).hex()}")
            os.symlink(target, path)


_libc = ctypes.CDLL(None, use_errno=True)
_STEPS: dict[str, Callable[..., None]] = {
    "exchange": _exchange,
    "rename": os.rename,
    "symlink": os.symlink,
    "link": os.link,
    "unlink": os.unlink,
    "take": _take,
}


def main() -> None:
    """Be the other process."""
    steps = [(_STEPS[word], paths) for word, *paths in json.loads(sys.stdin.readline())]
    print("swapping", flush=True)
    rounds = worked = 0
    while rounds % _TURNS_BETWEEN_LOOKS or not select.select([0], [], [], 0)[0]:
        rounds += 1
        for act, paths in steps:
            try:
                act(*paths)
            except OSError:
                continue  # somebody else was faster
            worked += 1
    print(rounds, worked, flush=True)


if __name__ == "__main__":
    main()
