"""One run, from its first effect to its last. This page is the order; every step is elsewhere.

fork the worker → read the job → read the profile → get the key → hear from the worker and look at
it from outside → plan or refuse → run → judge → sign → write.
"""

from __future__ import annotations

import os
from time import gmtime, monotonic_ns, process_time_ns, strftime, time_ns

from beddel_cli import __version__
from beddel_cli.errors import RefusedError, UsageError, bug
from beddel_cli.isolate.frames import CODE_SOURCES, Request
from beddel_cli.isolate.supervisor import Worker
from beddel_cli.record import changed, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from beddel_cli.host import Host
    from beddel_cli.isolate.frames import Ready
    from beddel_cli.job import Job
    from beddel_cli.keys import SigningKey
    from beddel_cli.limits import Limits
    from beddel_cli.outcome import Outcome
    from beddel_cli.plan import Plan
    from beddel_cli.profile import Profile
    from beddel_cli.profile_comparison import Beyond
    from beddel_cli.receipt import Guest, Run

# A frozen clock starts here, in microseconds since 1970: 2000-01-01T00:00:00Z.
FROZEN_CLOCK_US = 946_684_800_000_000


@record
class Asked:
    """What the command line asks for.

    Attributes:
        job: path of a job file, or `-`.
        snippet_runtime: set when `job` is a bare code file for that runtime (`exec`).
        prompt: asks a person for a passphrase; None where there is no terminal.
        allow_paths: folders beside the job's own in which it may name files.
    """

    job: str
    profile: str
    limits: Limits
    snippet_runtime: str | None = None
    input: str | None = None
    settings: tuple[str, ...] = ()
    receipt: str | None = None
    bundle: str | None = None
    predicate: str | None = None
    heap_snapshot: str | None = None
    signing_key: str | None = None
    prompt: Callable[[str], str] | None = None
    require_key: bool = False
    tenant: str = "default"
    allow_paths: tuple[str, ...] = ()


