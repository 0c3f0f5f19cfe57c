"""What a machine says it offers, as a Host that nobody has tried yet. Pure: answers in, Host out.

`explain` plans with this one and `run` with that of `host.describe_host`. A protection that is not
even offered is not there; one that is offered is in force only once `run` has confirmed it.
"""

from __future__ import annotations

from beddel_cli.host import Finding, Host, errno_words, missing, missing_landlock, seccomp_fix
from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from beddel_cli.program_offer import ProgramOffer

    Answers: TypeAlias = "Offer | ProgramOffer"

NOT_TRIED = "offered, not tried; run tries it and confirms it"
_PROC_FIX = "mount /proc so that it shows your own processes"


@record
class Offer:
    """Answers to questions that change nothing: 0 for yes, otherwise the errno.

    Attributes:
        landlock_abi: 0 where the kernel has none.
        guest_pages: memory of the guest before any job, in pages of 64 KiB.
        status_missing: what /proc/PID/status does not show and `run` looks for.
    """

    system: str
    machine: str
    kernel: str
    engine_version: str
    guest_version: str
    guest_digest: str
    guest_pages: int
    landlock: int
    landlock_abi: int
    seccomp: int
    no_new_privs: int
    capabilities: int
    rlimits: int
    status_missing: tuple[str, ...]


def describe_offer(offer: Offer) -> Host:
    """Give the machine as it presents itself; what it offers counts as present."""
    return Host(
        system=offer.system,
        machine=offer.machine,
        kernel=offer.kernel,
        isolate_bytes=offer.guest_pages * 65536,
        findings=(
            _offered(
                "store-limits",
                f"wasmtime {offer.engine_version} and the guest are installed",
            ),
            *describe_kernel(offer),
        ),
    )


def describe_kernel(offer: Answers) -> tuple[Finding, ...]:
    """Give what the kernel offers to hold any kind of job."""
    return (
        _seccomp(offer),
        _landlock(offer),
        _no_new_privs(offer),
        _capabilities(offer),
        _rlimits(offer),
    )


def _offered(name: str, answer: str) -> Finding:
    return Finding(name, True, answer, NOT_TRIED)


def _unseen(name: str, offer: Answers, *fields: str) -> Finding | None:
    """Give the finding for what could be put in force, but not confirmed by `run`."""
    lost = [field for field in fields if field in offer.status_missing]
    if not lost:
        return None
    return missing(name, f"/proc/self/status does not show {' and '.join(lost)}", _PROC_FIX)


def _seccomp(offer: Answers) -> Finding:
    if offer.seccomp:
        found = f"seccomp(SECCOMP_GET_ACTION_AVAIL) failed with {errno_words(offer.seccomp)}"
        return missing("seccomp", found, seccomp_fix(offer.seccomp))
    return _unseen("seccomp", offer, "Seccomp", "Seccomp_filters", "Threads") or _offered(
        "seccomp", "seccomp(SECCOMP_GET_ACTION_AVAIL): the kernel has kill-process"
    )


def _landlock(offer: Answers) -> Finding:
    if offer.landlock:
        return missing_landlock(offer.landlock)
    return _offered(
        "landlock",
        f"landlock_create_ruleset(LANDLOCK_CREATE_RULESET_VERSION): ABI {offer.landlock_abi}",
    )


def _no_new_privs(offer: Answers) -> Finding:
    if offer.no_new_privs:
        found = f"prctl(PR_GET_NO_NEW_PRIVS) failed with {errno_words(offer.no_new_privs)}"
        return missing("no-new-privs", found, "allow prctl(PR_SET_NO_NEW_PRIVS)")
    return _unseen("no-new-privs", offer, "NoNewPrivs") or _offered(
        "no-new-privs", "prctl(PR_GET_NO_NEW_PRIVS): the kernel knows it"
    )


def _capabilities(offer: Answers) -> Finding:
    if offer.capabilities:
        found = f"capget failed with {errno_words(offer.capabilities)}"
        return missing("capabilities", found, "allow capget and capset for your own process")
    return _unseen("capabilities", offer, "CapEff") or _offered(
        "capabilities", "capget: the kernel knows the sets that run empties"
    )


def _rlimits(offer: Answers) -> Finding:
    if offer.rlimits:
        found = f"prlimit failed with {errno_words(offer.rlimits)}"
        fix = "allow setrlimit and prlimit64 for your own processes"
        return missing("rlimits", found, fix)
    return _offered("rlimits", "prlimit: the kernel shows the limits that run lowers")
