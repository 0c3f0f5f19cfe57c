"""Which of two profiles is looser, value by value. Pure: profiles in, differences out.

Each value has one order, from tight to loose: a limit grows, a word stands later in the list of
words a profile may hold, a protection is required or is not. A profile without a `process` part
grants programs nothing, which is tighter than any part. `level` is a label that grants nothing; it
can differ, and neither side is then the looser one.
"""

from __future__ import annotations

from beddel_cli.limits import ISOLATE, PROGRAM, fields_of, format_limit
from beddel_cli.profile import EITHER_RUNG, Profile, protections_of
from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from beddel_cli.limits import Limits
    from beddel_cli.profile import Grants

REQUIRED, NOT_REQUIRED = "required", "not required"
GRANTED, NOT_GRANTED = "granted", "not granted"
# The name of the part for programs, and what stands before the names of its values.
PROCESS = "process"
# What a profile says in one word, the tightest word first; a test holds them against the schema.
WORDS = (
    ("dynamic_code", ("none", "function")),
    ("clock", ("frozen", "real")),
    ("network", ("none",)),
)
_NETWORKS = dict(WORDS)["network"]
_PREFIXES = {ISOLATE: "", PROGRAM: f"{PROCESS}."}


@record
class Setting:
    """One value of a profile.

    Attributes:
        name: its path in the profile, such as `limits.memory` or `required.landlock`; what is for
            programs begins with `process.`.
        text: as the profile would write it.
        looseness: the larger, the looser; None for a label.
    """

    name: str
    text: str
    looseness: int | None


@record
class Difference:
    """One value in which two profiles differ; `looser` is `left`, `right` or None for a label."""

    name: str
    left: str
    right: str
    looser: str | None


@record
class Beyond:
    """One value in which a profile is looser than every other; `most` is the loosest of those."""

    name: str
    text: str
    most: str


def settings(profile: Profile) -> tuple[Setting, ...]:
    """Give every value of a profile that can be compared, in the order of its file.

    Where there is no part for programs, there are no values in it either.
    """
    part = Setting(PROCESS, NOT_GRANTED, 0)
    programs = profile.grants(PROGRAM)
    if programs is not None:
        part = Setting(PROCESS, GRANTED, 1)
    return (
        Setting("level", profile.level, None),
        *_limits(ISOLATE, profile.limits),
        *(
            Setting(name, getattr(profile, name), words.index(getattr(profile, name)))
            for name, words in WORDS
        ),
        *_required(ISOLATE, profile.required),
        part,
        *(() if programs is None else _program_settings(programs)),
    )


def _program_settings(grants: Grants) -> tuple[Setting, ...]:
    network = grants.network
    return (
        *_limits(PROGRAM, grants.limits),
        Setting(f"{_PREFIXES[PROGRAM]}network", network, _NETWORKS.index(network)),
        *_required(PROGRAM, grants.required),
    )


def _limits(use: str, limits: Limits) -> tuple[Setting, ...]:
    found = []
    for field in fields_of(use):
        value = getattr(limits, field.field)
        name = f"{_PREFIXES[use]}limits.{field.key}"
        found.append(Setting(name, format_limit(field, value), value))
    return tuple(found)


def _required(use: str, required: frozenset[str]) -> tuple[Setting, ...]:
    if "namespaces" in required:
        # Who insists on one of two is content with that one.
        required |= {EITHER_RUNG}
    return tuple(
        Setting(f"{_PREFIXES[use]}required.{name}", REQUIRED, 0)
        if name in required
        else Setting(f"{_PREFIXES[use]}required.{name}", NOT_REQUIRED, 1)
        for name in protections_of(use)
    )


def differences(left: Profile, right: Profile) -> tuple[Difference, ...]:
    """Give each value in which two profiles differ, and which side is looser in it.

    Where only one grants anything to programs, that is the one difference in it.
    """
    found = []
    others = {item.name: item for item in settings(right)}
    for one in settings(left):
        other = others.get(one.name)
        if other is None or one.text == other.text:
            continue
        looser = None
        if one.looseness is not None and other.looseness is not None:
            looser = "left" if one.looseness > other.looseness else "right"
        found.append(Difference(one.name, one.text, other.text, looser))
    return tuple(found)


def beyond_all(profile: Profile, others: Sequence[Profile]) -> tuple[Beyond, ...]:
    """Give the values in which a profile is looser than every one of `others`."""
    found = []
    tables = [{item.name: item for item in settings(other)} for other in others]
    for mine in settings(profile):
        theirs = [table[mine.name] for table in tables if mine.name in table]
        if mine.looseness is None or not theirs:
            continue
        loosest = max(theirs, key=lambda setting: setting.looseness or 0)
        if mine.looseness > (loosest.looseness or 0):
            found.append(Beyond(mine.name, mine.text, loosest.text))
    return tuple(found)


def profile_warnings(profile: Profile, beyond: Sequence[Beyond]) -> tuple[str, ...]:
    """Give what a summary warns of about a profile, from what `beyond_all` found."""
    if profile.built_in:
        return ()
    own = f"profile {profile.name!r} is a file of yours, not a built-in one"
    if not beyond:
        return (own,)
    looser = f"profile {profile.name!r} is looser than any built-in one: {beyond_text(beyond)}"
    return (own, looser)


def beyond_text(found: Sequence[Beyond]) -> str:
    """Write what `beyond_all` found: `memory 64MiB (at most 8MiB), seccomp not required`."""
    return ", ".join(_beyond_text(item) for item in found)


def _beyond_text(item: Beyond) -> str:
    name = short_name(item.name)
    if item.text in (NOT_REQUIRED, GRANTED):
        return f"{name} {item.text}"
    return f"{name} {item.text} (at most {item.most})"


def short_name(name: str) -> str:
    """Give a value's name as a sentence has it: `memory`, or `process memory` for programs."""
    last = name.rpartition(".")[2]
    return f"{PROCESS} {last}" if name.startswith(_PREFIXES[PROGRAM]) else last