@record
class Finished:
    """A run that has ended and has its receipt.

    Attributes:
        statement: the signed bytes.
        receipt_path, bundle_path, predicate_path: where they were written.
        wall_ns, cpu_ns: of the whole run until signing, both processes for the CPU.
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
    snapshot_path: str | None
    wall_ns: int
    cpu_ns: int
    warnings: tuple[str, ...]


class Terminated(BaseException):
    """SIGTERM arrived. Not an Exception, as KeyboardInterrupt is none."""


def run_job(asked: Asked, *, started_ns: int) -> Finished:
    """Run one job to its end and give its signed, written receipt.

    Args:
        started_ns: monotonic time at which the command started.

    Raises:
        BeddelError: no run came about, or its receipt could not be written.
        KeyboardInterrupt, Terminated: ended before the job was sent; nothing ran.
    """
    started_cpu_ns = process_time_ns()
    worker = Worker.start()
    try:
        import signal

        from beddel_cli.isolate.confine import not_dumpable

        not_dumpable()  # the key is about to be in this memory

        # Where a signal is ignored already (nohup, `&` of a shell), it stays so.
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _stop)
        return _run_in(worker, asked, started_ns, started_cpu_ns)
    finally:
        worker.finish()


_stopped: list[int] = []


def _stop(number: int, frame: FrameType | None) -> None:
    """Stop once: a second signal must not cost the receipt of what the first one ended."""
    import signal

    if _stopped:
        return
    _stopped.append(number)
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated


def _run_in(worker: Worker, asked: Asked, started_ns: int, started_cpu_ns: int) -> Finished:
    started_at = time_ns()
    job, refusal = load_asked_job(asked)
    _check_outputs(asked, job)
    from beddel_cli.profile import load_profile

    profile = load_profile(asked.profile)
    beyond = beyond_built_in(profile)
    home, key = _load_key(asked)
    ready = worker.wait_ready()
    from beddel_cli.host import describe_host

    host = describe_host(ready, worker.observe())
    ending = _plan_and_run(worker, asked, job, profile, host, ready, refusal)
    ending = changed(ending, beyond=beyond)
    worker.finish()
    return _sign_and_write(asked, ending, key, home, (started_ns, started_cpu_ns, started_at))


def _ignore_signals() -> None:
    """From here on the ending is known, and a signal must not cost its receipt."""
    import signal

    _stopped.append(0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@record
class _Ending:
    """All that is known when a run has ended."""

    job: Job
    profile: Profile
    host: Host
    ready: Ready
    outcome: Outcome
    plan: Plan | None = None
    refusal: RefusedError | None = None
    request: Request | None = None
    snapshot: bytes | None = None
    beyond: tuple[Beyond, ...] = ()


def beyond_built_in(profile: Profile) -> tuple[Beyond, ...]:
    """Say in what a profile is looser than every built-in one, without a look if it is one."""
    if profile.built_in:
        return ()
    from beddel_cli.profile import load_built_in_profiles
    from beddel_cli.profile_comparison import beyond_all

    return beyond_all(profile, load_built_in_profiles())


def _check_outputs(asked: Asked, job: Job) -> None:
    """Refuse to write over what this run reads, or two files to one place.

    Raises:
        UsageError: an output is an input, a key, standard input's sign, or another output.
    """
    from beddel_cli.home import locate
    from beddel_cli.profile import is_path

    inputs = (
        ("the job", asked.job),
        ("the input", asked.input),
        ("the profile", asked.profile if is_path(asked.profile) else None),
        ("the signing key", asked.signing_key),
        ("the job's code", job.code_place.file if job.code_file else None),
    )
    keys_folder = os.path.realpath(os.path.join(locate(os.environ).home, "keys"))
    taken = {os.path.realpath(path): what for what, path in inputs if path and path != "-"}
    for flag, path in (
        ("--receipt", asked.receipt),
        ("--bundle", asked.bundle),
        ("--predicate", asked.predicate),
        ("--heap-snapshot", asked.heap_snapshot),
    ):
        if path is None:
            continue
        if path == "-":
            raise UsageError(f"{flag} needs the name of a file", got="-")
        real = os.path.realpath(path)
        if os.path.dirname(real) == keys_folder:
            raise UsageError(f"{flag} {path!r} would write among the keys")
        if real in taken:
            raise UsageError(f"{flag} {path!r} would write over {taken[real]}")
        taken[real] = f"what {flag} writes"


def load_asked_job(asked: Asked) -> tuple[Job, RefusedError | None]:
    """Read the job, with the input and settings that the command line gives it.

    With a refusal, a file that the job names is not for it, and its code is not there.

    Raises:
        BeddelError: one of the files is missing or not valid.
    """
    from beddel_cli.job import read_job, snippet_job, with_input, with_setting

    if asked.job == "-" and asked.input == "-":
        raise UsageError(
            "the job and its input cannot both come from standard input",
            hint="give one of them as a file",
        )
    refusal = None
    if asked.snippet_runtime is None:
        job, refusal = read_job(asked.job, asked.allow_paths)
    else:
        from beddel_cli.files import open_reach, read_file, read_stdin

        # Bare code names no files; a folder that is none is a mistake all the same.
        with open_reach(None, asked.allow_paths):
            pass
        if asked.job == "-":
            job = snippet_job(read_stdin("code"), "<stdin>", asked.snippet_runtime)
        else:
            job = snippet_job(read_file(asked.job, "code file"), asked.job, asked.snippet_runtime)
    if asked.input is not None:
        job = with_input(job, _read_input(asked.input), asked.input)
    for setting in asked.settings:
        job = with_setting(job, setting)
    return job, refusal


def _read_input(path: str) -> object:
    from beddel_cli.files import read_file, read_stdin

    data = read_stdin("input") if path == "-" else read_file(path, "input")
    if path.endswith((".yaml", ".yml")):
        from beddel_cli.yaml_safe import parse_yaml

        return parse_yaml(data, path).value
    from beddel_cli.json_strict import parse_json

    return parse_json(data, "<stdin>" if path == "-" else path)


def _load_key(asked: Asked) -> tuple[str, SigningKey]:
    from beddel_cli.home import locate
    from beddel_cli.key_environment import read_secrets
    from beddel_cli.keys import load_signing_key

    secrets = read_secrets(os.environ)
    home = locate(os.environ).home
    key = load_signing_key(
        home,
        file=asked.signing_key,
        environment_pem=secrets.pem,
        passphrase=secrets.passphrase,
        prompt=asked.prompt,
        require_key=asked.require_key,
    )
    return home, key


def _plan_and_run(
    worker: Worker,
    asked: Asked,
    job: Job,
    profile: Profile,
    host: Host,
    ready: Ready,
    refusal: RefusedError | None,
) -> _Ending:
    from beddel_cli import outcome as outcomes
    from beddel_cli.plan import make_plan

    try:
        if refusal is not None:
            raise refusal
        plan = make_plan(job, profile, host, asked.limits)
    except RefusedError as error:
        _ignore_signals()
        return _Ending(job, profile, host, ready, outcomes.refused(error), refusal=error)
    request = _request(job, plan, asked)
    snapshot = None
    try:
        answer = worker.run(request)
        snapshot = answer.snapshot
        outcome = outcomes.judge(job, plan, ready, answer)
        _ignore_signals()
    except KeyboardInterrupt:
        _ignore_signals()
        outcome = outcomes.interrupted("interrupted")
    except Terminated:
        _ignore_signals()
        outcome = outcomes.interrupted("terminated")
    return _Ending(
        job, profile, host, ready, outcome, plan=plan, request=request, snapshot=snapshot
    )


def _request(job: Job, plan: Plan, asked: Asked) -> Request:
    from beddel_cli.job import input_bytes
    from beddel_cli.receipt import sha256

    frozen = plan.clock == "frozen"
    seed = bytes.fromhex(sha256(job.code)["sha256"]) if frozen else os.urandom(8)
    limits = plan.limits
    numbers = (limits.wall_ns, limits.fuel, limits.memory_bytes)
    caps = (limits.output_bytes, limits.console_bytes)
    wall_ns, fuel, memory_bytes = (_set(number) for number in numbers)
    output_bytes, console_bytes = (_set(number) for number in caps)
    return Request(
        wall_ns=wall_ns,
        fuel=fuel,
        memory_bytes=memory_bytes,
        clock_us=FROZEN_CLOCK_US if frozen else time_ns() // 1000,
        seed=int.from_bytes(seed[:8], "big"),
        output_bytes=output_bytes,
        console_bytes=console_bytes,
        allow_function=plan.allow_function,
        want_snapshot=asked.heap_snapshot is not None,
        code=job.code,
        input=input_bytes(job),
    )


def _set(limit: int | None) -> int:
    if limit is None:
        raise bug("a plan without one of its limits")
    return limit


def _sign_and_write(
    asked: Asked,
    ending: _Ending,
    key: SigningKey,
    home: str,
    started: tuple[int, int, int],
) -> Finished:
    """Sign what is known and write it out; `started`: monotonic, CPU and calendar time in ns."""
    from beddel_cli.dsse import PAYLOAD_TYPE, Signature, make_bundle, make_envelope, pae
    from beddel_cli.home import write_whole
    from beddel_cli.receipt import make_predicate, make_statement

    run = _describe(asked, ending, key, started)
    statement = make_statement(run)
    snapshot = ending.snapshot
    signature = Signature(key.key_id, key.sign(pae(PAYLOAD_TYPE, statement)))
    receipt_path = asked.receipt or _receipt_path(home, run.run_id)
    write_whole(receipt_path, make_envelope(statement, [signature]), 0o600)
    if asked.bundle is not None:
        write_whole(asked.bundle, make_bundle(statement, signature), 0o600)
    if asked.predicate is not None:
        write_whole(asked.predicate, make_predicate(run), 0o600)
    # Last: the run has its receipt even where the copy of its memory finds no room.
    if snapshot is not None and asked.heap_snapshot is not None:
        write_whole(asked.heap_snapshot, snapshot, 0o600)
    worker_cpu_ns = ending.outcome.usage.worker_cpu_ns or 0
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
        snapshot_path=asked.heap_snapshot if snapshot is not None else None,
        wall_ns=run.wall_ns,
        cpu_ns=run.cpu_ns + worker_cpu_ns,
        warnings=_warnings(ending),
    )


def _describe(asked: Asked, ending: _Ending, key: SigningKey, started: tuple[int, int, int]) -> Run:
    """Put together all that the receipt tells."""
    from beddel_cli.job import input_bytes
    from beddel_cli.receipt import Run, sha256

    started_ns, started_cpu_ns, started_at = started
    request, snapshot = ending.request, ending.snapshot
    return Run(
        run_id=f"{started_at // 1_000_000:012x}{os.urandom(10).hex()}",
        tenant=asked.tenant,
        version=__version__,
        started_at=_utc(started_at),
        finished_at=_utc(time_ns()),
        job=ending.job,
        input=request.input if request else input_bytes(ending.job),
        profile=ending.profile,
        looser_than_built_in=tuple(item.name for item in ending.beyond),
        host=ending.host,
        guest=_guest(ending.ready),
        plan=ending.plan,
        refusal=ending.refusal,
        outcome=ending.outcome,
        clock_us=request.clock_us if request else None,
        seed=request.seed if request else None,
        snapshot_digest=None if snapshot is None else sha256(snapshot)["sha256"],
        snapshot_bytes=None if snapshot is None else len(snapshot),
        key_id=key.key_id,
        key_origin=key.origin,
        wall_ns=monotonic_ns() - started_ns,
        cpu_ns=process_time_ns() - started_cpu_ns,
    )


def _receipt_path(home: str, run_id: str) -> str:
    from beddel_cli.home import open_folder

    with open_folder(home) as folder, folder.child("receipts") as receipts:
        return os.path.join(receipts.path, f"{run_id}.dsse.json")


def _public_key_path(home: str, key: SigningKey) -> str | None:
    from beddel_cli.keys import PUBLIC_NAME

    at_home = key.origin in ("home", "generated")
    return os.path.join(home, "keys", PUBLIC_NAME) if at_home else None


def _guest(ready: Ready) -> Guest:
    from beddel_cli.guests import javascript_facts
    from beddel_cli.isolate.engine_settings import library_folder, library_version, settings_text
    from beddel_cli.receipt import Guest, sha256

    facts = javascript_facts()
    source = CODE_SOURCES[ready.code_source]
    return Guest(
        name="quickjs-ng",
        version=facts["quickjs_ng"],
        wasm_digest=facts["wasm_sha256"],
        code_digest=facts.get("cwasm_sha256") if source == "packaged" else None,
        code_source=source,
        engine="wasmtime",
        engine_version=library_version(library_folder()),
        settings_digest=sha256(settings_text().encode())["sha256"],
    )


def _warnings(ending: _Ending) -> tuple[str, ...]:
    warnings: list[str] = []
    if not ending.profile.built_in:
        from beddel_cli.profile_comparison import profile_warnings

        warnings.extend(profile_warnings(ending.profile, ending.beyond))
    if CODE_SOURCES[ending.ready.code_source] == "compiled":
        warnings.append("the guest was compiled anew for this engine; the next run is faster")
    dropped = ending.outcome.console_dropped_bytes
    if dropped:
        warnings.append(f"the console was full: {dropped} bytes of it were dropped")
    return tuple(warnings)


def _utc(time: int) -> str:
    seconds, rest = divmod(time, 1_000_000_000)
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(seconds)) + f".{rest // 1_000_000:03d}Z"
