"""Decide which bytes are signed: one in-toto statement for one run, whatever its ending.

Pure: values in, bytes out. Digests and lengths stand for everything the job read or wrote; no
output, message or input of a job is in a receipt. Integers above 2^53 - 1 travel as text.

Source: in-toto Attestation Framework, Statement v1.
"""

from __future__ import annotations

import hashlib

from beddel_cli.json_strict import MAX_SAFE_INTEGER, canonical_json
from beddel_cli.limits import as_json, use_of
from beddel_cli.plan import camel_case, insisted_on, policy_json
from beddel_cli.record import record
from beddel_cli.salted_digest import SALTING, digest_set

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from beddel_cli.errors import RefusedError
    from beddel_cli.host import Host
    from beddel_cli.job import Job
    from beddel_cli.outcome import Outcome, Usage
    from beddel_cli.plan import Plan, Wishes
    from beddel_cli.process.collect import Collection
    from beddel_cli.process.program import ProgramAnswer, Stream, TreeUsage
    from beddel_cli.profile import Profile

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://github.com/beddel/beddel-cli/attestation/sandbox-run/v0.1"


@record
class Guest:
    """What ran the job: the guest's and the engine's names, versions and digests."""

    name: str
    version: str
    wasm_digest: str
    code_digest: str | None
    code_source: str | None
    engine: str
    engine_version: str
    settings_digest: str


@record
class Sandbox:
    """What held a program.

    Attributes:
        rung: how it was separated: `namespaces` or `landlock`.
        identity: `own id`, or `throw-away id N` when started by root.
        proc: `own`, `empty` where the machine refuses a fresh one, `closed` for the host's.
        cgroup: the controllers of its leaf, or why there was none.
    """

    rung: str
    identity: str
    proc: str | None
    cgroup: str


@record
class Shown:
    """A host folder or file that a program could see, without its place on the host.

    Attributes:
        target: where it stood inside.
        mode: `overlay`, `ro` or `rw`.
        digest: hex SHA-256 of a file's bytes; None for a folder, which is not read as a whole.
    """

    target: str
    mode: str
    digest: str | None


@record
class Run:
    """Everything about one run that its receipt tells.

    Attributes:
        run_id: lower-case hex, sortable by time.
        looser_than_built_in: values in which the profile is looser than every built-in one.
        guest: what ran an isolate's job, None for a program.
        sandbox: what held a program, None for an isolate and where it was refused before.
        clock_us, seed: what the guest was started with; None when it was not.
        plan: None when the run was refused.
        wishes: what the command line asked for.
        input_given: the input is not the job's own alone: the command line gave or set it.
        replay_of: hex SHA-256 of the statement whose run this one repeats, None for any other.
        not_written: why what it left could not be written, or not all of it.
        captured: what is kept of the output in a file beside the receipt.
        salt: what the digests of the job's own data are salted with, None for plain ones.
        recorded_start: clock and seed are those of the run that is repeated.
        refusal: why it was, else None.
        log_origin, log_index: where the log has the run's start.
        wall_ns: supervisor's clock, from its start to the signing of this.
        cpu_ns: the supervisor's own CPU time until then.
    """

    run_id: str
    tenant: str
    version: str
    started_at: str
    finished_at: str
    job: Job
    input: bytes | None
    profile: Profile
    looser_than_built_in: tuple[str, ...]
    host: Host
    guest: Guest | None
    sandbox: Sandbox | None
    shown: tuple[Shown, ...]
    collected: Collection | None
    not_written: str | None
    plan: Plan | None
    wishes: Wishes
    input_given: bool
    replay_of: str | None
    recorded_start: bool
    captured: bytes | None
    salt: bytes | None
    refusal: RefusedError | None
    outcome: Outcome
    clock_us: int | None
    seed: int | None
    snapshot_digest: str | None
    snapshot_bytes: int | None
    key_id: str
    key_origin: str
    log_origin: str
    log_index: int
    wall_ns: int
    cpu_ns: int


def make_statement(run: Run) -> bytes:
    """Give the statement's JSON: compact, sorted keys, valid UTF-8."""
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": _subjects(run),
        "predicateType": PREDICATE_TYPE,
        "predicate": _predicate(run),
    }
    return canonical_json(_with_large_integers_as_text(statement))


def make_predicate(run: Run) -> bytes:
    """Give the statement's `predicate` alone, in the very bytes it has there."""
    return canonical_json(_with_large_integers_as_text(_predicate(run)))


