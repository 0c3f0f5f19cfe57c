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
from beddel_cli.limits import FIELDS, LimitField, Limits, as_json, exceeding, format_limit, tightest
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
        RefusedError: the job or a flag asks for more than the profile grants, or the host cannot
            enforce a protection that the profile requires.
    """
    places = dict(job.limit_places)
    for asked, who in ((job.limits, "the job"), (flags, "the command line")):
        for field in exceeding(asked, profile.limits):
            place = places.get(field.field) if who == "the job" else None
            raise _too_much(field, asked, profile, who, place)
    for name in PROTECTIONS:
        if name in profile.required:
            _require(name, host, profile)
    limits = tightest(tightest(profile.limits, job.limits), flags)
    _check_room(limits, host)
    deterministic = profile.clock == "frozen" or job.deterministic
    return Plan(
        job_id=job.id,
        runtime=job.runtime,
        profile=profile.name,
        profile_digest=profile.digest,
        profile_built_in=profile.built_in,
        level=profile.level,
        limits=limits,
        origins=tuple((field.field, _origin(field, job.limits, flags, limits)) for field in FIELDS),
        allow_function=profile.dynamic_code == "function",
        clock="frozen" if deterministic else "real",
        network=profile.network,
        required=profile.required,
        in_force=tuple(item for item in host.findings if item.present),
    )


def _check_room(limits: Limits, host: Host) -> None:
    memory = limits.memory_bytes or 0
    if memory < host.isolate_bytes:
        field = FIELDS[0]
        have, least = (format_limit(field, size) for size in (memory, host.isolate_bytes))
        raise RefusedError(
            f"an isolate does not fit into {have}: it takes {least} before the job starts",
            reason="limits",
            needs=f"memory {least}",
            found=f"memory {have}",
            fix=f"allow at least {least}",
        )


def _origin(field: LimitField, job: Limits, flags: Limits, final: Limits) -> str:
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


def _require(name: str, host: Host, profile: Profile) -> None:
    finding = host.finding(name)
    if finding is not None and finding.present:
        return
    found = finding.found if finding else "it was not looked at"
    fix = finding.fix if finding else "report this"
    raise RefusedError(
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
