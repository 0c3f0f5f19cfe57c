"""The rules by which one run repeats another: what it is held to, and how the two compare. Pure.

A receipt decides nothing here. It says what the first run was made of, and anything else is not
run; it says what limits that run had, and they only tighten the operator's own profile; it holds
no path that would be opened. What came of the second run is compared member by member, as far as
the same job must give the same there.

    isolate, frozen clock, same guest    ending, output, console, clock and seed, fuel, memory
    isolate, real clock                  ending, output, console
    program                              ending, both streams, the files it left
    another guest or engine              ending, output, console; a difference proves nothing
    ended by a time limit, or a          ending
    program by any limit
"""

from __future__ import annotations

import hashlib

from beddel_cli.errors import UnverifiableError, VerificationError
from beddel_cli.job import input_bytes
from beddel_cli.limits import ISOLATE, Limits, fields_of, use_of
from beddel_cli.plan import Wishes, camel_case, policy_json
from beddel_cli.record import record
from beddel_cli.salted_digest import PLAIN, digest_set, digest_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from beddel_cli.job import Job
    from beddel_cli.plan import Plan
    from beddel_cli.receipt import Guest, Sandbox, Shown

REPRODUCED, DIFFERS, COULD_NOT_TELL = "reproduced", "differs", "could-not-tell"
EXIT_CODES = {REPRODUCED: 0, DIFFERS: 1, COULD_NOT_TELL: 2}
# What a receipt may name that is judged elsewhere: profile and guest by what is compared.
_JUDGED_ELSEWHERE = frozenset(("profile", "guest"))
_MOUNT = "mount:"
_MOST_FILES_SHOWN = 20
_GIVEN_BY = {
    "job": "give the very job file, code file or command that was run",
    "code": "the file that the job names for its code, as it was",
    "input": "--input FILE and --set as the first run had them",
}

_WORDS = {
    "dynamicCode": "ways to make code from text",
    "environmentNames": "variables",
    "files": "files",
}


