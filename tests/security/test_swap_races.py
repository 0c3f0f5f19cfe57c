"""Another process exchanges names while a program is set up and while what it left is collected.

It is somebody who may write in the folders that a run is given: the caller's own user, or for root
another tenant. Behind what it puts in their place lies a canary: a file that the program must never
see, and a folder in which nothing must ever be written. The control is the same by path: look where
a name leads, then use the name, which the same process does lead astray.

By default some rounds; `pytest -m slow` goes through thousands.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from beddel_cli.errors import BeddelError, Place
from beddel_cli.files import open_reach
from beddel_cli.process.collect import collect_results, open_results, write_back
from beddel_cli.process.collect_rules import Caps
from beddel_cli.process.mount_rules import MountRequest, parse_mount
from beddel_cli.process.mount_sources import open_sources
from tests.support import callers
from tests.support.callers import ORDINARY, Caller
from tests.support.capabilities import require
from tests.support.swapping import swapping

ALLOWED, CANARY, UNTOUCHED = "allowed\n", "canary\n", "untouched\n"
OFTEN = [pytest.param(50, id="some"), pytest.param(2000, id="all", marks=pytest.mark.slow)]
WHOLE = [pytest.param(1, id="some"), pytest.param(20, id="all", marks=pytest.mark.slow)]
# At most; it ends with the first that is led astray.
NAIVE_ROUNDS = 500_000
CAPS = Caps(total_bytes=1 << 20, entries=100)
PLACE = Place("job.yaml", 1, 1)


@dataclass(frozen=True, slots=True)
class Ground:
    """Folders of the attacker's, and one outside of them with the canary."""

    caller: Caller
    attacker: int | None
    jobs: Path
    outside: Path

    def untouched(self) -> bool:
        """Tell whether nobody wrote outside."""
        names = sorted(os.listdir(self.outside))
        texts = [(self.outside / name).read_text("utf-8") for name in ("f", "g")]
        inner = os.listdir(self.outside / "sub")
        return (names, texts, inner) == (["f", "g", "sub"], [CANARY, UNTOUCHED], [])


@pytest.fixture(params=callers.NAMES)
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    """Everybody who runs these, and who attacks them."""
    require("process-namespace")
    with callers.caller(request.param) as caller:
        jobs, outside = caller.work / "jobs", caller.work / "outside"
        for folder in (jobs / "space" / "sub", jobs / "data", outside / "sub"):
            folder.mkdir(parents=True)
        for name in ("space/f", "data/f", "file"):
            (jobs / name).write_text(ALLOWED, "utf-8")
        (outside / "f").write_text(CANARY, "utf-8")
        (outside / "g").write_text(UNTOUCHED, "utf-8")
        (jobs / "link").symlink_to("../outside")
        (jobs / "file-link").symlink_to("../outside/f")
        (jobs / "space" / "sub-link").symlink_to(outside / "sub")
        caller.own(caller.work)
        attacker = caller.user
        if callers.AS_ROOT and attacker is None:
            attacker = ORDINARY
            for path in (jobs, *jobs.rglob("*")):
                os.chown(path, attacker, attacker, follow_symlinks=False)
        # What only the caller may read.
        for name in ("f", "g"):
            (outside / name).chmod(0o600)
        yield Ground(caller, attacker, jobs, outside)


def of_job(source: str, *, writable: bool = False) -> MountRequest:
    """Give a request as a job makes it, which may not lead out of its folder."""
    return MountRequest(source, "/data", writable, PLACE)


SOURCES = {
    "folder": ("space", "link", "f"),
    "folder beneath": ("space/sub", "space/sub-link", "g"),
    "file": ("file", "file-link", ""),
}


def _look(descriptor: int, name: str) -> str:
    path = f"/proc/self/fd/{descriptor}/{name}".rstrip("/")
    try:
        return Path(path).read_text("utf-8")
    except FileNotFoundError:
        # The folder beneath is empty on both sides; which it is, its place tells.
        where = os.readlink(f"/proc/self/fd/{descriptor}")
        return CANARY if "/outside" in where else ALLOWED


def _by_path(ground: Ground, source: str, name: str) -> str:
    """Do it as it is often done: look where a path leads, and then use the path."""
    path = ground.jobs / source
    try:
        if not os.path.realpath(path).startswith(f"{ground.jobs}/"):
            return "refused"
        descriptor = os.open(path, os.O_PATH)
    except OSError:
        return "error"
    try:
        return _look(descriptor, name)
    finally:
        os.close(descriptor)


