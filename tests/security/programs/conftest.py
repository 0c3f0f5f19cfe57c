"""What tests of programs through the command line ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import callers
from tests.support.callers import Caller
from tests.support.capabilities import require


@pytest.fixture(params=callers.NAMES)
def caller(request: pytest.FixtureRequest) -> Iterator[Caller]:
    """Who runs the command: root and an ordinary user, where root runs the tests."""
    require("user-namespaces")
    require("system-python")
    with callers.caller(request.param) as found:
        yield found
