"""What can go wrong on our side of the walls. A job that fails is a value, never one of these.

Each class carries the exit code of `run` and `exec` and a stable code word for JSON; only the
command line turns one into an exit. Messages are lower case, name the offending value, and leave
the next step to `hint`.
"""

from __future__ import annotations

from beddel_cli.record import record


@record
class Place:
    """Where in a file: 1-based line and column, None where there is none."""

    file: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        parts = [self.file, *(str(n) for n in (self.line, self.column) if n is not None)]
        return ":".join(parts)


class BeddelError(Exception):
    """Beddel could not do what was asked. Base of every error this package raises on purpose.

    Attributes:
        more: what else is wrong with the same file, in its order.
    """

    exit_code = 125
    code = "error"
    more: tuple[BeddelError, ...] = ()

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        place: Place | None = None,
        expected: str | None = None,
        got: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.place = place
        self.expected = expected
        self.got = got


class UsageError(BeddelError):
    """The command line is wrong. Commands other than `run` and `exec` exit 2 for it."""

    code = "usage"


class JobError(BeddelError):
    """A job, input or profile file is not valid."""

    code = "invalid-input"


class NotFoundError(BeddelError):
    """A job, program, profile or input file is not there."""

    exit_code = 127
    code = "not-found"


class RefusedError(BeddelError):
    """The job asks for more than it may have, or this machine cannot enforce what is required.

    Attributes:
        reason: the outcome's reason word, `limits`, `protection` or `files`.
        needs, found, fix: what was required, what there is instead (with errno and cause), and
            one command or change that helps.
    """

    exit_code = 126
    code = "refused"

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        needs: str,
        found: str,
        fix: str,
        place: Place | None = None,
    ) -> None:
        super().__init__(message, hint=fix, place=place, expected=needs, got=found)
        self.reason = reason
        self.needs = needs
        self.found = found
        self.fix = fix


class HomeError(BeddelError):
    """BEDDEL_HOME or the cache folder cannot be used safely."""

    code = "home"


class SigningKeyError(BeddelError):
    """No usable signing key."""

    code = "key"


class WrongPassphraseError(SigningKeyError):
    """An encrypted key that a passphrase does not open."""


class ReceiptWriteError(BeddelError):
    """A receipt, bundle or snapshot could not be written whole."""

    code = "write"


class LedgerError(BeddelError):
    """The log cannot be opened, read or added to."""

    code = "log"


class GuestError(BeddelError):
    """The installed guest or engine cannot be used."""

    code = "guest"


class VerificationError(BeddelError):
    """A receipt is proved bad: exit 1 of `verify`."""

    exit_code = 1
    code = "not-valid"


class UnverifiableError(BeddelError):
    """Nothing could be proved either way: exit 2 of `verify`."""

    exit_code = 2
    code = "could-not-verify"


class TrustError(UnverifiableError):
    """The list of trusted keys cannot be used, so what it should judge was not judged."""

    code = "trust"


def bug(what: str) -> AssertionError:
    """Give the exception for a state that cannot happen."""
    return AssertionError(f"bug in beddel-cli, please report: {what}")
