"""The shape of the package: which module may know which, and what a plain run loads."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import beddel_cli
from beddel_cli import profile
from tests.support.capabilities import require
from tests.support.cli import Home

PACKAGE = Path(beddel_cli.__file__).parent
# What may run while our command line runs; the guest's build is not among it.
SOURCES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
    if "guests/javascript" not in path.as_posix()
}
BOTTOM = {"record", "errors"}
# Each module and every other one of ours that it may import, at any time.
ALLOWED: dict[str, set[str]] = {
    "record": set(),
    "errors": {"record"},
    "terminal": set(),
    "limits": BOTTOM,
    "json_strict": {"errors"},
    "yaml_events": set(),
    "yaml_scalars": set(),
    "yaml_marks": {"record"},
    "yaml_safe": {*BOTTOM, "yaml_events", "yaml_marks", "yaml_scalars"},
    "pattern": set(),
    "shape": {*BOTTOM, "pattern", "yaml_safe"},
    "schema_document": {"json_strict"},
    "checked_yaml": {"errors", "limits", "schema_document", "shape", "yaml_safe"},
    "files": BOTTOM,
    "leftovers": set(),
    "home": {*BOTTOM, "leftovers"},
    "trust.signing": BOTTOM,
    "trust.keys": {*BOTTOM, "home", "trust.signing"},
    "trust.key_environment": BOTTOM,
    "trust.dsse": BOTTOM,
    "log.merkle": {"errors"},
    "log.checkpoint": {*BOTTOM, "log.merkle"},
    "log.log_entry": {*BOTTOM, "log.checkpoint", "json_strict", "salted_digest"},
    "log.sqlite_core": set(),
    "log.ledger_file": {"errors", "home", "log.sqlite_core"},
    "log.ledger": {
        *BOTTOM,
        "log.checkpoint",
        "home",
        "log.ledger_file",
        "log.merkle",
        "log.sqlite_core",
    },
    "log.run_log": {"log.checkpoint", "errors", "log.ledger", "log.log_entry"},
    "log.audit": {*BOTTOM, "log.checkpoint", "log.log_entry", "log.merkle"},
    "log.audit_anchor": {*BOTTOM, "log.checkpoint", "home"},
    "render_audit": {
        *(
            "log.checkpoint",
            "errors",
            "figures",
            "log.log_entry",
            "log.merkle",
            "render",
            "terminal",
        ),
    },
    "trust.verify": {*BOTTOM, "trust.dsse", "json_strict", "salted_digest", "shape"},
    "trust.instants": set(),
    "trust.trust_list": {*BOTTOM, "trust.dsse", "trust.instants", "json_strict", "trust.keys"},
    "trust.countersign": {
        *BOTTOM,
        *("trust.dsse", "trust.instants", "trust.trust_list", "trust.verify"),
    },
    "trust.evidence": {
        *BOTTOM,
        "log.checkpoint",
        "trust.instants",
        "log.log_entry",
        "trust.trust_list",
    },
    "trust.timestamps": {"errors"},
    "trust.when": {"errors", "trust.instants"},
    "trust.key_files": {*BOTTOM, "home", "trust.keys"},
    "trust.trust_store": {*BOTTOM, "files", "home", "trust.keys", "trust.trust_list"},
    "render_verify": {
        *("trust.evidence", "trust.instants", "trust.verify"),
        *("record", "render", "salted_digest", "terminal"),
    },
    "job": {
        *BOTTOM,
        "process.mount_rules",
        "checked_yaml",
        "files",
        "json_strict",
        "limits",
        "shape",
        "yaml_safe",
    },
    "built_in_profiles": set(),
    "profile": {*BOTTOM, "built_in_profiles", "checked_yaml", "files", "limits", "shape"},
    "dumpable": set(),
    "forking": {"errors"},
    "host": {"record"},
    "plan": {*BOTTOM, "host", "job", "json_strict", "limits", "profile"},
    "isolate.frames": {"record"},
    "process": set(),
    "log": set(),
    "trust": set(),
    "process.program": {"record"},
    "process.cgroup": {"record"},
    "process.tree": {"record"},
    "process.signals": set(),
    "process.streams": {"process.program", "record"},
    "process.outer_terminal": set(),
    "process.sockets": set(),
    "process.meters": {
        *("process.cgroup", "process.program", "process.sockets", "process.tree", "record"),
    },
    "process.supervise": {
        *("errors", "process.launch", "process.meters", "process.outer_terminal"),
        *("process.program", "process.signals", "process.sockets", "process.streams"),
        "process.tree",
    },
    "process.messages": {"process.program", "record"},
    "process.filter": {"record"},
    "process.kernel": set(),
    "process.rights": {"process.filter", "process.kernel", "record"},
    "process.filesystem": {"process.kernel", "record"},
    "process.init": {
        *(
            "process.cgroup",
            "process.filesystem",
            "process.filter",
            "process.kernel",
            "process.messages",
            "record",
        ),
        *("process.rights", "process.sockets"),
    },
    "process.launch": {
        *(*BOTTOM, "forking"),
        *("process.cgroup", "process.init", "process.kernel", "process.messages"),
        "process.program",
    },
    "outcome": {*BOTTOM, "isolate.frames", "json_strict", "limits"},
    "receipt": {"json_strict", "limits", "plan", "record", "salted_digest"},
    "capture": {"json_strict", "receipt"},
    "salted_digest": {"errors"},
    "repetition": {*BOTTOM, "job", "limits", "plan", "salted_digest"},
    "replay": {"limits", "record", "repetition", "salted_digest"},
    "offer": {"host", "record"},
    "program_offer": {"host", "offer", "process.remedies", "record"},
    "process.landlock_terms": {"errors", "process.mount_rules", "process.program"},
    "process.scratch": {"process.cgroup", "record"},
    "process.workspace_copy": {"record"},
    "process.strict_rules": {
        *("process.filesystem", "process.filter", "process.kernel", "process.rights", "record"),
    },
    "process.by_name": {"process.kernel"},
    "process.guardian": {
        *("process.by_name", "record"),
        *("process.filter", "process.init", "process.kernel", "process.messages"),
        *("process.rights", "process.scratch", "process.strict_rules"),
    },
    "process.landlock_rung": {
        *(*BOTTOM, "limits", "process.guardian", "process.kernel", "process.landlock_terms"),
        *("process.launch", "process.messages", "process.program", "process.scratch"),
        *("process.tree", "process.workspace_copy"),
    },
    "program_queries": {
        *("isolate.queries", "process.cgroup", "process.machine_facts", "program_offer"),
    },
    "profile_comparison": {"limits", "profile", "record"},
    "explain": {
        *(*BOTTOM, "host", "job", "json_strict", "limits", "plan", "profile"),
        *("offer", "process.landlock_terms", "profile_comparison", "shape", "yaml_safe"),
    },
    "render_explain": {"explain", "offer", "profile_comparison", "render", "terminal"},
    "render_profiles": {"limits", "profile_comparison", "render", "terminal"},
    "options": {"limits", "record"},
    "starter": {*BOTTOM, "files", "home"},
    "figures": set(),
    "render_program": {"figures", "home", "job", "limits", "terminal"},
    "render": {
        *("figures", "home", "limits", "outcome", "receipt", "render_program", "terminal"),
        "plan",
    },
    "github_actions": {"errors", "render", "terminal"},
    "process.mount_rules": {*BOTTOM, "process.program"},
    "process.mount_sources": {*BOTTOM, "process.mount_rules", "process.program"},
    "process.collect_rules": {"record"},
    "process.remedies": {"record"},
    "process.machine_facts": {"process.failures", "process.remedies"},
    "process.failures": {"errors", "record", "process.messages"},
    "program_host": {"host", "process.machine_facts", "process.remedies"},
    "doctor": {
        *(*BOTTOM, "__init__", "guests", "host", "job", "limits", "plan", "profile"),
        *("isolate.supervisor", "isolate.engine_settings", "program_host"),
        *("process.cgroup", "process.landlock_rung", "process.landlock_terms"),
        *("files", "home", "process.launch", "process.mount_sources", "process.program"),
        *("process.failures", "process.machine_facts", "render"),
    },
    "process.collect": {"leftovers", *BOTTOM, "home", "process.collect_rules"},
    "process.visible_sink": {"terminal"},
    "execution": {"record"},
    "asked_job": {
        *("capture", "errors", "files", "home", "job", "json_strict", "limits", "profile"),
        *("program_request", "yaml_safe"),
    },
    "javascript_run": {
        *("errors", "execution", "guests", "host", "job", "outcome", "receipt"),
        *("isolate.engine_settings", "isolate.frames", "isolate.supervisor"),
    },
    "program_request": {
        *(*BOTTOM, "process.cgroup", "process.meters", "process.mount_rules", "process.program"),
    },
    "program_outcome": {"limits", "outcome", "record"},
    "program_run": {
        *("trust.dsse", "errors", "execution", "files", "home", "job", "receipt"),
        *("program_host", "program_outcome", "program_request"),
        *("process.cgroup", "process.collect", "process.collect_rules", "process.launch"),
        *("process.landlock_rung", "process.landlock_terms"),
        *("process.mount_sources", "process.outer_terminal", "process.signals"),
        *("process.streams", "process.supervise", "process.visible_sink"),
        *("process.failures", "process.machine_facts"),
    },
}
STARTERS = {
    *("isolate.supervisor", "isolate.worker", "isolate.wasm", "isolate.javascript"),
    *("process.launch", "process.init", "process.supervise", "program_run", "javascript_run"),
    *("process.guardian", "process.landlock_rung"),
}
PURE = (
    *(
        "limits",
        "plan",
        "outcome",
        "receipt",
        "shape",
        "json_strict",
        "render",
        "options",
        "trust.dsse",
    ),
    *("profile_comparison", "explain", "render_explain", "render_profiles"),
    *("repetition", "replay", "salted_digest", "capture"),
    *("process.mount_rules", "process.collect_rules", "process.remedies", "process.program"),
    *("log.merkle", "log.checkpoint", "log.log_entry", "log.audit", "render_audit"),
    *("process.landlock_terms", "process.failures"),
    *("offer", "program_offer", "figures", "render_program", "program_outcome"),
    *(
        "trust.instants",
        "trust.trust_list",
        "trust.countersign",
        "trust.evidence",
        "trust.timestamps",
        "render_verify",
        "trust.when",
    ),
)
# Of `os`, what only puts a number into words.
WORDS_OF_OS = {"strerror"}
# Modules that can read, open, start or wait for something.
EFFECTS = {
    *("os", "io", "pathlib", "shutil", "tempfile", "subprocess", "socket", "select", "ctypes"),
    *("multiprocessing", "threading", "_thread", "time", "resource", "fcntl", "mmap", "posix"),
    *("sys", "random", "secrets", "platform", "urllib", "http"),
}


def runtime_imports(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Give every imported module and whether it is imported when its importer is."""

    def walk(node: ast.AST, at_once: bool) -> Iterator[tuple[str, bool]]:
        children = list(ast.iter_child_nodes(node))
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            children = list(node.orelse)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, at_once) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name their module in full"
            module = node.module or ""
            for alias in node.names:
                whole = f"{module}.{alias.name}"
                ours = whole.removeprefix("beddel_cli.") in SOURCES
                yield (whole if ours else module), at_once
        inner = isinstance(node, ast.FunctionDef | ast.Lambda)
        for child in children:
            yield from walk(child, at_once and not inner)

    yield from walk(tree, True)


