-- The partitions of the usage log. Making one takes SHARE UPDATE EXCLUSIVE on the log, which no reader and no booking
-- waits for, and waits two seconds at most for what else holds it (lock_timeout of the functions).

-- name: ensure
-- Makes the partitions from now on. Takes: days ahead. Returns: how many were made.
SELECT taximeter.ensure_partitions(now() + make_interval(days => %(days)s))

-- name: ensure_at
-- Makes the partition for one moment. Returns: when it ends.
SELECT taximeter.ensure_partition_at(%(moment)s)

-- name: ahead
-- Returns: seconds from now until the first moment without a partition; no row or NULL where there is none for now.
WITH RECURSIVE covered (ends_at) AS (
    SELECT p.ends_at FROM taximeter.usage_partitions AS p WHERE p.starts_at <= now() AND p.ends_at > now()
    UNION ALL
    SELECT p.ends_at FROM covered AS c JOIN taximeter.usage_partitions AS p ON p.starts_at = c.ends_at
)
SELECT extract(epoch FROM max(ends_at) - now()) FROM covered
