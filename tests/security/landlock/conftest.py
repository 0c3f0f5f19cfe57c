"""Programs on the landlock rung: on a machine made so that it allows no user namespaces."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import callers, inside, no_namespaces
from tests.support.callers import PYTHON, Caller
from tests.support.capabilities import require
from tests.support.cli import COMMAND, Result

NO_NAMESPACES = (sys.executable, "-P", str(Path(no_namespaces.__file__)))
PERMITS_IT = "tenant-isolated"


@dataclass(frozen=True, slots=True)
class Rung:
    """Somebody on such a machine."""

    caller: Caller

    @property
    def own_id(self) -> bool:
        """Whether their programs run under their own id."""
        return self.caller.identity() != {} or not callers.AS_ROOT

    def exec(self, *arguments: str | Path, **more: Any) -> Result:
        """Run `beddel-cli exec --profile tenant-isolated …` to its end."""
        more.setdefault("profile", PERMITS_IT)
        more.setdefault("env", self.environment())
        return self.caller.exec(*arguments, command=(*NO_NAMESPACES, *COMMAND), **more)

    @property
    def temporary(self) -> Path:
        """The folder for temporary files of theirs alone, where other tests leave nothing."""
        return self.caller.work.parent / "temporary"

    def environment(self) -> dict[str, str]:
        """Give their environment."""
        return self.caller.environment(TMPDIR=str(self.temporary))

    def scratch_folders(self) -> set[Path]:
        """Give the scratch folders that are there now."""
        return set(self.temporary.iterdir())

    def sh(self, script: str, *options: str | Path, **more: Any) -> Result:
        """Run a shell script."""
        return self.exec(*options, "--", "sh", "-c", script, **more)

    def probe(self, code: str, *arguments: str) -> dict[str, Any]:
        """Run Python that prints JSON; gives that."""
        done = self.exec("--", PYTHON, "-c", self.source(code), *arguments)
        assert done.returncode == 0, done.message
        assert "landlock rung" in done.message, done.message
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def control(self, code: str, *arguments: str) -> dict[str, Any]:
        """Run the same as the same user without walls; gives what it printed as JSON."""
        done = subprocess.run(
            [PYTHON, "-c", self.source(code), *arguments],
            capture_output=True,
            check=False,
            timeout=60,
            cwd=self.caller.work,
            **self.caller.identity(),
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    @staticmethod
    def source(code: str) -> str:
        """Give a probe's text with what it may use before it."""
        return f"{inspect.getsource(inside)}\n{code}"

    def start(self, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """Start `beddel-cli exec --profile tenant-isolated …` and leave it running."""
        run = self.caller.home.start(
            *("exec", "--profile", PERMITS_IT, *arguments),
            command=(*NO_NAMESPACES, *COMMAND),
            env=self.environment(),
            **self.caller.identity(),
        )
        self.caller.started.append(run)
        return run


@pytest.fixture(params=callers.NAMES)
def rung(request: pytest.FixtureRequest) -> Iterator[Rung]:
    """Root and an ordinary user, where root runs the tests, else whoever does."""
    require("user-namespaces")
    require("system-python")
    require("landlock-scopes")
    with callers.caller(request.param) as found:
        ready = Rung(found)
        ready.temporary.mkdir(mode=0o755)
        found.own(ready.temporary)
        yield ready
