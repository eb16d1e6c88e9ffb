-- Appends a payment. Its workspace's row is locked by credit_workspaces.sql in the same transaction.
INSERT INTO taximeter.payments (workspace_id, payment_id, seq, entry, kind, amount, balance_after, transaction, note,
                                fingerprint, occurred_at, recorded_at, link)
VALUES (%(workspace_id)s, %(payment_id)s, %(seq)s, %(entry)s, %(kind)s, %(amount)s, %(balance_after)s,
        %(transaction)s, %(note)s, %(fingerprint)s::uuid,
        %(occurred_at)s, %(recorded_at)s, %(link)s)
