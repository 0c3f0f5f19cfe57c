"""One run, from its first effect to its last. This page is the order; every step is elsewhere.

fork what will hold the job → read the job → read the profile → get the keys → log the start →
hear from the fork and look at it from outside → plan or refuse → run → judge → sign → log the end
→ write. What is forked and how it is run is the runtime's: `javascript_run` or `program_run`.
"""

from __future__ import annotations

import os
import sys
from time import gmtime, monotonic_ns, process_time_ns, strftime, time_ns

from beddel_cli import __version__
from beddel_cli.asked_job import check_outputs, load_asked_job
from beddel_cli.errors import LedgerError, ReceiptWriteError, RefusedError
from beddel_cli.execution import PROOF_SUFFIX, Terminated
from beddel_cli.record import changed, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from sys import UnraisableHookArgs
    from types import FrameType

    from beddel_cli.execution import Asked, Execution, Runtime
    from beddel_cli.host import Host
    from beddel_cli.job import Job
    from beddel_cli.log.run_log import RunLog
    from beddel_cli.outcome import Outcome
    from beddel_cli.plan import Plan
    from beddel_cli.process.collect import Collection
    from beddel_cli.profile import Profile
    from beddel_cli.profile_comparison import Beyond
    from beddel_cli.receipt import Run
    from beddel_cli.trust.dsse import Signature
    from beddel_cli.trust.keys import SigningKey


@record
class Finished:
    """A run that has ended and has its receipt.

    Attributes:
        statement: the signed bytes.
        receipt_path, bundle_path, predicate_path: where they were written.
        proof_path: where the proof is that the run's end is in the log.
        log_index: of the run's start in its tenant's log.
        collected: what a program left, where it was asked for; `results_path` is where it went.
        wall_ns, cpu_ns: of the whole run until signing, all processes for the CPU.
    """

    run_id: str
    tenant: str
    job: Job
    profile: Profile
    host: Host
    plan: Plan | None
    refusal: RefusedError | None
    outcome: Outcome
    key: SigningKey
    public_key_path: str | None
    statement: bytes
    receipt_path: str
    bundle_path: str | None
    predicate_path: str | None
    proof_path: str
    log_index: int
    captured_path: str | None
    snapshot_path: str | None
    collected: Collection | None
    results_path: str | None
    wall_ns: int
    cpu_ns: int
    warnings: tuple[str, ...]


def run_job(asked: Asked, *, started_ns: int) -> Finished:
    """Run one job to its end and give its signed, written receipt.

    Args:
        started_ns: monotonic time at which the command started.

    Raises:
        BeddelError: no run came about, or its receipt could not be written.
        KeyboardInterrupt, Terminated: ended before the job was started; nothing ran.
    """
    started = (started_ns, process_time_ns(), time_ns())
    # Before anything else: what is forked now inherits neither key nor job.
    runtime = start_runtime("process" if asked.command else "javascript")
    try:
        _listen_to_signals()
        job, refusal = load_asked_job(asked)
        if job.runtime != runtime.name:
            runtime.finish()
            runtime = start_runtime(job.runtime)
        if asked.repeats is not None:
            asked.repeats.check_sources(job, refused=refusal is not None)
        return _run_in(runtime, job, refusal, asked, started)
    finally:
        runtime.finish()


def start_runtime(name: str) -> Runtime:
    """Fork what will hold a job of this runtime.

    Raises:
        GuestError: it could not be started.
    """
    if name == "process":
        from beddel_cli.program_run import ProgramRun

        return ProgramRun()
    from beddel_cli.javascript_run import JavascriptRun

    return JavascriptRun()


def _listen_to_signals() -> None:
    # The built-in module underneath `signal`, which itself imports `enum`: 3 ms.
    from _signal import (  # type: ignore[import-not-found]
        SIG_IGN,
        SIGHUP,
        SIGINT,
        SIGTERM,
        getsignal,
        signal,
    )

    sys.unraisablehook = _heed_later
    # Where a signal is ignored already (nohup, `&` of a shell), it stays so.
    for number in (SIGINT, SIGTERM, SIGHUP):
        if getsignal(number) != SIG_IGN:
            signal(number, _stop)


