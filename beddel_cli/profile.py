"""What a run is permitted and what it requires: a named profile, from a file.

Built-in profiles are files too. A profile given by path can never take a built-in's name, and a
run under it says that it is not one of ours.
"""

from __future__ import annotations

import hashlib
import os
import re

from beddel_cli import shape
from beddel_cli.errors import JobError, NotFoundError
from beddel_cli.limits import BY_KEY, FIELDS, Limits, parse_limit
from beddel_cli.record import record
from beddel_cli.yaml_safe import Document, parse_yaml

FORMAT = 1
# The strictest first.
BUILT_IN = ("ultra-secure", "high-security", "tenant-isolated")
# What can be required of a machine. A missing one explains those after it: seccomp and Landlock
# fail without no_new_privs.
PROTECTIONS = (
    "store-limits",
    "no-new-privs",
    "capabilities",
    "seccomp",
    "landlock",
    "rlimits",
)
LEVELS = ("ultra", "high", "medium")
DYNAMIC_CODE = ("none", "function")
CLOCKS = ("frozen", "real")
# The guest declares this much memory; no profile can grant what no isolate can have, nor an output
# larger than the memory it would have to stand in.
ISOLATE_MEMORY_CAP_BYTES = 64 << 20

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}\Z")
_KEYS = ("beddel", "name", "description", "level", "isolate")
_ISOLATE_KEYS = ("limits", "dynamic_code", "clock", "network", "required")


@record
class Profile:
    """A checked profile.

    Attributes:
        digest: hex SHA-256 of the file's bytes.
        built_in: whether it came with beddel-cli.
        limits: the most an isolate may get; every field is set.
        dynamic_code: `none`, or `function` for the `Function` family without `eval`.
        clock: `frozen` (a fixed start) or `real` (starts at the machine's time).
        required: protections without which nothing is run.
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
    from beddel_cli.files import read_file

    by_path = is_path(name)
    path = name if by_path else os.path.join(folder(), f"{name}.yaml")
    if not by_path and name not in BUILT_IN:
        raise NotFoundError(
            f"no profile {name!r}",
            expected=", ".join(BUILT_IN),
            hint=shape.suggestion(name, BUILT_IN) or "a profile file is given by path: ./mine.yaml",
        )
    return parse_profile(read_file(path, "profile"), path, built_in=not by_path)


def parse_profile(data: bytes, file: str, *, built_in: bool) -> Profile:
    """Read a profile file's bytes.

    Raises:
        JobError: with file, line and column of what is wrong.
    """
    document = parse_yaml(data, file)
    shape.mapping(document, (), _KEYS, ("beddel", "name", "level", "isolate"))
    _check_format(document)
    name = _name(document, file, built_in=built_in)
    shape.mapping(document, ("isolate",), _ISOLATE_KEYS, _ISOLATE_KEYS)
    return Profile(
        name=name,
        description=_description(document),
        level=shape.one_of(document, ("level",), LEVELS),
        digest=hashlib.sha256(data).hexdigest(),
        built_in=built_in,
        limits=_limits(document),
        dynamic_code=shape.one_of(document, ("isolate", "dynamic_code"), DYNAMIC_CODE),
        clock=shape.one_of(document, ("isolate", "clock"), CLOCKS),
        network=shape.one_of(document, ("isolate", "network"), ("none",)),
        required=_required(document),
    )


def _check_format(document: Document) -> None:
    version = shape.typed(document, ("beddel",), int)
    if version != FORMAT:
        raise JobError(
            f"format {version} is not known",
            place=document.place(("beddel",)),
            expected=f"beddel: {FORMAT}",
        )


def _name(document: Document, file: str, *, built_in: bool) -> str:
    name = shape.text(document, ("name",))
    if not _NAME.match(name):
        raise JobError(
            f"not a valid profile name: {name!r}",
            place=document.place(("name",)),
            expected="1 to 63 of a-z, 0-9 and -, not starting with -",
        )
    if not built_in and name in BUILT_IN:
        raise JobError(
            f"the name {name!r} belongs to a built-in profile",
            place=document.place(("name",)),
            hint="give your profile a name of its own",
        )
    if built_in and f"{name}.yaml" != os.path.basename(file):
        raise JobError(f"{file} holds a profile named {name!r}", place=document.place(("name",)))
    return name


def _description(document: Document) -> str:
    missing = shape.at(document, ("description",)) is None
    return "" if missing else shape.text(document, ("description",))


def _limits(document: Document) -> Limits:
    path = ("isolate", "limits")
    keys = tuple(BY_KEY)
    given = shape.mapping(document, path, keys, keys)
    values: dict[str, int] = {}
    for field in FIELDS:
        place = document.place((*path, field.key))
        try:
            values[field.field] = parse_limit(field, given[field.key])
        except JobError as error:
            error.place = place
            raise
        if field.kind == "size" and values[field.field] > ISOLATE_MEMORY_CAP_BYTES:
            raise JobError(
                f"{field.key} is more than an isolate can have",
                place=place,
                expected="at most 64MiB",
                got=str(given[field.key]),
            )
    return Limits(**values)


def _required(document: Document) -> frozenset[str]:
    path = ("isolate", "required")
    items = shape.typed(document, path, list)
    for index in range(len(items)):
        item = items[index]
        if item not in PROTECTIONS:
            raise JobError(
                f"unknown protection {item!r}",
                place=document.place((*path, index)),
                expected=", ".join(PROTECTIONS),
                hint=shape.suggestion(str(item), PROTECTIONS),
            )
    if not items:
        raise JobError(
            "an empty list of required protections would allow everything",
            place=document.place(path),
            expected=", ".join(PROTECTIONS),
        )
    return frozenset(items)
