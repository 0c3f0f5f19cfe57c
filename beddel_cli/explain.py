"""What a job would get, from where, and why it would be refused. Pure: values in, answer out.

`plan` decides; this only says where each of its decisions comes from. Whoever reads the answer can
open the file at the place it names. The plan is the one `run` would make, so its digest is the one
in the receipt.
"""

from __future__ import annotations

import hashlib
import re

from beddel_cli import shape
from beddel_cli.errors import Place, RefusedError
from beddel_cli.host import Finding, Host
from beddel_cli.job import Job, given_input
from beddel_cli.json_strict import canonical_json
from beddel_cli.limits import (
    ISOLATE,
    PROGRAM,
    LimitField,
    exceeding,
    fields_of,
    format_limit,
    use_of,
)
from beddel_cli.offer import NOT_TRIED
from beddel_cli.plan import (
    LANDLOCK,
    Plan,
    Wishes,
    effective_clock,
    effective_limits,
    granted,
    in_force,
    lacking,
    make_plan,
    origin,
    permitted_rungs,
    refusals,
    rung_of,
)
from beddel_cli.process.landlock_terms import beyond_this_rung, not_walled_words
from beddel_cli.profile import EITHER_RUNG, Grants, Profile, protections_of
from beddel_cli.profile_comparison import Beyond
from beddel_cli.record import record
from beddel_cli.yaml_safe import Document, parse_yaml

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from beddel_cli.process.mount_rules import MountRequest

JOB, PROFILE, COMMAND_LINE, VERSION = "job", "profile", "command line", "this version"
TIER = "tier"
# What a profile grants where it grants nothing.
NOTHING = "nothing"
# The part of a profile that speaks of each use.
_PART = {ISOLATE: "isolate", PROGRAM: "process"}
_LINE_ENDS = re.compile(r"\r\n|[\r\n\x85]")
_EXCERPT = 100
# No profile says what a program may be shown: rules for all of them do.
_SHOWABLE = "any, by the rules of mounts"


@record
class Question:
    """What is asked about: a job under a profile with flags, and where their texts are.

    Attributes:
        profile_file, profile_source: the profile's file and its bytes.
        input_from: `job`, or the options that replace its input.
        beyond: in what the profile is looser than every built-in one.
        guest_digest: hex SHA-256 of the guest's module, None for a program.
        refused_file: why the job may not have the file it names for its code, else None.
        refused_mounts: what a program may not be shown, and why.
    """

    job: Job
    profile: Profile
    flags: Wishes
    profile_file: str
    profile_source: bytes
    input_from: str
    beyond: tuple[Beyond, ...]
    guest_digest: str | None
    refused_file: RefusedError | None = None
    refused_mounts: tuple[tuple[MountRequest, RefusedError], ...] = ()


@record
class Value:
    """One thing the job gets, who decided it, and what the profile grants.

    Attributes:
        value: as a job would write it; where `refused`, what was asked for and nobody gets.
        number: the same in bytes, nanoseconds or units; None for words.
        origin: `job`, `profile`, `tier`, `command line`, or `this version` where nothing can
            choose.
        place: where that is written; None for the command line.
    """

    field: str
    value: str
    number: int | None
    origin: str
    place: Place | None
    granted: str
    granted_place: Place | None
    refused: bool = False


@record
class Wall:
    """One protection: whether the profile insists on it, and what this machine says of it.

    Attributes:
        how: the question and its answer, or what there is instead.
        verified: how far that was confirmed; None where it is not available.
        fix: one change that helps; None where it is available.
    """

    name: str
    required: bool
    required_place: Place | None
    available: bool
    how: str
    verified: str | None
    fix: str | None


@record
class SourceLine:
    """A line that decides something. `text` is the line, cut to what stands around its column."""

    place: Place
    text: str
    decides: tuple[str, ...]


@record
class Digest:
    """Hex SHA-256 of one thing, and where it comes from.

    `sha256` is None when there is no such thing, and `absent` says why.
    """

    name: str
    sha256: str | None
    source: str
    absent: str = "nothing would run"


@record
class Explanation:
    """The whole answer. `plan` is None when the job would be refused, and `refusals` says why."""

    question: Question
    host: Host
    plan: Plan | None
    refusals: tuple[RefusedError, ...]
    values: tuple[Value, ...]
    walls: tuple[Wall, ...]
    lines: tuple[SourceLine, ...]
    digests: tuple[Digest, ...]


