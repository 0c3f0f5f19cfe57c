"""The command line in this very process, for tests that need no process of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from beddel_cli.cli import run_app


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document of `--json`."""
        import json

        return json.loads(self.out)


class CommandLine:
    """`beddel-cli …` as a function of its arguments."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object, code: int | None = 0) -> Answer:
        """Run a command line; None as the code allows any."""
        self._capsys.readouterr()
        got = run_app([str(each) for each in arguments], started_ns=0)
        said = self._capsys.readouterr()
        answer = Answer(got, said.out, said.err)
        assert code is None or answer.code == code, answer
        return answer
