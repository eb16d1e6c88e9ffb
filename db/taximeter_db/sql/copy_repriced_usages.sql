-- Appends to the list of repriced usages. Takes: rows by COPY.
COPY taximeter.repriced_usages (workspace_id, seq, repricing, old_cost, new_cost) FROM STDIN