def sha256(data: bytes) -> dict[str, str]:
    """Give an in-toto DigestSet of some bytes."""
    return {"sha256": hashlib.sha256(data).hexdigest()}


def _digest(run: Run, data: bytes) -> dict[str, str]:
    """Give the DigestSet of some of the job's own data, salted where the run has a salt."""
    return digest_set(hashlib.sha256(data).hexdigest(), run.salt)


def console_text(outcome: Outcome) -> bytes:
    """Give the console as the bytes a receipt digests: `level text` lines."""
    lines = (f"{line.level} {line.text}\n" for line in outcome.console)
    return "".join(lines).encode("utf-8", "surrogatepass")


def _subjects(run: Run) -> list[dict[str, Any]]:
    salt = run.salt
    subjects = [{"name": "job", "digest": _digest(run, run.job.source)}]
    if run.outcome.output is not None:
        subjects.append({"name": "output", "digest": _digest(run, run.outcome.output)})
    if run.snapshot_digest is not None:
        digest = digest_set(run.snapshot_digest, salt)
        subjects.append({"name": "heap-snapshot", "digest": digest})
    if run.captured is not None:
        subjects.append({"name": "capture", "digest": _digest(run, run.captured)})
    if run.outcome.program is not None:
        for name, stream in streams(run.outcome.program):
            subjects.append({"name": name, "digest": digest_set(stream.sha256, salt)})
    if run.collected is not None:
        for file in run.collected.files:
            name = f"results/{_name(file.path)}"
            subjects.append({"name": name, "digest": digest_set(file.sha256, salt)})
    return subjects


def _name(path: bytes) -> str:
    """Write a file's name, which may be any bytes, as text that tells any two apart."""
    text = path.decode("utf-8", "surrogateescape").replace("\\", "\\\\")
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def streams(answer: ProgramAnswer) -> tuple[tuple[str, Stream], ...]:
    """Give a program's two output streams by name."""
    return ("stdout", answer.stdout), ("stderr", answer.stderr)


def _predicate(run: Run) -> dict[str, Any]:
    return {
        "runId": run.run_id,
        "tenant": run.tenant,
        "beddel": {"name": "beddel-cli", "version": run.version},
        "startedAt": run.started_at,
        "finishedAt": run.finished_at,
        "job": {
            "id": run.job.id,
            "version": run.job.version,
            "digest": _digest(run, run.job.source),
        },
        "profile": {
            "name": run.profile.name,
            "digest": {"sha256": run.profile.digest},
            "builtIn": run.profile.built_in,
            "looserThanBuiltIn": list(run.looser_than_built_in),
        },
        "plan": None if run.plan is None else policy_json(run.plan),
        "planDigest": None if run.plan is None else {"sha256": run.plan.digest},
        "limitOrigins": {}
        if run.plan is None
        else {camel_case(field): origin for field, origin in run.plan.origins},
        "asked": _asked(run),
        "replayOf": None if run.replay_of is None else {"sha256": run.replay_of},
        "runtime": _runtime(run),
        "controls": _controls(run),
        "outcome": _outcome(run),
        "determinism": _determinism(run),
        "usage": _usage(run),
        "output": _output(run),
        "console": None if run.job.runtime == "process" else _console(run),
        "streams": _streams(run),
        "files": _files(run),
        **_not_written(run),
        "heapSnapshot": None
        if run.snapshot_digest is None
        else {"digest": digest_set(run.snapshot_digest, run.salt), "bytes": run.snapshot_bytes},
        "capture": None
        if run.captured is None
        else {"digest": _digest(run, run.captured), "bytes": len(run.captured)},
        "salt": None if run.salt is None else {"method": SALTING, "digest": sha256(run.salt)},
        "resolvedDependencies": _dependencies(run),
        "environmentNames": sorted(name for name, _ in run.job.environment),
        "host": {
            "system": run.host.system,
            "machine": run.host.machine,
            "kernel": run.host.kernel,
        },
        "key": {"id": run.key_id, "origin": run.key_origin},
        "log": {"origin": run.log_origin, "index": run.log_index},
    }


def _asked(run: Run) -> dict[str, Any]:
    """Give what the command line asked for, of which a refusal's receipt has no plan to tell."""
    limits = as_json(run.wishes.limits, use_of(run.job.runtime))
    return {
        "limits": {camel_case(name): value for name, value in limits.items() if value is not None},
        "tier": run.wishes.tier,
    }


