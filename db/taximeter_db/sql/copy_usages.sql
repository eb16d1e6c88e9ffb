-- Appends to the usage log. Binary rows, packed by usage_rows.py in this order of columns.
COPY taximeter.usages (seq, entry, recorded_at, link, balance_after, workspace_id, price_version, occurred_at,
                       fingerprint, cost, tool, provider, model, event_id, quantities)
FROM STDIN (FORMAT binary)
