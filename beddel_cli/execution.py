"""What a run is given and what comes out of its walls, whatever the runtime.

Each runtime has one class of the same form, chosen by name in `run`:

    made                        fork, before there is a key or a job in this process
    look(job, limits, …)        hear from the child, look at it from outside: a Host
    execute(job, plan)          run the job to its ending: an Execution
    finish()                    end everything that is left, whatever happened
"""

from __future__ import annotations

from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from beddel_cli.errors import ReceiptWriteError
    from beddel_cli.host import Host
    from beddel_cli.job import Job
    from beddel_cli.limits import Limits
    from beddel_cli.outcome import Outcome
    from beddel_cli.plan import Plan
    from beddel_cli.process.collect import Collection
    from beddel_cli.receipt import Guest, Sandbox, Shown
    from beddel_cli.repetition import Repetition

    class Runtime(Protocol):
        """One runtime, for one run."""

        name: str

        def look(self, job: Job, limits: Limits, asked: Asked, rungs: tuple[str, ...]) -> Host:
            """Say what holds the job here, before anything of it has run.

            Args:
                rungs: how the plan would let a program be kept apart.

            Raises:
                RefusedError: something it asks for may not be shown to it.
                GuestError: the child did not start.
            """

        def execute(self, job: Job, plan: Plan, asked: Asked) -> Execution:
            """Run the job to its ending.

            Raises:
                KeyboardInterrupt, Terminated: the caller ended it.
            """

        def describe(self) -> Guest | Sandbox | None:
            """Give what ran the job, for the receipt; None where it did not get that far."""

        def shown(self) -> tuple[Shown, ...]:
            """Give what of the host the job could see, for the receipt."""

        def warnings(self) -> tuple[str, ...]:
            """Give what a person should know of this runtime's start."""

        def finish(self) -> None:
            """End and reap every process of it."""


PROOF_SUFFIX = ".tlog-proof"


@record
class Asked:
    """What the command line asks for.

    Attributes:
        job: path of a job file, or `-`; for `exec` of a program, what to call it.
        snippet_runtime: set when `job` is a bare code file for that runtime (`exec`).
        command: the program and its arguments, for `exec` of a program.
        prompt: asks a person for a passphrase; None where there is no terminal.
        allow_paths: folders beside the job's own in which it may name files.
        keep_output: hold a program's output for the JSON document instead of passing it on.
        escape_stdout, escape_stderr: make what a program writes harmless to a terminal.
        step_log: the same for the log of a GitHub Actions step, where a stream is no file.
        capture: keep what the job writes in a file beside the receipt.
        salt: a new file for the salt of the receipt's digests; None for plain ones.
        repeats: what this run is held to, where it repeats the one of a receipt (`replay`).
    """

    job: str
    profile: str
    limits: Limits
    snippet_runtime: str | None = None
    command: tuple[str, ...] = ()
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
    tier: str | None = None
    workspace: str | None = None
    mounts: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    results: str | None = None
    write_back: bool = False
    terminal: bool = False
    keep_output: bool = False
    escape_stdout: bool = False
    escape_stderr: bool = False
    step_log: bool = False
    capture: bool = False
    salt: str | None = None
    repeats: Repetition | None = None

    @property
    def proof(self) -> str | None:
        """The path of the receipt's proof; None where the home has both."""
        return None if self.receipt is None else self.receipt + PROOF_SUFFIX


@record
class Execution:
    """A job that has run.

    Attributes:
        input: the bytes it was handed; None for a program that had none, or the caller's own stdin.
        clock_us, seed: what an isolate was started with.
        snapshot: an isolate's linear memory at the end, where it was asked for.
        collected: what a program left in its workspace, where it was asked for.
        problem: why not all of that could be written, to be told once there is a receipt.
    """

    outcome: Outcome
    input: bytes | None
    clock_us: int | None = None
    seed: int | None = None
    snapshot: bytes | None = None
    collected: Collection | None = None
    problem: ReceiptWriteError | None = None


class Terminated(BaseException):
    """SIGTERM or SIGHUP arrived. Not an Exception, as KeyboardInterrupt is none."""
