"""Start the installed command line as a user would, and read what it leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beddel_cli.trust.keys import load_public_key
from beddel_cli.trust.verify import verify_envelope

# The command as it is installed, by the interpreter it is installed for.
COMMAND = (sys.executable, str(Path(sys.executable).with_name("beddel-cli")))
# Far above any run; reached only by a command that hangs, which is then a failure.
HANG_SECONDS = 60
# A supervisor has its own margin of 60 ms after a limit; the rest is for a busy machine.
LATE_SECONDS = 0.6


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended."""

    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def json(self) -> dict[str, Any]:
        """The one document of `--json`."""
        document: dict[str, Any] = json.loads(self.stdout)
        return document

    @property
    def message(self) -> str:
        """Standard error as text."""
        return self.stderr.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Home:
    """A BEDDEL_HOME and BEDDEL_CACHE_DIR of one test, and a folder to work in."""

    home: Path
    cache: Path
    work: Path

    def environment(self, **more: str) -> dict[str, str]:
        """Give the caller's environment with these folders, nothing else of beddel's, no CI's."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if "BEDDEL" not in name and not name.startswith(("GITHUB_", "RUNNER_"))
        }
        return kept | {"BEDDEL_HOME": str(self.home), "BEDDEL_CACHE_DIR": str(self.cache)} | more

    @property
    def public_key(self) -> bytes:
        """The public key that a first run made."""
        return (self.home / "keys" / "signing.pub.pem").read_bytes()

    def receipts(self) -> list[Path]:
        """Give the receipts in this home, oldest first."""
        return sorted((self.home / "receipts").glob("*.dsse.json"))

    def files(self) -> set[str]:
        """Give every file below home and cache, by path."""
        roots = (self.home, self.cache)
        return {str(path) for root in roots for path in root.rglob("*") if not path.is_dir()}

    def predicate(self, receipt: Path | None = None) -> dict[str, Any]:
        """Give what a receipt says, once its signature is verified; the newest by default."""
        path = self.receipts()[-1] if receipt is None else receipt
        key = load_public_key(self.public_key)
        return dict(verify_envelope(path.read_bytes(), [key]).predicate)

    def job(self, code: str, name: str = "job", **more: Any) -> Path:
        """Write a JavaScript job; JSON is YAML, so nothing of the code needs care."""
        path = self.work / f"{name}.yaml"
        job = {"beddel": 1, "id": name, "runtime": "javascript", "code": code, **more}
        # DEL and the C1 controls may not stand in YAML; JSON leaves them as they are.
        text = json.dumps(job).replace("\x7f", "\\u007f")
        path.write_text(text, encoding="ascii")
        return path

    def run(
        self,
        *arguments: str | Path,
        input: bytes | None = None,
        env: Mapping[str, str] | None = None,
        command: Sequence[str] = COMMAND,
        timeout: float = HANG_SECONDS,
        **more: Any,
    ) -> Result:
        """Run a command line to its end.

        Raises:
            subprocess.TimeoutExpired: it hangs.
        """
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        done = subprocess.run(
            [*command, *map(str, arguments)],
            input=b"" if input is None else input,
            env=dict(self.environment() if env is None else env),
            cwd=self.work,
            timeout=timeout,
            check=False,
            **(pipes | more),
        )
        return Result(done.returncode, done.stdout or b"", done.stderr or b"")

    def start(
        self,
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        command: Sequence[str] = COMMAND,
        **more: Any,
    ) -> subprocess.Popen[bytes]:
        """Start a command line and leave it running."""
        pipes: dict[str, Any] = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
        pipes["stdin"] = subprocess.DEVNULL
        run: subprocess.Popen[bytes] = subprocess.Popen(
            [*command, *map(str, arguments)],
            env=dict(self.environment() if env is None else env),
            cwd=self.work,
            **(pipes | more),
        )
        return run


def has_traceback(result: Result) -> bool:
    """Tell whether a run showed its user a Python traceback."""
    return b"Traceback (most recent call last)" in result.stderr + result.stdout
