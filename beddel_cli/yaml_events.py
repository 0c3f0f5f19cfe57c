"""PyYAML's C parser without the rest of PyYAML.

`import yaml` brings loaders, dumpers, resolvers and a dozen compiled patterns that are never used
here: 20 ms, as much as a whole interpreter start. The parser itself is one extension module, which
needs only the package's error, token, event and node classes. It is loaded inside a bare package
that is taken down again, so a later `import yaml` finds nothing unusual. Where that does not work,
or PyYAML has no C parser, the whole package is imported, and everything else stays the same.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType
    from typing import Any

# What the extension takes from the modules that are left out: an error class from each.
_MARKED_ERRORS = {
    "scanner": "ScannerError",
    "parser": "ParserError",
    "composer": "ComposerError",
    "constructor": "ConstructorError",
}
_OTHER_ERRORS = {
    "reader": "ReaderError",
    "emitter": "EmitterError",
    "serializer": "SerializerError",
    "representer": "RepresenterError",
}


class YamlSyntaxError(Exception):
    """Not YAML: the parser's problem, and 0-based line and column where it knows them."""

    def __init__(self, problem: str, line: int | None, column: int | None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.line = line
        self.column = column


def parse_events(text: str) -> Iterator[Any]:
    """Give PyYAML's events of a text, one at a time, as the parser reaches them.

    Raises:
        YamlSyntaxError: not YAML; events before the fault have been given.
    """
    parser, errors = _parser_and_errors()
    reading = parser(text)
    try:
        while reading.check_event():
            yield reading.get_event()
    except errors.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "not understood"
        line, column = (mark.line, mark.column) if mark else (None, None)
        raise YamlSyntaxError(problem, line, column) from None
    except errors.YAMLError as error:
        problem = str(error.args[-1] if error.args else error).splitlines()[0]
        raise YamlSyntaxError(problem, None, None) from None
    finally:
        reading.dispose()


_loaded: list[tuple[Any, Any]] = []


def _parser_and_errors() -> tuple[Any, Any]:
    if not _loaded:
        _loaded.append(_whole_package() if "yaml" in sys.modules else _load())
    return _loaded[0]


def _load() -> tuple[Any, Any]:
    before = set(sys.modules)
    try:
        return _bare_parser()
    except (ImportError, AttributeError):
        _forget_since(before)
        return _whole_package()
    finally:
        _forget_since(before)


def _whole_package() -> tuple[Any, Any]:
    import yaml

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader), yaml


def _bare_parser() -> tuple[Any, Any]:
    # What `importlib.machinery` and `types` give names to; both take a millisecond to import.
    from _frozen_importlib_external import PathFinder

    spec = PathFinder.find_spec("yaml")
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError("PyYAML is not installed")
    package: Any = type(sys)("yaml")
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    sys.modules["yaml"] = package
    from yaml import error, events, nodes, tokens

    for module in (error, tokens, events, nodes):
        package.__dict__.update(
            {key: value for key, value in vars(module).items() if key[:1] != "_"}
        )
    for names, base in (
        (_MARKED_ERRORS, package.MarkedYAMLError),
        (_OTHER_ERRORS, package.YAMLError),
    ):
        for module_name, error_name in names.items():
            _add_stand_in(package, module_name, error_name, base)
    from yaml._yaml import CParser

    return CParser, package


def _add_stand_in(package: ModuleType, module_name: str, error_name: str, base: Any) -> None:
    stand_in = type(package)(f"yaml.{module_name}")
    error = type(error_name, (base,), {})
    setattr(stand_in, error_name, error)
    setattr(package, error_name, error)
    setattr(package, module_name, stand_in)
    sys.modules[f"yaml.{module_name}"] = stand_in


def _forget_since(before: set[str]) -> None:
    for name in list(sys.modules):
        if name not in before and name.partition(".")[0] in ("yaml", "_yaml"):
            del sys.modules[name]
