"""What every test may ask for: a fresh home, a command line, and an installation with a guest."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

# Before anything loads the bare parser: PyYAML's C module can be bound to one set of classes only,
# and tests compare what we read with what the whole package makes of it.
import yaml  # noqa: F401
from hypothesis import settings

# Tests import each other as `tests.…`. Putting the checkout on the path for that would hide the
# installed package behind one that holds no guest, so only this folder gets a name.
if "tests" not in sys.modules:
    _tests = ModuleType("tests")
    _tests.__path__ = [str(Path(__file__).parent)]
    sys.modules["tests"] = _tests

from beddel_cli.errors import BeddelError
from beddel_cli.guests import CODE_FILE, WASM_FILE, javascript_facts
from tests.support.cli import Home, Result

# Many machines run these often, each with examples of its own: fewer each time, and in ten minutes.
settings.register_profile("ci", max_examples=25, deadline=None, print_blob=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Heed signals as from a terminal; stop at once where the package under test has no guest."""
    # A script's background jobs and `nohup` ignore these, and so would every command under test.
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        javascript_facts()
        missing = [path for path in (WASM_FILE, CODE_FILE) if not Path(path).is_file()]
    except BeddelError as error:
        missing = [error.message]
    if missing:
        pytest.exit(
            f"beddel_cli at {Path(WASM_FILE).parents[2]} holds no built guest ({missing[0]}): "
            "install it (pip install '.[test]') and run `pytest`, not `python -m pytest`, "
            "which would take the checkout instead",
            returncode=4,
        )


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home and a cache that nobody has used yet, and a folder to work in."""
    work = tmp_path / "work"
    work.mkdir()
    return Home(tmp_path / "home", tmp_path / "cache", work)


@pytest.fixture
def run_cli(home: Home) -> Callable[..., Result]:
    """`beddel-cli …` in the fresh home, as a function of its arguments."""
    return home.run
