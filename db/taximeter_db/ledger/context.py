"""What booking needs beside the events: given once by the caller and handed on unchanged."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from taximeter_db.crypto.payload_crypto import PayloadCrypto
from taximeter_db.ledger.claims import OptimisticClaims
from taximeter_db.ledger.events import Policy


def _nothing() -> None:
    """Do nothing."""


class BookingContext(msgspec.Struct, frozen=True):
    """How a batch is booked. The defaults are those of a single, careful writer.

    Attributes:
        policy: What happens to unknown workspaces.
        claims: Remembers whether batches come without duplicates, so that keys may be claimed the cheaper way. None:
            always the way that expects duplicates.
        payload_crypto: Compresses and encrypts the payloads; without it they are stored as they came.
        before_commit: Called once in each transaction, just before its COMMIT (for fault tests).
        owe_flags: Note the debts of the flags in the same transaction. Only a consumer whose messages come again until
            their flags are written may leave that out.
    """

    policy: Policy = Policy()
    claims: OptimisticClaims | None = None
    payload_crypto: PayloadCrypto | None = None
    before_commit: Callable[[], None] = _nothing
    owe_flags: bool = True

    @property
    def encrypts(self) -> bool:
        """Whether payloads must be encrypted with the present data keys of their workspaces."""
        return self.payload_crypto is not None and self.payload_crypto.encrypts
