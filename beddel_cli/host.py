"""What this machine can enforce, found out by really doing it.

For isolates the worker itself is the probe: it confines itself before it has seen a byte of the
job, says how each step went, and the supervisor looks from outside. Nothing is remembered and no
extra process is started; what the plan judges is the very process that will run the job.
"""

from __future__ import annotations

import errno
import os

from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from beddel_cli.isolate.frames import Ready
    from beddel_cli.isolate.supervisor import Observed

_SECCOMP_MODE_FILTER = 2


@record
class Finding:
    """One protection on this machine.

    Attributes:
        name: as profiles call it.
        present: whether it is in force, as far as could be confirmed.
        enforced_by: the mechanism, such as `Landlock ABI 6, no rules`.
        verified: how it was confirmed.
        found: what there was instead, with errno and cause; None when present.
        fix: one change that helps; None when present.
    """

    name: str
    present: bool
    enforced_by: str
    verified: str
    found: str | None = None
    fix: str | None = None


@record
class Host:
    """The machine as one run met it. `isolate_bytes` is what an empty isolate takes up."""

    system: str
    machine: str
    kernel: str
    isolate_bytes: int
    findings: tuple[Finding, ...]

    def finding(self, name: str) -> Finding | None:
        """Give what was found about a protection; None if it was never looked at."""
        return next((item for item in self.findings if item.name == name), None)


def unknown_host() -> Host:
    """Give the machine of a run that was refused before anything was looked at."""
    system = os.uname()
    return Host(system.sysname, system.machine, system.release, 0, ())


def describe_host(ready: Ready, observed: Observed) -> Host:
    """Combine the worker's word with what the supervisor saw from outside."""
    system = os.uname()
    return Host(
        system=system.sysname,
        machine=system.machine,
        kernel=system.release,
        isolate_bytes=ready.guest_pages * 65536,
        findings=(
            _store_limits(ready),
            _seccomp(ready, observed),
            _landlock(ready),
            _no_new_privs(ready, observed),
            _capabilities(ready, observed),
            _rlimits(ready, observed),
        ),
    )


def missing(name: str, found: str, fix: str) -> Finding:
    """Give the finding for a protection that is not there."""
    return Finding(name, False, "nothing", "not in force", found, fix)


def errno_words(number: int) -> str:
    """Write an errno as `ENOSYS: Function not implemented`."""
    return f"{errno.errorcode.get(number, number)}: {os.strerror(number)}"


def _store_limits(ready: Ready) -> Finding:
    if ready.store_limits_held:
        return Finding(
            "store-limits",
            True,
            "wasmtime store limiter",
            "the worker's own probe before the job: an isolate above its limit was refused",
        )
    return missing(
        "store-limits",
        "the engine started an isolate above its memory limit",
        "pip install --force-reinstall beddel-cli",
    )


def _seccomp(ready: Ready, observed: Observed) -> Finding:
    if (
        ready.seccomp == 0
        and observed.seccomp_mode == _SECCOMP_MODE_FILTER
        and observed.seccomp_filters == 1
        # A filter binds the thread that set it: one more thread would be one without.
        and observed.threads == 1
    ):
        return Finding(
            "seccomp",
            True,
            "seccomp filter, allow-list, kill on anything else",
            "/proc/PID/status of the worker: Seccomp 2, one filter of its own, one thread",
        )
    if ready.seccomp:
        found = f"prctl(PR_SET_SECCOMP) failed with {errno_words(ready.seccomp)}"
    else:
        found = (
            f"/proc/PID/status of the worker says Seccomp {observed.seccomp_mode}, "
            f"{observed.seccomp_filters} filters of its own, {observed.threads} threads"
        )
    return missing("seccomp", found, seccomp_fix(ready.seccomp))


def seccomp_fix(number: int) -> str:
    """Say what helps where seccomp fails with this errno; 0 for a filter that does not bite."""
    if number == errno.ENOSYS:
        return "run on x86-64 or aarch64"
    if number == errno.EINVAL:
        return "use a kernel built with CONFIG_SECCOMP_FILTER, or a container that passes it on"
    return "allow prctl(PR_SET_SECCOMP) in the container's own seccomp profile"


def _landlock(ready: Ready) -> Finding:
    if ready.landlock == 0 and ready.landlock_probe == errno.EACCES:
        return Finding(
            "landlock",
            True,
            f"Landlock ABI {ready.landlock_abi}, every right handled, none granted",
            "the worker's own probe before the job: opening / failed with EACCES",
        )
    if ready.landlock:
        return missing_landlock(ready.landlock)
    return missing(
        "landlock",
        f"the worker could still open / ({ready.landlock_probe})",
        "report this: Landlock said it was in force",
    )


def missing_landlock(number: int) -> Finding:
    """Give the finding for a Landlock call that failed with this errno."""
    if number == errno.ENOSYS:
        return missing(
            "landlock",
            f"landlock_create_ruleset failed with {errno_words(number)}: this kernel, or the "
            "container around us, has no Landlock",
            "use Linux 5.13 or newer built with CONFIG_SECURITY_LANDLOCK, and let the container's "
            "seccomp profile pass landlock_*",
        )
    if number == errno.EOPNOTSUPP:
        return missing(
            "landlock",
            f"landlock_create_ruleset failed with {errno_words(number)}: it is off at boot",
            "add landlock to the kernel's lsm= parameter and reboot",
        )
    return missing(
        "landlock",
        f"landlock failed with {errno_words(number)}",
        "let the container's seccomp profile pass landlock_*",
    )


def _no_new_privs(ready: Ready, observed: Observed) -> Finding:
    if ready.no_new_privs == 0 and observed.no_new_privs == 1:
        return Finding(
            "no-new-privs",
            True,
            "prctl(PR_SET_NO_NEW_PRIVS)",
            "/proc/PID/status of the worker: NoNewPrivs 1",
        )
    found = (
        f"prctl failed with {errno_words(ready.no_new_privs)}"
        if ready.no_new_privs
        else f"/proc/PID/status of the worker says NoNewPrivs {observed.no_new_privs}"
    )
    return missing("no-new-privs", found, "mount /proc so that it shows your own processes")


def _capabilities(ready: Ready, observed: Observed) -> Finding:
    if ready.capabilities == 0 and observed.effective_capabilities == 0:
        return Finding(
            "capabilities",
            True,
            "capset: effective, permitted and inheritable sets empty",
            "/proc/PID/status of the worker: CapEff 0",
        )
    found = (
        f"capset failed with {errno_words(ready.capabilities)}"
        if ready.capabilities
        else f"/proc/PID/status of the worker says CapEff {observed.effective_capabilities}"
    )
    return missing("capabilities", found, "mount /proc so that it shows your own processes")


def _rlimits(ready: Ready, observed: Observed) -> Finding:
    if ready.rlimits == 0 and observed.file_limit == 0 and observed.core_limit == 0:
        return Finding(
            "rlimits",
            True,
            "setrlimit: no files, core dumps, locked memory or queues; bounded private memory",
            "prlimit of the worker: RLIMIT_NOFILE 0, RLIMIT_CORE 0",
        )
    found = (
        f"setrlimit failed with {errno_words(ready.rlimits)}"
        if ready.rlimits
        else f"prlimit of the worker shows NOFILE {observed.file_limit}"
    )
    return missing("rlimits", found, "allow setrlimit and prlimit64 for your own processes")
