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
    ISOLATE,
    PROGRAM,
    LimitField,
    Limits,
    as_json,
    exceeding,
    fields_of,
    format_limit,
    tightest,
    use_of,
)
from beddel_cli.profile import EITHER_RUNG, Grants, Profile, protections_of
from beddel_cli.record import changed, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from beddel_cli.errors import Place
    from beddel_cli.process.mount_rules import MountRequest

# Sizes of programs by name: they tighten what the profile grants, and never refuse.
TIERS = {
    "free": Limits(milli_cpus=250, memory_bytes=256 << 20, processes=50),
    "pro": Limits(milli_cpus=1000, memory_bytes=1 << 30, processes=200),
    "enterprise": Limits(milli_cpus=2000, memory_bytes=4 << 30, processes=500),
}
# How a program can be kept apart, the strongest first, and the protections that together do it.
NAMESPACES, LANDLOCK = "namespaces", "landlock"
RUNGS = {
    NAMESPACES: ("namespaces",),
    LANDLOCK: ("guardian", "no-new-privs", "capabilities", "seccomp", "landlock"),
}


@record
class Wishes:
    """What the command line asks for beside the job. All of it tightens.

    Attributes:
        tier: one of `TIERS`, or None.
        no_function, frozen: less than the profile grants, as a run had it that is repeated.
    """

    limits: Limits = Limits()
    tier: str | None = None
    no_function: bool = False
    frozen: bool = False


@record
class Plan:
    """All that an isolate and a receipt need to know of policy.

    Attributes:
        limits: every field of the runtime's use is set.
        origins: where each limit comes from, by field: `profile`, `tier`, `job` or `command line`.
        environment_names, workspace, mounts: what a program has of the host.
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
    tier: str | None = None
    environment_names: tuple[str, ...] = ()
    workspace: MountRequest | None = None
    mounts: tuple[MountRequest, ...] = ()

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the plan's policy, the same on every machine that allows it."""
        return hashlib.sha256(canonical_json(policy_json(self))).hexdigest()


def make_plan(job: Job, profile: Profile, host: Host, wishes: Wishes) -> Plan:
    """Decide what this job may do on this machine, or refuse.

    Each limit is the tightest of the profile's, the tier's, the job's and the command line's.

    Raises:
        RefusedError: the first of `refusals`, if there is any.
    """
    for refusal in refusals(job, profile, host, wishes):
        raise refusal
    use = use_of(job.runtime)
    grants = granted(job, profile)
    limits = effective_limits(job, profile, wishes)
    return Plan(
        job_id=job.id,
        runtime=job.runtime,
        profile=profile.name,
        profile_digest=profile.digest,
        profile_built_in=profile.built_in,
        level=profile.level,
        limits=limits,
        origins=tuple(
            (field.field, origin(field, job.limits, wishes, limits)) for field in fields_of(use)
        ),
        allow_function=(
            use == ISOLATE and profile.dynamic_code == "function" and not wishes.no_function
        ),
        clock=_clock(job, profile, use, wishes),
        network=grants.network,
        required=grants.required,
        in_force=tuple(item for item in host.findings if item.present),
        tier=wishes.tier,
        environment_names=tuple(sorted(name for name, _ in job.environment)),
        workspace=job.workspace,
        mounts=job.mounts,
    )


def check_granted(job: Job, profile: Profile) -> None:
    """Let only a job pass to whose kind the profile grants anything; it has no limits otherwise.

    Raises:
        RefusedError: the profile has no part for programs.
    """
    if profile.grants(use_of(job.runtime)) is None:
        raise _no_programs(profile)


def granted(job: Job, profile: Profile) -> Grants:
    """Give what the profile grants to a job of this runtime; nothing at all where it has none."""
    found = profile.grants(use_of(job.runtime))
    return Grants(Limits(), "none", frozenset()) if found is None else found


def refusals(job: Job, profile: Profile, host: Host, wishes: Wishes) -> tuple[RefusedError, ...]:
    """Give every reason for which this job may not run here; empty means that it may.

    In this order: what the job asks beyond the profile, what the command line does, required
    protections that are not in force, and memory in which no isolate fits.
    """
    use = use_of(job.runtime)
    if profile.grants(use) is None:
        return (_no_programs(profile),)
    grants = granted(job, profile)
    places = dict(job.limit_places)
    found = [
        _too_much(field, asked, profile, use, who, places.get(field.field) if by_job else None)
        for asked, who, by_job in (
            (job.limits, "the job", True),
            (wishes.limits, "the command line", False),
        )
        for field in exceeding(asked, grants.limits)
    ]
    found += [
        _missing(name, host, profile)
        for name in protections_of(use)
        if name in grants.required and not in_force(name, host)
    ]
    if use == PROGRAM and not found and rung_of(host) not in permitted_rungs(profile):
        # A profile that names neither still gets no program that nothing keeps apart.
        found.append(_missing(NAMESPACES, host, profile))
    memory = effective_limits(job, profile, wishes).memory_bytes or 0
    if use == ISOLATE and memory < host.isolate_bytes:
        found.append(_no_room(memory, host))
    return tuple(found)


def effective_limits(job: Job, profile: Profile, wishes: Wishes) -> Limits:
    """Give the tightest of what all say about a limit, whether or not it is allowed."""
    most = granted(job, profile).limits
    if wishes.tier is not None:
        most = tightest(most, TIERS[wishes.tier])
    return tightest(tightest(most, job.limits), wishes.limits)


