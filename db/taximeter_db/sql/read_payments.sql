-- Reads the fingerprints of payments that are booked. Takes: two arrays of one length. Locks: nothing.
SELECT p.workspace_id, p.payment_id, p.fingerprint
FROM unnest(%(workspace_ids)s::text[], %(payment_ids)s::text[]) AS g (workspace_id, payment_id)
JOIN taximeter.payments AS p ON p.workspace_id = g.workspace_id AND p.payment_id = g.payment_id
