"""The `keys` commands that change what is trusted: init, trust, revoke, rotate.

Each takes the root's private key, which no run ever does, and signs the whole list anew under the
next serial number. One at a time in a home, and never on from an old copy.
"""

from __future__ import annotations

import os
import sys
from time import time_ns
from typing import Annotated

import typer

from beddel_cli.commands.run_command import passphrase_prompt
from beddel_cli.errors import SigningKeyError, TrustError, UsageError
from beddel_cli.figures import counted
from beddel_cli.home import locate
from beddel_cli.record import record
from beddel_cli.terminal import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from beddel_cli.trust.key_environment import Secrets
    from beddel_cli.trust.keys import SigningKey
    from beddel_cli.trust.trust_list import Trust, TrustedKey

_KINDS = ("p256", "ed25519")

_RootKeys = Annotated[
    list[str] | None,
    typer.Option("--root-key", metavar="FILE", help="Private root key; default: the home's."),
]
ListFile = Annotated[
    str | None, typer.Option("--trust", metavar="FILE", help="This list, not the home's.")
]
_Lifetime = Annotated[
    str, typer.Option("--lifetime", metavar="TIME", help="When the list ends, such as 90d.")
]
_Kind = Annotated[str, typer.Option("--kind", metavar="KIND", help="p256 or ed25519.")]
_Owner = Annotated[
    str | None, typer.Option("--owner", metavar="TEXT", help="Whose key it is; default: USER@HOST.")
]
_Encrypt = Annotated[
    bool, typer.Option("--encrypt", help="Ask for a passphrase for the new keys (as PKCS#8 does).")
]
_Countersigners = Annotated[
    int | None,
    typer.Option(
        "--countersigners", metavar="N", help="So many owners have to countersign a receipt."
    ),
]
_KeyId = Annotated[str, typer.Argument(metavar="KEYID", help="8 or more digits of its id.")]


def take_secrets() -> Secrets:
    """Take, once, what the environment held: a private key, a passphrase."""
    from beddel_cli.trust.key_environment import read_secrets

    return read_secrets(os.environ)


def _now_ms() -> int:
    return time_ns() // 1_000_000


def print_rows(rows: list[tuple[str, str]]) -> None:
    """Print what a command did, a line each."""
    for label, value in rows:
        print(f"{label:<8} {visible(value)}")


