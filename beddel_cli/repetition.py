"""What a run is held to that repeats another: the sources, limits and rights of the first. Pure.

A receipt decides nothing here. It says what the first run was made of, and anything else is not
run; it says what limits that run had, and they only tighten the operator's own profile; it holds
no path that would be opened.
"""

from __future__ import annotations

import hashlib

from beddel_cli.errors import UnverifiableError, VerificationError
from beddel_cli.job import given_input
from beddel_cli.limits import BY_KEY, ISOLATE, Limits, fields_of, format_limit, use_of
from beddel_cli.plan import Wishes, camel_case, policy_json
from beddel_cli.record import record
from beddel_cli.salted_digest import PLAIN, digest_set, digest_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from beddel_cli.job import Job
    from beddel_cli.limits import LimitField
    from beddel_cli.plan import Plan
    from beddel_cli.receipt import Guest, Sandbox, Shown

# What a receipt may name that is judged elsewhere: profile and guest by what is compared.
_JUDGED_ELSEWHERE = frozenset(("profile", "guest"))
MOUNT = "mount:"
# Reasons of endings that depend on the time limit: of the time itself, and a share of a CPU in it.
ENDED_BY_TIME = ("wall", "cpu")
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
            UnverifiableError: its ending came from outside, or the receipt names what cannot be.
        """
        outcome = self.predicate["outcome"]
        if outcome["status"] == "interrupted":
            raise UnverifiableError(
                f"the first run was ended from outside ({outcome['reason']}); "
                "there is nothing to repeat"
            )
        self._expected()
        _ = self.start

    def wishes(self, changed: Limits) -> Wishes:
        """Ask for no more than the first run had; `changed` are limits to have otherwise.

        Raises:
            UnverifiableError: the receipt names a limit that cannot be, or with the time limit of
                `changed` a difference would not show.
        """
        plan = self.predicate["plan"]
        said = self.predicate["asked"] if plan is None else plan
        values = {
            field.field: _number(said["limits"].get(camel_case(field.field)))
            for field in fields_of(use_of(self.predicate["runtime"]["name"]))
        }
        if 0 in values.values():
            raise UnverifiableError("the receipt names a limit of 0, which no run can have")
        self._check_time(values["wall_ns"], changed.wall_ns)
        for name in values:
            if getattr(changed, name) is not None:
                values[name] = getattr(changed, name)
        return Wishes(
            Limits(**values),
            self.tier,
            no_function=plan is not None and plan.get("dynamicCode") == "none",
            frozen=plan is not None and plan.get("clock") == "frozen",
        )

    def _check_time(self, had_ns: int | None, wall_ns: int | None) -> None:
        """Let another time limit pass only where that can hide no difference: more of it.

        With less, any run ends as one that is said to have taken too long. A program's budget of
        CPU time depends on it, too.
        """
        outcome = self.predicate["outcome"]
        if wall_ns is None or wall_ns == had_ns:
            return
        if outcome["status"] == "refused":
            why = (
                "the first run was refused for what was asked then, and is repeated with just that"
            )
        elif outcome["reason"] in ENDED_BY_TIME:
            why = "the first run was ended by a limit of its time, and is repeated with the same"
        elif had_ns is not None and wall_ns < had_ns:
            why = "the first run had more time, and with less this one says nothing of it"
        else:
            return
        had, asked = (
            "none" if each is None else format_limit(BY_KEY["timeout"], each)
            for each in (had_ns, wall_ns)
        )
        raise UnverifiableError(f"--timeout: {why}", expected=had, got=asked, hint="leave it out")

    def check_sources(self, job: Job, *, refused: bool) -> None:
        """Compare every byte that is about to be used with what the first run was made of.

        Args:
            refused: the job's code was not read, because it may not be; nothing will run.

        Raises:
            UnverifiableError: one of them differs, or the receipt names something unknown here.
            VerificationError: the run had another clock than the job asks for.
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
        data_in = given_input(job)
        if data_in is not None:
            given["input"] = data_in
        for name, data in given.items():
            self.check(name, data)
        if "input" in expected and "input" not in given:
            raise _missing("input", expected["input"])
        clock = (self.predicate["determinism"] or {}).get("clock", "frozen")
        if job.deterministic and clock != "frozen":
            # It would excuse any difference of fuel and memory.
            raise VerificationError(
                "the receipt contradicts its job about the clock of the run",
                expected="frozen, as the job asks for",
                got=clock,
            )

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
        self._check_limits(first["limits"], policy["limits"], plan.runtime)
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

    def _check_limits(
        self, first: Mapping[str, Any], now: Mapping[str, int | None], runtime: str
    ) -> None:
        """Let no run pass that has less than the receipt says: it would reach a limit earlier.

        A profile that grants less refuses. What is left is a job, or a tier, whose own limits are
        tighter than the plan that the receipt has of it.
        """
        pairs = [
            (field, _number(first.get(camel_case(field.field))), now[camel_case(field.field)])
            for field in fields_of(use_of(runtime))
        ]
        others = [
            (field, had, has)
            for field, had, has in pairs
            # --timeout may have given more time.
            if had != has and not (field.field == "wall_ns" and had and has and has > had)
        ]
        if others:
            raise UnverifiableError(
                "this run would have other limits than the receipt says of the first, by the job's "
                "own or by its tier",
                expected=", ".join(_limit_text(field, had) for field, had, _ in others),
                got=", ".join(_limit_text(field, has) for field, _, has in others),
            )

    def _check_shown(self, shown: Iterable[Shown]) -> None:
        expected = {
            name: digests for name, digests in self._expected().items() if name.startswith(MOUNT)
        }
        given = {
            MOUNT + item.target: digest_set(item.digest, self.salt)
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
            known = name in ("code", "input") or name.startswith(MOUNT)
            if name in found or not (known or name in _JUDGED_ELSEWHERE):
                raise UnverifiableError(
                    f"the receipt names a source that is not known here: {name!r}"
                    if name not in found
                    else f"the receipt names a source twice: {name!r}"
                )
            if name not in _JUDGED_ELSEWHERE:
                found[name] = item["digest"]
        return found


def use_of_predicate(predicate: Mapping[str, Any]) -> str:
    """Say whether a receipt is of an isolate or a program."""
    return use_of(predicate["runtime"]["name"])


def _same_guest(first: Mapping[str, Any], held: Guest | Sandbox | None) -> bool:
    if use_of_predicate(first) != ISOLATE:
        return True
    said: dict[str, str] = first["runtime"]["guest"]["digest"]
    return said == {PLAIN: getattr(held, "wasm_digest", None)}


def _policy_text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if not isinstance(value, dict):
        return str(value)
    workspace, mounts = value["workspace"], value["mounts"]
    shown = ([workspace] if workspace else []) + mounts
    return ", ".join(f"{item['target']} ({item['mode']})" for item in shown) or "none"


def _limit_text(field: LimitField, number: int | None) -> str:
    return f"{field.key} {'none' if number is None else format_limit(field, number)}"


def _number(value: Any) -> int | None:
    return None if value is None else int(value)


def _other(
    name: str, expected: dict[str, str] | None, got: dict[str, str] | None
) -> UnverifiableError:
    hint = _GIVEN_BY.get(name)
    if name.startswith(MOUNT):
        hint = f"--mount HOST:{name.removeprefix(MOUNT)} with the file as it was"
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