def _opened(ground: Ground, source: str, name: str) -> str:
    with open_reach(str(ground.jobs / "job.yaml")) as reach:
        try:
            with open_sources(None, [of_job(source)], (), reach) as opened:
                return _look(opened.mounts[0].descriptor, name)
        except BeddelError as error:
            return type(error).__name__


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("rounds", OFTEN)
def test_a_source_of_a_job_that_becomes_a_link_out_of_its_folder(
    ground: Ground, kind: str, rounds: int
) -> None:
    source, link, name = SOURCES[kind]
    paths = str(ground.jobs / source), str(ground.jobs / link)
    ours: Counter[str] = Counter()
    naive: Counter[str] = Counter()
    with swapping([("exchange", *paths)], ground.attacker) as swapped:
        # On a busy machine the other process may have to wait for its turn.
        while ours.total() < rounds or not (ours[ALLOWED] and ours["RefusedError"]):
            ours[_opened(ground, source, name)] += 1
            assert ours.total() < NAIVE_ROUNDS, "the attack met the folder and the link"
        while not naive[CANARY] and naive.total() < NAIVE_ROUNDS:
            naive[_by_path(ground, source, name)] += 1
    assert ours[CANARY] == 0, ours
    assert set(ours) <= {ALLOWED, "RefusedError", "NotFoundError", "JobError"}
    assert naive[CANARY] == 1, "the control: by path it is led out"
    print(
        f"{rounds} rounds against {swapped.rounds}: {dict(ours)}; by path lost in {naive.total()}"
    )