_stopped: list[int] = []


def _stop(number: int, frame: FrameType | None) -> None:
    """Stop once: a second signal must not cost the receipt of what the first one ended."""
    from _signal import SIGINT

    if _stopped:
        return
    _stopped.append(number)
    raise KeyboardInterrupt if number == SIGINT else Terminated


def _heed_later(unraisable: UnraisableHookArgs) -> None:
    """Keep quiet about a stop raised where Python cannot pass it on; `_heed_lost_stop` asks."""
    if not isinstance(unraisable.exc_value, KeyboardInterrupt | Terminated):
        sys.__unraisablehook__(unraisable)


def _heed_lost_stop() -> None:
    """Stop now if a signal was told to a callback of the interpreter, which could not stop."""
    from _signal import SIGINT

    if _stopped:
        raise KeyboardInterrupt if _stopped[0] == SIGINT else Terminated


def _run_in(
    runtime: Runtime,
    job: Job,
    refusal: RefusedError | None,
    asked: Asked,
    started: tuple[int, int, int],
) -> Finished:
    check_outputs(asked, job)
    salt = _salt(asked)
    from beddel_cli.dumpable import not_dumpable
    from beddel_cli.profile import load_profile

    profile = load_profile(asked.profile)
    beyond = beyond_built_in(profile)
    not_dumpable()  # the keys are about to be in this memory
    home, key, log = _open_keys_and_log(asked, started[2])
    try:
        # While the fork is still being confined; nothing of the job runs before this is on disk.
        log.start(_now, job, profile, key.key_id, salt)
        ending = _plan_and_run(runtime, asked, job, profile, refusal)
        ending = changed(ending, beyond=beyond, salt=salt)
        runtime.finish()
        return _sign_and_write(asked, ending, key, home, log, started)
    except BaseException as error:
        log.abandon(_now, error)
        raise
    finally:
        log.close()


def _salt(asked: Asked) -> bytes | None:
    """Give the salt of the receipt's digests, safe on disk before the job starts; None for none."""
    if asked.repeats is not None:
        return asked.repeats.salt
    if asked.salt is None:
        return None
    from beddel_cli.home import write_new
    from beddel_cli.salted_digest import SALT_BYTES

    salt = os.urandom(SALT_BYTES)
    write_new(asked.salt, salt, 0o600)
    return salt


def _ignore_signals() -> None:
    """From here on the ending is known, and a signal must not cost its receipt."""
    from _signal import SIG_IGN, SIGHUP, SIGINT, SIGTERM, signal

    _stopped.append(0)
    for number in (SIGINT, SIGTERM, SIGHUP):
        signal(number, SIG_IGN)


@record
class _Ending:
    """All that is known when a run has ended; `execution` is None when the job never ran."""

    job: Job
    profile: Profile
    runtime: Runtime
    host: Host
    outcome: Outcome
    plan: Plan | None = None
    refusal: RefusedError | None = None
    execution: Execution | None = None
    beyond: tuple[Beyond, ...] = ()
    salt: bytes | None = None


def beyond_built_in(profile: Profile) -> tuple[Beyond, ...]:
    """Say in what a profile is looser than every built-in one, without a look if it is one."""
    if profile.built_in:
        return ()
    from beddel_cli.profile import load_built_in_profiles
    from beddel_cli.profile_comparison import beyond_all

    return beyond_all(profile, load_built_in_profiles())


def _open_keys_and_log(asked: Asked, started_at: int) -> tuple[str, SigningKey, RunLog]:
    """Give the home, the key that signs the receipt, and the log under a new run's id."""
    from beddel_cli.home import locate
    from beddel_cli.log.run_log import open_run_log
    from beddel_cli.trust.key_environment import read_secrets
    from beddel_cli.trust.keys import Passphrases, load_log_key, load_signing_key

    secrets = read_secrets(os.environ)
    passphrases = Passphrases(secrets.passphrase, asked.prompt)
    home = locate(os.environ).home
    key = load_signing_key(
        home,
        file=asked.signing_key,
        environment_pem=secrets.pem,
        passphrases=passphrases,
        require_key=asked.require_key,
    )
    log_key = load_log_key(home, passphrases, encrypted=key.origin in ("home", "generated"))
    run_id = f"{started_at // 1_000_000:012x}{os.urandom(10).hex()}"
    return home, key, open_run_log(home, asked.tenant, log_key, run_id)


