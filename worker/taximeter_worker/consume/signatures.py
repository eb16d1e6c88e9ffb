"""Who may push to a Redis or Valkey broker: the producer keys of ``TAXIMETER_PRODUCER_KEYS``."""

from __future__ import annotations

import hmac
from typing import Final, NamedTuple

from taximeter import names
from taximeter.brokers.signing import ProducerKey, Signed, split
from taximeter.errors import ConfigurationError

PAYMENT: Final = "payment"


class Checked(NamedTuple):
    """A list item without its signature; ``key_id`` is the key that vouches for it."""

    body: bytes
    distrusted: str | None = None
    key_id: str | None = None


class ProducerKeys:
    """The keys that count, by id, each for usage or, where that is said, for payments too."""

    def __init__(self, keys: dict[str, ProducerKey], payers: frozenset[str] = frozenset()) -> None:
        self._keys = keys
        self._payers = payers

    @classmethod
    def parse(cls, text: str) -> ProducerKeys:
        """Read ``id:secret,id:secret:payment,…``.

        Raises:
            ValueError: An entry makes no sense; the sentence says which one and quotes none.
        """
        keys: dict[str, ProducerKey] = {}
        payers = set()
        for number, part in enumerate(filter(None, map(str.strip, text.split(","))), start=1):
            entry, _, may = part.rpartition(":") if part.count(":") > 1 else (part, "", "")
            if may not in {"", PAYMENT}:
                raise ValueError(f"(entry {number}) a key may be followed by :{PAYMENT} and nothing else")
            try:
                key = ProducerKey.parse(entry)
            except ConfigurationError as error:
                raise ValueError(f"(entry {number}) is wrong: {error}") from None
            keys[key.key_id] = key
            if may:
                payers.add(key.key_id)
        return cls(keys, frozenset(payers))

    def __bool__(self) -> bool:
        return bool(self._keys)

    def __repr__(self) -> str:
        return f"ProducerKeys({', '.join(self._keys)})"

    def check(self, item: bytes, queue: str) -> Checked:
        """Take a list item out of its signature and say what is wrong with that, if anything.

        Without keys nothing is wrong: then signatures are ignored, so that producers can begin to sign first.
        """
        signed = split(item)
        if not self._keys:
            return Checked(signed.body)
        distrusted = self._fault(signed, queue)
        return Checked(signed.body, distrusted, None if distrusted else signed.key_id)

    def _fault(self, signed: Signed, queue: str) -> str | None:
        if signed.malformed:
            return (
                "Its signature is malformed: in front of the body stands one line, `taximeter-v1`, the key's id and 64 "
                "hexadecimal digits with one space between them, and a line feed ends it, with no byte-order mark before."
            )
        if signed.key_id is None:
            return "It is not signed, and only signed messages are accepted here."
        key = self._keys.get(signed.key_id)
        if key is None:
            return f"It is signed with the key {signed.key_id}, which is not known here."
        if not hmac.compare_digest(key.digest(queue, signed.body), signed.digest):
            return f"Its signature with the key {signed.key_id} does not hold: it was changed, or the secrets differ."
        if queue == names.PAYMENT_QUEUE and signed.key_id not in self._payers:
            return f"The key {signed.key_id} may send usage and no payments."
        return None
