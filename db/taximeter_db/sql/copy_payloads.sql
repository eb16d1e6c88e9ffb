-- Appends to the payloads. Binary rows, packed by rows.py in this order of columns.
COPY taximeter.usage_payloads (seq, recorded_at, codec, workspace_id, payload) FROM STDIN (FORMAT binary)