def init_keys(
    root_key: Annotated[
        str | None,
        typer.Option("--root-key", metavar="FILE", help="Where the private root key is or goes."),
    ] = None,
    kind: _Kind = "p256",
    owner: _Owner = None,
    encrypt: _Encrypt = False,
    lifetime: _Lifetime = "365d",
) -> None:
    """Make the signing key if there is none, a root key, and a first list of trusted keys.

    What is there already is used, never written over.
    """
    from beddel_cli.trust.key_files import write_home_file
    from beddel_cli.trust.trust_list import Trust, sign_trust
    from beddel_cli.trust.trust_store import (
        ROOT_PUBLIC_NAME,
        TRUST_NAME,
        home_trust_bytes,
        locked,
        remember,
        seen_serial,
    )
    from beddel_cli.trust.when import parse_span

    home, secrets, now_ms = locate(os.environ).home, take_secrets(), _now_ms()
    _check_kind(kind)
    span = parse_span(lifetime, "--lifetime")
    with locked(home):
        if home_trust_bytes(home) is not None:
            raise UsageError(f"{home!r} has a list of trusted keys already", hint="keys list")
        passphrase = _new_passphrase(secrets, encrypt=encrypt)
        root, root_path = _root_to_start_with(home, root_key, passphrase)
        entries = _first_entries(home, kind, owner or _caller(), passphrase, now_ms)
        # A list that was lost is not begun anew below a number that its readers have seen.
        serial = seen_serial(home, root.key_id) + 1
        whole = now_ms // 1000 * 1000
        trust = Trust(serial, whole, (now_ms + span) // 1000 * 1000, 0, entries, (root.key_id,))
        data = sign_trust(trust, [root])
        public = write_home_file(home, ROOT_PUBLIC_NAME, root.public_pem, folder="keys")
        path = write_home_file(home, TRUST_NAME, data)
        remember(home, trust)
    print_rows(
        [
            *(("key", f"{each.public.key_id} ({', '.join(each.roles)})") for each in entries),
            *(("root", root.key_id), ("private", root_path), ("public", public), ("trust", path)),
        ]
    )
    if root_key is None:
        sys.stderr.write(
            f"next  move {visible(root_path)} to another machine or medium: who has it can name\n"
            "      keys, and no run needs it. Give others the list and the root's public key.\n"
        )


def _first_entries(
    home: str, kind: str, owner: str, passphrase: str | None, now_ms: int
) -> tuple[TrustedKey, ...]:
    """Give the home's own keys, for receipts and for its logs; each is made if it is not there."""
    from beddel_cli.trust.keys import (
        Passphrases,
        load_log_key,
        load_public_key,
        load_signing_key,
    )
    from beddel_cli.trust.trust_list import TrustedKey

    passphrases = Passphrases(passphrase, passphrase_prompt())
    key = load_signing_key(
        home,
        passphrases=passphrases,
        kind=kind,  # type: ignore[arg-type]
    )
    log = load_log_key(home, passphrases)
    return tuple(
        TrustedKey(
            load_public_key(each.public_pem),
            owner,
            (role,),
            # What an older key has signed, nobody dates; it is good from the beginning.
            now_ms // 1000 * 1000 if each.created else None,
        )
        for each, role in ((key, "receipt"), (log, "log"))
    )


def _root_to_start_with(
    home: str, root_key: str | None, passphrase: str | None
) -> tuple[SigningKey, str]:
    from beddel_cli.home import open_folder
    from beddel_cli.trust.key_files import new_key, write_new
    from beddel_cli.trust.trust_store import ROOT_PRIVATE_NAME, home_root

    path = os.path.join(home, "keys", ROOT_PRIVATE_NAME) if root_key is None else root_key
    there = os.path.lexists(path)
    known = home_root(home)
    root = _open_private(path, passphrase) if there else None
    if known is not None and (root is None or root.key_id != known.key_id):
        raise UsageError(
            f"this home's root key is {known.key_id}, and readers may have it already",
            hint="--root-key FILE with that key",
        )
    if root is None:
        pem, root = new_key("p256", passphrase)
        with open_folder(home) as folder:
            folder.child("keys").close()
        write_new(path, pem)
    return root, path


def _open_private(path: str, passphrase: str | None) -> SigningKey:
    from beddel_cli.trust.keys import Passphrases, load_signing_key

    return load_signing_key(
        "/", file=path, passphrases=Passphrases(passphrase, passphrase_prompt())
    )


def _check_kind(kind: str) -> None:
    if kind not in _KINDS:
        raise UsageError(f"unknown kind of key {kind!r}", expected=" or ".join(_KINDS))


def _caller() -> str:
    import pwd

    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        user = str(os.geteuid())
    return f"{user}@{os.uname().nodename or 'localhost'}"


def _new_passphrase(secrets: Secrets, *, encrypt: bool) -> str | None:
    """Give the passphrase for new keys: the environment's, else what a person types twice."""
    if secrets.passphrase is not None or not encrypt:
        return secrets.passphrase
    prompt = passphrase_prompt()
    if prompt is None:
        raise SigningKeyError(
            "there is no terminal to ask for a passphrase",
            hint="put it into BEDDEL_KEY_PASSWORD, or the name of a file that holds it into "
            "BEDDEL_KEY_PASSWORD_FILE",
        )
    first = prompt("passphrase for the new keys: ")
    if not first or prompt("again: ") != first:
        raise SigningKeyError("no passphrase, or two different ones")
    return first


@record
class _Change:
    """A list about to be changed, and everything that takes.

    Attributes:
        file: named on the command line; None: the home's.
    """

    home: str
    file: str | None
    trust: Trust
    roots: tuple[SigningKey, ...]
    now_ms: int
    lifetime_ms: int


def _begin(
    trust: str | None, root_key: list[str] | None, lifetime: str, secrets: Secrets
) -> _Change:
    from beddel_cli.files import read_file
    from beddel_cli.trust.keys import load_public_key
    from beddel_cli.trust.trust_list import MAX_TRUST_BYTES, parse_trust
    from beddel_cli.trust.trust_store import ROOT_PRIVATE_NAME, home_trust_bytes, remember
    from beddel_cli.trust.when import parse_span

    home = locate(os.environ).home
    span = parse_span(lifetime, "--lifetime")
    if trust is not None:
        data: bytes | None = read_file(trust, "list of trusted keys", MAX_TRUST_BYTES)
    else:
        data = home_trust_bytes(home)
    if data is None:
        raise TrustError(f"{home!r} has no list of trusted keys", hint="beddel-cli keys init")
    paths = root_key or [os.path.join(home, "keys", ROOT_PRIVATE_NAME)]
    roots = tuple(_open_private(path, secrets.passphrase) for path in paths)
    found = parse_trust(data, [load_public_key(root.public_pem) for root in roots])
    # Never go on from an old copy: its next number is one that somebody has seen already.
    remember(home, found)
    return _Change(home, trust, found, roots, _now_ms(), span)


def _finish(change: _Change, **changes: Any) -> Trust:
    """Sign the next issue, and put it in the place of the last."""
    from beddel_cli.home import write_whole
    from beddel_cli.trust.key_files import write_home_file
    from beddel_cli.trust.trust_list import reissued, sign_trust
    from beddel_cli.trust.trust_store import ROOT_PUBLIC_NAME, TRUST_NAME, home_root, remember

    trust = reissued(
        change.trust,
        now_ms=change.now_ms,
        lifetime_ms=change.lifetime_ms,
        signed_by=tuple(root.key_id for root in change.roots),
        **changes,
    )
    _check_threshold(trust)
    data = sign_trust(trust, change.roots)
    path = change.file
    if path is None:
        path = write_home_file(change.home, TRUST_NAME, data)
        own = home_root(change.home)
        if own is None or own.key_id not in trust.signed_by:
            # The list this goes on from was signed by both, or it would not have been read.
            pem = change.roots[0].public_pem
            write_home_file(change.home, ROOT_PUBLIC_NAME, pem, folder="keys")
            sys.stderr.write(f"root   {change.roots[0].key_id} is this home's root key now\n")
    else:
        write_whole(path, data, 0o644)
    remember(change.home, trust)
    sys.stderr.write(f"trust  {visible(path)}, serial {trust.serial}: give it to your readers\n")
    return trust


def _check_threshold(trust: Trust) -> None:
    owners = {
        entry.owner
        for entry in trust.keys
        if "countersign" in entry.roles and entry.revoked is None
    }
    if trust.countersigners > len(owners):
        raise UsageError(
            f"{counted(trust.countersigners, 'owner')} would have to countersign each receipt, "
            f"and the list would name {len(owners)} who may",
            # Never by itself: the fewer have to, the more receipts are valid.
            hint=f"the same command with --countersigners {len(owners)}; or first another "
            "countersigner: keys trust PUB.pem --owner TEXT --role countersign",
        )


def trust_key(
    key: Annotated[
        str | None, typer.Argument(metavar="[PUB.pem]", help="The public key to put on the list.")
    ] = None,
    owner: Annotated[
        str | None,
        typer.Option(
            "--owner", metavar="TEXT", help="Whose key it is. A key new to the list needs it."
        ),
    ] = None,
    role: Annotated[
        list[str] | None,
        typer.Option(
            "--role",
            metavar="ROLE",
            help="receipt, log or countersign; repeatable. A key new to the list needs one.",
        ),
    ] = None,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="WHEN", help="First moment it is good at; none.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="WHEN", help="First moment it is not; none.")
    ] = None,
    countersigners: Annotated[
        int | None,
        typer.Option(
            "--countersigners", metavar="N", help="So many owners have to countersign a receipt."
        ),
    ] = None,
    renew: Annotated[bool, typer.Option("--renew", help="Only give the list a new end.")] = False,
    root_key: _RootKeys = None,
    trust: ListFile = None,
    lifetime: _Lifetime = "365d",
) -> None:
    """Put a key on the list of trusted keys, or change what it says; each change is signed anew.

    With several --root-key the list is signed by each: so readers of an old root take a new one.
    """
    from beddel_cli.trust.trust_list import with_entry
    from beddel_cli.trust.trust_store import locked

    if key is None and countersigners is None and not renew:
        raise UsageError("nothing to change", hint="PUB.pem, --countersigners N, or --renew")
    if key is None and (role or owner or from_ or until):
        raise UsageError("--owner, --role, --from and --until go with a key", hint="PUB.pem")
    changes = _threshold(countersigners)
    secrets = take_secrets()
    with locked(locate(os.environ).home):
        change = _begin(trust, root_key, lifetime, secrets)
        if key is not None:
            entry = _entry(change, key, owner, role, from_, until)
            changes["keys"] = with_entry(change.trust, entry)
        _finish(change, **changes)