def explain(question: Question, host: Host) -> Explanation:
    """Say what `run` would decide about this job on a machine that keeps what it offers."""
    job, profile, flags = question.job, question.profile, question.flags
    use = use_of(job.runtime)
    asked = parse_yaml(job.source, job.file)
    grants = parse_yaml(question.profile_source, question.profile_file)
    reasons = refusals(job, profile, host, flags)
    if question.refused_file is not None:
        reasons = (question.refused_file, *reasons)
    if profile.grants(use) is not None:
        # As `run`: what may not be shown is found before anything is planned.
        reasons = (*(error for _, error in question.refused_mounts), *reasons)
    beyond = _beyond_rung(job, profile, host)
    if beyond is not None:
        reasons = (*reasons, beyond)
    plan = None if reasons else make_plan(job, profile, host, flags)
    values = (
        *(_limit(field, question, host, grants) for field in fields_of(use)),
        *(
            _program_access(question, asked, grants)
            if use == PROGRAM
            else _access(job, profile, asked, grants)
        ),
    )
    required = granted(job, profile)
    walls = tuple(
        _wall(name, use, required, host, grants)
        for name in protections_of(use)
        if name != EITHER_RUNG or name in required.required
    )
    return Explanation(
        question=question,
        host=host,
        plan=plan,
        refusals=reasons,
        values=values,
        walls=walls,
        lines=_lines(question, values, walls, asked),
        digests=_digests(question, plan),
    )


def _beyond_rung(job: Job, profile: Profile, host: Host) -> RefusedError | None:
    """Give what `run` refuses to show a program where it would have no mount namespace."""
    if use_of(job.runtime) != PROGRAM or rung_of(host) != LANDLOCK:
        return None
    if LANDLOCK not in permitted_rungs(profile):
        return None
    return beyond_this_rung(job.workspace, job.mounts)


def _limit(field: LimitField, question: Question, host: Host, grants: Document) -> Value:
    job, profile, flags = question.job, question.profile, question.flags
    most = granted(job, profile).limits
    final = effective_limits(job, profile, flags)
    source = origin(field, job.limits, flags, final)
    number: int | None = getattr(final, field.field)
    granted_number: int | None = getattr(most, field.field)
    refused = granted_number is None or (
        field.key == "memory" and (number or 0) < host.isolate_bytes
    )
    for name, limits in ((COMMAND_LINE, flags.limits), (JOB, job.limits)):
        if field in exceeding(limits, most):
            source, number, refused = name, getattr(limits, field.field), True
    most_place = grants.place((_PART[use_of(job.runtime)], "limits", field.key))
    places = {JOB: dict(job.limit_places).get(field.field), PROFILE: most_place}
    return Value(
        field=field.key,
        value=_written(field, number),
        number=number,
        origin=source,
        place=places.get(source),
        granted=_written(field, granted_number),
        granted_place=most_place,
        refused=refused,
    )


def _written(field: LimitField, number: int | None) -> str:
    return NOTHING if number is None else format_limit(field, number)


def _access(job: Job, profile: Profile, asked: Document, grants: Document) -> tuple[Value, ...]:
    """Give what the code may touch."""
    clock = effective_clock(job, profile)
    random = {"frozen": "seeded from the code", "real": "seeded anew, recorded"}
    froze = ("deterministic",) if job.deterministic else None
    network = ("network",) if ("network",) in asked.marks else None
    code = profile.dynamic_code
    found = []
    # Its name, its value, the profile's key and grant for it, and the job's key if that decided.
    for field, value, key, grant, by_job in (
        ("dynamic_code", code, "dynamic_code", code, None),
        ("clock", clock, "clock", profile.clock, froze),
        ("random", random[clock], "clock", random[profile.clock], froze),
        ("network", profile.network, "network", profile.network, network),
    ):
        place = grants.place(("isolate", key))
        source, where = (PROFILE, place) if by_job is None else (JOB, asked.place(by_job))
        found.append(Value(field, value, None, source, where, grant, place))
    return (*found, Value("files", "none", None, VERSION, None, "none", None))


def _program_access(question: Question, asked: Document, grants: Document) -> tuple[Value, ...]:
    """Give what a program may touch: its network, variables and files of the host."""
    job, profile, tier = question.job, question.profile, question.flags.tier
    refused = [request for request, _ in question.refused_mounts]
    place = grants.place(("process", "network"))
    by_job = ("network",) in asked.marks
    source, where = (JOB, asked.place(("network",))) if by_job else (PROFILE, place)
    network = granted(job, profile).network
    found = [
        Value("network", network, None, source, where, network, place),
        *(
            _shown(name, request, refused=request in refused)
            for name, request in (
                *((("workspace", job.workspace),) if job.workspace else ()),
                *(("mount", mount) for mount in job.mounts),
            )
        ),
    ]
    own = shape.at(asked, ("env",)) or {}
    for name, _ in job.environment:
        by_job = name in own
        written = asked.key_place(("env", name)) if by_job else None
        source = JOB if by_job else COMMAND_LINE
        found.append(Value("env", name, None, source, written, "any name", None))
    if tier is not None:
        found.append(Value("tier", tier, None, COMMAND_LINE, None, "any tier", None))
    return tuple(found)