@record
class Repetition:
    """What a run is held to that repeats another.

    Attributes:
        of: hex SHA-256 of the first run's statement.
        predicate: what its receipt says; of the form that the schema describes.
        salt: what its digests are salted with, None where they are not.
    """

    of: str
    predicate: Mapping[str, Any]
    salt: bytes | None = None

    @property
    def start(self) -> tuple[int, int] | None:
        """Clock and seed to set; None where they follow from the job, and for a program."""
        said = self.predicate["determinism"]
        if said is None or said["clock"] == "frozen":
            return None
        seed = int(said["seed"] or 1 << 64)
        if said["clockStartUs"] >= 1 << 63 or seed >= 1 << 64:
            raise UnverifiableError(
                "the receipt names a clock or a seed that no run can have",
                got=f"clock {said['clockStartUs']}, seed {seed}",
            )
        return said["clockStartUs"], seed

    @property
    def tier(self) -> str | None:
        """The tier that the first run's command line named."""
        tier: str | None = self.predicate["asked"]["tier"]
        return tier

    def check_repeatable(self) -> None:
        """Let only a run pass that can be repeated.

        Raises:
            UnverifiableError: its ending came from outside, or the receipt contradicts itself.
        """
        outcome = self.predicate["outcome"]
        if outcome["status"] == "interrupted":
            raise UnverifiableError(
                f"the first run was ended from outside ({outcome['reason']}); "
                "there is nothing to repeat"
            )
        if (self.predicate["plan"] is None) != (outcome["status"] == "refused"):
            raise UnverifiableError(
                "the receipt contradicts itself: a run has a plan unless it was refused"
            )
        self._expected()
        _ = self.start

    def wishes(self, changed: Limits) -> Wishes:
        """Ask for no more than the first run had; `changed` are limits to have otherwise."""
        plan = self.predicate["plan"]
        said = self.predicate["asked"] if plan is None else plan
        values = {
            field.field: _number(said["limits"].get(camel_case(field.field)))
            for field in fields_of(use_of(self.predicate["runtime"]["name"]))
        }
        if 0 in values.values():
            raise UnverifiableError("the receipt names a limit of 0, which no run can have")
        for name in values:
            if getattr(changed, name) is not None:
                values[name] = getattr(changed, name)
        return Wishes(
            Limits(**values),
            self.tier,
            no_function=plan is not None and plan.get("dynamicCode") == "none",
            frozen=plan is not None and plan.get("clock") == "frozen",
        )

    def check_sources(self, job: Job, *, refused: bool) -> None:
        """Compare every byte that is about to be used with what the first run was made of.

        Args:
            refused: the job's code was not read, because it may not be; nothing will run.

        Raises:
            UnverifiableError: one of them differs, or the receipt names something unknown here.
        """
        expected = self._expected()
        runtime = self.predicate["runtime"]["name"]
        if job.runtime != runtime:
            raise UnverifiableError(
                "the job is for another runtime", expected=runtime, got=job.runtime
            )
        self.check("job", job.source)
        isolate = use_of(job.runtime) == ISOLATE
        given = {}
        if isolate and not refused and "code" in expected:
            given["code"] = job.code
        if isolate or job.input is not None:
            given["input"] = input_bytes(job)
        for name, data in given.items():
            self.check(name, data)
        if "input" in expected and "input" not in given:
            raise _missing("input", expected["input"])

    def check(self, name: str, data: bytes) -> None:
        """Compare one source with the first run's.

        Raises:
            UnverifiableError: it is another one, or there was none.
        """
        expected = self._expected().get(name)
        got = digest_set(hashlib.sha256(data).hexdigest(), self.salt)
        if expected is None and name == "input" and use_of_predicate(self.predicate) != ISOLATE:
            raise UnverifiableError(f"the first run had no {name}", got=digest_text(got))
        if expected is None or digest_text(expected) != digest_text(got):
            raise _other(name, expected, got)

    def check_plan(self, plan: Plan, shown: Iterable[Shown], held: Guest | Sandbox | None) -> None:
        """Stop before anything is started where this run could see or do something else.

        Raises:
            UnverifiableError: the operator's profile or command line gives less, or something else.
            VerificationError: the first run was refused, and this one is not.
        """
        policy = policy_json(plan)
        first = self.predicate["plan"]
        if first is None:
            self._not_refused(plan, held)
        for name, hint in (
            ("dynamicCode", "--profile with one that grants it"),
            ("environmentNames", "--env NAME=VALUE for each, as the first run had it"),
            ("files", "--workspace and --mount as the first run had them"),
        ):
            if first.get(name) != policy.get(name):
                raise UnverifiableError(
                    f"this run would have other {_WORDS[name]} than the first",
                    expected=_policy_text(first.get(name)),
                    got=_policy_text(policy.get(name)),
                    hint=hint,
                )
        self._check_shown(shown)

    def _not_refused(self, plan: Plan, held: Guest | Sandbox | None) -> None:
        outcome = self.predicate["outcome"]
        said = f"refused ({outcome['reason']}): needs {(outcome['refusal'] or {}).get('needs')}"
        same = self.predicate["profile"]["digest"] == {PLAIN: plan.profile_digest}
        if outcome["reason"] == "limits" and same and _same_guest(self.predicate, held):
            raise VerificationError(
                "the first run was refused, and here the same job would run; it was not started",
                expected=said,
                got=f"{plan.profile} permits it",
            )
        raise UnverifiableError(
            "the first run was refused, and here nothing stands against it; it was not started",
            expected=said,
            got="the profile, this machine or the command line is another",
        )

    def _check_shown(self, shown: Iterable[Shown]) -> None:
        expected = {
            name: digests for name, digests in self._expected().items() if name.startswith(_MOUNT)
        }
        given = {
            _MOUNT + item.target: digest_set(item.digest, self.salt)
            for item in shown
            if item.digest is not None
        }
        for name in sorted({*expected, *given}):
            was, now = expected.get(name), given.get(name)
            if was is None or now is None or digest_text(was) != digest_text(now):
                raise _other(name, was, now)

    def _expected(self) -> dict[str, dict[str, str]]:
        """Give the digests of the first run's sources by name."""
        found: dict[str, dict[str, str]] = {"job": self.predicate["job"]["digest"]}
        for item in self.predicate["resolvedDependencies"]:
            name = item["name"]
            known = name in ("code", "input") or name.startswith(_MOUNT)
            if name in found or not (known or name in _JUDGED_ELSEWHERE):
                raise UnverifiableError(
                    f"the receipt names a source that is not known here: {name!r}"
                    if name not in found
                    else f"the receipt names a source twice: {name!r}"
                )
            if name not in _JUDGED_ELSEWHERE:
                found[name] = item["digest"]
        return found


