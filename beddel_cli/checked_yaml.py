"""A YAML file of one of our formats, with everything that is wrong in it told at once."""

from __future__ import annotations

from beddel_cli import shape
from beddel_cli.errors import JobError
from beddel_cli.limits import BY_KEY, parse_limit
from beddel_cli.schema_document import Definitions
from beddel_cli.yaml_safe import Document, parse_yaml

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from beddel_cli.yaml_safe import Path


def parse_checked(
    data: bytes, file: str, kind: str, more: Callable[[Document], list[shape.Problem]]
) -> Document:
    """Read a file and hold it against the schema of its kind.

    Args:
        kind: `job` or `profile`.
        more: gives what a schema cannot say; it is asked of files that do not fit, too.

    Raises:
        JobError: not YAML that can be read, which ends the reading; or the first thing in the
            file that does not fit, with all others in its `more`.
    """
    document = parse_yaml(data, file)
    definitions = Definitions()
    problems = shape.find_problems(document.value, definitions(kind), definitions, READERS)
    shape.check(document, [*problems, *more(document)])
    return document


def _read_limit(path: Path, value: Any) -> shape.Problem | None:
    try:
        parse_limit(BY_KEY[str(path[-1])], value)
    except JobError as error:
        return shape.Problem(
            path, error.message, expected=error.expected, got=error.got, hint=error.hint
        )
    return None


# What reads a limit knows its units and range, which a pattern cannot say; tests hold the
# definitions in the schema, which editors use, against it.
READERS = dict.fromkeys(("size", "time", "count", "cpus"), _read_limit)