def _plan_and_run(
    runtime: Runtime, asked: Asked, job: Job, profile: Profile, refusal: RefusedError | None
) -> _Ending:
    from beddel_cli.host import unknown_host
    from beddel_cli.plan import (
        Wishes,
        check_granted,
        effective_limits,
        make_plan,
        permitted_rungs,
    )

    repeats = asked.repeats
    wishes = Wishes(asked.limits, asked.tier) if repeats is None else repeats.wishes(asked.limits)
    host = unknown_host()
    try:
        check_granted(job, profile)
        limits = effective_limits(job, profile, wishes)
        host = runtime.look(job, limits, asked, permitted_rungs(profile))
        if refusal is not None:
            raise refusal
        plan = make_plan(job, profile, host, wishes)
        if repeats is not None:
            repeats.check_plan(plan, runtime.shown(), runtime.describe())
    except RefusedError as error:
        _ignore_signals()
        from beddel_cli.outcome import refused

        outcome = refused(error)
        return _Ending(job, profile, runtime, host, outcome, refusal=error)
    execution = None
    try:
        _heed_lost_stop()
        execution = runtime.execute(job, plan, asked)
        outcome = execution.outcome
        _ignore_signals()
    except KeyboardInterrupt:
        _ignore_signals()
        outcome = _interrupted("interrupted")
    except Terminated:
        _ignore_signals()
        outcome = _interrupted("terminated")
    return _Ending(job, profile, runtime, host, outcome, plan=plan, execution=execution)


def _interrupted(reason: str) -> Outcome:
    from beddel_cli.outcome import interrupted

    return interrupted(reason)


def _sign_and_write(
    asked: Asked,
    ending: _Ending,
    key: SigningKey,
    home: str,
    log: RunLog,
    started: tuple[int, int, int],
) -> Finished:
    """Sign what is known, log it and write it out.

    Args:
        started: monotonic, CPU and calendar time in ns.

    Raises:
        LedgerError: the end is not in the log. The receipt is written, without a proof.
        ReceiptWriteError: something could not be written.
    """
    from beddel_cli.home import remove_stale, write_whole
    from beddel_cli.receipt import make_statement
    from beddel_cli.trust.dsse import PAYLOAD_TYPE, Signature, make_envelope, pae

    run = _describe(asked, ending, key, log, started)
    statement = make_statement(run)
    snapshot = None if ending.execution is None else ending.execution.snapshot
    signature = Signature(key.key_id, key.sign(pae(PAYLOAD_TYPE, statement)))
    receipt_path = asked.receipt or _receipt_path(home, run.run_id)
    proof_path = receipt_path + PROOF_SUFFIX
    proof = _log_end(log, statement, ending.outcome, key, receipt_path)
    write_whole(receipt_path, make_envelope(statement, [signature]), 0o600)
    if isinstance(proof, LedgerError):
        remove_stale(proof_path)
        raise proof
    # `audit show --proof` makes it again from the log, which is on disk.
    write_whole(proof_path, proof, 0o600, synced=False)
    captured_path = _write_capture(run, receipt_path)
    _write_further(asked, run, statement, signature, snapshot)
    if ending.execution is not None and ending.execution.problem is not None:
        raise _with_receipt(ending.execution.problem, ending.outcome, receipt_path)
    return Finished(
        run_id=run.run_id,
        tenant=asked.tenant,
        job=ending.job,
        profile=ending.profile,
        host=ending.host,
        plan=ending.plan,
        refusal=ending.refusal,
        outcome=ending.outcome,
        key=key,
        public_key_path=_public_key_path(home, key),
        statement=statement,
        receipt_path=receipt_path,
        bundle_path=asked.bundle,
        predicate_path=asked.predicate,
        proof_path=proof_path,
        log_index=log.index,
        captured_path=captured_path,
        snapshot_path=asked.heap_snapshot if snapshot is not None else None,
        collected=None if ending.execution is None else ending.execution.collected,
        results_path=asked.results,
        wall_ns=run.wall_ns,
        cpu_ns=run.cpu_ns + _cpu_inside(ending.outcome),
        warnings=_warnings(ending),
    )


