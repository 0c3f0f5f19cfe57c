"""Which of two profiles is looser: one case for each value, and what nobody grants."""

from __future__ import annotations

import pytest

from beddel_cli.limits import ISOLATE, PROGRAM, LimitField, Limits, fields_of, format_limit
from beddel_cli.profile import (
    BUILT_IN,
    EITHER_RUNG,
    PROGRAM_PROTECTIONS,
    PROTECTIONS,
    Grants,
    Profile,
    load_built_in_profiles,
)
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


# The fixture's profile with a part for programs.
BOTH = changed(
    PROFILE,
    process=Grants(
        Limits(**{field.field: 1000 for field in fields_of(PROGRAM)}),
        "none",
        frozenset(PROGRAM_PROTECTIONS),
    ),
)
NAMED = [
    *((field, f"limits.{field.key}", ISOLATE) for field in fields_of(ISOLATE)),
    *((field, f"process.limits.{field.key}", PROGRAM) for field in fields_of(PROGRAM)),
]


def with_limits(profile: Profile, use: str, **limits: int) -> Profile:
    if use == ISOLATE:
        return changed(profile, limits=changed(profile.limits, **limits))
    process = granted(profile)
    return changed(profile, process=changed(process, limits=changed(process.limits, **limits)))


def granted(profile: Profile) -> Grants:
    assert profile.process is not None
    return profile.process


def limit(profile: Profile, field: LimitField, use: str) -> int:
    grants = profile.grants(use)
    assert grants is not None
    value: int = getattr(grants.limits, field.field)
    return value


def not_requiring(profile: Profile, *names: str) -> Profile:
    """Give a profile that does not require these of a machine for programs."""
    process = granted(profile)
    return changed(profile, process=changed(process, required=process.required - {*names}))


LOOSER = [
    *(
        (with_limits(BOTH, use, **{field.field: limit(BOTH, field, use) + 1}), name)
        for field, name, use in NAMED
    ),
    (changed(BOTH, dynamic_code="function"), "dynamic_code"),
    (changed(BOTH, clock="real"), "clock"),
    *((changed(BOTH, required=BOTH.required - {name}), f"required.{name}") for name in PROTECTIONS),
    *(
        (not_requiring(BOTH, name), f"process.required.{name}")
        for name in PROGRAM_PROTECTIONS
        if name != EITHER_RUNG
    ),
]


@pytest.mark.parametrize(("loose", "name"), LOOSER, ids=[name for _, name in LOOSER])
def test_each_value_has_a_looser_side(loose: Profile, name: str) -> None:
    assert [(item.name, item.looser) for item in differences(BOTH, loose)] == [(name, "right")]
    assert [(item.name, item.looser) for item in differences(loose, BOTH)] == [(name, "left")]


def test_every_value_is_compared() -> None:
    names = {name for _, name in LOOSER} | {f"process.required.{EITHER_RUNG}"}
    alone = {"level", "network", "process", "process.network"}
    assert {item.name for item in settings(BOTH)} == {*names, *alone}


def test_to_insist_on_namespaces_is_tighter_than_on_either_rung() -> None:
    either = not_requiring(BOTH, "namespaces")
    neither = not_requiring(either, EITHER_RUNG)
    assert differences(BOTH, not_requiring(BOTH, EITHER_RUNG)) == ()
    for tight, loose, name in ((BOTH, either, "namespaces"), (either, neither, EITHER_RUNG)):
        (found,) = differences(tight, loose)
        assert (found.name, found.looser) == (f"process.required.{name}", "right")


def test_a_profile_without_a_part_for_programs_is_tighter_in_that_one_thing() -> None:
    none = changed(BOTH, process=None)
    (found,) = differences(none, BOTH)
    assert (found.name, found.left, found.right, found.looser) == (
        *("process", "not granted", "granted"),
        "right",
    )
    assert [item.looser for item in differences(BOTH, none)] == ["left"]
    assert differences(none, none) == ()
    assert beyond_all(none, [BOTH]) == ()
    assert beyond_all(BOTH, [none]) == (Beyond("process", "granted", "not granted"),)
    # Among others, what it grants is held against those that grant something.
    more = with_limits(BOTH, PROGRAM, processes=1001)
    assert beyond_all(more, [none, BOTH]) == (Beyond("process.limits.processes", "1001", "1000"),)
    assert beyond_all(BOTH, [none, more]) == ()


