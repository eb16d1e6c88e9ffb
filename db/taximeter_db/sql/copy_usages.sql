-- Appends to the usage log. Binary rows, packed by rows.py in this order of columns.
COPY taximeter.usages (seq, entry, price_version, occurred_at, recorded_at, cost, balance_after,
                       workspace_id, event_id, tool, provider, model, quantities)
FROM STDIN (FORMAT binary)
