-- Reads how long a revision of the price book has been there, and the time. Locks: nothing.
SELECT clock_timestamp() - created_at, clock_timestamp() FROM taximeter.price_revisions WHERE revision = %s
