"""What a machine offers, by its answers: each no is a missing protection with cause and remedy."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from beddel_cli.host import describe_host
from beddel_cli.isolate.queries import ask_machine
from beddel_cli.offer import NOT_TRIED, Offer, describe_offer
from beddel_cli.profile import PROTECTIONS
from beddel_cli.record import changed
from tests.support.capabilities import require
from tests.support.values import OBSERVED, READY

OFFER = Offer(
    system="Linux",
    machine="x86_64",
    kernel="6.1",
    engine_version="50.0.1",
    guest_version="0.17.0.2",
    guest_digest="ab" * 32,
    guest_pages=9,
    landlock=0,
    landlock_abi=6,
    seccomp=0,
    no_new_privs=0,
    capabilities=0,
    rlimits=0,
    status_missing=(),
)
# An answer -> the one protection that is then not there, and words of what is said of it.
NOES: list[tuple[dict[str, Any], str, str]] = [
    ({"landlock": errno.ENOSYS}, "landlock", "ENOSYS"),
    ({"landlock": errno.EOPNOTSUPP}, "landlock", "off at boot"),
    ({"landlock": errno.EPERM}, "landlock", "EPERM"),
    ({"seccomp": errno.EINVAL}, "seccomp", "EINVAL"),
    ({"seccomp": errno.ENOSYS}, "seccomp", "ENOSYS"),
    ({"status_missing": ("Seccomp_filters",)}, "seccomp", "does not show Seccomp_filters"),
    ({"status_missing": ("Threads",)}, "seccomp", "does not show Threads"),
    ({"no_new_privs": errno.EINVAL}, "no-new-privs", "EINVAL"),
    ({"status_missing": ("NoNewPrivs",)}, "no-new-privs", "does not show NoNewPrivs"),
    ({"capabilities": errno.EPERM}, "capabilities", "EPERM"),
    ({"status_missing": ("CapEff",)}, "capabilities", "does not show CapEff"),
    ({"rlimits": errno.EPERM}, "rlimits", "EPERM"),
]


def test_a_machine_that_offers_everything_has_tried_nothing() -> None:
    host = describe_offer(OFFER)
    assert sorted(item.name for item in host.findings) == sorted(PROTECTIONS)
    for item in host.findings:
        assert item.present
        assert item.verified == NOT_TRIED
        assert (item.found, item.fix) == (None, None)
    assert host.isolate_bytes == 9 * 65536
    assert (host.system, host.machine, host.kernel) == ("Linux", "x86_64", "6.1")


@pytest.mark.parametrize(("answer", "name", "words"), NOES)
def test_what_is_not_offered_is_missing_with_cause_and_fix(
    answer: dict[str, Any], name: str, words: str
) -> None:
    host = describe_offer(changed(OFFER, **answer))
    (item,) = (each for each in host.findings if not each.present)
    assert item.name == name
    assert item.found is not None
    assert words in item.found
    assert item.fix
    assert item.verified == "not in force"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM])
def test_a_machine_without_landlock_is_told_the_same_by_both_ways(number: int) -> None:
    asked = describe_offer(changed(OFFER, landlock=number)).finding("landlock")
    tried = describe_host(changed(READY, landlock=number), OBSERVED).finding("landlock")
    assert asked == tried


def test_this_machine_answers_and_is_unchanged() -> None:
    require("landlock")
    with open("/proc/self/status", encoding="ascii") as file:
        before = [line for line in file if line.startswith(("NoNewPrivs", "Seccomp", "Cap"))]
    offer = ask_machine()
    with open("/proc/self/status", encoding="ascii") as file:
        after = [line for line in file if line.startswith(("NoNewPrivs", "Seccomp", "Cap"))]
    assert before == after
    assert len(before) >= 7
    assert (offer.landlock, offer.seccomp, offer.no_new_privs) == (0, 0, 0)
    assert offer.landlock_abi >= 1
    assert offer.status_missing == ()