def _shown(name: str, request: MountRequest, *, refused: bool) -> Value:
    mode = "rw" if request.writable else "ro"
    if name == "workspace" and request.writable:
        mode = "overlay"
    text = f"{request.source} at {request.target} ({mode})"
    source = JOB if request.by_job else COMMAND_LINE
    return Value(name, text, None, source, request.place, _SHOWABLE, None, refused)


def _wall(name: str, use: str, required: Grants, host: Host, grants: Document) -> Wall:
    available = in_force(name, host)
    finding = lacking(name, host)
    if available and name == EITHER_RUNG:
        finding = _rung(host)
    how = "it was not looked at" if finding is None else finding.found or finding.enforced_by
    return Wall(
        name=name,
        required=name in required.required,
        required_place=_required_place(name, use, grants),
        available=available,
        how=how,
        verified=finding.verified if finding is not None and available else None,
        fix=None if finding is None else finding.fix,
    )


def _rung(host: Host) -> Finding:
    """Say how a program would be kept apart."""
    rung = rung_of(host)
    weaker = f", which is weaker: {not_walled_words()}" if rung == LANDLOCK else ""
    return Finding(EITHER_RUNG, True, f"the {rung} rung{weaker}", NOT_TRIED)


def _required_place(name: str, use: str, grants: Document) -> Place | None:
    path = (_PART[use], "required")
    value = shape.at(grants, path)
    if not isinstance(value, list) or name not in value:
        return None
    return grants.place((*path, value.index(name)))


def _lines(
    question: Question, values: Iterable[Value], walls: Iterable[Wall], asked: Document
) -> tuple[SourceLine, ...]:
    """Give each line that decides something, the job's first, in the order of the files."""
    job = question.job
    keys = ["runtime", "command", "file" if job.code_file is not None else "code"]
    if question.input_from == JOB:
        keys.append("input")
    decides = [(asked.key_place((key,)), key) for key in keys if (key,) in asked.marks]
    for value in values:
        decides += [(value.place, value.field)] if value.place else []
        if value.refused and value.granted_place:
            decides.append((value.granted_place, value.field))
    decides += [(wall.required_place, wall.name) for wall in walls if wall.required_place]
    texts = {
        job.file: _split(job.source),
        question.profile_file: _split(question.profile_source),
    }
    by_line: dict[tuple[str, int], list[tuple[Place, str]]] = {}
    for place, name in decides:
        by_line.setdefault((place.file, place.line or 1), []).append((place, name))
    order = list(texts)
    return tuple(
        _source_line(found, texts[file][line - 1])
        for (file, line), found in sorted(
            by_line.items(), key=lambda item: (order.index(item[0][0]), item[0][1])
        )
    )


def _split(source: bytes) -> list[str]:
    """Split as the parser counts lines (YAML 1.1), so that places and lines agree."""
    return _LINE_ENDS.split(source.decode("utf-8"))


def _source_line(found: list[tuple[Place, str]], line: str) -> SourceLine:
    place = min((place for place, _ in found), key=lambda place: place.column or 1)
    text = line.strip()
    if len(text) > _EXCERPT:
        start = max(0, (place.column or 1) - 1 - _EXCERPT // 4)
        cut = line[start : start + _EXCERPT]
        text = ("…" if start else "") + cut + ("…" if start + _EXCERPT < len(line) else "")
    return SourceLine(place, text, tuple(dict.fromkeys(name for _, name in found)))


def _digests(question: Question, plan: Plan | None) -> tuple[Digest, ...]:
    job = question.job
    return (
        Digest("job", _sha256(job.source), job.file),
        *_what_runs(question),
        _input(question),
        Digest("profile", question.profile.digest, question.profile_file),
        Digest("plan", None if plan is None else plan.digest, "as in the receipt of `run`"),
    )


def _input(question: Question) -> Digest:
    job = question.job
    data = given_input(job)
    if data is None:
        return Digest("input", None, "", "an empty standard input")
    return Digest("input", _sha256(data), question.input_from)


def _what_runs(question: Question) -> tuple[Digest, ...]:
    job = question.job
    if use_of(job.runtime) == PROGRAM:
        command = _sha256(canonical_json(list(job.command)))
        return (Digest("command", command, job.file),)
    code = None if question.refused_file else _sha256(job.code)
    return (
        Digest("code", code, job.code_place.file),
        Digest("guest", question.guest_digest, "the installed package"),
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
