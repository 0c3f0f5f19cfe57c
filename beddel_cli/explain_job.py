"""Gather what `explain` needs: read the files, ask the machine. Nothing is started or written."""

from __future__ import annotations

import os

from beddel_cli.asked_job import load_asked_job
from beddel_cli.errors import RefusedError
from beddel_cli.explain import Explanation, Question, explain
from beddel_cli.limits import PROGRAM, use_of
from beddel_cli.plan import Wishes
from beddel_cli.profile import is_path, parse_profile, read_profile
from beddel_cli.run import beyond_built_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from beddel_cli.execution import Asked
    from beddel_cli.files import Reach
    from beddel_cli.host import Host
    from beddel_cli.job import Job
    from beddel_cli.process.mount_rules import MountRequest


def explain_job(asked: Asked) -> Explanation:
    """Say what `run` would do with this job, on this machine, with these options.

    Raises:
        BeddelError: a file is missing or not valid, or the installation holds no guest.
    """
    job, refusal = load_asked_job(asked)
    source, file = read_profile(asked.profile)
    profile = parse_profile(source, file, built_in=not is_path(asked.profile))
    host, guest_digest = _ask(job)
    question = Question(
        job=job,
        profile=profile,
        flags=Wishes(asked.limits, asked.tier),
        profile_file=file,
        profile_source=source,
        input_from=_input_from(asked),
        beyond=beyond_built_in(profile),
        guest_digest=guest_digest,
        refused_file=refusal,
        refused_mounts=_judge_mounts(job, asked),
    )
    return explain(question, host)


def _ask(job: Job) -> tuple[Host, str | None]:
    """Give the machine as it presents itself to such a job, and the guest's digest."""
    if use_of(job.runtime) == PROGRAM:
        from beddel_cli.program_offer import describe_program_offer
        from beddel_cli.program_queries import ask_machine_for_programs

        shows = job.workspace is not None or bool(job.mounts)
        return describe_program_offer(ask_machine_for_programs(), shows_folders=shows), None
    from beddel_cli.isolate.queries import ask_machine
    from beddel_cli.offer import describe_offer

    offer = ask_machine()
    return describe_offer(offer), offer.guest_digest


def _judge_mounts(job: Job, asked: Asked) -> tuple[tuple[MountRequest, RefusedError], ...]:
    """Open what a program would be shown, as `run` does, and give what it would refuse.

    Opening is by O_PATH, which touches nothing. First each alone, for every reason there is, then
    all together.

    Raises:
        NotFoundError, JobError, UsageError: one is not there, or targets meet.
    """
    if job.workspace is None and not job.mounts:
        return ()
    from beddel_cli.files import open_reach

    with open_reach(None if asked.job == "-" else asked.job, asked.allow_paths) as reach:
        singles: list[tuple[MountRequest | None, tuple[MountRequest, ...]]] = [
            *((None, (mount,)) for mount in job.mounts),
            (job.workspace, ()),
        ]
        found = [item for single in singles for item in _refusal(*single, reach)]
        return tuple(found or _refusal(job.workspace, job.mounts, reach))


def _refusal(
    workspace: MountRequest | None, mounts: tuple[MountRequest, ...], reach: Reach
) -> tuple[tuple[MountRequest, RefusedError], ...]:
    from beddel_cli.home import locate
    from beddel_cli.process.mount_sources import open_sources, protected_folders

    requests = (*mounts, *(() if workspace is None else (workspace,)))
    protected = protected_folders(locate(os.environ), os.environ)
    try:
        with open_sources(workspace, mounts, protected, reach):
            return ()
    except RefusedError as error:
        # Together they are refused because one may change another; the place tells which.
        at = [item for item in requests if item.place == error.place and error.place is not None]
        return ((at[0] if at else requests[0], error),)


def _input_from(asked: Asked) -> str:
    options = [] if asked.input is None else [f"--input {asked.input}"]
    options += ["--set"] if asked.settings else []
    return " and ".join(options) or "job"
