"""The installed package alone: nothing of the checkout in reach, by somebody who owns nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import beddel_cli
from beddel_cli.guests import CODE_FILE
from tests.support.capabilities import give_up, require
from tests.support.cli import COMMAND, Home

NOBODY = 65534
PACKAGE = Path(beddel_cli.__file__).parent
JOB = """\
beddel: 1
id: sum
runtime: javascript
input: [1, 2, 3]
code: return input.reduce((a, b) => a + b)
"""


def test_samples_and_profiles_come_with_the_package() -> None:
    for folder, least in (("profiles", 3), ("samples", 6)):
        assert len(list((PACKAGE / folder).glob("*.yaml"))) >= least


def test_the_installed_command_brings_in_nothing_that_a_run_does_not_use(home: Home) -> None:
    command = Path(sys.executable).parent / "beddel-cli"
    run = [str(command), "run", str(PACKAGE / "samples" / "order-totals.yaml"), "-q"]
    # The first run of a home makes its key, which takes `cryptography`.
    subprocess.run(run, capture_output=True, env=home.environment(), check=True)
    told = home.environment(PYTHONPROFILEIMPORTTIME="1")
    done = subprocess.run(run, capture_output=True, env=told, check=True, text=True)
    brought_in = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "beddel_cli.run" in brought_in
    # What an installer of entry points may import before anything of ours.
    assert not brought_in & {"re", "enum", "importlib.metadata"}


def test_runs_from_a_read_only_folder_as_a_user_who_owns_nothing_here(
    tmp_path: Path, home: Home
) -> None:
    require("root")
    reachable = subprocess.run(
        _as_nobody(sys.executable, "-c", "import beddel_cli"),
        capture_output=True,
        cwd="/",
        check=False,
    )
    if reachable.returncode:
        give_up("second-user: this Python cannot be started by another user")
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    folder = tmp_path / "read-only"
    folder.mkdir()
    (folder / "job.yaml").write_text(JOB)
    folder.chmod(0o555)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, NOBODY, NOBODY)
    done = subprocess.run(
        _as_nobody(*COMMAND, "run", "job.yaml", "--json"),
        capture_output=True,
        cwd=folder,
        env={"HOME": str(theirs), "PATH": "/usr/bin:/bin"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"6/6 confirmed" in done.stderr
    made = [path for path in theirs.rglob("*") if path.is_file()]
    assert {path.suffix for path in made} == {".pem", ".json", ".tlog-proof", ".sqlite3"}
    assert {path.stat().st_uid for path in made} == {NOBODY}
    assert sorted(path.name for path in folder.iterdir()) == ["job.yaml"]
    # What ran is the same whoever runs it.
    ours = home.run("run", folder / "job.yaml", "--json").json
    same = json.loads(done.stdout)
    assert same["output"] == ours["output"] == 6
    assert same["fuel"] == ours["fuel"]
    assert same["memory"]["digest"] == ours["memory"]["digest"]


def _as_nobody(*command: str) -> list[str]:
    drop = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    return [*drop, *command]


class Copy:
    """A copy of the installed package whose native code can be damaged."""

    def __init__(self, site: Path, home: Home) -> None:
        shutil.copytree(
            PACKAGE, site / "beddel_cli", ignore=shutil.ignore_patterns("__pycache__", "*.c")
        )
        self.code = site / "beddel_cli" / Path(CODE_FILE).relative_to(PACKAGE)
        self._home = home
        self._environment = home.environment(PYTHONPATH=str(site))

    def run(self) -> tuple[int, bytes, str | None, bytes]:
        """Run a job; gives exit code, output, where its native code came from, and messages."""
        job = self._home.work / "sum.yaml"
        job.write_text(JOB)
        done = self._home.run("run", job, env=self._environment)
        receipts = self._home.receipts() if (self._home.home / "receipts").is_dir() else []
        source = self._home.predicate()["runtime"]["nativeCode"]["source"] if receipts else None
        return done.returncode, done.stdout, source, done.stderr


@pytest.fixture
def copy(tmp_path: Path, home: Home) -> Copy:
    return Copy(tmp_path / "site", home)


def test_native_code_the_engine_refuses_is_compiled_once_into_the_cache(
    copy: Copy, home: Home
) -> None:
    assert copy.run()[:3] == (0, b"6\n", "packaged")
    copy.code.write_bytes(b"\x7fELF" + bytes(5000))
    assert copy.run()[:3] == (0, b"6\n", "compiled")
    assert copy.run()[:3] == (0, b"6\n", "cached")
    cached = list(home.cache.glob("javascript-*.cwasm"))
    assert len(cached) == 1
    assert cached[0].stat().st_mode & 0o077 == 0
    damaged = bytearray(cached[0].read_bytes())
    damaged[len(damaged) // 2] ^= 1
    cached[0].write_bytes(damaged)
    assert copy.run()[:3] == (0, b"6\n", "compiled")
    cached[0].unlink()
    cached[0].symlink_to("/dev/null")
    code, _, _, message = copy.run()
    assert code == 125
    assert b"Traceback" not in message


def test_native_code_that_others_could_have_written_is_not_loaded(copy: Copy) -> None:
    copy.code.chmod(0o666)
    code, output, _, message = copy.run()
    assert (code, output) == (125, b"")
    assert b"can be written by others (mode 0666)" in message
    copy.code.chmod(0o644)
    assert copy.run()[:3] == (0, b"6\n", "packaged")


def test_native_code_behind_a_link_is_not_loaded(copy: Copy, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.cwasm"
    copy.code.rename(elsewhere)
    copy.code.symlink_to(elsewhere)
    code, output, _, message = copy.run()
    assert (code, output) == (125, b"")
    assert b"the JavaScript guest is not usable" in message


def test_native_code_of_another_user_is_not_loaded(copy: Copy) -> None:
    require("root")
    os.chown(copy.code, NOBODY, NOBODY)
    code, output, _, message = copy.run()
    assert (code, output) == (125, b"")
    assert b"belongs to user 65534" in message


@pytest.mark.slow
def test_another_wasmtime_version_compiles_the_guest_anew(home: Home, tmp_path: Path) -> None:
    site = tmp_path / "other"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site)]
    done = subprocess.run([*pip, "wasmtime==49.0.0"], capture_output=True, check=False)
    if done.returncode:
        give_up(f"network: cannot install wasmtime 49.0.0: {done.stderr.decode()[-200:]}")
    job = home.work / "sum.yaml"
    job.write_text(JOB)
    environment = home.environment(PYTHONPATH=str(site))
    for source in ("compiled", "cached"):
        result = home.run("run", job, env=environment)
        assert (result.returncode, result.stdout) == (0, b"6\n"), result.stderr
        runtime = home.predicate()["runtime"]
        assert runtime["nativeCode"]["source"] == source
        assert runtime["engine"] == {"name": "wasmtime", "version": "49.0.0"}