def _runtime(run: Run) -> dict[str, Any]:
    guest = run.guest
    if guest is None:
        return {"name": run.job.runtime, "program": _program(run), "sandbox": _sandbox(run)}
    return {
        "name": run.job.runtime,
        "guest": {
            "name": guest.name,
            "version": guest.version,
            "digest": {"sha256": guest.wasm_digest},
        },
        "engine": {"name": guest.engine, "version": guest.engine_version},
        "settingsDigest": {"sha256": guest.settings_digest},
        "nativeCode": {
            "source": guest.code_source,
            "builtDigest": None if guest.code_digest is None else {"sha256": guest.code_digest},
        },
    }


def _program(run: Run) -> dict[str, Any]:
    command = run.job.command
    return {
        "name": command[0],
        "arguments": len(command) - 1,
        "commandDigest": _digest(run, canonical_json(list(command))),
    }


def _sandbox(run: Run) -> dict[str, Any] | None:
    held = run.sandbox
    if held is None:
        return None
    return {
        "rung": held.rung,
        "identity": held.identity,
        "proc": held.proc,
        "cgroup": held.cgroup,
    }


def _controls(run: Run) -> list[dict[str, Any]]:
    grants = run.profile.grants(use_of(run.job.runtime))
    insisted = insisted_on(frozenset() if grants is None else grants.required, run.host)
    return [
        {
            "name": item.name,
            "requested": "required" if item.name in insisted else "applied",
            "enforced": item.present,
            "enforcedBy": item.enforced_by if item.present else None,
            "verified": item.verified if item.present else None,
            "found": item.found,
        }
        for item in run.host.findings
    ]


def _outcome(run: Run) -> dict[str, Any]:
    outcome = run.outcome
    refusal = run.refusal
    return {
        "status": outcome.status,
        "reason": outcome.reason,
        "exitCode": outcome.exit_code,
        "limit": outcome.limit,
        "endedBy": outcome.ended_by,
        "signal": outcome.signal,
        "programExitCode": None if outcome.program is None else outcome.program.exit_code,
        "reached": [] if outcome.program is None else list(outcome.program.reached),
        "refusal": None
        if refusal is None
        else {"needs": refusal.needs, "found": refusal.found, "fix": refusal.fix},
    }


def _determinism(run: Run) -> dict[str, Any] | None:
    if run.plan is None or run.clock_us is None:
        return None
    return {
        "clock": "recorded" if run.recorded_start else run.plan.clock,
        "clockStartUs": run.clock_us,
        "clockStepUs": 1,
        # Of a frozen run it follows from the code, and would tell a guess at it from another.
        "seed": None if run.salt is not None and run.plan.clock == "frozen" else str(run.seed),
    }


def _figure(value: int | None, source: str, unit: str) -> dict[str, Any] | None:
    return None if value is None else {unit: value, "source": source}


def _usage(run: Run) -> dict[str, Any]:
    usage, answer = run.outcome.usage, run.outcome.program
    tree = None if answer is None else answer.usage
    return {
        "total": _figure(run.wall_ns, "supervisor monotonic clock", "ns"),
        "supervisorCpu": _figure(run.cpu_ns, "kernel, supervisor's own", "ns"),
        "wall": _figure(usage.wall_ns, "supervisor monotonic clock", "ns"),
        **(_isolate_usage(run) if run.job.runtime != "process" else _tree_usage(usage, tree)),
    }


_TREE = ("cpu", "memoryPeak", "anonymousPeak", "largestProcess", "processesPeak")


def _tree_usage(usage: Usage, tree: TreeUsage | None) -> dict[str, Any]:
    """Give the figures of a program's whole tree, each with its source."""
    setup = _figure(usage.setup_ns, "init", "ns")
    if tree is None:
        return {"wallsSetup": setup, **dict.fromkeys((*_TREE, "disk", "inodes"))}
    anonymous = _figure(tree.anonymous_peak_bytes, tree.anonymous_peak_source, "bytes")
    cpu = _figure(tree.cpu_ns, tree.cpu_source, "ns")
    return {
        "wallsSetup": setup,
        "cpu": None if cpu is None else {**cpu, "exact": tree.cpu_exact},
        "memoryPeak": _figure(tree.memory_peak_bytes, tree.memory_peak_source, "bytes"),
        "anonymousPeak": None if anonymous is None else {**anonymous, "samples": tree.samples},
        "largestProcess": _figure(tree.largest_process_bytes, tree.largest_process_source, "bytes"),
        "processesPeak": _figure(tree.processes_peak, tree.processes_peak_source, "count"),
        "disk": _figure(tree.disk_bytes, tree.disk_source, "bytes"),
        "inodes": _figure(tree.inodes, tree.disk_source, "count"),
    }


