"""Decide whether and how a job may run here. Pure: values in, a plan or a refusal out.

A plan never exceeds its profile, a job and the command line only tighten, and a protection that
is required but not in force is a refusal.
"""

from __future__ import annotations

import hashlib

from beddel_cli.errors import RefusedError
from beddel_cli.host import Finding, Host
from beddel_cli.job import Job
from beddel_cli.json_strict import canonical_json
from beddel_cli.limits import (
    BY_KEY,
    FIELDS,
    LimitField,
    Limits,
    as_json,
    exceeding,
    format_limit,
    tightest,
)
from beddel_cli.profile import PROTECTIONS, Profile
from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from beddel_cli.errors import Place


@record
class Plan:
    """All that an isolate and a receipt need to know of policy.

    Attributes:
        limits: every field is set.
        origins: where each limit comes from, by field: `profile`, `job` or `command line`.
        allow_function: whether the `Function` family may make code from text.
        clock: `frozen` or `real`.
        required: protections the profile insists on.
        in_force: what was confirmed for this run, required or not.
    """

    job_id: str
    runtime: str
    profile: str
    profile_digest: str
    profile_built_in: bool
    level: str
    limits: Limits
    origins: tuple[tuple[str, str], ...]
    allow_function: bool
    clock: str
    network: str
    required: frozenset[str]
    in_force: tuple[Finding, ...]

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the plan's policy, the same on every machine that allows it."""
        return hashlib.sha256(canonical_json(policy_json(self))).hexdigest()


def make_plan(job: Job, profile: Profile, host: Host, flags: Limits) -> Plan:
    """Decide what this job may do on this machine, or refuse.

    Each limit is the tightest of the profile's, the job's and the command line's.

    Raises:
        RefusedError: the first of `refusals`, if there is any.
    """
    for refusal in refusals(job, profile, host, flags):
        raise refusal
    limits = effective_limits(job, profile, flags)
    return Plan(
        job_id=job.id,
        runtime=job.runtime,
        profile=profile.name,
        profile_digest=profile.digest,
        profile_built_in=profile.built_in,
        level=profile.level,
        limits=limits,
        origins=tuple((field.field, origin(field, job.limits, flags, limits)) for field in FIELDS),
        allow_function=profile.dynamic_code == "function",
        clock=effective_clock(job, profile),
        network=profile.network,
        required=profile.required,
        in_force=tuple(item for item in host.findings if item.present),
    )


def refusals(job: Job, profile: Profile, host: Host, flags: Limits) -> tuple[RefusedError, ...]:
    """Give every reason for which this job may not run here; empty means that it may.

    In this order: what the job asks beyond the profile, what the command line does, required
    protections that are not in force, and memory in which no isolate fits.
    """
    places = dict(job.limit_places)
    found = [
        _too_much(field, asked, profile, who, places.get(field.field) if who == "the job" else None)
        for asked, who in ((job.limits, "the job"), (flags, "the command line"))
        for field in exceeding(asked, profile.limits)
    ]
    found += [
        _missing(name, host, profile)
        for name in PROTECTIONS
        if name in profile.required and not _in_force(name, host)
    ]
    memory = effective_limits(job, profile, flags).memory_bytes or 0
    if memory < host.isolate_bytes:
        found.append(_no_room(memory, host))
    return tuple(found)


def effective_limits(job: Job, profile: Profile, flags: Limits) -> Limits:
    """Give the tightest of what profile, job and command line say, whether or not it is allowed."""
    return tightest(tightest(profile.limits, job.limits), flags)


def effective_clock(job: Job, profile: Profile) -> str:
    """Give `real` where the profile grants it and the job does not ask for determinism."""
    return "frozen" if profile.clock == "frozen" or job.deterministic else "real"


def _no_room(memory: int, host: Host) -> RefusedError:
    field = BY_KEY["memory"]
    have, least = (format_limit(field, size) for size in (memory, host.isolate_bytes))
    return RefusedError(
        f"an isolate does not fit into {have}: it takes {least} before the job starts",
        reason="limits",
        needs=f"memory {least}",
        found=f"memory {have}",
        fix=f"allow at least {least}",
    )


def origin(field: LimitField, job: Limits, flags: Limits, final: Limits) -> str:
    """Say who set a limit to its final value: `command line`, `job` or `profile`."""
    value = getattr(final, field.field)
    for source, name in ((flags, "command line"), (job, "job")):
        if getattr(source, field.field) == value:
            return name
    return "profile"


def _too_much(
    field: LimitField, asked: Limits, profile: Profile, who: str, place: Place | None
) -> RefusedError:
    want = format_limit(field, getattr(asked, field.field))
    have = format_limit(field, getattr(profile.limits, field.field))
    return RefusedError(
        f"{who} asks for more {field.key} than {profile.name} grants: {want}, at most {have}",
        reason="limits",
        needs=f"{field.key} {want}",
        found=f"{profile.name} grants {have}",
        fix=f"ask for {have} or less, or choose another profile with --profile",
        place=place,
    )


def _in_force(name: str, host: Host) -> bool:
    finding = host.finding(name)
    return finding is not None and finding.present


def _missing(name: str, host: Host, profile: Profile) -> RefusedError:
    finding = host.finding(name)
    found = finding.found if finding else "it was not looked at"
    fix = finding.fix if finding else "report this"
    return RefusedError(
        f"{profile.name} requires {name}, which this machine does not enforce",
        reason="protection",
        needs=name,
        found=found or "nothing",
        fix=fix or "use another machine",
    )


def policy_json(plan: Plan) -> dict[str, Any]:
    """Give the plan's policy as the JSON object a receipt carries; no trace of the machine."""
    return {
        "jobId": plan.job_id,
        "runtime": plan.runtime,
        "profile": plan.profile,
        "profileDigest": {"sha256": plan.profile_digest},
        "level": plan.level,
        "limits": {camel_case(field): value for field, value in as_json(plan.limits).items()},
        "dynamicCode": "function" if plan.allow_function else "none",
        "clock": plan.clock,
        "network": plan.network,
        "files": "none",
        "required": sorted(plan.required),
    }


def camel_case(name: str) -> str:
    """Write a field's name as predicates do: memory_bytes as memoryBytes.

    Source: in-toto attestation, new_predicate_guidelines.md.
    """
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
