-- Reads the present epoch. Locks: nothing.
SELECT epoch FROM taximeter.ledger_state
