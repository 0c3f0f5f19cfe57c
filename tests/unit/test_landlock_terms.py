"""What the landlock rung cannot do, as values; and that the documentation says all of it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from beddel_cli.process.landlock_terms import (
    MACHINE_STEPS,
    NOT_WALLED,
    beyond_this_rung,
    is_refused_by_machine,
)
from beddel_cli.process.program import Mount

README = Path(__file__).parents[2] / "README.md"


def mount(source: str, target: str, *, writable: bool = False) -> Mount:
    return Mount(source, 0, target, writable, True)


def test_only_what_lies_where_it_is_can_be_shown() -> None:
    same = mount("/srv/data", "/srv/data")
    assert beyond_this_rung(None, ()) is None
    assert beyond_this_rung(mount("/x", "/workspace", writable=True), (same,)) is None
    for workspace, mounts, needs in (
        (mount("/x", "/src"), (), "a workspace at /src"),
        (None, (same, mount("/srv/data", "/data")), "/srv/data at /data"),
        (None, (mount("/srv/data", "/srv/data", writable=True),), "a writable mount at /srv/data"),
    ):
        refusal = beyond_this_rung(workspace, mounts)
        assert refusal is not None
        assert (refusal.reason, refusal.needs) == ("files", needs)


def test_a_remedy_is_one_that_can_be_followed() -> None:
    for source, words in (("/srv/data", "--mount /srv/data:/srv/data"), ("/tmp/x", "copy it into")):
        refusal = beyond_this_rung(None, (mount(source, "/data"),))
        assert refusal is not None
        assert words in str(refusal.fix)


@pytest.mark.parametrize("step", MACHINE_STEPS)
def test_a_refusal_of_the_machine_is_one(step: str) -> None:
    for number in (errno.EPERM, errno.ENOSYS, errno.ENOSPC, errno.EACCES, errno.EINVAL):
        assert is_refused_by_machine(step, number)
    # What other programs could bring about at this moment.
    for number in (0, errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE):
        assert not is_refused_by_machine(step, number)


@pytest.mark.parametrize(
    "step", [None, "mounts", "mapped mounts", "request", "start", "terminal", "our own fault"]
)
def test_what_depends_on_the_job_is_none(step: str | None) -> None:
    assert not is_refused_by_machine(step, errno.EPERM)


def test_the_readme_says_all_that_is_not_stopped() -> None:
    # The line ends of a text are no part of what it says.
    text = " ".join(README.read_text("utf-8").split())
    for words, explanation in NOT_WALLED:
        assert words in text, words
        assert explanation in text, explanation
