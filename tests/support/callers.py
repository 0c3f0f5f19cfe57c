"""Start the installed command line for a program, as root and as an ordinary user.

Where root runs the tests, each of these is somebody: root, and an id that nobody has. Elsewhere
there is one, whoever runs them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.capabilities import has
from tests.support.cli import Home, Result

ORDINARY = 23456
AS_ROOT = os.geteuid() == 0
NAMES = ("root", "ordinary") if AS_ROOT else ("us",)
PYTHON = "/usr/bin/python3"


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody with a BEDDEL_HOME and a folder to work in.

    Attributes:
        user: their id; None for whoever runs the tests.
        home: where the command keeps its things, and where they work.
        profile: the strictest built-in profile that this machine lets them run programs under.
        started: what `start` has started, killed in the end if it still runs.
    """

    user: int | None
    home: Home
    profile: str
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def work(self) -> Path:
        """The folder they work in."""
        return self.home.work

    def identity(self) -> dict[str, Any]:
        """Give what subprocess needs to start something as them."""
        if self.user is None:
            return {}
        return {"user": self.user, "group": self.user, "extra_groups": []}

    def environment(self, **more: str) -> dict[str, str]:
        """Give their environment."""
        return self.home.environment(HOME=str(self.home.work.parent / "person"), **more)

    def exec(self, *arguments: str | Path, profile: str | None = None, **more: Any) -> Result:
        """Run `beddel-cli exec --profile … ARGUMENTS` to its end."""
        return self.cli("exec", "--profile", profile or self.profile, *arguments, **more)

    def sh(self, script: str, *options: str | Path, **more: Any) -> Result:
        """Run a shell script behind the walls."""
        return self.exec(*options, "--", "sh", "-c", script, **more)

    def python(self, code: str, *options: str | Path, **more: Any) -> Result:
        """Run Python code behind the walls."""
        return self.exec(*options, "--", PYTHON, "-c", code, **more)

    def cli(self, *arguments: str | Path, **more: Any) -> Result:
        """Run any command to its end."""
        more.setdefault("env", self.environment())
        return self.home.run(*arguments, **(self.identity() | more))

    def start(
        self, *arguments: str | Path, profile: str | None = None, **more: Any
    ) -> subprocess.Popen[bytes]:
        """Start `beddel-cli exec --profile … ARGUMENTS` and leave it running."""
        more.setdefault("env", self.environment())
        run = self.home.start(
            *("exec", "--profile", profile or self.profile, *arguments),
            **(self.identity() | more),
        )
        self.started.append(run)
        return run

    def predicate(self) -> dict[str, Any]:
        """Give what the newest receipt says, once its signature is verified."""
        return self.home.predicate()

    def folder(self, name: str, **files: bytes) -> Path:
        """Make a folder of theirs with files in it; `__` in a name stands for a dot."""
        folder = self.work / name
        folder.mkdir()
        for each, content in files.items():
            (folder / each.replace("__", ".")).write_bytes(content)
        self.own(folder)
        return folder

    def own(self, path: Path) -> None:
        """Make them the owner of something and of all in it."""
        if self.user is not None:
            for each in (path, *path.rglob("*")):
                os.chown(each, self.user, self.user, follow_symlinks=False)


@contextmanager
def caller(name: str) -> Iterator[Caller]:
    """Give one of `NAMES` with folders of their own, at a path that everybody may pass."""
    place = Path(tempfile.mkdtemp(prefix="caller-", dir="/var/tmp"))
    found = None
    try:
        place.chmod(0o755)
        for each in ("home", "cache", "work", "person"):
            (place / each).mkdir(mode=0o755)
        # A home that was not made by the command would be open to others.
        (place / "home").rmdir()
        user = ORDINARY if name == "ordinary" else None
        strictest = "ultra-secure" if user is None and has("cgroup") else "high-security"
        found = Caller(user, Home(place / "home", place / "cache", place / "work"), strictest)
        if user is not None:
            found.own(place)
        yield found
    finally:
        if found is not None:
            for run in found.started:
                _end(run)
        shutil.rmtree(place)


def _end(run: subprocess.Popen[bytes]) -> None:
    if run.poll() is None:
        run.kill()
        run.wait()
    for stream in (run.stdin, run.stdout, run.stderr):
        if stream is not None:
            stream.close()
