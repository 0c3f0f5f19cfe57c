"""What holds for every job, profile, machine and command line."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from beddel_cli.errors import RefusedError
from beddel_cli.host import Host
from beddel_cli.job import Job
from beddel_cli.limits import FIELDS, Limits, exceeding, format_limit, tightest
from beddel_cli.plan import Plan, Wishes, make_plan, refusals
from beddel_cli.profile import PROTECTIONS, Profile
from beddel_cli.record import changed
from tests.support.values import JOB, PROFILE, finding

# A few small numbers, so that equal, smaller and larger all come up, and many jobs fit.
ASKED, GRANTED = st.integers(1, 4), st.integers(2, 6)
NAMES = [field.field for field in FIELDS]
FULL = st.builds(Limits, **dict.fromkeys(NAMES, GRANTED))
PARTIAL = st.builds(Limits, **dict.fromkeys(NAMES, st.none() | ASKED))
PROTECTION_SETS = st.frozensets(st.sampled_from(PROTECTIONS))


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    """Give any profile that a file could hold."""
    return changed(
        PROFILE,
        limits=draw(FULL),
        clock=draw(st.sampled_from(["frozen", "real"])),
        dynamic_code=draw(st.sampled_from(["none", "function"])),
        required=draw(PROTECTION_SETS.filter(bool)),
    )


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    """Give any job, as far as plans care."""
    return changed(JOB, limits=draw(PARTIAL), deterministic=draw(st.booleans()))


@st.composite
def hosts(draw: st.DrawFn) -> Host:
    """Give any machine, one that was not looked at closely included."""
    names, present = list(PROTECTIONS), frozenset(PROTECTIONS)
    if draw(st.booleans()):
        names = draw(st.lists(st.sampled_from(PROTECTIONS), unique=True))
        present = draw(PROTECTION_SETS)
    findings = tuple(finding(name, present=name in present) for name in names)
    return Host("Linux", "any", "6.1", draw(st.integers(0, 3)), findings)


def decide(job: Job, profile: Profile, host: Host, flags: Limits) -> Plan | RefusedError:
    try:
        return make_plan(job, profile, host, Wishes(flags))
    except RefusedError as error:
        return error


def within(limits: Limits, profile: Profile) -> Limits:
    """Give limits none of which asks for more than the profile grants."""
    over = [field.field for field in exceeding(limits, profile.limits)]
    return changed(limits, **{name: getattr(profile.limits, name) for name in over})


def in_force(host: Host) -> set[str]:
    return {item.name for item in host.findings if item.present}


@given(jobs(), profiles(), hosts(), PARTIAL)
def test_a_plan_never_exceeds_its_profile(
    job: Job, profile: Profile, host: Host, flags: Limits
) -> None:
    """A plan's every limit is set and at most the profile's, the job's and the flags'."""
    plan = decide(job, profile, host, flags)
    if isinstance(plan, RefusedError):
        return
    for bound in (profile.limits, job.limits, flags):
        assert exceeding(plan.limits, bound) == ()
    assert all(getattr(plan.limits, name) is not None for name in NAMES)
    assert plan.required == profile.required
    assert plan.clock == "frozen" or profile.clock == "real"
    assert not plan.allow_function or profile.dynamic_code == "function"
    assert (plan.limits.memory_bytes or 0) >= host.isolate_bytes


@given(jobs(), profiles(), hosts(), PARTIAL)
def test_only_an_allowed_job_on_a_machine_that_enforces_enough_gets_a_plan(
    job: Job, profile: Profile, host: Host, flags: Limits
) -> None:
    """There is a plan just when nothing asks for more, all is enforced and the isolate fits."""
    within = not exceeding(job.limits, profile.limits) and not exceeding(flags, profile.limits)
    smallest = tightest(tightest(profile.limits, job.limits), flags).memory_bytes or 0
    allowed = within and profile.required <= in_force(host) and smallest >= host.isolate_bytes
    assert isinstance(decide(job, profile, host, flags), Plan) == allowed


@given(jobs(), profiles(), PARTIAL, PARTIAL, st.booleans())
def test_tightening_never_loosens(
    job: Job, profile: Profile, flags: Limits, more: Limits, by_job: bool
) -> None:
    """Adding limits to the job or the flags loosens no limit of the plan, and frees no clock."""
    host = Host("Linux", "any", "6.1", 2, tuple(finding(name) for name in PROTECTIONS))
    job = changed(job, limits=within(job.limits, profile))
    flags = within(flags, profile)
    before = decide(job, profile, host, flags)
    if isinstance(before, RefusedError):
        assert before.message.startswith("an isolate does not fit into")
        return
    if by_job:
        tighter = changed(job, limits=tightest(job.limits, more), deterministic=True)
        after = decide(tighter, profile, host, flags)
    else:
        after = decide(job, profile, host, tightest(flags, more))
    if isinstance(after, RefusedError):
        assert after.reason == "limits"
        return
    assert exceeding(after.limits, before.limits) == ()
    assert not (before.clock == "frozen" and after.clock == "real")
    assert after.allow_function == before.allow_function
    assert after.required == before.required


@given(jobs(), profiles(), hosts(), PARTIAL)
def test_a_missing_protection_is_always_a_refusal_that_helps(
    job: Job, profile: Profile, host: Host, flags: Limits
) -> None:
    """With modest limits, a required protection that is not in force is refused by its name."""
    fitting = changed(job, limits=within(job.limits, profile))
    missing = profile.required - in_force(host)
    assume(missing)
    error = decide(fitting, profile, host, within(flags, profile))
    assert isinstance(error, RefusedError)
    assert error.reason == "protection"
    assert error.needs in missing
    assert error.found
    assert error.fix
    assert error.exit_code == 126


@given(jobs(), profiles(), hosts(), PARTIAL)
def test_a_plan_is_refused_for_the_first_of_all_reasons_and_only_then(
    job: Job, profile: Profile, host: Host, flags: Limits
) -> None:
    """There are reasons just when there is no plan, one for each thing that is not allowed."""
    found = refusals(job, profile, host, Wishes(flags))
    decided = decide(job, profile, host, flags)
    if isinstance(decided, Plan):
        assert found == ()
        return
    assert (decided.message, decided.needs) == (found[0].message, found[0].needs)
    over = exceeding(job.limits, profile.limits) + exceeding(flags, profile.limits)
    no_room = (tightest(tightest(profile.limits, job.limits), flags).memory_bytes or 0) < (
        host.isolate_bytes
    )
    missing = profile.required - in_force(host)
    assert len(found) == len(over) + len(missing) + no_room
    assert {item.needs for item in found if item.reason == "protection"} == missing


@given(jobs(), profiles(), hosts(), PARTIAL)
def test_asking_for_more_is_always_a_refusal_with_both_figures(
    job: Job, profile: Profile, host: Host, flags: Limits
) -> None:
    """Whoever asks for more than the profile grants is told what was asked and what is granted."""
    over = [
        (field, getattr(asked, field.field))
        for asked in (job.limits, flags)
        for field in exceeding(asked, profile.limits)
    ]
    assume(over)
    error = decide(job, profile, host, flags)
    assert isinstance(error, RefusedError)
    assert error.reason == "limits"
    field, asked = over[0]
    granted = format_limit(field, getattr(profile.limits, field.field))
    assert error.needs == f"{field.key} {format_limit(field, asked)}"
    assert granted in error.found
    assert format_limit(field, asked) in error.message
    assert granted in error.message


@given(PARTIAL, profiles(), hosts(), PARTIAL)
def test_it_does_not_matter_whether_job_or_command_line_says_it(
    one: Limits, profile: Profile, host: Host, other: Limits
) -> None:
    """Swapping the job's limits with the flags' gives the same limits, or a refusal both times."""
    first = decide(changed(JOB, limits=one), profile, host, other)
    second = decide(changed(JOB, limits=other), profile, host, one)
    if isinstance(first, Plan) and isinstance(second, Plan):
        assert first.limits == second.limits
        assert first.digest == second.digest
    else:
        assert isinstance(first, RefusedError)
        assert isinstance(second, RefusedError)
        assert first.reason == second.reason


@given(PARTIAL, PARTIAL, PARTIAL)
def test_tightest_is_a_meet(a: Limits, b: Limits, c: Limits) -> None:
    """Tightest is commutative, associative and idempotent, and no looser than either side."""
    assert tightest(a, b) == tightest(b, a)
    assert tightest(a, tightest(b, c)) == tightest(tightest(a, b), c)
    assert tightest(a, a) == a
    assert tightest(a, Limits()) == a
    assert exceeding(tightest(a, b), a) == ()
    assert exceeding(tightest(a, b), b) == ()
