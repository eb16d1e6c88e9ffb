"""From the bytes of a broker message to usages, payments and rejections. Nothing that arrives makes it raise.

A batch is split in C and each usage read by `fast_path`. Whatever that will not take, and every message that cannot be
split, goes to `strict`, event by event, so that a bad one costs its neighbours nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from taximeter import names
from taximeter_db.ledger.events import Rejected, Usage
from taximeter_worker.decode import fast_path, scan, strict, transfer
from taximeter_worker.decode.clock import SECOND
from taximeter_worker.decode.fields import kind_of
from taximeter_worker.decode.result import Decoded, EventRejectedError, Limits

__all__ = ["Decoded", "Limits", "decode_message"]

_DEFAULT_LIMITS: Final = Limits()
_CONTENT_TYPE_SHOWN_MAX: Final = 255

_SOME_EVENT: Final = b'"specversion"'


class _Reading(msgspec.Struct):
    """What all steps of reading one message share."""

    now: int
    limits: Limits
    decoded: Decoded

    @property
    def latest(self) -> int:
        """The last acceptable time of an event, in microseconds."""
        return self.now + self.limits.future_seconds_max * SECOND


_split = msgspec.json.Decoder(list[Raw]).decode


def decode_message(
    body: bytes,
    content_type: str | None,
    *,
    now: int,
    limits: Limits = _DEFAULT_LIMITS,
    properties: Mapping[str, Any] | None = None,
) -> Decoded:
    """Decode one broker message.

    Args:
        body: The bytes as received.
        content_type: As the sender gave it. Without one, or with plain JSON's, what is in it decides between event and batch.
        now: Microseconds since the Unix epoch, for telling times in the future.
        limits: Bounds on sizes, depth and time.
        properties: What else the sender gave with the message: ``headers``, ``content_encoding`` and the like.

    Returns:
        Every event of the message, in one of three lists. A rejected event of a batch is kept alone; a message that
        cannot be cut into events is rejected whole.
    """
    decoded = Decoded([], [], [])
    try:
        _read_message(body, content_type, properties, _Reading(now, limits, decoded))
    except EventRejectedError as error:
        decoded.rejected.append(_rejected(error, body, content_type))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  (one message that we did not foresee must not stop all that follow)
        unforeseen = EventRejectedError(
            "internal_error", f"The decoder failed on this message ({type(error).__name__}); please report it as a bug."
        )
        decoded = Decoded([], [], [_rejected(unforeseen, body, content_type)])
    if properties and decoded.rejected:
        whole, carried = transfer.as_text(properties), transfer.as_text(transfer.carried(properties))
        for rejected in decoded.rejected:
            rejected.properties = whole if rejected.event is body else carried
    return decoded


def _read_message(
    body: bytes,
    content_type: str | None,
    properties: Mapping[str, Any] | None,
    reading: _Reading,
) -> None:
    """Open the message and read what is in it.

    Raises:
        EventRejectedError: Nothing can be made of the message as a whole.
    """
    bytes_max = reading.limits.message_bytes_max
    if len(body) > bytes_max:
        raise EventRejectedError(
            "too_large", f"The message has {len(body)} bytes; at most {bytes_max} are allowed. Send smaller batches."
        )
    plain = transfer.opened(body, properties, bytes_max)
    attributes = transfer.attributes_of(content_type, properties) if properties else None
    if attributes is not None:
        _read_binary(attributes, plain, body, content_type, reading)
    elif _is_batch(plain, content_type):
        _read_batch(plain, reading)
    else:
        _read_event(plain, content_type, reading)


def _read_binary(
    attributes: dict[str, Any],
    data: bytes,
    body: bytes,
    content_type: str | None,
    reading: _Reading,
) -> None:
    """Read an event in binary mode. If its data is not JSON, the message is kept as received, under its id and workspace."""
    try:
        try:
            raw = transfer.structured(attributes, data, content_type)
        except (msgspec.MsgspecError, RecursionError):
            strict.parse(data, reading.limits)
            raise EventRejectedError("bad_json", "The data of the event is not JSON.") from None
    except EventRejectedError as error:
        rejected = _rejected(error, body, content_type)
        rejected.workspace_id, rejected.event_id, rejected.kind = strict.whose(strict.Object(attributes))
        reading.decoded.rejected.append(rejected)
        return
    _read_event(raw, names.CONTENT_TYPE_EVENT, reading)


def _is_batch(body: bytes, content_type: str | None) -> bool:
    """Tell a batch from a single event.

    Raises:
        EventRejectedError: ``unsupported_content_type``.
    """
    media_type = transfer.media_type_of(content_type)
    if media_type == names.CONTENT_TYPE_BATCH:
        # A lone event under the batch's name leaves no doubt about what was meant.
        return body.lstrip(scan.JSON_SPACE)[:1] != b"{"
    if media_type == names.CONTENT_TYPE_EVENT:
        return False
    if media_type and media_type != transfer.JSON_TYPE:
        raise EventRejectedError(
            "unsupported_content_type",
            f"The content type must be {names.CONTENT_TYPE_EVENT} or {names.CONTENT_TYPE_BATCH}.",
        )
    # An array of anything but events is not a batch: a Celery task's body is an array of an array and two objects.
    opening = body[:1024].translate(None, scan.JSON_SPACE)[:2]
    return opening in {b"[{", b"[]"} or (opening[:1] == b"[" and _SOME_EVENT in body)


def _read_batch(body: bytes, reading: _Reading) -> None:
    """Read an array of events.

    Raises:
        EventRejectedError: The message cannot be cut into events.
    """
    decoded = reading.decoded
    elements, is_utf8 = _elements(body, reading.limits, decoded)
    read = fast_path.usages(body, elements, reading.latest, reading.limits) if is_utf8 and elements else None
    if read is None:
        for raw in elements:
            _read_event(raw, names.CONTENT_TYPE_EVENT, reading)
        return
    # All at once, as nearly always: the usages and the others keep their order.
    if None not in read:
        decoded.usages += read  # type: ignore[arg-type]  # no None in it
        return
    for usage, raw in zip(read, elements, strict=True):
        if usage is None:
            _read_strictly(raw, names.CONTENT_TYPE_EVENT, reading)
        else:
            decoded.usages.append(usage)


def _elements(body: bytes, limits: Limits, decoded: Decoded) -> tuple[list[bytes], bool]:
    """The events of a batch, and whether all are known to be UTF-8. A malformed end is rejected by itself."""
    # Only our own scanner stops at the first element too many; tiny ones would fill the memory.
    if len(body) <= 2 * limits.message_events_max or body.count(b",") < limits.message_events_max:
        try:
            str(body, "utf-8")
            return list(map(bytes, _split(body))), True
        except fast_path.DOUBTS:
            pass
    strict.check_start(body)
    if not body.lstrip(scan.JSON_SPACE).startswith(b"["):
        value = strict.parse(body, limits)
        raise EventRejectedError("not_an_object", f"A batch must be a JSON array of objects, not {kind_of(value)}.")
    pieces = scan.cut(body, limits.message_events_max)
    if pieces.rest is not None:
        error = _malformed(pieces, limits, len(body))
        if not pieces.elements:
            raise error
        decoded.rejected.append(_rejected(error, pieces.rest, names.CONTENT_TYPE_EVENT))
    return pieces.elements, False


def _malformed(pieces: scan.Pieces, limits: Limits, length: int) -> EventRejectedError:
    """Why a batch could not be cut to its end."""
    try:
        strict.parse(pieces.rest or b"", limits)
    except EventRejectedError as error:
        if error.reason != "bad_json":
            return error
    return EventRejectedError(
        "bad_json",
        f"The batch is malformed or truncated: nothing can be made of it from byte {pieces.rest_start} of {length} on.",
    )


def _read_event(raw: bytes, content_type: str | None, reading: _Reading) -> None:
    """Read one event that may not be UTF-8."""
    try:
        str(raw, "utf-8")
        usage = fast_path.usage(raw, reading.latest, reading.limits)
    except fast_path.DOUBTS:
        usage = None
    if usage is not None:
        reading.decoded.usages.append(usage)
    else:
        _read_strictly(raw, content_type, reading)


def _read_strictly(raw: bytes, content_type: str | None, reading: _Reading) -> None:
    event, decoded = None, reading.decoded
    try:
        event = strict.parse_event(raw, reading.limits)
        read = strict.read(event, raw, reading.now, reading.limits)
    except EventRejectedError as error:
        rejected = _rejected(error, raw, content_type)
        if event is not None:
            rejected.workspace_id, rejected.event_id, rejected.kind = strict.whose(event)
        decoded.rejected.append(rejected)
        return
    if isinstance(read, Usage):
        decoded.usages.append(read)
    else:
        decoded.payments.append(read)


def _rejected(error: EventRejectedError, raw: bytes, content_type: str | None) -> Rejected:
    if content_type is not None:
        shown = content_type[:_CONTENT_TYPE_SHOWN_MAX]
        content_type = "".join(mark if " " <= mark <= "~" else "?" for mark in shown)
    return Rejected(error.reason, error.detail, raw, content_type=content_type)