def _threshold(countersigners: int | None) -> dict[str, Any]:
    """Give what --countersigners changes of a list."""
    from beddel_cli.trust.trust_list import MAX_THRESHOLD

    if countersigners is None:
        return {}
    if not 0 <= countersigners <= MAX_THRESHOLD:
        raise UsageError(f"--countersigners {countersigners}", expected=f"0 to {MAX_THRESHOLD}")
    return {"countersigners": countersigners}


def _entry(
    change: _Change,
    path: str,
    owner: str | None,
    roles: list[str] | None,
    from_: str | None,
    until: str | None,
) -> TrustedKey:
    """Give a key's new entry; what is not said stays as it was."""
    from beddel_cli.files import read_file
    from beddel_cli.trust.keys import MAX_KEY_BYTES, load_public_key
    from beddel_cli.trust.trust_list import ROLES, TrustedKey
    from beddel_cli.trust.when import parse_when

    public = load_public_key(read_file(path, "public key", MAX_KEY_BYTES), repr(path))
    if unknown := [role for role in roles or () if role not in ROLES]:
        raise UsageError(f"unknown role {unknown[0]!r}", expected=", ".join(ROLES))
    there = change.trust.find(public.key_id)
    if there is not None and there.revoked is not None:
        raise UsageError(f"key {public.key_id} was revoked, and that is not taken back")
    if owner is None and there is None:
        raise UsageError("whose key is it?", hint="--owner TEXT")
    if not roles and there is None:
        # None is the harmless one, so none goes without saying.
        raise UsageError("what may this key sign?", expected="--role with " + _either(ROLES))
    before = there or TrustedKey(public, "", ())

    def instant(text: str | None, option: str, was: int | None) -> int | None:
        if text is None:
            return was
        return None if text == "none" else parse_when(text, option, change.now_ms)

    entry = TrustedKey(
        public,
        before.owner if owner is None else owner,
        tuple(role for role in ROLES if role in roles) if roles else before.roles,
        instant(from_, "--from", before.from_ms),
        instant(until, "--until", before.until_ms),
    )
    _check_until(entry, until, from_, change.now_ms)
    return entry