@record
class Row:
    """One thing that was compared; `judged` when the verdict depends on it."""

    what: str
    expected: str
    got: str
    judged: bool = True

    @property
    def same(self) -> bool:
        """Whether both runs say the same of it."""
        return self.expected == self.got


@record
class Comparison:
    """How a second run compares to the first.

    Attributes:
        verdict: `reproduced`, `differs` or `could-not-tell`.
        guest_differences: what ran the second that did not run the first; empty for a program.
        notes: what the verdict rests on, one sentence each.
    """

    verdict: str
    rows: tuple[Row, ...]
    guest_differences: tuple[Row, ...]
    notes: tuple[str, ...]


def use_of_predicate(predicate: Mapping[str, Any]) -> str:
    """Say whether a receipt is of an isolate or a program."""
    return use_of(predicate["runtime"]["name"])


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> Comparison:
    """Compare what two receipts say came of a job; their digests have the same salt, or none."""
    guests = () if first["plan"] is None else _guest_differences(first, second)
    ending = Row("ending", _ending(first), _ending(second))
    if first["outcome"]["status"] == "refused":
        rows = [ending, *_refusal_rows(first, second)]
    else:
        rows = _judged([ending, *_result_rows(first, second)], first, bool(guests))
    notes = _notes(first, second, bool(guests))
    verdict = _verdict(rows, guests)
    why = _why_nothing_can_be_told(first, second) if not ending.same else None
    if why is not None:
        verdict, rows, notes = COULD_NOT_TELL, [ending], [why]
    elif verdict == COULD_NOT_TELL:
        notes.append("the difference may be the guest's or the engine's, and proves nothing")
    return Comparison(verdict, tuple(rows), guests, tuple(notes))


def _verdict(rows: Iterable[Row], guests: tuple[Row, ...]) -> str:
    if all(row.same for row in rows if row.judged):
        return REPRODUCED
    return COULD_NOT_TELL if guests else DIFFERS


def _why_nothing_can_be_told(first: Mapping[str, Any], second: Mapping[str, Any]) -> str | None:
    """Say why the second ending says nothing of the first; None where it does."""
    was, now = first["outcome"], second["outcome"]
    if now["status"] == "refused" and was["status"] != "refused":
        return "with the limits that the first run had it was refused here; nothing was repeated"
    if now["status"] in ("fault", "interrupted") and was["status"] != now["status"]:
        return f"it did not come to its own end here: {now['reason']}"
    if now["reason"] in ("wall", "cpu") and was["reason"] != now["reason"]:
        return (
            "here it took longer than the limit that the first run kept; "
            "--timeout allows more, as far as the profile does"
        )
    return None


def _judged(rows: list[Row], first: Mapping[str, Any], other_guest: bool) -> list[Row]:
    """Mark what the verdict may rest on."""
    names = _names_judged(first, other_guest)
    return [
        row if names is None or row.what.partition(" ")[0] in names else _unjudged(row)
        for row in rows
    ]


def _unjudged(row: Row) -> Row:
    return Row(row.what, row.expected, row.got, judged=False)


