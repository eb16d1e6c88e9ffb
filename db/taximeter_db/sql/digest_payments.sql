-- Digests a batch's payments by workspace, in the order given, before their workspaces are locked: the transaction's
-- jsonb has its final text only here. Takes: arrays of one length. Locks: nothing. Returns: workspace_id, digest.
SELECT p.workspace_id,
       taximeter.batch_digest(p.workspace_id,
                              string_agg(taximeter.payment_content(payment_id, kind, amount::numeric(27,12),
                                                                   transaction::jsonb, note, fingerprint, occurred_at),
                                         ''::bytea ORDER BY place))
FROM unnest(%(workspace_ids)s::text[], %(payment_ids)s::text[], %(kinds)s::text[], %(amounts)s, %(transactions)s::text[],
            %(notes)s::text[], %(fingerprints)s::uuid[], %(times)s::timestamptz[])
     WITH ORDINALITY AS p (workspace_id, payment_id, kind, amount, transaction, note, fingerprint, occurred_at, place)
GROUP BY p.workspace_id
