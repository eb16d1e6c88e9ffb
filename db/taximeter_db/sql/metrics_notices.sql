-- What the metrics show of notices: deliveries pending and dead, and how old the oldest pending one is. Locks: nothing.
SELECT pending, dead, oldest_seconds FROM taximeter.metrics_notices()