def _write_further(
    asked: Asked, run: Run, statement: bytes, signature: Signature, snapshot: bytes | None
) -> None:
    from beddel_cli.home import write_whole
    from beddel_cli.receipt import make_predicate
    from beddel_cli.trust.dsse import make_bundle

    if asked.bundle is not None:
        write_whole(asked.bundle, make_bundle(statement, signature), 0o600)
    if asked.predicate is not None:
        write_whole(asked.predicate, make_predicate(run), 0o600)
    # Last: the run has its receipt even where the copy of its memory finds no room.
    if snapshot is not None and asked.heap_snapshot is not None:
        write_whole(asked.heap_snapshot, snapshot, 0o600)


def _log_end(
    log: RunLog, statement: bytes, outcome: Outcome, key: SigningKey, receipt_path: str
) -> bytes | LedgerError:
    """Give the proof that the end is in the log, or what is to be said once there is a receipt.

    The job has run, and what is signed about it is true; losing that too would help nobody. Such a
    receipt has no proof, and the log has a start without an end.
    """
    try:
        return log.finish(_now, statement, outcome, key.key_id)
    except LedgerError as error:
        reason = f", {outcome.reason}" if outcome.reason else ""
        return LedgerError(
            f"the run ended ({outcome.status}{reason}) and its end could not be logged: "
            f"{error.message}; its receipt {receipt_path!r} has no proof",
            hint=error.hint,
            expected=error.expected,
            got=error.got,
        )


def _not_written(execution: Execution | None) -> str | None:
    """Say why not all could be written, without the names that this machine has for it."""
    if execution is None or execution.problem is None:
        return None
    cause = execution.problem.__cause__
    return os.strerror(cause.errno or 0) if isinstance(cause, OSError) else "it cannot be read"


def _with_receipt(
    problem: ReceiptWriteError, outcome: Outcome, receipt_path: str
) -> ReceiptWriteError:
    """Give what could not be written, and where it stands how far that came."""
    reason = f", {outcome.reason}" if outcome.reason else ""
    return ReceiptWriteError(
        f"the run ended ({outcome.status}{reason}) and not all that it left could be written: "
        f"{problem.message}; its receipt {receipt_path!r} says what was",
        hint=problem.hint,
    )


def _write_capture(run: Run, receipt_path: str) -> str | None:
    """Write what was captured beside the receipt; gives where, None where nothing was."""
    if run.captured is None:
        return None
    from beddel_cli.capture import capture_path
    from beddel_cli.home import write_whole

    path = capture_path(receipt_path)
    write_whole(path, run.captured, 0o600)
    return path


def _captured(asked: Asked, run_id: str, outcome: Outcome) -> bytes | None:
    if not asked.capture:
        return None
    from beddel_cli.capture import make_capture

    return make_capture(run_id, outcome)


