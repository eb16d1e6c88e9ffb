-- Begins a new epoch, above the present one and above the given number; returns it. Locks: the one row of ledger_state.
UPDATE taximeter.ledger_state SET epoch = greatest(epoch, %s) + 1 RETURNING epoch
