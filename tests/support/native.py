"""The same JavaScript outside of any isolate, to show that a probe works where nothing stops it."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence

from tests.support.capabilities import give_up

# One fresh context per script; the script leaves its answer in the global `answer`.
_QUICKJS = """
import json, sys, quickjs
answers = []
for source in json.load(sys.stdin):
    context = quickjs.Context()
    try:
        context.eval(source)
        while context.execute_pending_job():
            pass
        answers.append(json.loads(context.eval("JSON.stringify(globalThis.answer) ?? 'null'")))
    except quickjs.JSException as error:
        answers.append(str(error))
print(json.dumps(answers))
"""
_NODE = """
const vm = require('vm'), answers = [];
(async () => {
  for (const source of JSON.parse(require('fs').readFileSync(0))) {
    globalThis.answer = undefined;
    try { vm.runInThisContext(source, {
            importModuleDynamically: vm.constants.USE_MAIN_CONTEXT_DEFAULT_LOADER });
          await new Promise(r => setTimeout(r, 20)); } catch (e) { globalThis.answer = String(e) }
    answers.push(globalThis.answer ?? null);
  }
  console.log(JSON.stringify(answers));
})();
"""


def has_quickjs() -> bool:
    """Tell whether the engine our guest is made of is there as a native module."""
    return importlib.util.find_spec("quickjs") is not None


def _answers(command: Sequence[str], scripts: Sequence[str]) -> list[object]:
    done = subprocess.run(
        command,
        input=json.dumps(list(scripts)).encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
    answers: list[object] = json.loads(done.stdout)
    assert len(answers) == len(scripts)
    return answers


def run_natively(scripts: Sequence[str]) -> list[object]:
    """Run global scripts in a plain engine; gives what each left in `globalThis.answer`."""
    if has_quickjs():
        return _answers([sys.executable, "-P", "-c", _QUICKJS], scripts)
    return run_in_node(scripts)


def run_in_node(scripts: Sequence[str]) -> list[object]:
    """Do what `run_natively` does, in node, which has modules and timers of its own."""
    node = shutil.which("node")
    if node is None:
        give_up("native-engine: this control needs node")
    return _answers([str(node), "-e", _NODE], scripts)


def awaiting(expression: str) -> str:
    """Give a global script that leaves an expression's awaited value in `answer`."""
    return (
        "'use strict'; globalThis.answer = undefined;"
        f"(async () => {{ return await ({expression}) }})()"
        ".then(value => { globalThis.answer = value },"
        " error => { globalThis.answer = 'threw ' + error })"
    )