def _names_judged(first: Mapping[str, Any], other_guest: bool) -> frozenset[str] | None:
    """Give the first words of what is judged; None for everything."""
    outcome = first["outcome"]
    if use_of_predicate(first) != ISOLATE:
        limited = outcome["status"] == "limit"
        return frozenset(
            ("ending",) if limited else ("ending", "stdout", "stderr", "file", "files")
        )
    if outcome["reason"] == "wall":
        return frozenset(("ending",))
    said = first["determinism"]
    if other_guest or said is None or said["clock"] != "frozen":
        return frozenset(("ending", "output", "console"))
    return None


def _notes(first: Mapping[str, Any], second: Mapping[str, Any], other_guest: bool) -> list[str]:
    outcome, notes = first["outcome"], []
    said = first["determinism"]
    if outcome["status"] == "refused":
        notes.append("nothing ran, in the first run and in this one")
    elif use_of_predicate(first) != ISOLATE:
        notes += _program_notes(first, second)
    elif outcome["reason"] == "wall":
        notes.append("the first run was ended by a time limit, so only the ending is compared")
    elif said is not None and said["clock"] != "frozen":
        notes.append(
            "a real clock: this run had the recorded start and seed, and is compared on its outputs"
        )
    if other_guest:
        notes.append(
            "another guest or engine: the same output shows that both give the same result; "
            "fuel and memory cannot agree"
        )
    if first["profile"]["digest"] != second["profile"]["digest"]:
        notes.append(
            f"the profile is another: {second['profile']['name']} "
            f"{digest_text(second['profile']['digest'])}, "
            f"first {first['profile']['name']} {digest_text(first['profile']['digest'])}"
        )
    if first["beddel"]["version"] != second["beddel"]["version"]:
        notes.append(
            f"beddel-cli {second['beddel']['version']} here, "
            f"{first['beddel']['version']} in the first run"
        )
    return notes


