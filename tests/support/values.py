"""Small valid values of the package's own types, to change one thing at a time."""

from __future__ import annotations

from typing import Any, cast

from beddel_cli.errors import Place, RefusedError
from beddel_cli.host import Finding, Host
from beddel_cli.isolate.frames import NO_TRAP_CODE, SETTLED, Ready, Report, Request
from beddel_cli.isolate.supervisor import Answer, Observed, WorkerUsage
from beddel_cli.job import CodePlace, Job
from beddel_cli.limits import Limits
from beddel_cli.outcome import Outcome
from beddel_cli.plan import Plan, Wishes, make_plan
from beddel_cli.process.program import ProgramAnswer, Stream, TreeUsage
from beddel_cli.profile import PROTECTIONS, Profile
from beddel_cli.record import changed
from beddel_cli.run import Finished
from beddel_cli.trust.keys import SigningKey

MIB = 1 << 20
LIMITS = Limits(
    memory_bytes=2 * MIB,
    wall_ns=5_000_000_000,
    fuel=1_000_000,
    output_bytes=4096,
    console_bytes=1024,
)
JOB = Job(
    source=b"beddel: 1\nid: one\nruntime: javascript\ncode: return 42\n",
    file="one.yaml",
    id="one",
    name=None,
    description=None,
    version=None,
    runtime="javascript",
    code=b"return 42",
    code_file=None,
    code_place=CodePlace("one.yaml", 4, 7),
    input=None,
    limits=Limits(),
    limit_places=(),
    deterministic=False,
)
PROFILE = Profile(
    name="tight",
    description="",
    level="ultra",
    digest="ab" * 32,
    built_in=True,
    limits=LIMITS,
    dynamic_code="none",
    clock="frozen",
    network="none",
    required=frozenset(PROTECTIONS),
)
READY = Ready(
    no_new_privs=0,
    capabilities=0,
    rlimits=0,
    landlock=0,
    landlock_abi=6,
    landlock_probe=13,
    seccomp=0,
    store_limits_held=True,
    code_source=0,
    guest_pages=9,
    setup_ns=1_000,
)
OBSERVED = Observed(
    no_new_privs=1,
    seccomp_mode=2,
    seccomp_filters=1,
    effective_capabilities=0,
    threads=1,
    file_limit=0,
    core_limit=0,
)
REQUEST = Request(
    wall_ns=5_000_000_000,
    fuel=1_000_000,
    memory_bytes=2 * MIB,
    clock_us=0,
    seed=7,
    output_bytes=4096,
    console_bytes=1024,
    allow_function=False,
    want_snapshot=False,
    code=b"return 42",
    input=b"null",
)
REPORT = Report(
    ending=SETTLED,
    status=0,
    trap_code=NO_TRAP_CODE,
    fuel_used=500,
    memory_bytes=MIB,
    wall_ns=2_000_000,
    cpu_ns=1_000_000,
    instantiate_ns=100_000,
    heap_used_bytes=1000,
    heap_peak_bytes=2000,
    output_total_bytes=2,
    console_dropped_bytes=0,
    console_dropped_entries=0,
    memory_digest=bytes(32),
    output=b"42",
    error_name=b"",
    error_message=b"",
    error_stack=b"",
    console=b"",
)
STREAM = Stream(total_bytes=3, passed_bytes=3, sha256="ef" * 32, head=b"abc")
TREE_USAGE = TreeUsage(
    cpu_ns=4_000_000,
    cpu_source="cgroup cpuacct.usage",
    cpu_exact=True,
    memory_peak_bytes=5 * MIB,
    memory_peak_source="cgroup memory.max_usage_in_bytes",
    anonymous_peak_bytes=2 * MIB,
    anonymous_peak_source="cgroup memory.stat, largest sample",
    samples=3,
    largest_process_bytes=3 * MIB,
    largest_process_source="kernel, wait4 of the init",
    processes_peak=2,
    processes_peak_source="largest sample",
    disk_bytes=4096,
    inodes=2,
)
PROGRAM_ANSWER = ProgramAnswer(
    exit_code=0,
    signal=None,
    start_errno=None,
    limit=None,
    reached=(),
    stopped=None,
    fault=None,
    killed=False,
    by_kernel=False,
    wall_ns=7_000_000,
    usage=TREE_USAGE,
    stdout=STREAM,
    stderr=STREAM,
)


def finding(name: str, *, present: bool = True) -> Finding:
    """Give what a machine shows of one protection."""
    if present:
        return Finding(name, True, "a mechanism", "a look from outside")
    return Finding(name, False, "nothing", "not in force", "EPERM: not permitted", "allow it")


def host(*missing: str, isolate_bytes: int = 9 * 65536) -> Host:
    """Give a machine that enforces everything but what is named."""
    findings = tuple(finding(name, present=name not in missing) for name in PROTECTIONS)
    return Host("Linux", "x86_64", "6.1", isolate_bytes, findings)


def plan(job: Job = JOB, profile: Profile = PROFILE, flags: Limits | None = None) -> Plan:
    """Give the plan of a job on a machine that enforces everything."""
    return make_plan(job, profile, host(), Wishes(flags or Limits()))


def answer(report: Report | None = REPORT, **more: Any) -> Answer:
    """Give what came back of a worker that did nothing out of the way."""
    values: dict[str, Any] = {
        "snapshot": None,
        "fault": None,
        "timed_out": False,
        "signal": None,
        "wall_ns": 3_000_000,
    }
    return Answer(report=report, usage=WorkerUsage(2_000_000, 3 * MIB, 2), **(values | more))


def refusal(**changes: Any) -> RefusedError:
    """Give a refusal for a protection that is missing."""
    words: dict[str, Any] = {
        "reason": "protection",
        "needs": "landlock",
        "found": "ENOSYS: not there",
        "fix": "boot with lsm=landlock",
    }
    return RefusedError("no landlock", **(words | changes))


def finished(outcome: Outcome, **changes: Any) -> Finished:
    """Give a run that has ended so, with its receipt written."""
    key = SigningKey(
        key_id="cd" * 32,
        kind="p256",
        public_pem=b"",
        origin="home",
        created=False,
        path="/home/a/keys/signing.pem",
        public_path="/home/a/keys/signing.pub.pem",
        private=cast(Any, None),
    )
    run = Finished(
        run_id="0123456789abcdef",
        tenant="default",
        job=JOB,
        profile=PROFILE,
        host=host(),
        plan=plan(),
        refusal=None,
        outcome=outcome,
        key=key,
        public_key_path="/home/a/keys/signing.pub.pem",
        statement=b"{}",
        receipt_path="/home/a/receipts/one.dsse.json",
        bundle_path=None,
        predicate_path=None,
        proof_path="/home/a/receipts/one.dsse.json.tlog-proof",
        log_index=4,
        captured_path=None,
        snapshot_path=None,
        collected=None,
        results_path=None,
        wall_ns=20_000_000,
        cpu_ns=15_000_000,
        warnings=(),
    )
    return changed(run, **changes)


def place(line: int, column: int, file: str = "one.yaml") -> Place:
    """Give a place in the small job."""
    return Place(file, line, column)