def _describe(
    asked: Asked, ending: _Ending, key: SigningKey, log: RunLog, started: tuple[int, int, int]
) -> Run:
    """Put together all that the receipt tells."""
    from beddel_cli.job import given_input
    from beddel_cli.plan import Wishes
    from beddel_cli.receipt import Guest, Run, Sandbox, sha256

    started_ns, started_cpu_ns, started_at = started
    held, execution = ending.runtime.describe(), ending.execution
    snapshot = None if execution is None else execution.snapshot
    return Run(
        run_id=log.run_id,
        tenant=asked.tenant,
        version=__version__,
        started_at=_utc(started_at),
        finished_at=_now(),
        job=ending.job,
        input=given_input(ending.job) if execution is None else execution.input,
        profile=ending.profile,
        looser_than_built_in=tuple(item.name for item in ending.beyond),
        host=ending.host,
        guest=held if isinstance(held, Guest) else None,
        sandbox=held if isinstance(held, Sandbox) else None,
        shown=ending.runtime.shown(),
        collected=None if execution is None else execution.collected,
        not_written=_not_written(execution),
        plan=ending.plan,
        wishes=Wishes(asked.limits, asked.tier),
        input_given=asked.input is not None or bool(asked.settings),
        replay_of=None if asked.repeats is None else asked.repeats.of,
        recorded_start=asked.repeats is not None and asked.repeats.start is not None,
        refusal=ending.refusal,
        outcome=ending.outcome,
        clock_us=None if execution is None else execution.clock_us,
        seed=None if execution is None else execution.seed,
        captured=_captured(asked, log.run_id, ending.outcome),
        salt=ending.salt,
        snapshot_digest=None if snapshot is None else sha256(snapshot)["sha256"],
        snapshot_bytes=None if snapshot is None else len(snapshot),
        key_id=key.key_id,
        key_origin=key.origin,
        log_origin=log.origin,
        log_index=log.index,
        wall_ns=monotonic_ns() - started_ns,
        cpu_ns=process_time_ns() - started_cpu_ns,
    )


def _cpu_inside(outcome: Outcome) -> int:
    """Give the CPU time of everything on the other side of the walls, as far as it was measured."""
    if outcome.program is not None:
        return outcome.program.usage.cpu_ns or 0
    return outcome.usage.worker_cpu_ns or 0


def _receipt_path(home: str, run_id: str) -> str:
    from beddel_cli.home import open_folder

    with open_folder(home) as folder, folder.child("receipts") as receipts:
        return os.path.join(receipts.path, f"{run_id}.dsse.json")


def _public_key_path(home: str, key: SigningKey) -> str | None:
    from beddel_cli.trust.keys import PUBLIC_NAME

    at_home = key.origin in ("home", "generated")
    return os.path.join(home, "keys", PUBLIC_NAME) if at_home else None


def _warnings(ending: _Ending) -> tuple[str, ...]:
    warnings: list[str] = []
    if not ending.profile.built_in:
        from beddel_cli.profile_comparison import profile_warnings

        warnings.extend(profile_warnings(ending.profile, ending.beyond))
    warnings.extend(ending.runtime.warnings())
    warnings.extend(_clamped(ending))
    dropped = ending.outcome.console_dropped_bytes
    if dropped:
        warnings.append(f"the console was full: {dropped} bytes of it were dropped")
    warnings.extend(_left_behind(ending.execution))
    return tuple(warnings)


def _clamped(ending: _Ending) -> tuple[str, ...]:
    """Say where a tier would have been more than the profile grants."""
    if ending.plan is None or ending.plan.tier is None:
        return ()
    from beddel_cli.plan import clamped

    over = ", ".join(field.key for field in clamped(ending.plan.tier, ending.profile))
    name = ending.profile.name
    return (f"tier {ending.plan.tier} is cut to what {name} grants: {over}",) if over else ()


def _left_behind(execution: Execution | None) -> tuple[str, ...]:
    """Say what a program left that was not taken."""
    collected = None if execution is None else execution.collected
    if collected is None:
        return ()
    found = []
    if collected.skipped:
        first = collected.skipped[0]
        name = first.path.decode("utf-8", "backslashreplace")
        found.append(f"not taken: {_many(collected.skipped)}, first {name}: {first.reason}")
    if collected.deleted:
        found.append(f"deleted by it and still in the workspace: {_many(collected.deleted)}")
    return tuple(found)


def _many(things: Sequence[object]) -> str:
    return f"{len(things)} thing" + ("" if len(things) == 1 else "s")


def _now() -> str:
    return _utc(time_ns())


def _utc(time: int) -> str:
    seconds, rest = divmod(time, 1_000_000_000)
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(seconds)) + f".{rest // 1_000_000:03d}Z"
