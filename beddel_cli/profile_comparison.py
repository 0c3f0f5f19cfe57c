"""Which of two profiles is looser, value by value. Pure: profiles in, differences out.

Each value has one order, from tight to loose: a limit grows, a word stands later in the list of
words a profile may hold, a protection is required or is not. `level` is a label that grants
nothing; it can differ, and neither side is then the looser one.
"""

from __future__ import annotations

from beddel_cli.limits import FIELDS, format_limit
from beddel_cli.profile import PROTECTIONS, Profile
from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

REQUIRED, NOT_REQUIRED = "required", "not required"
# What a profile says in one word, the tightest word first; a test holds them against the schema.
WORDS = (
    ("dynamic_code", ("none", "function")),
    ("clock", ("frozen", "real")),
    ("network", ("none",)),
)


@record
class Setting:
    """One value of a profile.

    Attributes:
        name: its path in the profile, such as `limits.memory` or `required.landlock`.
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
    """Give every value of a profile that can be compared, in the order of its file."""
    return (
        Setting("level", profile.level, None),
        *(
            Setting(
                f"limits.{field.key}",
                format_limit(field, getattr(profile.limits, field.field)),
                getattr(profile.limits, field.field),
            )
            for field in FIELDS
        ),
        *(
            Setting(name, getattr(profile, name), words.index(getattr(profile, name)))
            for name, words in WORDS
        ),
        *(
            Setting(f"required.{name}", REQUIRED, 0)
            if name in profile.required
            else Setting(f"required.{name}", NOT_REQUIRED, 1)
            for name in PROTECTIONS
        ),
    )


def differences(left: Profile, right: Profile) -> tuple[Difference, ...]:
    """Give each value in which two profiles differ, and which side is looser in it."""
    found = []
    for one, other in zip(settings(left), settings(right), strict=True):
        if one.text == other.text:
            continue
        looser = None
        if one.looseness is not None and other.looseness is not None:
            looser = "left" if one.looseness > other.looseness else "right"
        found.append(Difference(one.name, one.text, other.text, looser))
    return tuple(found)


def beyond_all(profile: Profile, others: Sequence[Profile]) -> tuple[Beyond, ...]:
    """Give the values in which a profile is looser than every one of `others`."""
    found = []
    for mine, *theirs in zip(settings(profile), *map(settings, others), strict=True):
        if mine.looseness is None:
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
    group, _, name = item.name.rpartition(".")
    if group == "required":
        return f"{name} {item.text}"
    return f"{name} {item.text} (at most {item.most})"
