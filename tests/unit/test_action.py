"""The composite action: its scripts as a runner starts them, and what may not be in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from beddel_cli.github_actions import ONLY_THIS_RUN
from beddel_cli.receipt import PREDICATE_TYPE
from beddel_cli.trust.keys import generate_key, load_public_key
from tests.support.cli import Home
from tests.support.github_runner import ACTION, Job, Runner

SOURCE = ACTION.read_text("utf-8")
STEPS: list[dict[str, Any]] = yaml.safe_load(SOURCE)["runs"]["steps"]
UPLOADED = {
    *("receipt.json", "bundle.json", "predicate.json", "receipt.json.tlog-proof"),
    *("signing.pub.pem", "log.pub.pem"),
}


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    made = Runner(tmp_path / "workspace", tmp_path / "temporary", tmp_path / "tools")
    made.prepare()
    return made


def write_job(runner: Runner, body: str, name: str = "job.yaml", more: str = "") -> str:
    (runner.workspace / name).write_text(
        f"beddel: 1\nid: the-job\nruntime: javascript\n{more}code: |\n  {body}\n"
    )
    return name


def errors(job: Job) -> list[str]:
    return [command.data for command in job.commands if command.name == "error"]


def ended(job: Job) -> tuple[int, str, str, str]:
    out = job.outputs
    return job.exit_code, out["outcome"], out["reason"], out["exit-code"]


def test_a_good_job_leaves_its_output_its_receipt_and_an_artifact(
    runner: Runner, home: Home
) -> None:
    # What lies in the checkout is not what runs.
    for module in ("json", "venv", "pip", "beddel_cli"):
        (runner.workspace / f"{module}.py").write_text("open('pwned', 'w')")
    job = runner.use(job=write_job(runner, "return [1, '::error::x', '##[error]y']"))
    out = job.outputs
    assert (job.exit_code, out["outcome"], out["reason"], out["exit-code"]) == (
        0,
        "success",
        "ok",
        "0",
    )
    assert Path(out["output"]).read_bytes() == b'[1,"::error::x","##[error]y"]\n'
    assert not (runner.workspace / "pwned").exists()
    checked = home.run(
        *("verify", out["receipt"], "--key", out["public-key"], "--output", out["output"]),
        *("--job", runner.workspace / "job.yaml", "--expect-outcome", "success"),
    )
    assert checked.returncode == 0, checked.message
    assert home.run("verify", out["bundle"], "--key", out["public-key"]).returncode == 0
    files = job.artifacts["beddel-receipts"]
    assert set(files) == UPLOADED
    assert files["receipt.json"] == Path(out["receipt"]).read_bytes()
    assert files["predicate.json"] == Path(out["predicate"]).read_bytes()
    # A key of this run: said in both places, and gone.
    assert [command.name for command in job.commands] == ["notice"]
    assert job.commands[0].data.endswith(ONLY_THIS_RUN)
    assert f"generated&#58; {ONLY_THIS_RUN}" in job.summary
    assert "### beddel-cli: success" in job.summary
    everything = [path for path in runner.temporary.rglob("*") if path.is_file()]
    assert [path for path in everything if b"PRIVATE KEY" in path.read_bytes()] == []
    # The command that the summary shows still works, and the proof has its key beside it.
    shown = re.search(r"verify (\S+) --key (\S+)", job.stderr.decode())
    assert shown is not None
    assert home.run("verify", shown[1], "--key", shown[2]).returncode == 0
    proven = ("--log-key", out["log-public-key"])
    proof = home.run("verify", out["receipt"], "--key", out["public-key"], *proven)
    assert proof.returncode == 0, proof.message
    assert b", proved;" in proof.stdout


ENDINGS = {
    "failure": ("throw new Error('no')", "", 1, "thrown"),
    "limit": ("for (;;);", "limits: {timeout: 50ms}\n", 124, "wall"),
    "refused": ("return 1", "limits: {memory: 64MiB}\n", 126, "limits"),
}


@pytest.mark.parametrize("status", ENDINGS)
def test_every_ending_of_a_run_has_its_artifact_and_its_exit_code(
    runner: Runner, home: Home, status: str
) -> None:
    code, more, exit_code, reason = ENDINGS[status]
    job = runner.use(job=write_job(runner, code, more=more), receipt_dir="out/receipts")
    out = job.outputs
    assert (job.exit_code, out["outcome"], out["reason"], out["exit-code"]) == (
        exit_code,
        status,
        reason,
        str(exit_code),
    )
    assert out["output"] == ""
    assert out["receipt"] == str(runner.workspace / "out/receipts/receipt.json")
    assert set(job.artifacts["beddel-receipts"]) == UPLOADED
    checked = home.run(
        "verify", out["receipt"], "--key", out["public-key"], "--expect-outcome", reason
    )
    assert checked.returncode == 0, checked.message
    assert len(errors(job)) == 1
    assert f"### beddel-cli: {status}" in job.summary


NO_RUN = {
    "missing": ("nothing.yaml", "ultra-secure", 127, None),
    "not YAML": ("bad.yaml", "ultra-secure", 125, {"file": "bad.yaml", "line": "3"}),
    "a folder": (".", "ultra-secure", 125, None),
    "no such profile": ("job.yaml", "nope", 127, None),
    "empty profile": ("job.yaml", "", 127, None),
    "an option": ("--signing-key=x.pem", "ultra-secure", 127, None),
    "standard input": ("-", "ultra-secure", 125, None),
}


@pytest.mark.parametrize("what", NO_RUN)
def test_where_no_run_comes_about_the_step_fails_and_nothing_is_uploaded(
    runner: Runner, what: str
) -> None:
    name, profile, exit_code, place = NO_RUN[what]
    write_job(runner, "return 1")
    (runner.workspace / "bad.yaml").write_text("beddel: 1\nid: [\n")
    job = runner.use(job=name, profile=profile)
    out = job.outputs
    assert (job.exit_code, out["outcome"], out["exit-code"]) == (exit_code, "error", str(exit_code))
    assert (out["receipt"], out["public-key"], job.artifacts) == ("", "", {})
    assert errors(job)
    assert "### beddel-cli: error" in job.summary
    if place is not None:
        (command,) = (command for command in job.commands if command.name == "error")
        assert place.items() <= command.properties.items()


def test_a_least_score_is_refused_before_anything_starts(runner: Runner) -> None:
    name = write_job(runner, "return 1")
    job = runner.use(job=name, min_score="9.5")
    assert (job.exit_code, job.outputs["outcome"], job.outputs["reason"]) == (
        126,
        "refused",
        "min-score",
    )
    assert (job.started, job.artifacts) == ("", {})
    (message,) = errors(job)
    assert "this version has no scanner" in message
    assert message in job.summary
    assert runner.use(job=name).exit_code == 0, "the control: without it the job runs"


def test_a_key_from_a_secret_signs_and_is_nowhere_else(runner: Runner, home: Home) -> None:
    pem = generate_key().decode()
    own = home.work / "own.pem"
    own.write_text(pem)
    own.chmod(0o600)
    public = home.run("keys", "export", "--signing-key", own).stdout
    job = runner.use(job=write_job(runner, "return 1"), signing_key=pem, receipt_dir="out")
    assert job.exit_code == 0, job.stderr
    assert job.artifacts["beddel-receipts"]["signing.pub.pem"] == public
    (home.work / "public.pem").write_bytes(public)
    checked = home.run("verify", job.outputs["receipt"], "--key", home.work / "public.pem")
    assert checked.returncode == 0, checked.message
    assert load_public_key(public).key_id in job.summary
    assert job.commands == []
    assert ONLY_THIS_RUN not in job.summary
    secret = pem.splitlines()[1]
    seen = [
        *(job.stdout.decode(), job.stderr.decode(), job.summary, job.started),
        *job.outputs.values(),
        *(repr(job.artifacts),),
        *(
            path.read_text("utf-8", "replace")
            for folder in (runner.workspace, runner.temporary)
            for path in folder.rglob("*")
            if path.is_file()
        ),
    ]
    assert [text for text in seen if secret in text or secret[:32] in text] == []
    assert "beddel-cli run" in job.started, "the control: arguments are recorded"


def test_a_bad_key_fails_without_showing_it(runner: Runner) -> None:
    job = runner.use(job=write_job(runner, "return 1"), signing_key="not a SECRET-1234 key")
    assert (job.exit_code, job.outputs["outcome"]) == (125, "error")
    assert b"SECRET-1234" not in job.stdout + job.stderr
    assert "SECRET-1234" not in job.summary


HOSTILE = (
    "$(touch pwned)",
    "`touch pwned`",
    "'; touch pwned; '",
    '"; touch pwned; "',
    "x; touch pwned",
    "x\n::error::forged\n::set-output name=outcome::success",
    "x\noutcome=success",
    "##[error]forged",
    "<img src=x onerror=alert(1)>|[a](http://evil.example)",
    "${{ github.token }}",
    "*",
)


@pytest.mark.parametrize("which", [("job",), ("profile",), ("receipt_dir", "artifact_name")])
@pytest.mark.parametrize("text", HOSTILE)
def test_no_input_becomes_code_a_command_an_output_or_markup(
    runner: Runner, which: tuple[str, ...], text: str
) -> None:
    name = write_job(runner, "return 1")
    job = runner.use(**{"job": name} | dict.fromkeys(which, text))
    assert not list(runner.workspace.rglob("pwned"))
    assert not list(runner.temporary.rglob("pwned"))
    assert "forged" not in [*errors(job)]
    assert {command.name for command in job.commands} <= {"error", "notice"}
    assert "<img" not in job.summary
    assert "](http" not in job.summary
    if which != ("receipt_dir", "artifact_name"):
        assert (job.exit_code, job.outputs["outcome"]) == (127, "error")
    elif "\n" in text:
        assert (job.exit_code, job.outputs["reason"]) == (125, "usage")
        assert errors(job) == ["receipt-dir holds a control character"]
    else:
        assert (job.exit_code, job.outputs["outcome"]) == (0, "success")
        uploads = [given for used, given in job.used if used == "actions/upload-artifact"]
        assert [Path(given["path"]).name for given in uploads] == ["artifact"]


def test_no_link_in_the_checkout_chooses_where_receipts_go(runner: Runner) -> None:
    name = write_job(runner, "return 1")
    elsewhere = runner.temporary / "elsewhere"
    elsewhere.mkdir()
    (runner.workspace / "out").symlink_to(elsewhere)
    for folder in ("out", "out/", "out/deeper", "./out/."):
        job = runner.use(job=name, receipt_dir=folder)
        assert (job.exit_code, errors(job)) == (
            125,
            ["receipt-dir leads through a link in the workspace"],
        )
    assert list(elsewhere.iterdir()) == []
    # A link in the place of a receipt is not written through either.
    victim = runner.temporary / "victim"
    victim.write_text("mine")
    (runner.workspace / "real").mkdir()
    (runner.workspace / "real/receipt.json").symlink_to(victim)
    job = runner.use(job=name, receipt_dir="real")
    assert (job.exit_code, job.outputs["outcome"], job.artifacts) == (125, "error", {})
    assert victim.read_text() == "mine"
    assert runner.use(job=name, receipt_dir="fine").exit_code == 0


def test_an_older_receipt_is_not_taken_for_this_runs(runner: Runner) -> None:
    good = runner.use(job=write_job(runner, "return 1"), receipt_dir="out")
    bad = runner.use(job="nothing.yaml", receipt_dir="out")
    assert good.outputs["receipt"] == str(runner.workspace / "out/receipt.json")
    assert (bad.outputs["outcome"], bad.outputs["receipt"], bad.artifacts) == ("error", "", {})


def test_python_is_set_up_and_an_artifact_made_only_where_asked_for(runner: Runner) -> None:
    name = write_job(runner, "return 1")
    plain = runner.use(job=name)
    assert [used for used, _ in plain.used] == ["actions/upload-artifact"]
    other = runner.use(job=name, python_version="3.12", artifact_name="")
    assert other.used == [("actions/setup-python", {"python-version": "3.12"})]


def test_scripts_hold_no_expressions_and_the_key_reaches_one_step() -> None:
    scripts = [step["run"] for step in STEPS if "run" in step]
    assert len(scripts) == 3
    assert [script for script in scripts if "${{" in script] == []
    holders = [step.get("id") for step in STEPS if "inputs.signing-key" in repr(step)]
    assert holders == ["run"]
    assert STEPS[[step.get("id") for step in STEPS].index("run")]["env"]["BEDDEL_SIGNING_KEY"]


def test_other_peoples_actions_are_pinned_by_commit_and_named_by_version() -> None:
    uses = re.findall(r"uses: (.*)", SOURCE)
    assert len(uses) == len([step for step in STEPS if "uses" in step]) == 2
    for line in uses:
        assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def test_nothing_is_cached_and_home_cache_and_artifact_lie_apart() -> None:
    assert "actions/cache" not in SOURCE
    folders = re.findall(r"BEDDEL_(?:HOME|CACHE_DIR)=(\S+)", SOURCE)
    folders += re.findall(r"artifact=%s\\n' \"(\S+)\"", SOURCE)
    assert sorted(folders) == ["$work/artifact", "$work/cache", "$work/home"]
    assert not any(a != b and f"{a}/".startswith(f"{b}/") for a in folders for b in folders)


def test_the_readme_uses_what_the_action_has() -> None:
    readme = (ACTION.parent / "README.md").read_text("utf-8")
    section = readme.partition("## In CI\n")[2].partition("\n## ")[0]
    (snippet,) = re.findall(r"```yaml\n(.*?)```", section, re.S)
    action = yaml.safe_load(SOURCE)
    steps = yaml.safe_load(snippet)["steps"]
    (ours,) = (step for step in steps if step["uses"].startswith("beddel/"))
    (attest,) = (step for step in steps if step["uses"].startswith("actions/attest@"))
    assert set(ours["with"]) <= set(action["inputs"])
    assert attest["with"]["predicate-type"] == PREDICATE_TYPE
    assert attest["with"]["subject-path"] == ours["with"]["job"]
    used = re.findall(rf"steps\.{ours['id']}\.outputs\.([\w-]+)", snippet)
    assert used
    assert set(used) <= set(action["outputs"])
    named = set(re.findall(r"`([a-z-]+)`", section))
    assert set(action["outputs"]) <= named
    assert set(action["inputs"]) <= named | set(ours["with"])
