"""`keys`: make, show, rotate and revoke keys, and the list of those that are trusted.

Whoever verifies gets the list and the root's public key. Whoever changes the list needs the root's
private key, which no run ever does: keep it somewhere else.
"""

from __future__ import annotations

import os
import sys
from time import time_ns
from typing import Annotated

import typer

from beddel_cli.commands.run_command import passphrase_prompt
from beddel_cli.commands.trusted_keys_command import (
    ListFile,
    init_keys,
    print_rows,
    revoke_key,
    rotate_key,
    take_secrets,
    trust_key,
)
from beddel_cli.errors import BeddelError, SigningKeyError, TrustError, UsageError
from beddel_cli.home import locate
from beddel_cli.render import document_of_error
from beddel_cli.terminal import json_text, visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from beddel_cli.trust.keys import SigningKey
    from beddel_cli.trust.trust_list import Trust, TrustedKey

LIST_SCHEMA = "beddel-cli/keys-list/v1"
_LIST_KEYS = ("serial", "issued", "expires", "countersigners", "ended", "root_key_ids", "keys")

keys_app = typer.Typer(
    no_args_is_help=True, help="Make, show, rotate and revoke keys, and say which are trusted."
)
keys_app.command("init", epilog="Example: beddel-cli keys init --root-key /media/usb/root.pem")(
    init_keys
)
keys_app.command(
    "trust", epilog="Example: beddel-cli keys trust ci.pub.pem --owner ci --role receipt"
)(trust_key)
keys_app.command("rotate", epilog="Example: beddel-cli keys rotate --root-key /media/usb/root.pem")(
    rotate_key
)
keys_app.command(
    "revoke", epilog='Example: beddel-cli keys revoke 4be1f0a2 --reason "laptop lost"'
)(revoke_key)

