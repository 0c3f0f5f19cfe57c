"""Gather what `explain` needs: read the files, ask the machine. Nothing is started or written."""

from __future__ import annotations

from beddel_cli.asked_job import load_asked_job
from beddel_cli.explain import Explanation, Question, explain
from beddel_cli.isolate.queries import ask_machine
from beddel_cli.offer import describe_offer
from beddel_cli.plan import Wishes
from beddel_cli.profile import is_path, parse_profile, read_profile
from beddel_cli.run import beyond_built_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from beddel_cli.execution import Asked


def explain_job(asked: Asked) -> Explanation:
    """Say what `run` would do with this job, on this machine, with these options.

    Raises:
        BeddelError: a file is missing or not valid, or the installation holds no guest.
    """
    job, refusal = load_asked_job(asked)
    source, file = read_profile(asked.profile)
    profile = parse_profile(source, file, built_in=not is_path(asked.profile))
    offer = ask_machine()
    question = Question(
        job=job,
        profile=profile,
        flags=Wishes(asked.limits, asked.tier),
        profile_file=file,
        profile_source=source,
        input_from=_input_from(asked),
        beyond=beyond_built_in(profile),
        guest_digest=offer.guest_digest,
        refused_file=refusal,
    )
    return explain(question, describe_offer(offer))


def _input_from(asked: Asked) -> str:
    options = [] if asked.input is None else [f"--input {asked.input}"]
    options += ["--set"] if asked.settings else []
    return " and ".join(options) or "job"
