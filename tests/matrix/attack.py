"""An attack: a probe's text, and how the harness outside finds out whether it broke a wall.

The decorators below turn a probe (see `inside_kit`) into an attack; each names a kind of evidence.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

Probe = Callable[[dict[str, Any]], str]


@dataclass(frozen=True, slots=True)
class Attack:
    """One thing a program tries.

    Attributes:
        name: of the probe.
        what: what it tries, in a line.
        code: the probe's text.
        evidence: what shows that it broke through: `canary NAME` was said; its own `files`, `work`
            folder or `prey` process changed; its token `arrived`; its `path` is there; something
            still `runs`; or `word`, its own, where the host cannot see it.
            A `flood`: more of its output came than is allowed. What became of the `terminal`.
        path: for `path`, where; `{token}` stands for its token.
        plant: for a pair of tenants, the text of the probe that the first one runs.
        accepted: why it is known to get through beddel's walls, and said so in SECURITY.md.
        without_cgroup: it gets through only where no cgroup counts.
    """

    name: str
    what: str
    code: str
    evidence: str
    path: str = ""
    plant: str = ""
    accepted: str = ""
    without_cgroup: bool = False


def text_of(probe: Probe) -> str:
    """Give a probe's text without what decorates it."""
    source = textwrap.dedent(inspect.getsource(probe))
    definition = ast.parse(source).body[0]
    return str(ast.get_source_segment(source, definition))


def _attack(evidence: str, **more: Any) -> Callable[[Probe], Attack]:
    def make(probe: Probe) -> Attack:
        what = (probe.__doc__ or "").strip().rstrip(".")
        return Attack(probe.__name__, what, text_of(probe), evidence, **more)

    return make


def reveals(canary: str) -> Callable[[Probe], Attack]:
    """It broke through if a text that only the harness and the victim know is in what it gives."""
    return _attack(f"canary {canary}")


def accepted(attack: Attack, why: str, *, without_cgroup: bool = False) -> Attack:
    """Say that it gets through, and why that is left so."""
    return replace(attack, accepted=why, without_cgroup=without_cgroup)


def leaves(path: str) -> Callable[[Probe], Attack]:
    """It broke through if something is at this path of the host afterwards."""
    return _attack("path", path=path)


changes_files = _attack("files")
changes_work = _attack("work")
hurts_prey = _attack("prey")
arrives = _attack("arrived")
stays = _attack("runs")


def terminal(what: str) -> Callable[[Probe], Attack]:
    """It broke through if the caller's terminal is not as it was: `typed`, `shown`, `settings`."""
    return _attack(f"terminal {what}")


reaches = _attack("word")
floods = _attack("flood")


def pair(planted: Probe, which: str = "canary") -> Callable[[Probe], Attack]:
    """It broke through if it finds what another tenant planted with this probe.

    That is a `canary`, its `end` of 15 bytes, a `number` of 16 bits or a `small` one.
    """
    return _attack(f"pair {which}", plant=text_of(planted))


def attacks_in(module: ModuleType) -> list[Attack]:
    """Give the attacks of a module in their order."""
    return [each for each in vars(module).values() if isinstance(each, Attack)]
