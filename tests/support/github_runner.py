"""As much of GitHub's runner as our action and our output need, by its own rules.

Source: actions/runner, ActionCommand.cs (what is a command in a line), ActionCommandManager.cs
(stop-commands), CompositeActionHandler.cs and StepsRunner.cs (steps, conditions, outputs).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ACTION = Path(__file__).parents[2] / "action.yml"
REGISTERED = {
    *("set-output", "set-env", "add-path", "add-mask", "add-matcher", "remove-matcher", "echo"),
    *("save-state", "debug", "notice", "warning", "error", "group", "endgroup", "stop-commands"),
}


@dataclass(frozen=True, slots=True)
class Command:
    """A workflow command as the runner understands it."""

    name: str
    properties: dict[str, str]
    data: str


def _unescaped(text: str, *also: tuple[str, str]) -> str:
    for written, meant in (("%0D", "\r"), ("%0A", "\n"), *also, ("%25", "%")):
        text = text.replace(written, meant)
    return text


def parse_line(line: str, registered: set[str]) -> Command | None:
    """Give the command of one line, or None where it is text."""
    forms = []
    if line.lstrip().startswith("::"):
        info, end, data = line.lstrip()[2:].partition("::")
        forms.append((info, end, data, ",", (("%3A", ":"), ("%2C", ","))))
    if "##[" in line:
        info, end, data = line.partition("##[")[2].partition("]")
        forms.append((info, end, data, ";", (("%3B", ";"), ("%5D", "]"))))
    for info, end, data, comma, also in forms:
        name, _, rest = info.partition(" ")
        if end and name.lower() in registered:
            pairs = [pair.partition("=") for pair in rest.strip().split(comma) if pair]
            properties = {key: _unescaped(value, *also) for key, _, value in pairs if value}
            return Command(name.lower(), properties, _unescaped(data))
    return None


def commands(stream: bytes) -> list[Command]:
    """Give the commands that one stream of a step makes the runner obey."""
    found: list[Command] = []
    token: str | None = None
    # StreamReader.ReadLine ends a line at either of these.
    for line in re.split(r"\r\n|\r|\n", stream.decode("utf-8", "replace")):
        command = parse_line(line, REGISTERED | ({token} if token else set()))
        if command is None:
            continue
        if token is not None:
            token = None if command.name == token else token
        elif command.name == "stop-commands":
            token = command.data
        else:
            found.append(command)
    return found


def text(value: str, scope: dict[str, dict[str, str]]) -> str:
    """Replace the expressions in a value: names of inputs and outputs, and `||` between them."""

    def put(match: re.Match[str]) -> str:
        return next((found for name in match[1].split("||") if (found := look_up(name, scope))), "")

    return re.sub(r"\$\{\{(.*?)\}\}", put, value)


def look_up(name: str, scope: dict[str, dict[str, str]]) -> str:
    """Give the value of `inputs.NAME` or `steps.ID.outputs.NAME`."""
    kind, _, rest = name.strip().partition(".")
    if kind == "inputs":
        return scope["inputs"][rest]
    match = re.fullmatch(r"(\w+)\.outputs\.([\w-]+)", rest)
    assert kind == "steps", f"the mini-runner does not know {name!r}"
    assert match, f"the mini-runner does not know {name!r}"
    return scope.get(match[1], {}).get(match[2], "")


def holds(condition: str, scope: dict[str, dict[str, str]], failed: bool) -> bool:
    """Decide on an `if`: terms `always()` and `NAME != ''`, all of which must hold."""
    terms = [term.strip() for term in condition.split("&&")]
    if "always()" in terms:
        terms.remove("always()")
    elif failed:
        return False
    for term in filter(None, terms):
        name, unequal, empty = term.partition("!=")
        assert (unequal, empty.strip()) == ("!=", "''"), term
        if not look_up(name, scope):
            return False
    return True


@dataclass(slots=True)
class Job:
    """How a use of the action ended."""

    exit_codes: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    used: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    artifacts: dict[str, dict[str, bytes]] = field(default_factory=dict)
    stdout: bytes = b""
    stderr: bytes = b""
    summary: str = ""
    started: str = ""

    @property
    def exit_code(self) -> int:
        """The first code other than 0."""
        return next((code for code in self.exit_codes.values() if code), 0)

    @property
    def commands(self) -> list[Command]:
        """What the step log made the runner do, stream by stream."""
        return [*commands(self.stdout), *commands(self.stderr)]


@dataclass(frozen=True, slots=True)
class Runner:
    """A machine of GitHub's, with a workspace and a stand-in for installing the package."""

    workspace: Path
    temporary: Path
    tools: Path

    def prepare(self) -> None:
        """Make the folders, and a python3 whose venv holds the package under test.

        What the stand-ins are started with is recorded in `started`.
        """
        for folder in (self.workspace, self.temporary, self.tools):
            folder.mkdir()
        log = f'printf "%s\\n" "$0 $*" >> "{self.tools}/started"\n'
        python = f'{log}exec "{sys.executable}" "$@"\n'
        pip = f'case "$*" in "-I -m pip install "*) {log} exit;; esac\n'
        beddel = f'{log}exec "{sys.executable}" -I -m beddel_cli "$@"\n'
        for name, script in (("venv-python", pip + python), ("venv-beddel-cli", beddel)):
            self._write(name, script)
        self._write(
            "python3",
            f'{log}[ "$1 $2 $3" = "-I -m venv" ] || exit 99\nmkdir -p "$4/bin"\n'
            f'cp "{self.tools}/venv-python" "$4/bin/python"\n'
            f'cp "{self.tools}/venv-beddel-cli" "$4/bin/beddel-cli"\n',
        )

    def _write(self, name: str, script: str) -> None:
        path = self.tools / name
        path.write_text(f"#!/bin/bash\n{script}")
        path.chmod(0o755)

    def use(self, **inputs: str) -> Job:
        """Use the action with these inputs (`_` for `-`)."""
        action = yaml.safe_load(ACTION.read_text("utf-8"))
        values = {name: spec.get("default", "") for name, spec in action["inputs"].items()}
        given = {name.replace("_", "-"): value for name, value in inputs.items()}
        assert given.keys() <= values.keys()
        scope = {"inputs": values | given}
        job = Job()
        for number, step in enumerate(action["runs"]["steps"]):
            if holds(step.get("if", ""), scope, bool(job.exit_code)):
                self._step(step, step.get("id", str(number)), scope, job)
        job.outputs = {name: text(spec["value"], scope) for name, spec in action["outputs"].items()}
        started = self.tools / "started"
        job.started = started.read_text() if started.exists() else ""
        return job

    def _step(
        self, step: dict[str, Any], name: str, scope: dict[str, dict[str, str]], job: Job
    ) -> None:
        if "uses" in step:
            given = {key: text(value, scope) for key, value in step["with"].items()}
            job.used.append((step["uses"].partition("@")[0], given))
            if "upload-artifact" in step["uses"]:
                folder = Path(given["path"])
                job.artifacts[given["name"]] = {x.name: x.read_bytes() for x in folder.iterdir()}
            return
        output, summary = self.temporary / f"output-{name}", self.temporary / f"summary-{name}"
        output.write_text("")
        summary.write_text("")
        kept = {key: value for key, value in os.environ.items() if key in ("LANG", "LC_ALL")}
        environment = {
            **kept,
            "PATH": f"{self.tools}:{os.environ['PATH']}",
            "HOME": str(self.temporary),
            "GITHUB_ACTIONS": "true",
            "GITHUB_OUTPUT": str(output),
            "GITHUB_STEP_SUMMARY": str(summary),
            "GITHUB_WORKSPACE": str(self.workspace),
            "GITHUB_ACTION_PATH": str(ACTION.parent),
            "RUNNER_TEMP": str(self.temporary),
            **{key: text(value, scope) for key, value in step.get("env", {}).items()},
        }
        assert step["shell"] == "bash"
        script = self.temporary / f"{name}.sh"
        script.write_text(step["run"])
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", script],
            cwd=self.workspace,
            env=environment,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
            check=False,
        )
        job.exit_codes[name] = done.returncode
        job.stdout += done.stdout
        job.stderr += done.stderr
        job.summary += summary.read_text("utf-8")
        lines = (line.partition("=") for line in output.read_text("utf-8").splitlines())
        scope[name] = {key: value for key, _, value in lines}