def clamped(tier: str | None, profile: Profile) -> tuple[LimitField, ...]:
    """Give the limits in which a tier is larger than the profile, which then decides."""
    grants = profile.grants(PROGRAM)
    if tier is None or grants is None:
        return ()
    return exceeding(TIERS[tier], grants.limits)


def _no_programs(profile: Profile) -> RefusedError:
    return RefusedError(
        f"{profile.name} grants nothing to programs",
        reason="limits",
        needs="runtime process",
        found=f"{profile.name} has no `process` part",
        fix="choose another profile with --profile",
    )


def effective_clock(job: Job, profile: Profile) -> str:
    """Give `real` where the profile grants it and the job does not ask for determinism."""
    return "frozen" if profile.clock == "frozen" or job.deterministic else "real"


def _clock(job: Job, profile: Profile, use: str, wishes: Wishes) -> str:
    if use == PROGRAM:
        return "real"
    return "frozen" if wishes.frozen else effective_clock(job, profile)


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


def origin(field: LimitField, job: Limits, wishes: Wishes, final: Limits) -> str:
    """Say who set a limit to its final value: `command line`, `job`, `tier` or `profile`."""
    value = getattr(final, field.field)
    tier = Limits() if wishes.tier is None else TIERS[wishes.tier]
    for source, name in ((wishes.limits, "command line"), (job, "job"), (tier, "tier")):
        if getattr(source, field.field) == value:
            return name
    return "profile"


def _too_much(
    field: LimitField, asked: Limits, profile: Profile, use: str, who: str, place: Place | None
) -> RefusedError:
    grants = profile.grants(use)
    most = None if grants is None else getattr(grants.limits, field.field)
    want = format_limit(field, getattr(asked, field.field))
    have = format_limit(field, most or 0)
    return RefusedError(
        f"{who} asks for more {field.key} than {profile.name} grants: {want}, at most {have}",
        reason="limits",
        needs=f"{field.key} {want}",
        found=f"{profile.name} grants {have}",
        fix=f"ask for {have} or less, or choose another profile with --profile",
        place=place,
    )


def permitted_rungs(profile: Profile) -> tuple[str, ...]:
    """Give how this profile lets programs be kept apart; all but the first only for want of it."""
    grants = profile.grants(PROGRAM)
    required = frozenset() if grants is None else grants.required
    weaker = EITHER_RUNG in required and NAMESPACES not in required
    return (NAMESPACES, LANDLOCK) if weaker else (NAMESPACES,)


def rung_of(host: Host) -> str | None:
    """Give how programs are kept apart on this machine; None where nothing keeps them so."""
    return next((rung for rung, parts in RUNGS.items() if _all_present(parts, host)), None)


def in_force(name: str, host: Host) -> bool:
    """Tell whether what a profile requires under this name was confirmed."""
    if name == EITHER_RUNG:
        return rung_of(host) is not None
    return _all_present((name,), host)


def insisted_on(required: frozenset[str], host: Host) -> frozenset[str]:
    """Give the protections without which nothing would have run here: requirements, spelt out."""
    rung = rung_of(host)
    return required | frozenset(RUNGS[rung] if rung and EITHER_RUNG in required else ())


def _all_present(names: tuple[str, ...], host: Host) -> bool:
    findings = [host.finding(name) for name in names]
    return all(finding is not None and finding.present for finding in findings)


def lacking(name: str, host: Host) -> Finding | None:
    """Give what is not in force of a requirement; of either rung, what the weaker one lacks."""
    if name != EITHER_RUNG:
        return host.finding(name)
    weaker = [finding for part in RUNGS[LANDLOCK] if (finding := host.finding(part)) is not None]
    missing = next((finding for finding in weaker if not finding.present), None)
    stronger = host.finding(NAMESPACES)
    if stronger is None or missing is None or host.finding("guardian") is None:
        return stronger
    return changed(
        missing,
        found=f"{NAMESPACES}: {stronger.found}; {LANDLOCK}: {missing.found}",
        fix=stronger.fix,
    )


def _missing(name: str, host: Host, profile: Profile) -> RefusedError:
    finding = lacking(name, host)
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
    use = use_of(plan.runtime)
    policy = {
        "jobId": plan.job_id,
        "runtime": plan.runtime,
        "profile": plan.profile,
        "profileDigest": {"sha256": plan.profile_digest},
        "level": plan.level,
        "limits": {camel_case(field): value for field, value in as_json(plan.limits, use).items()},
        "network": plan.network,
        "required": sorted(plan.required),
    }
    if use == PROGRAM:
        return {
            **policy,
            "tier": plan.tier,
            "environmentNames": list(plan.environment_names),
            "files": {
                "workspace": None if plan.workspace is None else _shown(plan.workspace, "overlay"),
                "mounts": [_shown(mount, "rw") for mount in plan.mounts],
            },
        }
    return {
        **policy,
        "dynamicCode": "function" if plan.allow_function else "none",
        "clock": plan.clock,
        "files": "none",
    }


def _shown(request: MountRequest, writable: str) -> dict[str, str]:
    return {"target": request.target, "mode": writable if request.writable else "ro"}


def camel_case(name: str) -> str:
    """Write a field's name as predicates do: memory_bytes as memoryBytes.

    Source: in-toto attestation, new_predicate_guidelines.md.
    """
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