def _either(words: tuple[str, ...]) -> str:
    return ", ".join(words[:-1]) + f" or {words[-1]}"


def _check_until(entry: TrustedKey, until: str | None, from_: str | None, now_ms: int) -> None:
    """Refuse an end in the past, unless a whole time in the past is what somebody spelt out."""
    past = (
        until is not None and entry.until_ms is not None and entry.until_ms < now_ms // 1000 * 1000
    )
    if past and from_ is None:
        raise UsageError(
            f"--until {until!r} is past",
            expected="now, or a time to come",
            hint="of a key that was good in the past only, give --from as well; a key that is not "
            "to be believed any more is revoked: keys revoke KEYID --at WHEN",
        )


def revoke_key(
    key_id: _KeyId,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; readers are shown it.")
    ],
    at: Annotated[
        str, typer.Option("--at", metavar="WHEN", help="From when it is not to be believed.")
    ] = "now",
    countersigners: _Countersigners = None,
    root_key: _RootKeys = None,
    trust: ListFile = None,
    lifetime: _Lifetime = "365d",
) -> None:
    """Say that a key is not to be believed any more, from a moment on.

    Of what it signed before, only that holds which a timestamp authority or a trusted log has seen
    before. A revocation is not taken back; it can be made earlier. Where too few owners are left to
    countersign, --countersigners says how many have to from now on.
    """
    from beddel_cli.record import changed
    from beddel_cli.trust.trust_list import Revocation, find_by_prefix, with_entry
    from beddel_cli.trust.trust_store import locked
    from beddel_cli.trust.when import parse_when

    changes = _threshold(countersigners)
    secrets = take_secrets()
    with locked(locate(os.environ).home):
        change = _begin(trust, root_key, lifetime, secrets)
        entry = find_by_prefix(change.trust, key_id)
        at_ms = parse_when(at, "--at", change.now_ms)
        if at_ms > change.now_ms:
            raise UsageError("a revocation is not in the future", hint="keys trust … --until WHEN")
        if entry.revoked is not None and entry.revoked.at_ms <= at_ms:
            raise UsageError(f"key {entry.public.key_id} was revoked before that already")
        revoked = changed(entry, revoked=Revocation(at_ms, reason))
        _finish(change, keys=with_entry(change.trust, revoked), **changes)
    print_rows([("revoked", entry.public.key_id), ("owner", entry.owner)])
    others = [
        each
        for each in change.trust.keys
        if each.owner == entry.owner and each != entry and each.revoked is None
    ]
    for each in others:
        words = f"{each.public.key_id} ({', '.join(each.roles)}) of {visible(each.owner)}"
        sys.stderr.write(f"  still trusted: {words}\n")