@cache
def imports(name: str) -> tuple[tuple[str, bool], ...]:
    return tuple(runtime_imports(ast.parse(SOURCES[name].read_text("utf-8"))))


def ours(name: str, *, at_once: bool = False) -> set[str]:
    """Give the package's own modules that one of them imports."""
    found = {
        module.removeprefix("beddel_cli.")
        for module, now in imports(name)
        if module.startswith("beddel_cli.") and (now or not at_once)
    }
    return found & set(SOURCES)


def others(name: str) -> set[str]:
    """Give the top-level names of everything else it imports."""
    return {module.partition(".")[0] for module, _ in imports(name)} - {"beddel_cli"}


def test_the_walk_sees_imports_of_every_kind() -> None:
    code = (
        "import a.b\nfrom beddel_cli import plan\nfrom beddel_cli.job import Job\n"
        "TYPE_CHECKING = False\nif TYPE_CHECKING:\n    import hidden\nelse:\n    import shown\n"
        "def f():\n    import late\nclass C:\n    import early\n"
    )
    assert set(runtime_imports(ast.parse(code))) == {
        ("a.b", True),
        ("beddel_cli.plan", True),
        ("beddel_cli.job", True),
        ("shown", True),
        ("late", False),
        ("early", True),
    }
    assert ours("plan") >= {"host", "job", "limits"}


