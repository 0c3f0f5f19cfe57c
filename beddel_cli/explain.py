"""What a job would get, from where, and why it would be refused. Pure: values in, answer out.

`plan` decides; this only says where each of its decisions comes from. Whoever reads the answer can
open the file at the place it names. The plan is the one `run` would make, so its digest is the one
in the receipt.
"""

from __future__ import annotations

import hashlib
import re

from beddel_cli.errors import Place, RefusedError
from beddel_cli.host import Host
from beddel_cli.job import Job, input_bytes
from beddel_cli.limits import FIELDS, LimitField, Limits, exceeding, format_limit
from beddel_cli.plan import (
    Plan,
    effective_clock,
    effective_limits,
    make_plan,
    origin,
    refusals,
)
from beddel_cli.profile import PROTECTIONS, Profile
from beddel_cli.profile_comparison import Beyond
from beddel_cli.record import record
from beddel_cli.yaml_safe import Document, parse_yaml

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

JOB, PROFILE, COMMAND_LINE, VERSION = "job", "profile", "command line", "this version"
_LINE_ENDS = re.compile(r"\r\n|[\r\n\x85]")
_EXCERPT = 100


@record
class Question:
    """What is asked about: a job under a profile with flags, and where their texts are.

    Attributes:
        profile_file, profile_source: the profile's file and its bytes.
        input_from: `job`, or the options that replace its input.
        beyond: in what the profile is looser than every built-in one.
        guest_digest: hex SHA-256 of the guest's module.
        refused_file: why the job may not have the file it names for its code, else None.
    """

    job: Job
    profile: Profile
    flags: Limits
    profile_file: str
    profile_source: bytes
    input_from: str
    beyond: tuple[Beyond, ...]
    guest_digest: str
    refused_file: RefusedError | None = None


@record
class Value:
    """One thing the job gets, who decided it, and what the profile grants.

    Attributes:
        value: as a job would write it; where `refused`, what was asked for and nobody gets.
        number: the same in bytes, nanoseconds or units; None for words.
        origin: `job`, `profile`, `command line`, or `this version` where nothing can choose.
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
    """Hex SHA-256 of one thing, None when there is no such thing, and where it comes from."""

    name: str
    sha256: str | None
    source: str


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
    asked = parse_yaml(job.source, job.file)
    granted = parse_yaml(question.profile_source, question.profile_file)
    reasons = refusals(job, profile, host, flags)
    if question.refused_file is not None:
        reasons = (question.refused_file, *reasons)
    plan = None if reasons else make_plan(job, profile, host, flags)
    values = (
        *(_limit(field, question, host, granted) for field in FIELDS),
        *_access(job, profile, asked, granted),
    )
    walls = tuple(_wall(name, profile, host, granted) for name in PROTECTIONS)
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


def _limit(field: LimitField, question: Question, host: Host, granted: Document) -> Value:
    job, profile, flags = question.job, question.profile, question.flags
    final = effective_limits(job, profile, flags)
    source = origin(field, job.limits, flags, final)
    number: int = getattr(final, field.field)
    refused = field.key == "memory" and number < host.isolate_bytes
    for name, limits in ((COMMAND_LINE, flags), (JOB, job.limits)):
        if field in exceeding(limits, profile.limits):
            source, number, refused = name, getattr(limits, field.field), True
    most_place = granted.place(("isolate", "limits", field.key))
    places = {JOB: dict(job.limit_places).get(field.field), PROFILE: most_place}
    return Value(
        field=field.key,
        value=format_limit(field, number),
        number=number,
        origin=source,
        place=places.get(source),
        granted=format_limit(field, getattr(profile.limits, field.field)),
        granted_place=most_place,
        refused=refused,
    )


def _access(job: Job, profile: Profile, asked: Document, granted: Document) -> tuple[Value, ...]:
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
        place = granted.place(("isolate", key))
        source, where = (PROFILE, place) if by_job is None else (JOB, asked.place(by_job))
        found.append(Value(field, value, None, source, where, grant, place))
    return (*found, Value("files", "none", None, VERSION, None, "none", None))


def _wall(name: str, profile: Profile, host: Host, granted: Document) -> Wall:
    finding = host.finding(name)
    available = finding is not None and finding.present
    how = "it was not looked at" if finding is None else finding.found or finding.enforced_by
    return Wall(
        name=name,
        required=name in profile.required,
        required_place=_required_place(name, granted),
        available=available,
        how=how,
        verified=finding.verified if finding is not None and available else None,
        fix=None if finding is None else finding.fix,
    )


def _required_place(name: str, granted: Document) -> Place | None:
    path = ("isolate", "required")
    value = granted.value
    for key in path:
        value = value[key] if isinstance(value, dict) else None
    if not isinstance(value, list) or name not in value:
        return None
    return granted.place((*path, value.index(name)))


def _lines(
    question: Question, values: Iterable[Value], walls: Iterable[Wall], asked: Document
) -> tuple[SourceLine, ...]:
    """Give each line that decides something, the job's first, in the order of the files."""
    job = question.job
    keys = ["runtime", "file" if job.code_file is not None else "code"]
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
        Digest("code", None if question.refused_file else _sha256(job.code), job.code_place.file),
        Digest("input", _sha256(input_bytes(job)), question.input_from),
        Digest("profile", question.profile.digest, question.profile_file),
        Digest("guest", question.guest_digest, "the installed package"),
        Digest("plan", None if plan is None else plan.digest, "as in the receipt of `run`"),
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
