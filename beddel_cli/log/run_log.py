"""One run's two entries in its tenant's log, and the proof its receipt is given.

`run.started` is on disk before anything of the job runs; without it, nothing runs. The end commits
to the receipt's payload before the receipt is written, so a receipt that was handed out is one the
log knows.
"""

from __future__ import annotations

from beddel_cli.errors import BeddelError, LedgerError
from beddel_cli.log.checkpoint import make_proof
from beddel_cli.log.ledger import open_ledger
from beddel_cli.log.log_entry import abandoned_entry, finished_entry, started_entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from beddel_cli.job import Job
    from beddel_cli.log.ledger import Ledger
    from beddel_cli.outcome import Outcome
    from beddel_cli.profile import Profile
    from beddel_cli.trust.keys import SigningKey


class RunLog:
    """A run that is in the log and has not ended there.

    Each entry reads the clock, which gives the time as text, when it is its turn in the log.

    Attributes:
        run_id: the run's.
        origin: of the log.
        index: of `run.started`.
    """

    def __init__(self, ledger: Ledger, key: SigningKey, run_id: str, tenant: str) -> None:
        self._ledger = ledger
        self._key = key
        self.run_id = run_id
        self._tenant = tenant
        self._ended = False
        self.origin = ledger.origin
        self.index = -1

    def start(
        self,
        clock: Callable[[], str],
        job: Job,
        profile: Profile,
        key_id: str,
        salt: bytes | None = None,
    ) -> None:
        """Write `run.started`.

        Args:
            key_id: of the key that will sign the receipt.
            salt: what its digests are salted with, None where they are not.

        Raises:
            LedgerError: it is not in the log.
        """

        def entry() -> bytes:
            return started_entry(
                at=clock(),
                run_id=self.run_id,
                tenant=self._tenant,
                job=(job.id, job.source),
                profile=(profile.name, profile.digest),
                runtime=job.runtime,
                key_id=key_id,
                salt=salt,
            )

        self.index = self._ledger.append(entry, self._key).index

    def finish(
        self, clock: Callable[[], str], payload: bytes, outcome: Outcome, key_id: str
    ) -> bytes:
        """Write `run.finished` and give its `.tlog-proof`.

        Args:
            payload: what the receipt signs.

        Raises:
            LedgerError: it is not in the log.
        """
        self._ended = True

        def entry() -> bytes:
            return finished_entry(
                at=clock(),
                run_id=self.run_id,
                tenant=self._tenant,
                started=self.index,
                payload=payload,
                status=outcome.status,
                reason=outcome.reason,
                exit_code=outcome.exit_code,
                key_id=key_id,
            )

        appended = self._ledger.append(entry, self._key)
        return make_proof(appended.index, appended.path, appended.checkpoint, appended.data)

    def abandon(self, clock: Callable[[], str], error: BaseException) -> None:
        """Write `run.abandoned`, if the run has no end yet and the log takes one.

        Where it does not, the start stays without an end, which is how a log tells of a run whose
        ending is not known; what ended the run is told by its own error.
        """
        if self._ended or self.index < 0:
            return
        self._ended = True
        reason = error.code if isinstance(error, BeddelError) else type(error).__name__

        def entry() -> bytes:
            return abandoned_entry(
                at=clock(),
                run_id=self.run_id,
                tenant=self._tenant,
                started=self.index,
                reason=reason,
            )

        try:
            self._ledger.append(entry, self._key)
        except LedgerError:
            return

    def close(self) -> None:
        """Give the log back."""
        self._ledger.close()


def open_run_log(home: str, tenant: str, key: SigningKey, run_id: str) -> RunLog:
    """Open the tenant's log for one run.

    Raises:
        LedgerError, HomeError: it cannot be opened.
    """
    return RunLog(open_ledger(home, tenant), key, run_id, tenant)