def _program_notes(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    notes = ["a program: the machine's software and clock are its input too; only outputs compare"]
    if first["outcome"]["status"] == "limit":
        notes.append("the first run was ended by a limit, so only the ending is compared")
    files = first["plan"]["files"]
    if files["workspace"] is not None or _folders(first):
        notes.append("the receipt has no digest of the folders it saw; they may have changed")
    if first["environmentNames"]:
        notes.append("the receipt has no values of its variables; they may be others")
    if not any(item["name"] == "input" for item in first["resolvedDependencies"]):
        notes.append("standard input, if it had any, is not in the receipt")
    if second["files"] and not first["files"]:
        notes.append("the first run's files were not collected, or it left none")
    return notes


def _folders(first: Mapping[str, Any]) -> bool:
    """Tell whether something was shown of which the receipt has no digest."""
    digested = {item["name"] for item in first["resolvedDependencies"]}
    return any(_MOUNT + item["target"] not in digested for item in first["plan"]["files"]["mounts"])


def _refusal_rows(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Row]:
    was, now = (said["outcome"]["refusal"] or {} for said in (first, second))
    return [
        Row("needs", str(was.get("needs")), str(now.get("needs"))),
        Row("found", str(was.get("found")), str(now.get("found")), judged=False),
    ]


def _result_rows(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Row]:
    if use_of_predicate(first) != ISOLATE:
        return [*_stream_rows(first, second), *_file_rows(first, second)]
    was, now = (_result_texts(said) for said in (first, second))
    return [Row(what, text, now[what]) for what, text in was.items()]


def _result_texts(said: Mapping[str, Any]) -> dict[str, str]:
    """Say what came of an isolate's job, by what is compared."""
    usage = said["usage"]
    return {
        "output": _amount_text(said["output"]),
        "console": _amount_text(said["console"]),
        "clock and seed": _start_text(said["determinism"]),
        "fuel": _figure_text(usage["fuel"], "units"),
        "memory peak": _figure_text(usage["linearMemoryPeak"], "bytes"),
        "memory digest": _memory_text(usage["memoryDigest"]),
    }


def _stream_rows(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Row]:
    was, now = (said["streams"] or {} for said in (first, second))
    return [
        Row(name, _amount_text(was.get(name)), _amount_text(now.get(name)))
        for name in ("stdout", "stderr")
    ]


def _file_rows(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Row]:
    """Give one row for all files that agree, and one for each that does not."""
    was, now = (
        {item["path"]: _amount_text(item) for item in said["files"]} for said in (first, second)
    )
    if not was:
        return []
    differing = sorted(path for path in {*was, *now} if was.get(path) != now.get(path))
    if not differing:
        text = f"{len(was)} of the same names and contents"
        return [Row("files", text, text)]
    rows = [
        Row(f"file {path}", was.get(path, "none"), now.get(path, "none"))
        for path in differing[:_MOST_FILES_SHOWN]
    ]
    more = len(differing) - len(rows)
    return [*rows, *([Row(f"file … {more} more", "the same", "differing")] if more else [])]


def _guest_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[Row, ...]:
    if use_of_predicate(first) != ISOLATE:
        return ()
    was, now = first["runtime"], second["runtime"]
    rows = (
        Row("guest", digest_text(was["guest"]["digest"]), digest_text(now["guest"]["digest"])),
        Row("engine", _engine(was), _engine(now)),
        Row("settings", digest_text(was["settingsDigest"]), digest_text(now["settingsDigest"])),
    )
    return tuple(row for row in rows if not row.same)


def _same_guest(first: Mapping[str, Any], held: Guest | Sandbox | None) -> bool:
    if use_of_predicate(first) != ISOLATE:
        return True
    said: dict[str, str] = first["runtime"]["guest"]["digest"]
    return said == {PLAIN: getattr(held, "wasm_digest", None)}


def _engine(runtime: Mapping[str, Any]) -> str:
    return f"{runtime['engine']['name']} {runtime['engine']['version']}"


def _ending(predicate: Mapping[str, Any]) -> str:
    outcome = predicate["outcome"]
    text = f"{outcome['status']} ({outcome['reason']}), exit {outcome['exitCode']}"
    if outcome["limit"] is not None:
        text += f", limit {outcome['limit']}"
    if outcome["signal"] is not None:
        text += f", signal {outcome['signal']}"
    return text


def _amount_text(said: Mapping[str, Any] | None) -> str:
    """Say how many bytes there were, and their digest."""
    if said is None:
        return "none"
    text = f"{said['bytes']} B {digest_text(said['digest'])}"
    if said.get("droppedBytes"):
        text += f", {said['droppedBytes']} B dropped"
    return text


def _start_text(said: Mapping[str, Any] | None) -> str:
    if said is None:
        return "none"
    seed = "from the code" if said["seed"] is None else said["seed"]
    return f"{said['clockStartUs']} µs, +{said['clockStepUs']} a read; seed {seed}"


def _figure_text(said: Mapping[str, Any] | None, unit: str) -> str:
    return "not measured" if said is None else f"{said[unit]} {unit}"


def _memory_text(said: Mapping[str, Any] | None) -> str:
    if said is None:
        return "not measured"
    return digest_text(dict(said))


def _policy_text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if not isinstance(value, dict):
        return str(value)
    workspace, mounts = value["workspace"], value["mounts"]
    shown = ([workspace] if workspace else []) + mounts
    return ", ".join(f"{item['target']} ({item['mode']})" for item in shown) or "none"


def _number(value: Any) -> int | None:
    return None if value is None else int(value)


def _other(
    name: str, expected: dict[str, str] | None, got: dict[str, str] | None
) -> UnverifiableError:
    hint = _GIVEN_BY.get(name)
    if name.startswith(_MOUNT):
        hint = f"--mount HOST:{name.removeprefix(_MOUNT)} with the file as it was"
    return UnverifiableError(
        f"the {name} is not the one of the first run, so nothing was run",
        expected="none" if expected is None else digest_text(expected),
        got="none" if got is None else digest_text(got),
        hint=hint,
    )


def _missing(name: str, expected: dict[str, str]) -> UnverifiableError:
    return UnverifiableError(
        f"the first run had an {name}, and here is none",
        expected=digest_text(expected),
        hint=_GIVEN_BY.get(name),
    )
