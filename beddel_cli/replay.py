"""The rules by which two runs of one job compare. Pure: what two receipts say in, a verdict out.

What came of the second run is compared member by member, as far as the same job must give the same
there.

    isolate, frozen clock, same guest    ending, output, console, clock and seed, fuel, memory
    isolate, real clock                  ending, output, console
    program                              ending, both streams, the files it left
    another guest or engine              ending, output, console; a difference proves nothing
    refused, under another profile       nothing: another profile refuses for reasons of its own
    ended by a time limit, or a          ending
    program by any limit
"""

from __future__ import annotations

from beddel_cli.limits import BY_KEY, ISOLATE, format_limit
from beddel_cli.record import record
from beddel_cli.repetition import ENDED_BY_TIME, MOUNT, use_of_predicate
from beddel_cli.salted_digest import digest_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

REPRODUCED, DIFFERS, COULD_NOT_TELL = "reproduced", "differs", "could-not-tell"
EXIT_CODES = {REPRODUCED: 0, DIFFERS: 1, COULD_NOT_TELL: 2}
_MOST_FILES_SHOWN = 20


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
    if first["outcome"]["status"] == "refused" and _other_profile(first, second):
        verdict = COULD_NOT_TELL
        notes.append("a refusal follows from the profile, so one under another proves nothing")
    if verdict == REPRODUCED and first["outcome"]["status"] != "limit" and _more_files(rows):
        verdict = COULD_NOT_TELL
    why = _why_nothing_can_be_told(first, second) if not ending.same else None
    if why is not None:
        verdict, rows, notes = COULD_NOT_TELL, [ending], [why]
    elif verdict == COULD_NOT_TELL and guests:
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
        return "asking for what the first run had, it was refused here; nothing was repeated"
    if now["status"] in ("fault", "interrupted") and was["status"] != now["status"]:
        return f"it did not come to its own end here: {now['reason']}"
    if now["reason"] in ENDED_BY_TIME and was["reason"] != now["reason"]:
        why = "here it took longer than the limit that the first run kept"
        if was["reason"] in ENDED_BY_TIME:
            return why
        return f"{why}; --timeout allows more, as far as the profile does"
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
        if outcome["reason"] == "files":
            notes.append("the receipt does not say which folders --allow-path allowed then")
    elif use_of_predicate(first) != ISOLATE:
        notes += _program_notes(first, second)
    elif outcome["reason"] == "wall":
        notes.append("the first run was ended by a time limit, so only the ending is compared")
    elif said is None:
        notes.append("the receipt has no clock and no seed: fuel and memory are not judged")
    elif said["clock"] != "frozen":
        notes.append(
            "a real clock: this run had the recorded start and seed, and is compared on its "
            "outputs; fuel and memory are not judged"
        )
    if other_guest:
        notes.append(
            "another guest or engine: the same output shows that both give the same result; "
            "fuel and memory cannot agree"
        )
    notes += _time_notes(first, second)
    if _other_profile(first, second):
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


def _other_profile(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    return bool(first["profile"]["digest"] != second["profile"]["digest"])


def _time_notes(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Say where the second run had another time limit, and whether it needed it."""
    if first["plan"] is None or second["plan"] is None:
        return []
    had_ns, has_ns = (int(said["plan"]["limits"]["wallNs"]) for said in (first, second))
    if had_ns == has_ns:
        return []
    had, has = (format_limit(BY_KEY["timeout"], each) for each in (had_ns, has_ns))
    took = second["usage"]["wall"]
    needed = took is not None and int(took["ns"]) > had_ns
    more = ", and it took longer here than the first run may have" if needed else ""
    return [f"the time limit is another: {has}, first {had}{more}"]


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
        notes.append(
            "standard input, if it had any, is not in the receipt: it has to be given again"
        )
    if second["files"] and not first["files"]:
        notes.append(
            "the first run's files were not collected, or it left none; "
            "without --results the rest is compared"
        )
    return notes


def _folders(first: Mapping[str, Any]) -> bool:
    """Tell whether something was shown of which the receipt has no digest."""
    digested = {item["name"] for item in first["resolvedDependencies"]}
    return any(MOUNT + item["target"] not in digested for item in first["plan"]["files"]["mounts"])


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
        # The receipt is the same either way.
        got = f"{len(now)} left"
        return [Row("files", "none, or not collected", got, judged=False)] if now else []
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


def _more_files(rows: Iterable[Row]) -> bool:
    """Tell whether this run left files, and nobody knows whether the first one did."""
    return any(row.what == "files" and not row.same for row in rows)


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
