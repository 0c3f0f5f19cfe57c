"""What a supervisor would make of a report: the last check that an honest guest must pass."""

from __future__ import annotations

from beddel_cli.guests import javascript_facts
from beddel_cli.isolate.frames import Report, Request
from beddel_cli.isolate.supervisor import WorkerUsage
from beddel_cli.limits import Limits
from beddel_cli.outcome import Outcome, judge
from beddel_cli.record import changed
from tests.support import values


def judge_report(request: Request, report: Report) -> Outcome:
    """Give the outcome of a report that came back a little later than its last reading."""
    limits = Limits(
        memory_bytes=request.memory_bytes,
        wall_ns=request.wall_ns,
        fuel=request.fuel,
        output_bytes=request.output_bytes,
        console_bytes=request.console_bytes,
    )
    usage = WorkerUsage(report.cpu_ns + 1_000_000, report.memory_bytes, 1)
    job = changed(values.JOB, code=request.code, input=request.input)
    plan = changed(values.plan(), limits=limits)
    answer = changed(values.answer(report, wall_ns=report.wall_ns + 1_000_000), usage=usage)
    return judge(job, plan, changed(values.READY, guest_pages=_guest_pages()), answer)


def _guest_pages() -> int:
    return int(javascript_facts()["memory_pages"])