def _isolate_usage(run: Run) -> dict[str, Any]:
    usage = run.outcome.usage
    return {
        "workerSetup": _figure(usage.setup_ns, "worker", "ns"),
        "workerCpu": _figure(usage.worker_cpu_ns, "kernel, wait4", "ns"),
        "instantiate": _figure(usage.instantiate_ns, "worker", "ns"),
        "guestWall": _figure(usage.guest_wall_ns, "worker", "ns"),
        "guestCpu": _figure(usage.guest_cpu_ns, "worker", "ns"),
        "fuel": _figure(usage.fuel, "worker", "units"),
        "linearMemoryPeak": _figure(usage.memory_bytes, "worker", "bytes"),
        "workerAnonymousPeak": None
        if usage.worker_anonymous_bytes is None
        else {
            "bytes": usage.worker_anonymous_bytes,
            "samples": usage.worker_samples,
            "source": "kernel, smaps_rollup Pss_Anon, largest sample",
        },
        "memoryDigest": None
        if usage.memory_digest is None
        else {
            **digest_set(usage.memory_digest, run.salt),
            "method": "sha256 over sha256 of each 4096-byte page of linear memory",
            "source": "worker",
        },
    }


def _output(run: Run) -> dict[str, Any] | None:
    output = run.outcome.output
    return None if output is None else {"digest": _digest(run, output), "bytes": len(output)}


def _streams(run: Run) -> dict[str, Any] | None:
    answer = run.outcome.program
    if answer is None:
        return None
    return {
        name: {
            "digest": digest_set(stream.sha256, run.salt),
            "bytes": stream.passed_bytes,
            "writtenBytes": stream.total_bytes,
        }
        for name, stream in streams(answer)
    }


def _files(run: Run) -> list[dict[str, Any]]:
    if run.collected is None:
        return []
    return [
        {
            "path": _name(file.path),
            "digest": digest_set(file.sha256, run.salt),
            "bytes": file.size,
        }
        for file in run.collected.files
    ]


def _not_written(run: Run) -> dict[str, Any]:
    """Give what failed to be written and why, in a receipt of a run where something did."""
    if run.not_written is None:
        return {}
    skipped = () if run.collected is None else run.collected.skipped
    files = [{"path": _name(each.path), "why": each.reason} for each in skipped]
    return {"notWritten": {"why": run.not_written, "files": files}}


def _console(run: Run) -> dict[str, Any]:
    text = console_text(run.outcome)
    return {
        "digest": _digest(run, text),
        "bytes": len(text),
        "entries": len(run.outcome.console),
        "droppedBytes": run.outcome.console_dropped_bytes,
    }


def _dependencies(run: Run) -> list[dict[str, Any]]:
    return [
        *_code(run),
        *_input(run),
        {"name": "profile", "digest": {"sha256": run.profile.digest}},
        *_tools(run),
    ]


def _input(run: Run) -> list[dict[str, Any]]:
    """Describe the input, and whether the command line had a part in it."""
    if run.input is None:
        return []
    given: dict[str, Any] = {"name": "input", "digest": _digest(run, run.input)}
    if run.input_given:
        given["annotations"] = {"from": "command line"}
    return [given]


def _tools(run: Run) -> list[dict[str, Any]]:
    """Describe what ran the code, or which files a program was shown."""
    if run.guest is not None:
        return [{"name": "guest", "digest": {"sha256": run.guest.wasm_digest}}]
    return [
        {"name": f"mount:{item.target}", "digest": digest_set(item.digest, run.salt)}
        for item in run.shown
        if item.digest is not None
    ]


def _code(run: Run) -> list[dict[str, Any]]:
    """Describe the code, and the file a job names it by; a file that was refused was not read."""
    if run.guest is None or (run.refusal is not None and run.refusal.reason == "files"):
        return []
    code: dict[str, Any] = {"name": "code", "digest": _digest(run, run.job.code)}
    if run.job.code_file is not None:
        code["annotations"] = {"file": run.job.code_file}
    return [code]


def _with_large_integers_as_text(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_large_integers_as_text(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_large_integers_as_text(item) for item in value]
    if type(value) is int and abs(value) > MAX_SAFE_INTEGER:
        return str(value)
    return value
