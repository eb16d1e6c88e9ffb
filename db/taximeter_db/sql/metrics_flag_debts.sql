-- Counts the flags that are owed, through a function that the role for metrics may call. Locks: nothing.
SELECT taximeter.metrics_stale_flags()
