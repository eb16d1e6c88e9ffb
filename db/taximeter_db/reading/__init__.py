"""What pages and reports read: one page at a time, by sequence number, never by OFFSET and never by counting."""

from __future__ import annotations

from taximeter_db.reading.payments import PaymentRow
from taximeter_db.reading.summary import Summary
from taximeter_db.reading.usages import UsageRow

__all__ = ["PaymentRow", "Summary", "UsageRow"]
