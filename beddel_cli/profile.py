"""What a run is permitted and what it requires: a named profile, from a file.

Built-in profiles are files too. A profile given by path can never take a built-in's name, and a
run under it says that it is not one of ours.
"""

from __future__ import annotations

import hashlib
import os

from beddel_cli.built_in_profiles import VALUES
from beddel_cli.errors import JobError, NotFoundError
from beddel_cli.limits import ISOLATE, PROGRAM, LimitField, Limits, fields_of, parse_limit
from beddel_cli.record import record

# The strictest first.
BUILT_IN = ("ultra-secure", "high-security", "tenant-isolated")
# What can be required of a machine for an isolate. A missing one explains those after it: seccomp
# and Landlock fail without no_new_privs.
PROTECTIONS = (
    "store-limits",
    "no-new-privs",
    "capabilities",
    "seccomp",
    "landlock",
    "rlimits",
)
# What a profile requires that also takes a program without namespaces, behind weaker walls.
EITHER_RUNG = "namespaces-or-landlock"
# And for a program. Without namespaces nothing else is even tried, but where a profile permits it.
PROGRAM_PROTECTIONS = (
    "namespaces",
    EITHER_RUNG,
    "no-new-privs",
    "capabilities",
    "seccomp",
    "landlock",
    "rlimits",
    "cgroup",
)
# The guest declares this much memory; no profile can grant what no isolate can have, nor an output
# larger than the memory it would have to stand in.
ISOLATE_MEMORY_CAP_BYTES = 64 << 20

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from beddel_cli import shape
    from beddel_cli.yaml_safe import Document


def protections_of(use: str) -> tuple[str, ...]:
    """Give what can be required for an `isolate` or a `program`, in the order to report it."""
    return PROGRAM_PROTECTIONS if use == PROGRAM else PROTECTIONS


@record
class Grants:
    """What one use of a profile may have: the most of each limit, its network, its protections."""

    limits: Limits
    network: str
    required: frozenset[str]


@record
class Profile:
    """A checked profile.

    Attributes:
        digest: hex SHA-256 of the file's bytes.
        built_in: whether it came with beddel-cli.
        limits: the most an isolate may get; every field is set.
        dynamic_code: `none`, or `function` for the `Function` family without `eval`.
        clock: `frozen` (a fixed start) or `real` (starts at the machine's time).
        required: protections without which no isolate is run.
        process: the same for programs; None grants none.
    """

    name: str
    description: str
    level: str
    digest: str
    built_in: bool
    limits: Limits
    dynamic_code: str
    clock: str
    network: str
    required: frozenset[str]
    process: Grants | None = None

    def grants(self, use: str) -> Grants | None:
        """Give what an `isolate` or a `program` may have; None: nothing at all."""
        if use == PROGRAM:
            return self.process
        return Grants(self.limits, self.network, self.required)


def folder() -> str:
    """Give the folder of the built-in profiles: in the package, or beside it in a checkout."""
    package = os.path.dirname(os.path.abspath(__file__))
    inside = os.path.join(package, "profiles")
    return inside if os.path.isdir(inside) else os.path.join(os.path.dirname(package), "profiles")


def is_path(name: str) -> bool:
    """Tell whether `--profile` names a file rather than a built-in profile."""
    return "/" in name or name.endswith((".yaml", ".yml"))


def load_profile(name: str) -> Profile:
    """Read a built-in profile by name, or a profile file by path.

    Raises:
        NotFoundError: no such profile or file.
        JobError: the file is not a valid profile.
    """
    data, path = read_profile(name)
    return parse_profile(data, path, built_in=not is_path(name))


def load_built_in_profiles() -> tuple[Profile, ...]:
    """Read every built-in profile, the strictest first; raises as `load_profile`."""
    return tuple(map(load_profile, BUILT_IN))


def read_profile(name: str) -> tuple[bytes, str]:
    """Give the bytes and the path of the file behind a profile's name or path.

    Raises:
        NotFoundError: no such profile or file.
        JobError: the file cannot be read.
    """
    from beddel_cli.files import read_file

    by_path = is_path(name)
    path = name if by_path else os.path.join(folder(), f"{name}.yaml")
    if not by_path and name not in BUILT_IN:
        from beddel_cli import shape

        raise NotFoundError(
            f"no profile {name!r}",
            expected=", ".join(BUILT_IN),
            hint=shape.suggestion(name, BUILT_IN) or "a profile file is given by path: ./mine.yaml",
        )
    return read_file(path, "profile"), path


def parse_profile(data: bytes, file: str, *, built_in: bool) -> Profile:
    """Read a profile file's bytes.

    Raises:
        JobError: with file, line and column of all that is wrong.
    """
    digest = hashlib.sha256(data).hexdigest()
    known = VALUES.get(digest, {}) if built_in else {}
    # Under the name of another one it is read, and refused, as any file would be.
    usual = f"{known.get('name')}.yaml" == os.path.basename(file)
    value = known if usual else _read(data, file, built_in=built_in)
    isolate = value["isolate"]
    return Profile(
        name=value["name"],
        description=value.get("description") or "",
        level=value["level"],
        digest=digest,
        built_in=built_in,
        limits=_limits(isolate["limits"], ISOLATE),
        dynamic_code=isolate["dynamic_code"],
        clock=isolate["clock"],
        network=isolate["network"],
        required=frozenset(isolate["required"]),
        process=_process(value.get("process")),
    )


def _read(data: bytes, file: str, *, built_in: bool) -> dict[str, Any]:
    from beddel_cli.checked_yaml import parse_checked

    def more(document: Document) -> list[shape.Problem]:
        return [*_wrong_name(document, file, built_in=built_in), *_beyond_isolates(document)]

    document = parse_checked(data, file, "profile", more)
    value: Any = document.value
    return dict(value)  # the schema wants a mapping


def _process(given: dict[str, Any] | None) -> Grants | None:
    if given is None:
        return None
    limits = _limits(given["limits"], PROGRAM)
    return Grants(limits, given["network"], frozenset(given["required"]))


def _limits(given: dict[str, Any], use: str) -> Limits:
    return Limits(**{field.field: parse_limit(field, given[field.key]) for field in fields_of(use)})


def _wrong_name(document: Document, file: str, *, built_in: bool) -> list[shape.Problem]:
    from beddel_cli import shape

    name = shape.at(document, ("name",))
    if not built_in and name in BUILT_IN:
        message = f"the name {name!r} belongs to a built-in profile"
        return [shape.Problem(("name",), message, hint="give your profile a name of its own")]
    if built_in and f"{name}.yaml" != os.path.basename(file):
        return [shape.Problem(("name",), f"{file} holds a profile named {name!r}")]
    return []


def _beyond_isolates(document: Document) -> list[shape.Problem]:
    from beddel_cli import shape

    found = []
    for field in fields_of(ISOLATE):
        path = ("isolate", "limits", field.key)
        if field.kind == "size" and _is_beyond(field, shape.at(document, path)):
            found.append(
                shape.Problem(
                    path,
                    f"{field.key} is more than an isolate can have",
                    expected="at most 64MiB",
                    got=str(shape.at(document, path)),
                )
            )
    return found


def _is_beyond(field: LimitField, value: object) -> bool:
    try:
        return parse_limit(field, value) > ISOLATE_MEMORY_CAP_BYTES
    except JobError:
        return False
