"""What a repetition is held to, and how two runs compare: real receipts, one thing changed."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beddel_cli.errors import UnverifiableError, VerificationError
from beddel_cli.limits import Limits
from beddel_cli.plan import Wishes, make_plan
from beddel_cli.receipt import Shown
from beddel_cli.record import changed
from beddel_cli.repetition import Repetition
from beddel_cli.replay import (
    COULD_NOT_TELL,
    DIFFERS,
    EXIT_CODES,
    REPRODUCED,
    Comparison,
    compare,
)
from beddel_cli.salted_digest import digest_set
from tests.support.capabilities import require
from tests.support.cli import Home
from tests.support.resigned import statement_of
from tests.support.values import JOB, PROFILE, host

OTHER = {"sha256": "0" * 64}
Change = Callable[[dict[str, Any]], object]


def receipt_of(home: Home, *arguments: str | Path) -> dict[str, Any]:
    """Give what the receipt of one run says."""
    home.run(*arguments)
    predicate: dict[str, Any] = statement_of(home.receipts()[-1])["predicate"]
    return predicate


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("replay")
    (folder / "work" / "data").mkdir(parents=True)
    (folder / "work" / "data" / "in").write_text("in")
    return Home(folder / "home", folder / "cache", folder / "work")


@pytest.fixture(scope="module")
def isolate(shared: Home) -> dict[str, Any]:
    job = shared.job("console.log(1)\nreturn input", input={"a": 1})
    return receipt_of(shared, "run", job)


@pytest.fixture(scope="module")
def real(shared: Home) -> dict[str, Any]:
    job = shared.job("return Date.now()", "real")
    return receipt_of(shared, "run", job, "--profile", "tenant-isolated")


@pytest.fixture(scope="module")
def program(shared: Home) -> dict[str, Any]:
    require("user-namespaces")
    return receipt_of(
        shared,
        *("exec", "--profile", "high-security", "--workspace", "data", "--mount", "data/in:/in"),
        *("--env", "A=b", "--results", "out", "--", "sh", "-c", "echo o; echo e >&2; echo f > f"),
    )


def altered(predicate: dict[str, Any], change: Change) -> dict[str, Any]:
    """Give a copy of it, changed."""
    made = copy.deepcopy(predicate)
    change(made)
    return made


def differing(found: Comparison) -> set[str]:
    """Give what differs and counts."""
    return {row.what for row in found.rows if row.judged and not row.same}


def ended(status: str, reason: str, code: int, **more: Any) -> Change:
    """Give the change to another ending."""
    return lambda said: said["outcome"].update(
        {"status": status, "reason": reason, "exitCode": code, **more}
    )


ISOLATE_CHANGES: dict[str, Change] = {
    "ending": ended("failure", "thrown", 1),
    "output": lambda said: said["output"].update(digest=OTHER),
    "console": lambda said: said["console"].update(digest=OTHER),
    "clock and seed": lambda said: said["determinism"].update(seed="1"),
    "fuel": lambda said: said["usage"]["fuel"].update(units=1),
    "memory peak": lambda said: said["usage"]["linearMemoryPeak"].update(bytes=1),
    "memory digest": lambda said: said["usage"]["memoryDigest"].update(OTHER),
}


def test_the_same_compares_as_the_same(
    isolate: dict[str, Any], real: dict[str, Any], program: dict[str, Any]
) -> None:
    for predicate in (isolate, real, program):
        found = compare(predicate, predicate)
        assert found.verdict == REPRODUCED
        assert all(row.same for row in found.rows)
        assert found.guest_differences == ()
    assert EXIT_CODES == {REPRODUCED: 0, DIFFERS: 1, COULD_NOT_TELL: 2}
    assert {row.what for row in compare(isolate, isolate).rows} == set(ISOLATE_CHANGES)


@pytest.mark.parametrize("what", ISOLATE_CHANGES)
def test_each_difference_is_found_and_named(what: str, isolate: dict[str, Any]) -> None:
    second = altered(isolate, ISOLATE_CHANGES[what])
    for one, other in ((isolate, second), (second, isolate)):
        found = compare(one, other)
        assert (found.verdict, differing(found)) == (DIFFERS, {what})
    (row,) = (row for row in compare(isolate, second).rows if not row.same)
    assert row.expected != row.got


@pytest.mark.parametrize("what", ISOLATE_CHANGES)
def test_after_a_time_limit_only_the_ending_counts(what: str, isolate: dict[str, Any]) -> None:
    late = altered(isolate, ended("limit", "wall", 124, limit="timeout"))
    found = compare(late, altered(late, ISOLATE_CHANGES[what]))
    assert found.verdict == (DIFFERS if what == "ending" else REPRODUCED)
    assert any("only the ending is compared" in note for note in found.notes)


@pytest.mark.parametrize("what", ISOLATE_CHANGES)
def test_with_a_real_clock_only_outputs_count(what: str, real: dict[str, Any]) -> None:
    found = compare(real, altered(real, ISOLATE_CHANGES[what]))
    counts = what in ("ending", "output", "console")
    assert found.verdict == (DIFFERS if counts else REPRODUCED)
    (note,) = (note for note in found.notes if "real clock" in note)
    assert "fuel and memory are not judged" in note
    unsaid = altered(real, lambda said: said.update(determinism=None))
    assert any("fuel and memory are not judged" in note for note in compare(unsaid, real).notes)


GUESTS: dict[str, Change] = {
    "guest": lambda said: said["runtime"]["guest"].update(digest=OTHER),
    "engine": lambda said: said["runtime"]["engine"].update(version="1.0"),
    "settings": lambda said: said["runtime"].update(settingsDigest=OTHER),
}


@pytest.mark.parametrize("guest", GUESTS)
@pytest.mark.parametrize("what", [None, *ISOLATE_CHANGES])
def test_with_another_guest_outputs_may_agree_and_a_difference_proves_nothing(
    guest: str, what: str | None, isolate: dict[str, Any]
) -> None:
    second = altered(isolate, GUESTS[guest])
    if what is not None:
        second = altered(second, ISOLATE_CHANGES[what])
    found = compare(isolate, second)
    counts = what in ("ending", "output", "console")
    assert found.verdict == (COULD_NOT_TELL if counts else REPRODUCED)
    assert [row.what for row in found.guest_differences] == [guest]
    assert any("another guest or engine" in note for note in found.notes)


NOTHING_TOLD: dict[str, tuple[Change, str]] = {
    "refused": (ended("refused", "protection", 126), "refused here"),
    "fault": (ended("fault", "worker-fault", 125), "worker-fault"),
    "interrupted": (ended("interrupted", "interrupted", 130), "interrupted"),
    "slow": (ended("limit", "wall", 124, limit="timeout"), "--timeout allows more"),
}


@pytest.mark.parametrize("name", NOTHING_TOLD)
def test_an_ending_of_this_machine_proves_nothing(name: str, isolate: dict[str, Any]) -> None:
    change, words = NOTHING_TOLD[name]
    found = compare(isolate, altered(isolate, change))
    assert found.verdict == COULD_NOT_TELL
    assert words in " ".join(found.notes)
    assert [row.what for row in found.rows] == ["ending"]
    assert compare(altered(isolate, change), altered(isolate, change)).verdict == REPRODUCED


PROGRAM_CHANGES: dict[str, tuple[Change, set[str]]] = {
    "exit code": (ended("failure", "exit", 3), {"ending"}),
    "stdout": (lambda said: said["streams"]["stdout"].update(digest=OTHER), {"stdout"}),
    "stderr": (lambda said: said["streams"]["stderr"].update(bytes=9), {"stderr"}),
    "a file": (lambda said: said["files"][0].update(digest=OTHER), {"file f"}),
    "a name": (lambda said: said["files"][0].update(path="g"), {"file f", "file g"}),
    "no file": (lambda said: said["files"].clear(), {"file f"}),
    "time": (lambda said: said["usage"]["wall"].update(ns=1), set()),
}


@pytest.mark.parametrize("name", PROGRAM_CHANGES)
def test_of_a_program_the_outputs_count(name: str, program: dict[str, Any]) -> None:
    change, expected = PROGRAM_CHANGES[name]
    found = compare(program, altered(program, change))
    assert differing(found) == expected
    assert found.verdict == (DIFFERS if expected else REPRODUCED)
    notes = " ".join(found.notes)
    for words in ("a program", "no digest of the folders", "no values of its variables"):
        assert words in notes
    limited = altered(program, ended("limit", "cpu", 124, limit="cpu_time"))
    assert compare(limited, altered(limited, change)).verdict == (
        DIFFERS if name == "exit code" else REPRODUCED
    )


def test_files_where_the_first_run_names_none(program: dict[str, Any]) -> None:
    """It left none, or they were not collected: a receipt does not say which."""
    none = altered(program, lambda said: said["files"].clear())
    assert compare(none, none).verdict == REPRODUCED
    found = compare(none, program)
    assert found.verdict == COULD_NOT_TELL
    (row,) = [row for row in found.rows if row.what == "files"]
    assert (row.expected, row.got, row.judged) == ("none, or not collected", "1 left", False)
    assert any("without --results" in note for note in found.notes)
    assert not any("guest" in note for note in found.notes)
    # After a limit only the ending counts, whatever is there.
    limited = altered(none, ended("limit", "cpu", 124, limit="cpu_time"))
    assert compare(
        limited, altered(program, ended("limit", "cpu", 124, limit="cpu_time"))
    ).verdict == (REPRODUCED)


def test_files_that_differ_are_named_up_to_a_number(program: dict[str, Any]) -> None:
    def many(said: dict[str, Any]) -> None:
        said["files"] = [
            {"path": f"f{number}", "bytes": 1, "digest": OTHER} for number in range(50)
        ]

    rows = [row for row in compare(altered(program, many), program).rows if "file" in row.what]
    assert len(rows) == 21
    assert rows[-1].what == "file … 31 more"


def test_a_refusal_is_repeated_by_the_same_refusal(isolate: dict[str, Any]) -> None:
    def refused(said: dict[str, Any]) -> None:
        said["plan"] = said["determinism"] = None
        ended("refused", "limits", 126)(said)
        said["outcome"]["refusal"] = {"needs": "memory 3MiB", "found": "2MiB", "fix": "less"}

    first = altered(isolate, refused)
    assert compare(first, first).verdict == REPRODUCED
    other = altered(first, lambda said: said["outcome"]["refusal"].update(needs="fuel 1"))
    assert differing(compare(first, other)) == {"needs"}
    elsewhere = altered(first, lambda said: said["outcome"]["refusal"].update(found="1MiB"))
    assert compare(first, elsewhere).verdict == REPRODUCED
    by_another = altered(first, lambda said: said["profile"].update(digest=OTHER))
    found = compare(first, by_another)
    assert found.verdict == COULD_NOT_TELL
    assert any("under another proves nothing" in note for note in found.notes)
    files = altered(first, lambda said: said["outcome"].update(reason="files"))
    assert any("--allow-path" in note for note in compare(files, files).notes)


def test_another_profile_or_version_is_said(isolate: dict[str, Any]) -> None:
    other = altered(isolate, lambda said: said["profile"].update(digest=OTHER))
    other["beddel"]["version"] = "9"
    notes = " ".join(compare(isolate, other).notes)
    assert "the profile is another" in notes
    assert "beddel-cli 9 here" in notes


def held_to(predicate: dict[str, Any], salt: bytes | None = None) -> Repetition:
    return Repetition("ab" * 32, predicate, salt)


def of_job(predicate: dict[str, Any], salt: bytes | None = None) -> dict[str, Any]:
    """Give a receipt that claims to be of the small job."""

    def change(said: dict[str, Any]) -> None:
        said["job"]["digest"] = digested(JOB.source, salt)
        said["resolvedDependencies"] = [
            {"name": "code", "digest": digested(JOB.code, salt)},
            {"name": "input", "digest": digested(b"null", salt)},
            {"name": "guest", "digest": OTHER},
        ]

    return altered(predicate, change)


def digested(data: bytes, salt: bytes | None = None) -> dict[str, str]:
    return digest_set(hashlib.sha256(data).hexdigest(), salt)


@pytest.mark.parametrize("salt", [None, b"s" * 32])
def test_the_bytes_that_run_are_the_bytes_of_the_receipt(
    salt: bytes | None, isolate: dict[str, Any]
) -> None:
    repetition = held_to(of_job(isolate, salt), salt)
    repetition.check_sources(JOB, refused=False)
    for name, job in (
        ("job", changed(JOB, source=JOB.source + b"\n")),
        ("code", changed(JOB, code=b"return 43")),
        ("input", changed(JOB, input=1)),
    ):
        with pytest.raises(UnverifiableError, match=f"the {name} is not the one") as caught:
            repetition.check_sources(job, refused=False)
        assert caught.value.expected != caught.value.got
        assert str(caught.value.expected).startswith("sha256:" if salt is None else "saltedSha256:")
    excused = altered(dict(repetition.predicate), lambda x: x["determinism"].update(clock="real"))
    asks = changed(JOB, deterministic=True)
    repetition.check_sources(asks, refused=False)
    with pytest.raises(VerificationError, match="contradicts its job about the clock"):
        held_to(excused, salt).check_sources(asks, refused=False)
    with pytest.raises(UnverifiableError, match="for another runtime"):
        repetition.check_sources(changed(JOB, runtime="process"), refused=False)
    wrong = held_to(of_job(isolate, salt), b"t" * 32)
    with pytest.raises(UnverifiableError, match="the job is not the one"):
        wrong.check_sources(JOB, refused=False)


def test_a_source_that_is_not_known_is_never_passed_over(isolate: dict[str, Any]) -> None:
    for name, words in (("module:lodash", "not known here"), ("code", "twice")):
        said = of_job(isolate)
        said["resolvedDependencies"].append({"name": name, "digest": OTHER})
        with pytest.raises(UnverifiableError, match=words):
            held_to(said).check_sources(JOB, refused=False)
    missing = altered(of_job(isolate), lambda said: said["resolvedDependencies"].pop(1))
    with pytest.raises(UnverifiableError, match="the input is not the one"):
        held_to(missing).check_sources(JOB, refused=False)


def test_limits_and_rights_are_those_of_the_first_run_or_less(isolate: dict[str, Any]) -> None:
    wishes = held_to(isolate).wishes(Limits())
    assert wishes.limits.memory_bytes == isolate["plan"]["limits"]["memoryBytes"]
    assert (wishes.no_function, wishes.frozen) == (True, True)
    loose = changed(PROFILE, dynamic_code="function", clock="real")
    granted = make_plan(JOB, loose, host(), Wishes())
    assert (granted.allow_function, granted.clock) == (True, "real"), "the control"
    held = make_plan(JOB, loose, host(), changed(wishes, limits=Limits()))
    assert (held.allow_function, held.clock) == (False, "frozen")
    with pytest.raises(UnverifiableError, match="limit of 0"):
        held_to(altered(isolate, lambda x: x["plan"]["limits"].update(fuel=0))).wishes(Limits())
    more_ns = (wishes.limits.wall_ns or 0) + 1
    more = held_to(isolate).wishes(Limits(wall_ns=more_ns))
    assert more.limits == changed(wishes.limits, wall_ns=more_ns)


@pytest.mark.parametrize(
    ("change", "less", "more", "words"),
    [
        (ended("success", "ok", 0), False, True, "had more time"),
        (ended("limit", "fuel", 124), False, True, "had more time"),
        (ended("limit", "wall", 124), False, False, "ended by a limit of its time"),
        (ended("limit", "cpu", 124), False, False, "ended by a limit of its time"),
        (ended("refused", "limits", 126), False, False, "refused for what was asked then"),
    ],
)
def test_another_time_limit_hides_no_difference(
    change: Change, less: bool, more: bool, words: str, isolate: dict[str, Any]
) -> None:
    def of_one_second(said: dict[str, Any]) -> None:
        change(said)
        said["plan"]["limits"]["wallNs"] = said["asked"]["limits"]["wallNs"] = 10**9
        if said["outcome"]["status"] == "refused":
            said["plan"] = None

    first = held_to(altered(isolate, of_one_second))
    for wall_ns, passes in ((10**9 - 1, less), (10**9, True), (10**9 + 1, more)):
        if passes:
            assert first.wishes(Limits(wall_ns=wall_ns)).limits.wall_ns == wall_ns
        else:
            with pytest.raises(UnverifiableError, match=f"--timeout: .*{words}") as caught:
                first.wishes(Limits(wall_ns=wall_ns))
            assert caught.value.expected == "1s"
    unasked = altered(dict(first.predicate), lambda said: said["asked"]["limits"].clear())
    if unasked["plan"] is None:
        with pytest.raises(UnverifiableError, match=words):
            held_to(unasked).wishes(Limits(wall_ns=1))


def test_another_time_limit_is_told(isolate: dict[str, Any]) -> None:
    had_ns = isolate["plan"]["limits"]["wallNs"]

    def more(said: dict[str, Any]) -> None:
        said["plan"]["limits"]["wallNs"] = had_ns * 2

    def needed(said: dict[str, Any]) -> None:
        more(said)
        said["usage"]["wall"]["ns"] = had_ns + 1

    assert not [note for note in compare(isolate, isolate).notes if "time limit" in note]
    (note,) = compare(isolate, altered(isolate, more)).notes
    assert note == "the time limit is another: 10s, first 5s"
    (note,) = compare(isolate, altered(isolate, needed)).notes
    assert note.endswith("and it took longer here than the first run may have")


def test_a_plan_that_gives_less_or_else_starts_nothing(
    isolate: dict[str, Any], program: dict[str, Any]
) -> None:
    plan = make_plan(JOB, PROFILE, host(), Wishes())
    plan = changed(plan, limits=held_to(isolate).wishes(Limits()).limits)
    held_to(isolate).check_plan(plan, (), None)
    wider = altered(isolate, lambda said: said["plan"].update(dynamicCode="function"))
    with pytest.raises(UnverifiableError, match="ways to make code from text") as caught:
        held_to(wider).check_plan(plan, (), None)
    assert (caught.value.expected, caught.value.got) == ("function", "none")
    with pytest.raises(UnverifiableError, match="other variables"):
        held_to(program).check_plan(changed(plan, runtime="process"), (), None)
    for name, words in (("memory_bytes", "memory 1MiB"), ("wall_ns", "timeout 1s")):
        number = {"memory_bytes": 1 << 20, "wall_ns": 10**9}[name]
        tighter = changed(plan, limits=changed(plan.limits, **{name: number}))
        with pytest.raises(UnverifiableError, match="other limits than the receipt says") as caught:
            held_to(isolate).check_plan(tighter, (), None)
        assert caught.value.got == words
    longer = changed(plan, limits=changed(plan.limits, wall_ns=(plan.limits.wall_ns or 0) + 1))
    held_to(isolate).check_plan(longer, (), None)
    mounted = {"name": "mount:/in", "digest": digested(b"in")}
    said = altered(isolate, lambda x: x["resolvedDependencies"].append(mounted))
    digest = hashlib.sha256(b"in").hexdigest()
    held_to(said).check_plan(plan, (Shown("/in", "ro", digest),), None)
    for shown in ((), (Shown("/in", "ro", "0" * 64),), (Shown("/out", "ro", digest),)):
        with pytest.raises(UnverifiableError, match="the mount:/"):
            held_to(said).check_plan(plan, shown, None)


@pytest.mark.parametrize("reason", ["limits", "files", "protection"])
@pytest.mark.parametrize("same", [True, False])
def test_what_was_refused_is_never_started(
    reason: str, same: bool, isolate: dict[str, Any]
) -> None:
    plan = make_plan(JOB, PROFILE, host(), Wishes())

    def refused(said: dict[str, Any]) -> None:
        said["plan"] = None
        said["runtime"]["name"] = "process" if same else "javascript"
        said["profile"]["digest"] = {"sha256": plan.profile_digest} if same else OTHER
        ended("refused", reason, 126)(said)
        said["outcome"]["refusal"] = {"needs": "x", "found": "y", "fix": "z"}

    contradicts = same and reason == "limits"
    error = VerificationError if contradicts else UnverifiableError
    with pytest.raises(error, match="the first run was refused"):
        held_to(altered(isolate, refused)).check_plan(plan, (), None)


def test_only_what_came_to_an_end_of_its_own_can_be_repeated(isolate: dict[str, Any]) -> None:
    held_to(isolate).check_repeatable()
    for change, words in (
        (ended("interrupted", "terminated", 143), "ended from outside"),
        (lambda x: x["determinism"].update(clock="real", clockStartUs=1 << 63), "clock or a seed"),
        (lambda x: x["determinism"].update(clock="real", seed=str(1 << 64)), "clock or a seed"),
        (lambda x: x["determinism"].update(clock="real", seed=None), "clock or a seed"),
    ):
        with pytest.raises(UnverifiableError, match=words):
            held_to(altered(isolate, change)).check_repeatable()


def test_clock_and_seed_are_set_only_where_the_first_run_had_its_own(
    isolate: dict[str, Any], real: dict[str, Any]
) -> None:
    assert held_to(isolate).start is None
    said = real["determinism"]
    assert held_to(real).start == (said["clockStartUs"], int(said["seed"]))