def test_every_word_that_a_profile_may_hold_has_its_place_in_the_order() -> None:
    parts = Definitions()("profile")["properties"]
    for part, known in (("isolate", dict(WORDS)), ("process", {"network": ("none",)})):
        rules = parts[part]["properties"]
        held = {name: rule for name, rule in rules.items() if rule.get("type") == "string"}
        assert {name: tuple(rule["enum"]) for name, rule in held.items()} == known


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
        ("process.limits.memory", "256MiB", "4GiB"),
        ("process.limits.timeout", "2min", "10min"),
        ("process.limits.max_output", "1MiB", "16MiB"),
        ("process.limits.cpu_time", "1min", "10min"),
        ("process.limits.cpus", "0.5", "2"),
        ("process.limits.processes", "64", "500"),
        ("process.limits.disk", "64MiB", "512MiB"),
        ("process.limits.inodes", "4000", "20000"),
        ("process.limits.open_files", "256", "1024"),
        ("process.required.namespaces", "required", "not required"),
        ("process.required.landlock", "required", "not required"),
        ("process.required.rlimits", "required", "not required"),
    ]


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_copy_of_a_built_in_profile_is_beyond_none(name: str) -> None:
    (copied,) = (mine(item) for item in BUILT_INS if item.name == name)
    assert beyond_all(copied, BUILT_INS) == ()


@pytest.mark.parametrize(("field", "name", "use"), NAMED, ids=[name for _, name, _ in NAMED])
def test_only_more_than_the_loosest_is_beyond_all(field: LimitField, name: str, use: str) -> None:
    most = limit(LOOSEST, field, use)
    assert beyond_all(mine(with_limits(LOOSEST, use, **{field.field: most})), BUILT_INS) == ()
    more = mine(with_limits(LOOSEST, use, **{field.field: most + 1}))
    assert beyond_all(more, BUILT_INS) == (
        Beyond(name, format_limit(field, most + 1), format_limit(field, most)),
    )


@pytest.mark.parametrize("name", PROTECTIONS)
def test_a_protection_that_all_require_is_beyond_all_when_left_out(name: str) -> None:
    found = beyond_all(mine(required=frozenset(PROTECTIONS) - {name}), BUILT_INS)
    # Landlock is not required under tenant-isolated, so that leaving it out is beyond none.
    expected = [] if name == "landlock" else [f"required.{name}"]
    assert [item.name for item in found] == expected


@pytest.mark.parametrize("name", PROGRAM_PROTECTIONS)
def test_the_same_holds_for_programs(name: str) -> None:
    strictest = mine(not_requiring(BUILT_INS[0], name))
    found = beyond_all(strictest, BUILT_INS)
    by_all = {"no-new-privs", "capabilities", "seccomp"}
    expected = [f"process.required.{name}"] if name in by_all else []
    if name == "namespaces":
        # The loosest is content with the weaker rung; this one would not be with anything less.
        expected = [f"process.required.{EITHER_RUNG}"]
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
    loose = mine(with_limits(not_requiring(LOOSEST, "seccomp"), PROGRAM, memory_bytes=5 << 30))
    assert profile_warnings(loose, beyond_all(loose, BUILT_INS))[1:] == (
        "profile 'mine' is looser than any built-in one: "
        "process memory 5GiB (at most 4GiB), process seccomp not required",
    )
    assert profile_warnings(BOTH, beyond_all(mine(BOTH), [mine(BOTH, process=None)])) == ()
    granting = beyond_all(mine(BOTH), [changed(BOTH, process=None)])
    assert profile_warnings(mine(BOTH), granting)[1:] == (
        "profile 'mine' is looser than any built-in one: process granted",
    )
    assert profile_warnings(mine(), ()) == (own,)
    assert profile_warnings(LOOSEST, ()) == ()
