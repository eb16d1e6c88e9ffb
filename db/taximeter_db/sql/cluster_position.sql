-- Reads where the cluster's history stands: its number, its timeline, bytes of write-ahead log that no crash takes away.
-- Locks: nothing.
SELECT system_identifier, left(pg_walfile_name(lsn), 8), (lsn - '0/0')::bigint
FROM pg_control_system(), pg_current_wal_flush_lsn() AS lsn
