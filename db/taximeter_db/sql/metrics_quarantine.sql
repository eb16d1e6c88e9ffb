-- Counts the open quarantine entries by reason, through a function that the role for metrics may call. Locks: nothing.
SELECT reason, entries FROM taximeter.metrics_quarantine()
