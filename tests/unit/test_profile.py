"""Profiles: the ones that ship, and files of people's own."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from beddel_cli import profile
from beddel_cli.built_in_profiles import VALUES
from beddel_cli.errors import JobError, NotFoundError
from beddel_cli.limits import FIELDS, ISOLATE, PROGRAM, exceeding, fields_of
from beddel_cli.profile import (
    BUILT_IN,
    EITHER_RUNG,
    PROGRAM_PROTECTIONS,
    PROTECTIONS,
    Grants,
    Profile,
    load_profile,
    parse_profile,
)
from beddel_cli.yaml_safe import parse_yaml

LIMIT_NAMES = [field.field for field in FIELDS]

GOOD = """\
beddel: 1
name: mine
description: my own
level: high
isolate:
  limits: {memory: 3MiB, timeout: 1s, fuel: 1000, max_output: 1KiB, max_console: 1KiB}
  dynamic_code: function
  clock: real
  network: none
  required: [seccomp, landlock]
"""


def parse(text: str) -> Profile:
    return parse_profile(text.encode(), "mine.yaml", built_in=False)


def error_of(text: str) -> JobError:
    with pytest.raises(JobError) as caught:
        parse(text)
    return caught.value


def test_a_profile_has_what_its_file_says() -> None:
    found = parse(GOOD)
    assert (found.name, found.description, found.level) == ("mine", "my own", "high")
    assert found.digest == hashlib.sha256(GOOD.encode()).hexdigest()
    assert (found.dynamic_code, found.clock, found.network) == ("function", "real", "none")
    assert found.required == {"seccomp", "landlock"}
    assert found.limits.memory_bytes == 3 << 20
    assert found.built_in is False


def test_the_built_in_profiles_load_and_set_every_limit() -> None:
    assert BUILT_IN == ("ultra-secure", "high-security", "tenant-isolated")
    shipped = {path.stem for path in Path(profile.folder()).glob("*.yaml")}
    assert shipped == set(BUILT_IN)
    for name in BUILT_IN:
        found = load_profile(name)
        assert found.name == name
        assert found.built_in
        for use in (ISOLATE, PROGRAM):
            granted = found.grants(use)
            assert granted is not None
            given = {name for name in LIMIT_NAMES if getattr(granted.limits, name) is not None}
            assert given == {field.field for field in fields_of(use)}


@pytest.mark.parametrize("name", BUILT_IN)
def test_what_is_known_of_a_built_in_profile_is_what_its_file_says(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, path = profile.read_profile(name)
    value = VALUES[hashlib.sha256(data).hexdigest()]
    assert value == parse_yaml(data, path).value, "write the file's values to built_in_profiles.py"
    known = load_profile(name)
    monkeypatch.setattr(profile, "VALUES", {})
    assert load_profile(name) == known, "the schema and the YAML parser agree"


def test_a_built_in_profile_under_the_name_of_another_is_refused() -> None:
    data, path = profile.read_profile("tenant-isolated")
    assert parse_profile(data, path, built_in=True).name == "tenant-isolated"
    other = path.replace("tenant-isolated", "ultra-secure")
    with pytest.raises(JobError, match="holds a profile named 'tenant-isolated'"):
        parse_profile(data, other, built_in=True)


def test_the_built_in_profiles_go_from_strict_to_less_strict() -> None:
    strict, middle, loose = map(load_profile, BUILT_IN)
    assert exceeding(strict.limits, middle.limits) == ()
    assert exceeding(middle.limits, loose.limits) == ()
    assert strict.required == middle.required == set(PROTECTIONS)
    assert loose.required == set(PROTECTIONS) - {"landlock"}
    assert (strict.level, middle.level, loose.level) == ("ultra", "high", "medium")
    assert [item.dynamic_code for item in (strict, middle, loose)] == ["none", "none", "function"]
    assert [item.clock for item in (strict, middle, loose)] == ["frozen", "frozen", "real"]


def programs(name: str) -> Grants:
    found = load_profile(name).process
    assert found is not None
    return found


def test_the_same_holds_of_what_they_grant_programs() -> None:
    strict, middle, loose = map(programs, BUILT_IN)
    assert exceeding(strict.limits, middle.limits) == ()
    assert exceeding(middle.limits, loose.limits) == ()
    # Each grants strictly more of everything than the one before it.
    for tight, wide in ((strict, middle), (middle, loose)):
        assert exceeding(wide.limits, tight.limits) == fields_of(PROGRAM)
    assert strict.required == set(PROGRAM_PROTECTIONS) - {EITHER_RUNG}
    assert middle.required == strict.required - {"cgroup"}
    assert loose.required == {EITHER_RUNG, "no-new-privs", "capabilities", "seccomp"}
    assert {item.network for item in (strict, middle, loose)} == {"none"}


def test_the_built_in_limits_of_programs_are_the_documented_ones() -> None:
    mib, kib, second = 1 << 20, 1 << 10, 1_000_000_000
    minute = 60 * second
    table = {
        # memory, thousandths of a CPU, processes, wall, CPU time, disk, inodes, files, output
        "ultra-secure": (
            64 * mib,
            250,
            16,
            30 * second,
            10 * second,
            16 * mib,
            1000,
            64,
            256 * kib,
        ),
        "high-security": (256 * mib, 500, 64, 2 * minute, minute, 64 * mib, 4000, 256, mib),
        "tenant-isolated": (
            *(4096 * mib, 2000, 500, 10 * minute, 10 * minute),
            *(512 * mib, 20_000, 1024, 16 * mib),
        ),
    }
    found = {}
    for name in BUILT_IN:
        limits = programs(name).limits
        found[name] = (
            *(limits.memory_bytes, limits.milli_cpus, limits.processes, limits.wall_ns),
            *(limits.cpu_ns, limits.disk_bytes, limits.inodes, limits.open_files),
            limits.output_bytes,
        )
    assert found == table


def test_the_built_in_limits_are_the_documented_ones() -> None:
    table = [
        (f.memory_bytes, f.wall_ns, f.output_bytes, f.console_bytes)
        for f in (load_profile(name).limits for name in BUILT_IN)
    ]
    mib, kib, second = 1 << 20, 1 << 10, 1_000_000_000
    assert table == [
        (2 * mib, 5 * second, 256 * kib, 16 * kib),
        (4 * mib, 10 * second, 1 * mib, 64 * kib),
        (8 * mib, 15 * second, 4 * mib, 256 * kib),
    ]


def test_a_profile_file_is_given_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    assert load_profile(str(path)).name == "mine"
    assert load_profile(str(path)).built_in is False
    with pytest.raises(NotFoundError, match="no profile at"):
        load_profile(str(tmp_path / "other.yaml"))


@pytest.mark.parametrize(
    "name", ["", ".", "..", "mine", "ultra-secure\n", "ULTRA-SECURE", "a" * 9999]
)
def test_an_unknown_name_is_not_found_and_lists_the_known_ones(name: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        load_profile(name)
    assert caught.value.message == f"no profile {name!r}"
    assert caught.value.expected == "ultra-secure, high-security, tenant-isolated"


def test_a_near_miss_is_suggested() -> None:
    with pytest.raises(NotFoundError) as caught:
        load_profile("ultra-secur")
    assert caught.value.hint == "did you mean 'ultra-secure'?"


@pytest.mark.parametrize("name", BUILT_IN)
def test_no_file_takes_the_name_of_a_built_in(name: str) -> None:
    error = error_of(GOOD.replace("mine", name))
    assert error.message == f"the name {name!r} belongs to a built-in profile"
    assert str(error.place) == "mine.yaml:2:7"


# A profile -> the whole first line of its error, and its hint.
BAD: list[tuple[str, str, str | None]] = [
    (
        GOOD.replace("mine", '"ultra-secure "'),
        "mine.yaml:2:7: not a valid profile name: 'ultra-secure '",
        None,
    ),
    (GOOD.replace("mine", '"\\e[1m"'), "mine.yaml:2:7: not a valid profile name: '\\x1b[1m'", None),
    (GOOD.replace("mine", '""'), "mine.yaml:2:7: not a valid profile name: ''", None),
    (GOOD.replace("mine", "12"), "mine.yaml:2:7: name is a whole number", None),
    (GOOD.replace("1", "3", 1), "mine.yaml:1:9: format 3 is not known", None),
    (GOOD.replace("my own", "[x]"), "mine.yaml:3:14: description is a list", None),
    (GOOD.replace("high", "hihg"), "mine.yaml:4:8: level is 'hihg'", "did you mean 'high'?"),
    (GOOD.replace("level: high\n", ""), "mine.yaml:1:1: missing key 'level'", "add `level: …`"),
    (GOOD + "extra: 1\n", "mine.yaml:11:1: unknown key 'extra'", None),
    (GOOD + "  extra: 1\n", "mine.yaml:11:3: unknown key 'extra' in isolate", None),
    (
        GOOD.replace("  clock: real\n", ""),
        "mine.yaml:6:3: missing key 'clock' in isolate",
        "add `clock: …`",
    ),
    (GOOD.replace("real", "stopped"), "mine.yaml:8:10: isolate.clock is 'stopped'", None),
    (GOOD.replace("none", "all"), "mine.yaml:9:12: isolate.network is 'all'", None),
    (GOOD.replace("function", "eval"), "mine.yaml:7:17: isolate.dynamic_code is 'eval'", None),
    (
        GOOD.replace("fuel: 1000, ", ""),
        "mine.yaml:6:11: missing key 'fuel' in isolate.limits",
        "add `fuel: …`",
    ),
    (
        GOOD.replace("fuel: 1000", "fuel: 1000, cpus: 1"),
        "mine.yaml:6:51: unknown key 'cpus' in isolate.limits",
        None,
    ),
    (
        GOOD.replace("3MiB", "3MB"),
        "mine.yaml:6:20: memory has no known unit: '3MB'",
        "write 3MiB",
    ),
    (
        GOOD.replace("3MiB", "65MiB"),
        "mine.yaml:6:20: memory is more than an isolate can have",
        None,
    ),
    (GOOD.replace("3MiB", "null"), "mine.yaml:6:20: memory is not a quantity: None", None),
    (
        GOOD.replace("[seccomp, landlock]", "[]"),
        "mine.yaml:10:13: an empty list of required protections would allow everything",
        None,
    ),
    (
        GOOD.replace("landlock", "landlok"),
        "mine.yaml:10:23: unknown protection 'landlok'",
        "did you mean 'landlock'?",
    ),
    (GOOD.replace("landlock", "[x]"), "mine.yaml:10:23: unknown protection ['x']", None),
    (
        GOOD.replace("[seccomp, landlock]", "seccomp"),
        "mine.yaml:10:13: isolate.required is text",
        None,
    ),
]


@pytest.mark.parametrize(("text", "shown", "hint"), BAD, ids=range(len(BAD)))
def test_a_bad_profile_is_told_where_and_why(text: str, shown: str, hint: str | None) -> None:
    error = error_of(text)
    assert f"{error.place}: {error.message}" == shown
    assert error.hint == hint or hint is None
    assert error.exit_code == 125


def test_the_most_memory_an_isolate_can_have_may_be_granted() -> None:
    assert parse(GOOD.replace("3MiB", "64MiB")).limits.memory_bytes == 64 << 20


def test_a_built_in_file_must_hold_the_profile_it_is_named_for() -> None:
    with pytest.raises(JobError, match="holds a profile named 'mine'"):
        parse_profile(GOOD.encode(), "/x/ultra-secure.yaml", built_in=True)