def rotate_key(
    kind: _Kind = "p256",
    grace: Annotated[
        str,
        typer.Option(
            "--grace", metavar="TIME", help="How long runs under way may use the old key."
        ),
    ] = "15min",
    encrypt: _Encrypt = False,
    root_key: _RootKeys = None,
    lifetime: _Lifetime = "365d",
) -> None:
    """Make a new signing key, and let the old one's time on the list of trusted keys end.

    Receipts of the old key go on to hold for its time, where a log or a time stamp shows it.
    """
    from beddel_cli.record import changed
    from beddel_cli.trust.key_files import exchange_signing_key, new_key
    from beddel_cli.trust.keys import load_public_key, show_key
    from beddel_cli.trust.trust_list import TrustedKey, with_entry
    from beddel_cli.trust.trust_store import locked
    from beddel_cli.trust.when import parse_span

    _check_kind(kind)
    secrets = take_secrets()
    grace_ms = parse_span(grace, "--grace")
    with locked(locate(os.environ).home):
        change = _begin(None, root_key, lifetime, secrets)
        entry = change.trust.find(show_key(change.home).key_id)
        if entry is None:
            raise TrustError(
                "the signing key is not among the trusted keys",
                hint="keys trust PUB.pem --owner TEXT --role receipt",
            )
        pem, key = new_key(kind, _new_passphrase(secrets, encrypt=encrypt))  # type: ignore[arg-type]
        now_ms = change.now_ms // 1000 * 1000
        # Rounded up, so that what was signed in this second still was in time.
        end_ms = -(-(change.now_ms + grace_ms) // 1000) * 1000
        until_ms = end_ms if entry.until_ms is None else min(entry.until_ms, end_ms)
        successor = TrustedKey(load_public_key(key.public_pem), entry.owner, entry.roles, now_ms)
        retired = changed(entry, until_ms=until_ms)
        # The list comes last: should this stop in between, the new key is not believed yet, which
        # is seen at once and put right by `keys trust`.
        kept = exchange_signing_key(change.home, pem, key.public_pem)
        _finish(change, keys=(*with_entry(change.trust, retired), successor))
    print_rows([("key", key.key_id), ("old", entry.public.key_id), ("private", kept)])
    sys.stderr.write(f"next  rm {visible(kept)}: nothing needs the old private key any more\n")
