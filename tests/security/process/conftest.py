"""Programs behind the walls as tests ask for them: as whoever runs the tests, and as nobody's user.

Where root runs the tests, every one runs twice: as root, whose program gets a throw-away id, and as
an ordinary user without any right. Elsewhere once.
"""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import inside, walls
from tests.support.capabilities import require

# An id that nobody has, for a user without a name.
ORDINARY = 23456
_AS_ROOT = os.geteuid() == 0


@dataclass(frozen=True, slots=True)
class Person:
    """Who runs the command."""

    name: str
    user: int | None

    def options(self) -> dict[str, Any]:
        """Give what subprocess needs to start something as them."""
        if self.user is None:
            return {}
        return {"user": self.user, "group": self.user, "extra_groups": []}

    def python(self, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python as them, outside of any walls: the control."""
        return subprocess.run(
            ["/usr/bin/python3", "-c", code, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={"PATH": "/usr/bin:/bin"},
            cwd="/",
            **self.options(),
        )


PEOPLE = [Person("root", None), Person("ordinary", ORDINARY)] if _AS_ROOT else [Person("us", None)]


@pytest.fixture(params=PEOPLE, ids=lambda person: person.name)
def person(request: pytest.FixtureRequest) -> Person:
    """Who runs the command."""
    require("user-namespaces")
    require("system-python")
    chosen: Person = request.param
    return chosen


@pytest.fixture
def place(person: Person) -> Iterator[Path]:
    """A folder of theirs, at a path that everybody may pass."""
    folder = Path(tempfile.mkdtemp(prefix="walls-", dir="/var/tmp"))
    folder.chmod(0o755)
    if person.user is not None:
        os.chown(folder, person.user, person.user)
    yield folder
    shutil.rmtree(folder)


def source(probe: str) -> str:
    """Give a probe's text with what it may use before it."""
    return f"{inspect.getsource(inside)}\n{probe}"


Run = Callable[..., "dict[str, Any]"]


def command() -> list[str]:
    """Give the command that reads a description and runs it behind the walls."""
    return [sys.executable, "-P", str(Path(walls.__file__))]


@pytest.fixture
def behind(person: Person) -> Run:
    """Run a program behind the walls as them; gives what came of it."""

    def run(arguments: Sequence[str], **described: Any) -> dict[str, Any]:
        done = subprocess.run(
            command(),
            input=json.dumps({"arguments": list(arguments), **described}),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd="/",
            **person.options(),
        )
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    return run


@pytest.fixture
def probe(behind: Run) -> Run:
    """Run Python behind the walls; gives what it printed as JSON."""

    def run(code: str, *arguments: str, **described: Any) -> dict[str, Any]:
        answer = behind(["/usr/bin/python3", "-c", source(code), *arguments], **described)
        assert answer["walls"]["failed_step"] is None, answer["walls"]
        assert answer["code"] == 0, answer
        found: dict[str, Any] = json.loads(answer["stdout"])
        return found

    return run


@pytest.fixture
def control(person: Person) -> Run:
    """Run the same Python as the same user without walls; gives what it printed as JSON."""

    def run(code: str, *arguments: str) -> dict[str, Any]:
        done = person.python(source(code), *arguments)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return run
