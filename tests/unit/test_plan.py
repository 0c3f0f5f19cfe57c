"""Plans: where each limit comes from, and what a refusal says."""

from __future__ import annotations

import pytest

from beddel_cli.errors import RefusedError
from beddel_cli.host import Host
from beddel_cli.limits import Limits
from beddel_cli.plan import Wishes, camel_case, make_plan, policy_json
from beddel_cli.profile import PROTECTIONS
from beddel_cli.record import changed
from tests.support.values import JOB, LIMITS, MIB, PROFILE, host, place, plan

NONE = Limits()


def refused(job: Limits = NONE, flags: Limits = NONE, on: Host | None = None) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        make_plan(changed(JOB, limits=job), PROFILE, on or host(), Wishes(flags))
    return caught.value


def test_each_limit_is_the_tightest_and_says_where_it_is_from() -> None:
    job = changed(JOB, limits=Limits(memory_bytes=MIB, fuel=9))
    made = plan(job, flags=Limits(fuel=5, wall_ns=1_000_000))
    assert made.limits == Limits(MIB, 1_000_000, 5, 4096, 1024)
    assert dict(made.origins) == {
        "memory_bytes": "job",
        "wall_ns": "command line",
        "fuel": "command line",
        "output_bytes": "profile",
        "console_bytes": "profile",
    }


def test_a_plan_carries_the_profiles_policy() -> None:
    made = plan()
    assert (made.job_id, made.profile, made.level) == ("one", "tight", "ultra")
    assert made.network == "none"
    assert made.profile_digest == PROFILE.digest
    assert (made.clock, made.allow_function) == ("frozen", False)
    assert made.required == frozenset(PROTECTIONS)
    assert [item.name for item in made.in_force] == list(PROTECTIONS)


@pytest.mark.parametrize(
    ("clock", "deterministic", "planned"),
    [
        ("frozen", False, "frozen"),
        ("frozen", True, "frozen"),
        ("real", True, "frozen"),
        ("real", False, "real"),
    ],
)
def test_a_job_may_freeze_the_clock_but_never_free_it(
    clock: str, deterministic: bool, planned: str
) -> None:
    job = changed(JOB, deterministic=deterministic)
    assert plan(job, changed(PROFILE, clock=clock)).clock == planned


def test_only_a_profile_can_allow_the_function_family() -> None:
    assert plan(profile=changed(PROFILE, dynamic_code="function")).allow_function is True
    assert plan(profile=changed(PROFILE, dynamic_code="none")).allow_function is False


def test_a_job_that_asks_for_more_is_refused_with_both_figures_and_its_place() -> None:
    job = changed(
        JOB, limits=Limits(wall_ns=6_000_000_000), limit_places=(("wall_ns", place(9, 12)),)
    )
    with pytest.raises(RefusedError) as caught:
        make_plan(job, PROFILE, host(), Wishes(Limits()))
    error = caught.value
    assert error.message == "the job asks for more timeout than tight grants: 6s, at most 5s"
    assert str(error.place) == "one.yaml:9:12"
    assert (error.reason, error.needs, error.found) == ("limits", "timeout 6s", "tight grants 5s")
    assert error.fix == "ask for 5s or less, or choose another profile with --profile"
    assert error.exit_code == 126


def test_a_flag_that_asks_for_more_is_refused_without_a_place_in_the_job() -> None:
    error = refused(flags=Limits(memory_bytes=3 * MIB))
    assert error.message == (
        "the command line asks for more memory than tight grants: 3MiB, at most 2MiB"
    )
    assert error.place is None


def test_a_flag_cannot_excuse_a_job_that_asks_for_more() -> None:
    error = refused(job=Limits(memory_bytes=3 * MIB), flags=Limits(memory_bytes=MIB))
    assert error.message.startswith("the job asks for more memory")


@pytest.mark.parametrize("name", PROTECTIONS)
def test_a_missing_protection_is_refused_with_cause_and_remedy(name: str) -> None:
    error = refused(on=host(name))
    assert error.message == f"tight requires {name}, which this machine does not enforce"
    assert (error.reason, error.needs) == ("protection", name)
    assert (error.found, error.fix) == ("EPERM: not permitted", "allow it")


def test_a_protection_that_nobody_looked_at_is_missing() -> None:
    bare = changed(host(), findings=host().findings[1:])
    assert refused(on=bare).found == "it was not looked at"


def test_a_protection_that_is_not_required_may_be_missing_and_is_not_in_force() -> None:
    loose = changed(PROFILE, required=frozenset(("seccomp",)))
    made = make_plan(JOB, loose, host("landlock"), Wishes(Limits()))
    assert "landlock" not in [item.name for item in made.in_force]


def test_memory_in_which_no_isolate_fits_is_refused() -> None:
    error = refused(flags=Limits(memory_bytes=9 * 65536 - 1))
    assert (error.reason, error.needs, error.found) == (
        "limits",
        "memory 576KiB",
        "memory 589823B",
    )
    assert plan(flags=Limits(memory_bytes=9 * 65536)).limits.memory_bytes == 9 * 65536


def test_the_digest_is_of_the_policy_and_not_of_the_machine() -> None:
    loose = changed(PROFILE, required=frozenset(("seccomp",)))
    here = make_plan(JOB, loose, host(), Wishes(Limits()))
    there = make_plan(JOB, loose, host("landlock", isolate_bytes=1), Wishes(Limits()))
    assert here.digest == there.digest
    assert plan(flags=Limits(fuel=7)).digest != plan().digest
    assert plan(changed(JOB, id="two")).digest != plan().digest


def test_the_policy_says_every_limit() -> None:
    limits = policy_json(plan())["limits"]
    assert limits == {
        "memoryBytes": LIMITS.memory_bytes,
        "wallNs": LIMITS.wall_ns,
        "fuel": LIMITS.fuel,
        "outputBytes": LIMITS.output_bytes,
        "consoleBytes": LIMITS.console_bytes,
    }


@pytest.mark.parametrize(
    ("name", "camel"), [("memory_bytes", "memoryBytes"), ("fuel", "fuel"), ("a_b_c", "aBC")]
)
def test_predicate_names_are_lower_camel_case(name: str, camel: str) -> None:
    assert camel_case(name) == camel
