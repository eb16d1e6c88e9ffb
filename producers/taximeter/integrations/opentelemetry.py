"""OpenTelemetry: a span processor that records what spans of the GenAI conventions report.

Good for a picture, not for a bill: spans are sampled and lost, cannot refuse a call, and those who write them do not agree
on what a count includes. Wrap the client where money depends on it; what it records, the processor leaves alone.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import StatusCode

from taximeter import quantities
from taximeter.calls import seams
from taximeter.calls.attribution import Attribution, current
from taximeter.calls.call import Call, Recorder
from taximeter.errors import TaximeterError

_log = logging.getLogger(__name__)

OPERATIONS: Final = frozenset({"chat", "embeddings", "generate_content", "text_completion"})
"""The operations that consume. Those of agents and workflows sum up the ones within them."""
SPANS_KNOWN: Final = 10_000
"""How many spans that have not ended yet are known by who pays; older ones are forgotten first."""


class TaximeterSpanProcessor(SpanProcessor):
    """Records each span of a model's call when it ends; nothing is checked before.

    Args:
        meter: What records.
        attribution: Who pays where the code around the span's start says nothing.
    """

    def __init__(self, meter: Recorder, attribution: Attribution | None = None) -> None:
        self._meter = meter
        self._attribution = attribution
        self._payers: dict[tuple[int, int], Attribution | None] = {}

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Note who pays for what begins here."""
        del parent_context
        context = span.get_span_context()
        if context is not None:
            # Inside of a call that is metered already, nobody pays again.
            payer = None if seams.is_inside() else current() or self._attribution
            if len(self._payers) >= SPANS_KNOWN:
                self._payers.pop(next(iter(self._payers), (0, 0)), None)
            self._payers[context.trace_id, context.span_id] = payer

    def on_end(self, span: ReadableSpan) -> None:
        """Record what a span reports."""
        context = span.get_span_context()
        payer = self._payers.pop((context.trace_id, context.span_id), None) if context is not None else None
        attributes: dict[str, Any] = dict(span.attributes or {})
        if payer is None or not _consumed(span, attributes):
            return
        provider = attributes.get("gen_ai.provider.name") or attributes.get("gen_ai.system")
        call = Call(self._meter, payer, provider=str(provider) if provider else None)
        try:
            call.end(quantities.read("otel.gen_ai", attributes, provider=call.provider), flags=("from_span",))
        except TaximeterError as error:  # whoever ended the span must not fail for it
            _log.error("a span is not recorded: %s", error)


def _consumed(span: ReadableSpan, attributes: dict[str, Any]) -> bool:
    operation = attributes.get("gen_ai.operation.name")
    is_reported = any(name.startswith("gen_ai.usage.") for name in attributes)
    if operation is None:
        return is_reported
    return operation in OPERATIONS and (is_reported or span.status.status_code is not StatusCode.ERROR)