@pytest.fixture
def upper(tmp_path: Path) -> Iterator[int]:
    """What a program left: a file, and one in a folder."""
    folder = tmp_path / "upper"
    (folder / "sub").mkdir(parents=True)
    for name in ("sub/f", "g"):
        (folder / name).write_text("the program's", "utf-8")
    descriptor = os.open(folder, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def _naively_until_lost(ground: Ground, path: Path) -> int:
    """Write by path until the attacker led that outside; gives the number of rounds."""
    for done in range(1, NAIVE_ROUNDS + 1):
        with suppress(OSError):
            path.parent.mkdir(exist_ok=True)
            path.write_text("the program's", "utf-8")
        if not ground.untouched():
            return done
    raise AssertionError("the control: by path nothing was led astray, so nothing is shown here")


@pytest.mark.parametrize("kind", ["folder becomes a link", "file becomes a hard link"])
@pytest.mark.parametrize("rounds", OFTEN)
def test_what_is_written_back_while_its_place_is_exchanged(
    ground: Ground, upper: int, kind: str, rounds: int
) -> None:
    space = ground.jobs / "space"
    place, name = str(space), "g"
    steps: list[tuple[str, ...]] = [("exchange", f"{place}/sub", f"{place}/sub-link")]
    if kind == "file becomes a hard link":
        # Of a file that the attacker may write, or the kernel would not let them.
        victim = ground.outside / "g"
        if ground.attacker is not None:
            os.chown(victim, ground.attacker, ground.attacker)
        mine = f"{place}/mine"
        steps = [("link", str(victim), mine), ("rename", mine, f"{place}/g")]
    else:
        name = "sub/f"
    descriptor = os.open(space, os.O_PATH)
    wrote = failed = 0
    with swapping(steps, ground.attacker) as swapped:
        for done in range(NAIVE_ROUNDS):
            if done >= rounds and wrote and (failed or "hard" in kind):
                break
            try:
                got = write_back(descriptor, place, upper, CAPS)
                wrote += any(file.path.decode() == name for file in got.files)
                failed += bool(got.skipped)
            except BeddelError:
                failed += 1
        os.close(descriptor)
        assert ground.untouched()
        naive = _naively_until_lost(ground, space / name)
    assert wrote > 0, "the attack met the folder"
    assert failed > 0 or "hard" in kind, "the attack met the link"
    assert [each for each in os.listdir(space) if each.startswith(".beddel-")] == []
    print(f"{rounds} rounds against {swapped.rounds}: {failed} met it; by path lost in {naive}")


@pytest.mark.parametrize("rounds", OFTEN)
def test_results_while_everything_there_is_taken(ground: Ground, upper: int, rounds: int) -> None:
    """Whatever appears in the folder of the results becomes a link to the folder outside."""
    base = _open_to_all(ground.jobs / "base")
    outcomes: Counter[str] = Counter()
    with swapping([("take", str(base), str(ground.outside))], ground.attacker) as swapped:
        for done in range(NAIVE_ROUNDS):
            if done >= rounds and outcomes["failed"]:
                break
            try:
                with open_results(str(base / "out")) as place:
                    collect_results(place, upper, None, CAPS)
                outcomes["written"] += 1
            except BeddelError:
                outcomes["failed"] += 1
            _empty(base)
        assert ground.untouched(), outcomes
        naive = 0
        while ground.untouched() and naive < NAIVE_ROUNDS:
            naive += 1
            with suppress(OSError):
                (base / "out").mkdir()
                (base / "out" / "g").write_text("the program's", "utf-8")
            _empty(base)
        assert not ground.untouched(), "the control: by path it is led astray"
    assert outcomes["failed"] > 0, "the attack met the collector"
    print(f"{dict(outcomes)} against {swapped.rounds}; by path lost in {naive}")


def _open_to_all(folder: Path) -> Path:
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        with suppress(OSError):
            if path.is_symlink() or not path.is_dir():
                path.unlink()
            else:
                shutil.rmtree(path, ignore_errors=True)


EXCHANGED = (
    *(("space", "link"), ("data", "data-link"), ("file", "file-link")),
    *(("space/f", "space/f-link"), ("space/sub", "space/sub-link")),
)
SCRIPT = "cat /workspace/f /data/f /file; mkdir -p /workspace/sub; echo new >/workspace/sub/f; :"


@pytest.mark.parametrize("rounds", WHOLE)
def test_whole_runs_while_all_they_are_given_is_exchanged(ground: Ground, rounds: int) -> None:
    """From the command to its receipt: workspace, mounts, files in them and results at once."""
    caller, jobs = ground.caller, ground.jobs
    (jobs / "job.yaml").write_text(
        '{"beddel":1,"id":"x","runtime":"process","command":["sh","-c",'
        f'"{SCRIPT}"],"workspace":{{"source":"./space"}},'
        '"mounts":[{"source":"./data","target":"/data"},{"source":"./file","target":"/file"}]}'
    )
    (jobs / "data-link").symlink_to("../outside")
    (jobs / "space" / "f-link").symlink_to(ground.outside / "f")
    results = _open_to_all(jobs / "results")
    ways = [("exchange", str(jobs / one), str(jobs / two)) for one, two in EXCHANGED]
    ways.append(("take", str(results), str(ground.outside)))
    endings: Counter[str] = Counter()
    allowed = 0
    for way in ways if rounds > 1 else ways[::4]:
        with swapping([way], ground.attacker):
            for turn in range(rounds):
                more = ("--write-back",) if turn % 2 else ("--results", results / "out")
                done = caller.cli("run", jobs / "job.yaml", "--profile", caller.profile, *more)
                assert CANARY.encode() not in done.stdout, done.message
                endings[f"{done.returncode}"] += 1
                allowed += ALLOWED.encode() in done.stdout
                _empty(results)
        assert ground.untouched(), (way, endings)
        _put_back(way)
    assert set(endings) <= {"0", "1", "125", "126", "127"}, endings
    assert endings["0"] > 0, "the attack missed some"
    assert rounds < 10 or endings["126"] > 0, "and met some"
    assert allowed > 0
    print(f"{endings.total()} runs: {dict(endings)}, {allowed} saw files")


def _put_back(way: tuple[str, ...]) -> None:
    """Let the folder or file have its own name again, which the link may have at the moment."""
    word, one, two = way
    if word == "exchange" and os.path.islink(one):
        os.rename(one, one + "-aside")
        os.rename(two, one)
        os.rename(one + "-aside", two)


def test_the_control_a_link_that_may_be_followed_shows_what_is_there(ground: Ground) -> None:
    caller = ground.caller
    mount = parse_mount(f"{ground.jobs / 'link'}:/data")
    assert not mount.by_job
    done = caller.exec("-q", "--mount", f"{ground.jobs / 'link'}:/data", "--", "cat", "/data/f")
    assert (done.returncode, done.stdout) == (0, CANARY.encode()), done.message
