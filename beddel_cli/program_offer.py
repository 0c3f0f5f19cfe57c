"""What a machine says it offers for programs, as a Host that nobody has tried yet. Pure.

`explain` plans with this one and `run` with that of `program_host.describe_program_host`.
"""

from __future__ import annotations

from beddel_cli.host import Finding, Host, missing
from beddel_cli.offer import NOT_TRIED, describe_kernel
from beddel_cli.process.remedies import explain_cgroup, foresee
from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from beddel_cli.process.remedies import Facts

# Since this version of Landlock no signal leaves its domain.
SCOPES_SINCE = 6
_KINDS = "user, mount, PID, network, IPC, UTS and cgroup namespaces"


@record
class ProgramOffer:
    """Answers to questions that change nothing: 0 for yes, otherwise the errno.

    Attributes:
        landlock_abi: 0 where the kernel has none.
        status_missing: what /proc/PID/status does not show and `run` looks for.
        facts: settings of the machine.
        absent: kinds of namespaces that the kernel does not have.
        takes_ids: whether this user may take another id; only root has to.
        overlay: where the overlay file system is: `kernel`, `module`, or None.
        cgroup: the controllers of which a leaf could be made, with the version of cgroups.
        cgroup_lacks: the others: name, the file or folder that is in the way, and the errno.
    """

    system: str
    machine: str
    kernel: str
    landlock: int
    landlock_abi: int
    seccomp: int
    no_new_privs: int
    capabilities: int
    rlimits: int
    status_missing: tuple[str, ...]
    facts: Facts
    absent: tuple[str, ...]
    takes_ids: bool
    overlay: str | None
    cgroup: tuple[tuple[str, int], ...]
    cgroup_lacks: tuple[tuple[str, str, int], ...]


def describe_program_offer(offer: ProgramOffer, *, shows_folders: bool) -> Host:
    """Give the machine as it presents itself; what it offers counts as present.

    Args:
        shows_folders: whether the job has a workspace or mounts, which take an overlay.
    """
    namespaces = _namespaces(offer, shows_folders=shows_folders)
    return Host(
        system=offer.system,
        machine=offer.machine,
        kernel=offer.kernel,
        isolate_bytes=0,
        findings=(
            namespaces,
            *(() if namespaces.present else (_guardian(offer),)),
            *describe_kernel(offer),
            _cgroup(offer),
        ),
    )


def _namespaces(offer: ProgramOffer, *, shows_folders: bool) -> Finding:
    remedy = foresee(offer.facts, offer.absent, takes_ids=offer.takes_ids)
    if remedy is not None:
        return missing("namespaces", remedy.found, remedy.fix)
    if shows_folders and offer.overlay is None:
        return missing(
            "namespaces",
            "/proc/filesystems has no overlay, and there is no module of it",
            "use a kernel built with CONFIG_OVERLAY_FS",
        )
    most = offer.facts.namespace_limits.get("user")
    limit = "no limit of them" if most is None else f"user.max_user_namespaces is {most}"
    overlay = {
        "kernel": "overlay is in /proc/filesystems",
        "module": "overlay is a module that is not loaded",
        None: "no overlay, which this job does not need",
    }
    answer = f"the kernel has {_KINDS}; {limit}; {overlay[offer.overlay]}"
    return Finding("namespaces", True, answer, NOT_TRIED)


def _guardian(offer: ProgramOffer) -> Finding:
    """Say what could keep signals in where there are no namespaces."""
    if offer.takes_ids and offer.facts.root:
        return Finding("guardian", True, "root may take two ids that own nothing", NOT_TRIED)
    if offer.landlock_abi >= SCOPES_SINCE:
        answer = f"Landlock ABI {offer.landlock_abi} keeps signals in"
        return Finding("guardian", True, answer, NOT_TRIED)
    return missing(
        "guardian",
        f"Landlock ABI {offer.landlock_abi} keeps no signals in; {SCOPES_SINCE} does",
        "run it as root, or on Linux 6.12 or newer",
    )


def _cgroup(offer: ProgramOffer) -> Finding:
    if not offer.cgroup_lacks:
        named = ", ".join(f"{name} v{version}" for name, version in offer.cgroup)
        return Finding("cgroup", True, f"its folders can be written: {named}", NOT_TRIED)
    name, where, number = offer.cgroup_lacks[0]
    remedy = explain_cgroup(name, where, number, offer.facts)
    return missing("cgroup", remedy.found, remedy.fix)