@pytest.mark.parametrize("name", ALLOWED)
def test_imports_point_one_way(name: str) -> None:
    assert ours(name) <= ALLOWED[name]


def test_every_module_has_its_arrows_or_is_part_of_the_shell() -> None:
    shell = {"", "__init__", "__main__", "cli", "run", "explain_job", "guests", "isolate"}
    unlisted = {name for name in SOURCES if name not in ALLOWED and name not in shell}
    assert {name for name in unlisted if not name.startswith(("isolate.", "commands"))} == set()


def test_nothing_is_imported_in_a_circle() -> None:
    for moment in (True, False):
        waiting = {name: ours(name, at_once=moment) - {name} for name in SOURCES}
        while free := [name for name, needs in waiting.items() if not needs & set(waiting)]:
            for name in free:
                del waiting[name]
        assert waiting == {}


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_can_neither_open_nor_start_nor_read_anything(name: str) -> None:
    effects = others(name) & EFFECTS
    if attributes(name, "os") <= WORDS_OF_OS:
        effects -= {"os"}
    assert effects == set()
    assert ours(name) & STARTERS == set()
    called = {
        node.func.id
        for node in ast.walk(ast.parse(SOURCES[name].read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert called & {"open", "print", "input", "exec", "eval", "compile", "__import__"} == set()


def attributes(name: str, of: str) -> set[str]:
    """Give the attributes of a name, such as `os`, that a module uses."""
    return {
        node.attr
        for node in ast.walk(ast.parse(SOURCES[name].read_text("utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == of
    }


def starts_processes(name: str) -> bool:
    starting = ("fork", "exec", "posix_spawn", "spawn", "popen", "system", "kill")
    uses = attributes(name, "os")
    return bool(
        others(name) & {"subprocess", "multiprocessing", "pty"}
        or any(used.startswith(starting) for used in uses)
    )


def test_only_the_walls_start_processes_and_the_environment_module_starts_itself_over() -> None:
    starting = {name for name in SOURCES if starts_processes(name)}
    assert starting == {
        *("isolate.supervisor", "process.init", "process.launch", "trust.key_environment"),
        # git, to keep a checkpoint in a repository.
        "log.audit_anchor",
        *("process.guardian", "process.landlock_rung"),
    }
    assert "execve" in attributes("trust.key_environment", "os")


def prints_or_exits(name: str) -> bool:
    tree = ast.parse(SOURCES[name].read_text("utf-8"))
    printing = any(
        isinstance(node, ast.Name) and node.id in ("print", "exit", "quit", "SystemExit")
        for node in ast.walk(tree)
    )
    return printing or bool(attributes(name, "sys") & {"exit", "stdout", "stderr"})


def test_only_the_command_line_prints_or_exits() -> None:
    assert {name for name in SOURCES if prints_or_exits(name)} == {
        "__main__",
        "commands.audit_command",
        "cli",
        "commands.replay_command",
        "commands.run_command",
        *(
            "commands.verify_command",
            "commands.keys_command",
            "commands.countersign_command",
            "commands.trusted_keys_command",
        ),
    }


def test_nothing_unpickles_evaluates_or_swallows_everything() -> None:
    for name, path in SOURCES.items():
        assert others(name) & {"pickle", "marshal", "shelve", "dill"} == set(), name
        tree = ast.parse(path.read_text("utf-8"))
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert used & {"eval", "exec", "__import__"} == set(), name
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and name != "isolate.worker":
                assert node.type is not None, name
                assert ast.unparse(node.type) != "Exception", name


# Costly, or for other commands; a plain run must load none of these.
HEAVY = {
    *("typer", "click", "rich", "pydantic", "wasmtime", "psutil", "cryptography", "shellingham"),
    *("typing", "dataclasses", "inspect", "subprocess", "multiprocessing", "threading", "pickle"),
    *("pathlib", "tempfile", "shutil", "logging", "socket", "ssl", "urllib", "uuid", "datetime"),
    *("difflib", "argparse", "asyncio", "random", "traceback"),
}
SHELL_OF_TYPER = {"beddel_cli.cli", "beddel_cli.trust.verify", "beddel_cli.isolate.wasm"}
ONLY_ON_GITHUB = "beddel_cli.github_actions"
OF_PROGRAMS = ("beddel_cli.process", "beddel_cli.program_")
OF_ISOLATES = {
    *("beddel_cli.isolate.javascript", "beddel_cli.isolate.worker", "beddel_cli.javascript_run"),
    *("beddel_cli.isolate.guest_code", "beddel_cli.isolate.supervisor"),
}


def loaded(home: Home, *arguments: str | Path, **variables: str) -> set[str]:
    """Give the modules that a command imports beyond those of a bare interpreter."""

    def named(stderr: bytes) -> set[str]:
        lines = stderr.decode("utf-8", "replace").splitlines()
        return {x.rpartition("|")[2].strip() for x in lines if x.startswith("import time:")}

    environment = home.environment(**variables)
    bare = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "pass"],
        env=environment,
        capture_output=True,
        check=True,
    )
    command = (sys.executable, "-X", "importtime", "-m", "beddel_cli")
    done = home.run(*arguments, command=command, env=environment)
    assert done.returncode == 0, done.message
    return named(done.stderr) - named(bare.stderr)


def test_a_plain_run_loads_only_what_it_uses(home: Home) -> None:
    job = home.job("return input", input=[1])
    home.run("run", job)  # makes the key
    modules = loaded(home, "run", job, "-q")
    assert "beddel_cli.run" in modules, "the control: the listing is of this run"
    assert {name.partition(".")[0] for name in modules} & HEAVY == set()
    assert modules & SHELL_OF_TYPER == set()
    assert ONLY_ON_GITHUB not in modules
    assert {name for name in modules if name.startswith(OF_PROGRAMS)} == set()


def test_a_plain_exec_of_a_program_loads_nothing_of_isolates(home: Home) -> None:
    require("user-namespaces")
    words = ("exec", "--profile", "high-security", "-q", "--", "true")
    home.run(*words)  # makes the key
    modules = loaded(home, *words)
    assert "beddel_cli.process.init" in modules, "the control: the listing is of this run"
    assert {name.partition(".")[0] for name in modules} & (HEAVY | {"yaml", "jsonschema"}) == set()
    assert modules & (SHELL_OF_TYPER | OF_ISOLATES) == set()
    assert ONLY_ON_GITHUB not in modules


def test_a_program_needs_no_yaml_json_or_regular_expressions(home: Home) -> None:
    # Not the default profile: an ordinary user may be refused it, which loads the reasons.
    command = ("exec", "-q", "--profile", "high-security", "--", "/bin/true")
    home.run(*command)  # makes the key
    modules = loaded(home, *command)
    assert "beddel_cli.program_run" in modules, "the control: the listing is of this run"
    slow = {"re", "enum", "json", "signal"}
    assert {name.partition(".")[0] for name in modules} & (HEAVY | slow) == set()
    assert {"beddel_cli.yaml_safe", "beddel_cli.shape", "beddel_cli.render"} & modules == set()


def test_what_github_needs_is_loaded_on_github_alone(home: Home) -> None:
    job = home.job("return input", input=[1])
    home.run("run", job)
    modules = loaded(home, "run", job, "-q", GITHUB_ACTIONS="true")
    assert ONLY_ON_GITHUB in modules
    assert {name.partition(".")[0] for name in modules} & HEAVY == set()


def test_a_built_in_profile_is_compared_with_nothing(home: Home) -> None:
    job = home.job("return input", input=[1])
    home.run("run", job)
    mine = home.work / "mine.yaml"
    source = Path(profile.folder(), "high-security.yaml").read_text()
    mine.write_text(source.replace("name: high-security", "name: mine"))
    comparison = "beddel_cli.profile_comparison"
    assert comparison in loaded(home, "run", job, "-q", "--profile", mine), "the control"
    assert comparison not in loaded(home, "run", job, "-q", "--profile", "high-security")


def test_the_long_way_round_is_seen_to_load_typer(home: Home) -> None:
    modules = loaded(home, "profiles")
    assert "typer" in modules


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_importing_any_module_alone_works() -> None:
    names = sorted(name for name in SOURCES if name not in ("", "__init__", "__main__"))
    for name in names:
        code = f"import beddel_cli.{name}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
        assert done.returncode == 0, (name, done.stderr)
