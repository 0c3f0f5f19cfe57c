"""Somebody exchanges a file for a link while it is looked up, thousands of times."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.named_files import ALLOWED, CANARY, WAYS, exchanging, job_naming, load_each

ROUNDS = 400
# At most: it ends with the first that is led out.
NAIVE_ROUNDS = 500_000


@dataclass(frozen=True, slots=True)
class Race:
    """Two names below the test's folder that are exchanged, and the file that the job names.

    `naive` tells whether a plain open is sure to be led out before long.
    """

    one: str
    two: str
    name: str
    naive: bool = True
    allowed: str | None = None


RACES = {
    "file and link": Race("jobs/x.js", "jobs/link.js", "x.js"),
    "folder and link": Race("jobs/sub", "jobs/link", "sub/x.js"),
    "folder and whole link": Race("jobs/sub", "jobs/whole", "sub/x.js"),
    "dots behind a link": Race("jobs/sub", "jobs/deep", "sub/../x.js"),
    "the job's own folder": Race("jobs", "also", "x.js"),
    "file and link in an allowed folder": Race(
        "lib/x.js", "lib/link.js", "{root}/lib/x.js", allowed="lib"
    ),
    "folder and link in an allowed folder": Race(
        "lib/sub", "lib/link", "{root}/lib/sub/x.js", allowed="lib"
    ),
    # Led out only in the moment in which the walk stands in the folder that is moved.
    "a folder moved away": Race("jobs/sub/in", "outside/in", "sub/in/../../x.js", naive=False),
}


def lay_out(root: Path) -> None:
    """Make two folders to read from, one outside, and links that lead there."""
    for name in ("jobs/sub/in", "lib/sub", "outside/deep", "outside/in"):
        (root / name).mkdir(parents=True)
    for name in ("jobs", "jobs/sub", "lib", "lib/sub"):
        (root / name / "x.js").write_text(ALLOWED)
    for name in ("outside", "outside/deep", "."):
        (root / name / "x.js").write_text(CANARY)
    for name in ("jobs", "lib"):
        (root / name / "link.js").symlink_to("../outside/x.js")
        (root / name / "link").symlink_to("../outside")
        (root / name / "whole").symlink_to(root / "outside")
        (root / name / "deep").symlink_to("../outside/deep")
    (root / "also").symlink_to("outside")


@pytest.mark.parametrize("way", WAYS[:2])
@pytest.mark.parametrize("kind", RACES)
def test_what_is_read_is_allowed_whatever_is_exchanged(tmp_path: Path, kind: str, way: str) -> None:
    race = RACES[kind]
    lay_out(tmp_path)
    job = job_naming(tmp_path / "jobs", race.name.format(root=tmp_path))
    allowed = [] if race.allowed is None else [tmp_path / race.allowed]
    with exchanging(tmp_path / race.one, tmp_path / race.two):
        (ours,) = load_each(way, [job], allowed=allowed, rounds=ROUNDS)
        (naive,) = load_each(way, [job], rounds=NAIVE_ROUNDS if race.naive else 1, naive=True)
    assert ours.total() == ROUNDS
    assert ours[f"read {CANARY}"] == 0, ours
    assert ours[f"read {ALLOWED}"] > 0, ours
    if race.naive:
        assert naive[f"read {CANARY}"] > 0, naive
        assert ours.total() > ours[f"read {ALLOWED}"], "no round met the other name"
    assert {ending.partition(" ")[0] for ending in ours} <= {
        *("read", "RefusedError", "NotFoundError", "JobError")
    }
