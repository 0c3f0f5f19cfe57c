"""What holds for any two profiles."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from beddel_cli.limits import ISOLATE, PROGRAM, Limits, fields_of
from beddel_cli.profile import Grants, Profile, protections_of
from beddel_cli.profile_comparison import WORDS, beyond_all, differences, settings
from beddel_cli.record import changed
from tests.support.values import PROFILE

# Few numbers, so that equal ones come up.
NUMBERS = st.integers(1, 4)
OPPOSITE = {"left": "right", "right": "left", None: None}


def limits(use: str) -> st.SearchStrategy[Limits]:
    """Give the limits of a profile's part."""
    return st.builds(Limits, **{field.field: NUMBERS for field in fields_of(use)})


def required(use: str) -> st.SearchStrategy[frozenset[str]]:
    """Give what a profile's part requires."""
    return st.frozensets(st.sampled_from(protections_of(use)), min_size=1)


GRANTS = st.none() | st.builds(Grants, limits(PROGRAM), st.just("none"), required(PROGRAM))


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    """Give any profile that a file could hold."""
    return changed(
        PROFILE,
        level=draw(st.sampled_from(["ultra", "high", "medium"])),
        limits=draw(limits(ISOLATE)),
        **{name: draw(st.sampled_from(words)) for name, words in WORDS},
        required=draw(required(ISOLATE)),
        process=draw(GRANTS),
    )


@st.composite
def tighter_limits(draw: st.DrawFn, use: str, given: Limits) -> Limits:
    """Give limits of which none is more than that of others."""
    fields = fields_of(use)
    return Limits(
        **{field.field: draw(st.integers(1, getattr(given, field.field))) for field in fields}
    )


@st.composite
def tightened(draw: st.DrawFn, profile: Profile) -> Profile:
    """Give a profile with some of its values made tighter."""
    process = profile.process
    if process is not None:
        less = draw(tighter_limits(PROGRAM, process.limits))
        more = process.required | draw(required(PROGRAM))
        process = draw(st.sampled_from((None, Grants(less, process.network, more))))
    return changed(
        profile,
        limits=draw(tighter_limits(ISOLATE, profile.limits)),
        clock=draw(st.sampled_from(["frozen", profile.clock])),
        dynamic_code=draw(st.sampled_from(["none", profile.dynamic_code])),
        required=profile.required | draw(required(ISOLATE)),
        process=process,
    )


@given(profiles(), st.lists(profiles(), max_size=3))
def test_a_profile_is_never_looser_than_itself(profile: Profile, others: list[Profile]) -> None:
    """Compared with itself it differs in nothing, and among others it is beyond nothing."""
    assert differences(profile, profile) == ()
    assert beyond_all(profile, [*others, profile]) == ()


@given(profiles(), profiles())
def test_a_comparison_turned_around_says_the_opposite(a: Profile, b: Profile) -> None:
    """The same values differ, with the sides exchanged and the other side looser."""
    turned = [(x.name, x.right, x.left, OPPOSITE[x.looser]) for x in differences(a, b)]
    assert [(x.name, x.left, x.right, x.looser) for x in differences(b, a)] == turned


@given(st.data(), profiles())
def test_tightening_never_makes_looser(data: st.DataObject, profile: Profile) -> None:
    """A tightened profile is looser than the one it came from in nothing."""
    tight = data.draw(tightened(profile))
    assert all(item.looser == "right" for item in differences(tight, profile))
    assert beyond_all(tight, [profile]) == ()


@given(st.data(), profiles(), st.lists(profiles(), min_size=1, max_size=3))
def test_tightening_never_adds_to_what_is_beyond_all(
    data: st.DataObject, profile: Profile, others: list[Profile]
) -> None:
    """What a tightened profile exceeds everywhere, the profile it came from exceeded too."""
    tight = data.draw(tightened(profile))
    before = {item.name for item in beyond_all(profile, others)}
    assert {item.name for item in beyond_all(tight, others)} <= before


@given(profiles(), st.lists(profiles(), min_size=1, max_size=3))
def test_beyond_all_is_looser_than_each(profile: Profile, others: list[Profile]) -> None:
    """A value is beyond all just when the profile is the looser side against each one in it.

    A value for programs is compared with those that grant them something.
    """
    beyond = {item.name for item in beyond_all(profile, others)}
    for name in (item.name for item in settings(profile)):
        among = [
            {item.name for item in differences(profile, other) if item.looser == "left"}
            for other in others
            if other.process is not None or not name.startswith("process.")
        ]
        assert (name in beyond) == (bool(among) and all(name in looser for looser in among))


@given(st.data(), profiles())
def test_looser_is_an_order(data: st.DataObject, loose: Profile) -> None:
    """Tightening what was tightened leaves it nowhere looser than the first."""
    middle = data.draw(tightened(loose))
    tight = data.draw(tightened(middle))
    assert all(item.looser == "right" for item in differences(tight, loose))


@given(profiles(), profiles())
def test_every_profile_has_the_same_values_in_the_same_order(a: Profile, b: Profile) -> None:
    """Only a part for programs is there or not, and `process` says which."""
    one, other = ([item.name for item in settings(profile)] for profile in (a, b))
    if (a.process is None) == (b.process is None):
        assert one == other
    for profile, names in ((a, one), (b, other)):
        inner = [name for name in names if name.startswith("process.")]
        assert bool(inner) == (profile.process is not None)
        assert names == [*dict.fromkeys(names)]
