"""The code file becomes another while the job runs: the run and its receipt know only the first."""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cli import Home
from tests.support.named_files import job_naming

FIRST, SECOND = b"return ['first', input]", b"return ['other', input]"
_CLOSED_AFTER_READING = 0x10


def _replace(path: Path) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(SECOND)
    other.rename(path)


def _write_over(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(SECOND)


def _link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def _remove(path: Path) -> None:
    path.unlink()


class Watch:
    """Tells when a file has been read and closed: inotify(7)."""

    def __init__(self, path: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_CLOEXEC)
        added = libc.inotify_add_watch(self._descriptor, os.fsencode(path), _CLOSED_AFTER_READING)
        assert added >= 0, os.strerror(ctypes.get_errno())

    def wait(self) -> None:
        os.read(self._descriptor, 4096)
        os.close(self._descriptor)


@pytest.mark.parametrize("change", [_replace, _write_over, _link, _remove])
def test_a_file_that_changes_during_the_run_changes_nothing(
    home: Home, change: Callable[[Path], None]
) -> None:
    code = home.work / "x.js"
    code.write_bytes(FIRST)
    job = job_naming(home.work, "x.js")
    watch = Watch(code)
    # The run reads the code first and then waits for its input, which comes after the change.
    receipt = str(home.work / "r.json")
    run = home.start("run", job, "--input", "-", "-q", "--receipt", receipt, stdin=-1)
    watch.wait()
    change(code)
    output, message = run.communicate(b"1", timeout=60)
    assert (run.returncode, output) == (0, b'["first",1]\n'), message
    (found, *_) = home.predicate(Path(receipt))["resolvedDependencies"]
    assert found["digest"] == {"sha256": hashlib.sha256(FIRST).hexdigest()}


def test_the_control_is_another_file_and_another_digest(home: Home) -> None:
    (home.work / "x.js").write_bytes(SECOND)
    result = home.run("run", job_naming(home.work, "x.js"), "--set", "input=1", "-q")
    assert result.stdout == b'["other",1]\n'
    (found, *_) = home.predicate()["resolvedDependencies"]
    assert found["digest"] == {"sha256": hashlib.sha256(SECOND).hexdigest()}
