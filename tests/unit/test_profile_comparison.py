"""Which of two profiles is looser: one case for each value, and what nobody grants."""

from __future__ import annotations

import pytest

from beddel_cli.limits import FIELDS, format_limit
from beddel_cli.profile import BUILT_IN, PROTECTIONS, Profile, load_built_in_profiles
from beddel_cli.profile_comparison import (
    WORDS,
    Beyond,
    beyond_all,
    differences,
    profile_warnings,
    settings,
)
from beddel_cli.record import changed
from beddel_cli.schema_document import Definitions
from tests.support.values import MIB, PROFILE

BUILT_INS = load_built_in_profiles()
LOOSEST = BUILT_INS[-1]


def mine(of: Profile = LOOSEST, **changes: object) -> Profile:
    """Give a file of one's own that copies a profile but for some changes."""
    return changed(of, name="mine", built_in=False, **changes)


def with_limit(profile: Profile, **limits: int) -> Profile:
    return changed(profile, limits=changed(profile.limits, **limits))


LOOSER = [
    *(
        (with_limit(PROFILE, **{field.field: getattr(PROFILE.limits, field.field) + 1}), name)
        for field in FIELDS
        for name in [f"limits.{field.key}"]
    ),
    (changed(PROFILE, dynamic_code="function"), "dynamic_code"),
    (changed(PROFILE, clock="real"), "clock"),
    *(
        (changed(PROFILE, required=PROFILE.required - {name}), f"required.{name}")
        for name in PROTECTIONS
    ),
]


@pytest.mark.parametrize(("loose", "name"), LOOSER, ids=[name for _, name in LOOSER])
def test_each_value_has_a_looser_side(loose: Profile, name: str) -> None:
    assert [(item.name, item.looser) for item in differences(PROFILE, loose)] == [(name, "right")]
    assert [(item.name, item.looser) for item in differences(loose, PROFILE)] == [(name, "left")]


def test_every_value_is_compared() -> None:
    names = {name for _, name in LOOSER}
    assert {item.name for item in settings(PROFILE)} == {*names, "level", "network"}


def test_every_word_that_a_profile_may_hold_has_its_place_in_the_order() -> None:
    isolate = Definitions()("profile")["properties"]["isolate"]["properties"]
    held = {name: rule for name, rule in isolate.items() if rule.get("type") == "string"}
    assert {name: tuple(rule["enum"]) for name, rule in held.items()} == dict(WORDS)


def test_a_level_is_a_label_that_makes_nothing_looser() -> None:
    (found,) = differences(PROFILE, changed(PROFILE, level="medium"))
    assert (found.name, found.left, found.right, found.looser) == ("level", "ultra", "medium", None)


def test_names_descriptions_and_bytes_are_no_difference() -> None:
    other = changed(PROFILE, name="two", description="x", digest="cd" * 32, built_in=False)
    assert differences(PROFILE, other) == ()


def test_values_are_written_as_a_profile_writes_them() -> None:
    assert [(item.name, item.left, item.right) for item in differences(*BUILT_INS[1:])] == [
        ("level", "high", "medium"),
        ("limits.memory", "4MiB", "8MiB"),
        ("limits.timeout", "10s", "15s"),
        ("limits.fuel", "200000000000", "300000000000"),
        ("limits.max_output", "1MiB", "4MiB"),
        ("limits.max_console", "64KiB", "256KiB"),
        ("dynamic_code", "none", "function"),
        ("clock", "frozen", "real"),
        ("required.landlock", "required", "not required"),
    ]


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_copy_of_a_built_in_profile_is_beyond_none(name: str) -> None:
    (copied,) = (mine(item) for item in BUILT_INS if item.name == name)
    assert beyond_all(copied, BUILT_INS) == ()


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.key)
def test_only_more_than_the_loosest_is_beyond_all(field: object) -> None:
    item = next(each for each in FIELDS if each == field)
    most = getattr(LOOSEST.limits, item.field)
    assert beyond_all(mine(with_limit(LOOSEST, **{item.field: most})), BUILT_INS) == ()
    more = mine(with_limit(LOOSEST, **{item.field: most + 1}))
    assert beyond_all(more, BUILT_INS) == (
        Beyond(f"limits.{item.key}", format_limit(item, most + 1), format_limit(item, most)),
    )


@pytest.mark.parametrize("name", PROTECTIONS)
def test_a_protection_that_all_require_is_beyond_all_when_left_out(name: str) -> None:
    found = beyond_all(mine(required=frozenset(PROTECTIONS) - {name}), BUILT_INS)
    # Landlock is not required under tenant-isolated, so that leaving it out is beyond none.
    expected = [] if name == "landlock" else [f"required.{name}"]
    assert [item.name for item in found] == expected


def test_words_are_compared_with_the_loosest_word() -> None:
    strict = BUILT_INS[:2]
    free = mine(strict[0], dynamic_code="function", clock="real")
    assert beyond_all(free, BUILT_INS) == ()
    assert [item.name for item in beyond_all(free, strict)] == ["dynamic_code", "clock"]


def test_the_warning_names_each_value_and_what_the_built_in_ones_allow() -> None:
    loose = mine(
        limits=changed(LOOSEST.limits, memory_bytes=64 * MIB),
        required=LOOSEST.required - {"seccomp"},
    )
    own = "profile 'mine' is a file of yours, not a built-in one"
    assert profile_warnings(loose, beyond_all(loose, BUILT_INS)) == (
        own,
        "profile 'mine' is looser than any built-in one: "
        "memory 64MiB (at most 8MiB), seccomp not required",
    )
    assert profile_warnings(mine(), ()) == (own,)
    assert profile_warnings(LOOSEST, ()) == ()
