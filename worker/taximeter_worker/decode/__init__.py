"""From the bytes of a broker message to usages, payments and rejections. Nothing that arrives makes it raise.

A batch is split in C and each usage read by `fast`. Whatever that will not take, and every message that cannot be
split, goes to `careful`, event by event, so that a bad one costs its neighbours nothing.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw

from taximeter import names
from taximeter_db import ledger
from taximeter_worker.decode import careful, fast, scan
from taximeter_worker.decode.base import Decoded, Limits, RefusedError
from taximeter_worker.decode.clock import SECOND
from taximeter_worker.decode.fields import kind_of

__all__ = ["Decoded", "Limits", "decode_message"]

_DEFAULT_LIMITS: Final = Limits()
_CONTENT_TYPE_SHOWN_MAX: Final = 255

_split = msgspec.json.Decoder(list[Raw]).decode


def decode_message(body: bytes, content_type: str | None, *, now: int, limits: Limits = _DEFAULT_LIMITS) -> Decoded:
    """Decode one broker message.

    Args:
        body: The bytes as received.
        content_type: As the broker gives it; without one, the first characters decide between event and batch.
        now: Microseconds since the Unix epoch, for telling times in the future.
        limits: Bounds on sizes, depth and time.

    Returns:
        Every event of the message, in one of three lists. A rejected event of a batch is kept alone; a message that
        cannot be cut into events is rejected whole.
    """
    decoded = Decoded([], [], [])
    try:
        if _is_batch(body, content_type, limits):
            _read_batch(body, now, limits, decoded)
        else:
            _read_event(body, content_type, now, limits, decoded)
    except RefusedError as error:
        decoded.rejected.append(_rejected(error, body, content_type))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  (one message that we did not foresee must not stop all that follow)
        unforeseen = RefusedError(
            "internal_error", f"The decoder failed on this message ({type(error).__name__}); please report it as a bug."
        )
        return Decoded([], [], [_rejected(unforeseen, body, content_type)])
    return decoded


def _is_batch(body: bytes, content_type: str | None, limits: Limits) -> bool:
    """Tell a batch from a single event.

    Raises:
        RefusedError: ``too_large``, ``unsupported_content_type`` or ``bad_encoding``.
    """
    if len(body) > limits.message_bytes_max:
        raise RefusedError(
            "too_large",
            f"The message has {len(body)} bytes; at most {limits.message_bytes_max} are allowed. Send smaller batches.",
        )
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if media_type == names.CONTENT_TYPE_BATCH:
        # A lone event under the batch's name leaves no doubt about what was meant.
        return body.lstrip(scan.JSON_SPACE)[:1] != b"{"
    if media_type in {names.CONTENT_TYPE_EVENT, "application/json"}:
        return False
    if media_type:
        raise RefusedError(
            "unsupported_content_type",
            f"The content type must be {names.CONTENT_TYPE_EVENT} or {names.CONTENT_TYPE_BATCH}.",
        )
    # An array of anything but events is no batch: a Celery task's body is an array of an array and two objects.
    opening = body[:1024].translate(None, scan.JSON_SPACE)[:2]
    return opening in {b"[{", b"[]"}


def _read_batch(body: bytes, now: int, limits: Limits, decoded: Decoded) -> None:
    """Read an array of events.

    Raises:
        RefusedError: The message cannot be cut into events.
    """
    latest = now + limits.future_seconds_max * SECOND
    elements, is_utf8 = _elements(body, limits, decoded)
    read = fast.usages(body, elements, latest, limits) if is_utf8 and elements else None
    if read is None:
        for raw in elements:
            _read_event(raw, names.CONTENT_TYPE_EVENT, now, limits, decoded)
        return
    # All at once, as nearly always: the usages and the others keep their order.
    if None not in read:
        decoded.usages += read  # type: ignore[arg-type]  # no None in it
        return
    for usage, raw in zip(read, elements, strict=True):
        if usage is None:
            _read_carefully(raw, names.CONTENT_TYPE_EVENT, now, limits, decoded)
        else:
            decoded.usages.append(usage)


def _elements(body: bytes, limits: Limits, decoded: Decoded) -> tuple[list[bytes], bool]:
    """The events of a batch, and whether all are known to be UTF-8. A malformed end is rejected by itself."""
    # Only our own scanner stops at the first element too many; tiny ones would fill the memory.
    if len(body) <= 2 * limits.message_events_max or body.count(b",") < limits.message_events_max:
        try:
            str(body, "utf-8")
            return list(map(bytes, _split(body))), True
        except fast.DOUBTS:
            pass
    careful.check_start(body)
    if not body.lstrip(scan.JSON_SPACE).startswith(b"["):
        value = careful.parse(body, limits)
        raise RefusedError("not_an_object", f"A batch must be a JSON array of objects, not {kind_of(value)}.")
    pieces = scan.cut(body, limits.message_events_max)
    if pieces.rest is not None:
        error = _malformed(pieces, limits, len(body))
        if not pieces.elements:
            raise error
        decoded.rejected.append(_rejected(error, pieces.rest, names.CONTENT_TYPE_EVENT))
    return pieces.elements, False


def _malformed(pieces: scan.Pieces, limits: Limits, length: int) -> RefusedError:
    """Why a batch could not be cut to its end."""
    try:
        careful.parse(pieces.rest or b"", limits)
    except RefusedError as error:
        if error.reason != "bad_json":
            return error
    return RefusedError(
        "bad_json",
        f"The batch is malformed or truncated: nothing can be made of it from byte {pieces.rest_start} of {length} on.",
    )


def _read_event(raw: bytes, content_type: str | None, now: int, limits: Limits, decoded: Decoded) -> None:
    """Read one event that may not be UTF-8."""
    try:
        str(raw, "utf-8")
        usage = fast.usage(raw, now + limits.future_seconds_max * SECOND, limits)
    except fast.DOUBTS:
        usage = None
    if usage is not None:
        decoded.usages.append(usage)
    else:
        _read_carefully(raw, content_type, now, limits, decoded)


def _read_carefully(raw: bytes, content_type: str | None, now: int, limits: Limits, decoded: Decoded) -> None:
    event = None
    try:
        event = careful.parse_event(raw, limits)
        read = careful.read(event, raw, now, limits)
    except RefusedError as error:
        rejected = _rejected(error, raw, content_type)
        if event is not None:
            rejected.workspace_id, rejected.event_id, rejected.kind = careful.whose(event)
        decoded.rejected.append(rejected)
        return
    if isinstance(read, ledger.Usage):
        decoded.usages.append(read)
    else:
        decoded.payments.append(read)


def _rejected(error: RefusedError, raw: bytes, content_type: str | None) -> ledger.Rejected:
    if content_type is not None:
        shown = content_type[:_CONTENT_TYPE_SHOWN_MAX]
        content_type = "".join(mark if " " <= mark <= "~" else "?" for mark in shown)
    return ledger.Rejected(error.reason, error.detail, raw, content_type=content_type)
