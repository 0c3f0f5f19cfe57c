"""The guardian's `kill(-1)`, which is never tried before it is known to meet nobody else."""

from __future__ import annotations

import errno
import os
import socket
import time
from types import SimpleNamespace
from typing import NoReturn

import pytest

from beddel_cli.process import guardian, init, kernel
from beddel_cli.process.init import Broken


@pytest.mark.parametrize("step", ["_be_able_to_signal", "_check_harmless"])
def test_who_may_still_signal_everybody_ends_the_starter_alone(
    monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    ended = []
    request = SimpleNamespace(terminal=None)

    def fail(*_: object) -> NoReturn:
        raise OSError(errno.EPERM, "as in a container without that right")

    def wait(*_: object) -> NoReturn:
        time.sleep(100)
        os._exit(0)

    # With these as they are, a guardian that is wrong about this would end the whole machine.
    monkeypatch.setattr(guardian, "_end_all", lambda: ended.append("everybody"))
    monkeypatch.setattr(guardian, "_signal_all", lambda number: ended.append("everybody"))
    monkeypatch.setattr(guardian, "_be_able_to_signal", lambda *_: None)
    monkeypatch.setattr(guardian, step, fail)
    monkeypatch.setattr(guardian, "_be_starter", wait)
    monkeypatch.setattr(guardian, "_wake_on_death", lambda: 0)
    monkeypatch.setattr(kernel, "prctl", lambda *_: 0)
    monkeypatch.setattr(init, "receive_request", lambda channel: (request, []))
    starters: list[int] = []
    fork = os.fork

    def noted() -> int:
        starters.append(fork())
        return starters[-1]

    monkeypatch.setattr(os, "fork", noted)
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(Broken) as broken:
        guardian._guard(theirs, os.getppid(), (1, 2), 0)
    assert broken.value.failed.step == "guardian"
    assert not ended
    with pytest.raises(ProcessLookupError):
        os.kill(starters[0], 0)
