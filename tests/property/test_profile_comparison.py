"""What holds for any two profiles."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from beddel_cli.limits import FIELDS, Limits
from beddel_cli.profile import PROTECTIONS, Profile
from beddel_cli.profile_comparison import WORDS, beyond_all, differences, settings
from beddel_cli.record import changed
from tests.support.values import PROFILE

# Few numbers, so that equal ones come up.
NUMBERS = st.integers(1, 4)
OPPOSITE = {"left": "right", "right": "left", None: None}


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    """Give any profile that a file could hold."""
    return changed(
        PROFILE,
        level=draw(st.sampled_from(["ultra", "high", "medium"])),
        limits=Limits(**{field.field: draw(NUMBERS) for field in FIELDS}),
        **{name: draw(st.sampled_from(words)) for name, words in WORDS},
        required=draw(st.frozensets(st.sampled_from(PROTECTIONS), min_size=1)),
    )


@st.composite
def tightened(draw: st.DrawFn, profile: Profile) -> Profile:
    """Give a profile with some of its values made tighter."""
    limits = {
        field.field: draw(st.integers(1, getattr(profile.limits, field.field))) for field in FIELDS
    }
    return changed(
        profile,
        limits=Limits(**limits),
        clock=draw(st.sampled_from(["frozen", profile.clock])),
        dynamic_code=draw(st.sampled_from(["none", profile.dynamic_code])),
        required=profile.required | draw(st.frozensets(st.sampled_from(PROTECTIONS))),
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
    """A value is beyond all just when the profile is the looser side against each one in it."""
    looser = [
        {item.name for item in differences(profile, other) if item.looser == "left"}
        for other in others
    ]
    assert {item.name for item in beyond_all(profile, others)} == set.intersection(*looser)


@given(st.data(), profiles())
def test_looser_is_an_order(data: st.DataObject, loose: Profile) -> None:
    """Tightening what was tightened leaves it nowhere looser than the first."""
    middle = data.draw(tightened(loose))
    tight = data.draw(tightened(middle))
    assert all(item.looser == "right" for item in differences(tight, loose))


@given(profiles())
def test_every_profile_has_the_same_values_in_the_same_order(profile: Profile) -> None:
    """Settings pair up by position."""
    assert [item.name for item in settings(profile)] == [item.name for item in settings(PROFILE)]
