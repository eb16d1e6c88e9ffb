"""The durable spool on disk, and the thread that publishes it."""
