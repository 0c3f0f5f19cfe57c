"""A JavaScript job from the worker that confines itself to the judged ending."""

from __future__ import annotations

import os
from time import time_ns

from beddel_cli.errors import bug
from beddel_cli.execution import Execution
from beddel_cli.isolate.frames import CODE_SOURCES, Request
from beddel_cli.isolate.supervisor import Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from beddel_cli.execution import Asked
    from beddel_cli.host import Host
    from beddel_cli.isolate.frames import Ready
    from beddel_cli.job import Job
    from beddel_cli.limits import Limits
    from beddel_cli.plan import Plan
    from beddel_cli.receipt import Guest, Shown

# A frozen clock starts here, in microseconds since 1970: 2000-01-01T00:00:00Z.
FROZEN_CLOCK_US = 946_684_800_000_000


class JavascriptRun:
    """One worker with the JavaScript guest, good for one job."""

    name = "javascript"

    def __init__(self) -> None:
        self._worker = Worker.start()
        self._ready: Ready | None = None

    def look(self, job: Job, limits: Limits, asked: Asked, rungs: tuple[str, ...]) -> Host:
        """Wait for the worker to be confined and hold its word against what /proc says.

        Raises:
            GuestError: it did not start.
        """
        from beddel_cli.host import describe_host

        self._ready = self._worker.wait_ready()
        return describe_host(self._ready, self._worker.observe())

    def execute(self, job: Job, plan: Plan, asked: Asked) -> Execution:
        """Send the job, wait for its ending and judge it.

        Raises:
            KeyboardInterrupt, Terminated: the caller ended it.
        """
        from beddel_cli.outcome import judge

        start = None if asked.repeats is None else asked.repeats.start
        request = make_request(
            job, plan, want_snapshot=asked.heap_snapshot is not None, start=start
        )
        answer = self._worker.run(request)
        return Execution(
            outcome=judge(job, plan, self._known_ready(), answer),
            input=request.input,
            clock_us=request.clock_us,
            seed=request.seed,
            snapshot=answer.snapshot,
        )

    def describe(self) -> Guest:
        """Give the guest's and the engine's names, versions and digests."""
        from beddel_cli.guests import javascript_facts
        from beddel_cli.isolate.engine_settings import (
            library_folder,
            library_version,
            settings_text,
        )
        from beddel_cli.receipt import Guest, sha256

        facts = javascript_facts()
        source = CODE_SOURCES[self._known_ready().code_source]
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

    def shown(self) -> tuple[Shown, ...]:
        """Give nothing: an isolate sees no files."""
        return ()

    def warnings(self) -> tuple[str, ...]:
        """Say when the guest had to be compiled."""
        if CODE_SOURCES[self._known_ready().code_source] != "compiled":
            return ()
        return ("the guest was compiled anew for this engine; the next run is faster",)

    def finish(self) -> None:
        """End and reap the worker."""
        self._worker.finish()

    def _known_ready(self) -> Ready:
        if self._ready is None:
            raise bug("a worker was used before it was looked at")
        return self._ready


def make_request(
    job: Job, plan: Plan, *, want_snapshot: bool, start: tuple[int, int] | None = None
) -> Request:
    """Give what the worker is sent: the plan's limits, clock and seed, the code and its input.

    Args:
        start: clock (microseconds) and seed of the run that is repeated; no job can ask for them.
    """
    from beddel_cli.job import input_bytes
    from beddel_cli.receipt import sha256

    frozen = plan.clock == "frozen"
    seed = bytes.fromhex(sha256(job.code)["sha256"]) if frozen else os.urandom(8)
    clock_us = FROZEN_CLOCK_US if frozen else time_ns() // 1000
    clock_us, number = start or (clock_us, int.from_bytes(seed[:8], "big"))
    limits = plan.limits
    numbers = (limits.wall_ns, limits.fuel, limits.memory_bytes)
    caps = (limits.output_bytes, limits.console_bytes)
    wall_ns, fuel, memory_bytes = (_set(number) for number in numbers)
    output_bytes, console_bytes = (_set(number) for number in caps)
    return Request(
        wall_ns=wall_ns,
        fuel=fuel,
        memory_bytes=memory_bytes,
        clock_us=clock_us,
        seed=number,
        output_bytes=output_bytes,
        console_bytes=console_bytes,
        allow_function=plan.allow_function,
        want_snapshot=want_snapshot,
        code=job.code,
        input=input_bytes(job),
    )


def _set(limit: int | None) -> int:
    if limit is None:
        raise bug("a plan without one of its limits")
    return limit