_SigningKey = Annotated[
    str | None, typer.Option("--signing-key", metavar="FILE", help="This key, not the home's.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def _named_key(signing_key: str | None) -> SigningKey | None:
    """Give the key that --signing-key or BEDDEL_SIGNING_KEY name; None where the home's signs."""
    from beddel_cli.trust.keys import Passphrases, load_signing_key

    secrets = take_secrets()
    if signing_key is None and secrets.pem is None:
        return None
    return load_signing_key(
        locate(os.environ).home,
        file=signing_key,
        environment_pem=secrets.pem,
        passphrases=Passphrases(secrets.passphrase, passphrase_prompt()),
    )


@keys_app.command("show", epilog="Example: beddel-cli keys show")
def _show(signing_key: _SigningKey = None) -> None:
    """Show which key would sign a run now, and where it is."""
    from beddel_cli.trust.keys import show_key

    named = _named_key(signing_key)
    if named is not None:
        where = named.path or "in BEDDEL_SIGNING_KEY"
        rows = [("key", named.key_id), ("kind", named.kind), ("private", where)]
    else:
        info = show_key(locate(os.environ).home)
        encrypted = " (encrypted)" if info.encrypted else ""
        rows = [("key", info.key_id), ("kind", info.kind), ("private", info.path + encrypted)]
        rows.append(("public", info.public_path))
    print_rows(rows)


@keys_app.command("export", epilog="Example: beddel-cli keys export --out signing.pub.pem")
def _export(
    out: Annotated[
        str | None, typer.Option("--out", metavar="FILE", help="Write it here, not to stdout.")
    ] = None,
    signing_key: _SigningKey = None,
    root: Annotated[
        bool, typer.Option("--root", help="The root key's, which readers of the list need.")
    ] = False,
) -> None:
    """Give the public key as PEM, for `verify --key` and other people's tools."""
    from beddel_cli.home import write_whole

    home = locate(os.environ).home
    pem = _root_pem(home) if root else _signing_pem(home, signing_key)
    if out is None:
        sys.stdout.write(pem.decode("ascii"))
        return
    real = os.path.realpath(out)
    keys_folder = os.path.realpath(os.path.join(home, "keys"))
    if os.path.dirname(real) == keys_folder or (
        signing_key is not None and real == os.path.realpath(signing_key)
    ):
        raise UsageError(f"--out {out!r} would write over a key")
    write_whole(out, pem, 0o644)


def _signing_pem(home: str, signing_key: str | None) -> bytes:
    from beddel_cli.trust.keys import show_key

    named = _named_key(signing_key)
    return show_key(home).public_pem if named is None else named.public_pem


def _root_pem(home: str) -> bytes:
    from beddel_cli.trust.trust_store import home_root

    root = home_root(home)
    if root is None:
        raise SigningKeyError(f"there is no root key in {home!r}", hint="beddel-cli keys init")
    return root.pem


@keys_app.command("list", epilog="Example: beddel-cli keys list")
def _list(
    trust: ListFile = None,
    root: Annotated[
        list[str] | None,
        typer.Option("--root", metavar="PUB.pem", help="The root key that signs the list."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Show the list of trusted keys, once its signature is checked, and what each is good for."""
    now_ms = time_ns() // 1_000_000
    try:
        found = _read_list(trust, root)
    except BeddelError as error:
        if as_json:
            sys.stdout.write(json_text(document_of_error(LIST_SCHEMA, _LIST_KEYS, error)))
        raise
    if as_json:
        sys.stdout.write(_list_json(found, now_ms))
    else:
        sys.stdout.write(_list_text(found, now_ms))


def _read_list(trust: str | None, root: list[str] | None) -> Trust:
    """Give the list that is named, or this home's, once its signature is checked."""
    from beddel_cli.commands.verify_command import read_public_keys
    from beddel_cli.files import read_file
    from beddel_cli.trust.trust_list import MAX_TRUST_BYTES, parse_trust
    from beddel_cli.trust.trust_store import home_root, home_trust_bytes

    home = locate(os.environ).home
    own = home_root(home)
    roots = read_public_keys(root) if root else () if own is None else (own,)
    if trust is not None:
        data: bytes | None = read_file(trust, "list of trusted keys", MAX_TRUST_BYTES)
    else:
        data = home_trust_bytes(home)
    if data is None:
        raise TrustError(f"{home!r} has no list of trusted keys", hint="beddel-cli keys init")
    return parse_trust(data, roots)


def _list_json(trust: Trust, now_ms: int) -> str:
    from beddel_cli.trust.trust_list import trust_document

    document = {**trust_document(trust), "schema": LIST_SCHEMA}
    states = [
        {"key_id": entry.public.key_id, "state": _state(entry, now_ms), **said}
        for entry, said in zip(trust.keys, document.pop("keys"), strict=True)
    ]
    more = {"ended": now_ms >= trust.expires_ms, "root_key_ids": list(trust.signed_by)}
    return json_text({**document, **more, "keys": states, "error": None})


def _list_text(trust: Trust, now_ms: int) -> str:
    from beddel_cli.trust.instants import show_instant

    end = show_instant(trust.expires_ms)
    ended = f"ENDED at {end}" if now_ms >= trust.expires_ms else f"until {end}"
    needed = f", {trust.countersigners} countersigners" if trust.countersigners else ""
    lines = [f"serial {trust.serial}, {ended}, root {', '.join(trust.signed_by)}{needed}"]
    for entry in trust.keys:
        roles = ", ".join(entry.roles)
        lines.append(
            f"{entry.public.key_id[:16]}  {entry.public.kind:<7}  {roles:<11}  "
            f"{_state_words(entry, now_ms):<32}  {visible(entry.owner)}"
        )
    return "\n".join(lines) + "\n"


def _state(entry: TrustedKey, now_ms: int) -> str:
    if entry.revoked is not None:
        return "revoked"
    if entry.from_ms is not None and now_ms < entry.from_ms:
        return "not-yet"
    if entry.until_ms is not None and now_ms >= entry.until_ms:
        return "retired"
    return "valid"


def _state_words(entry: TrustedKey, now_ms: int) -> str:
    from beddel_cli.trust.instants import show_instant

    state = _state(entry, now_ms)
    if entry.revoked is not None:
        return f"revoked {show_instant(entry.revoked.at_ms)}: {visible(entry.revoked.reason)}"
    if state == "not-yet" and entry.from_ms is not None:
        return f"from {show_instant(entry.from_ms)}"
    if entry.until_ms is not None:
        return f"{state} until {show_instant(entry.until_ms)}"
    return state
