-- Lets a transaction that only holds a lock live for as long as the work that the lock is for. Locks: nothing.
SELECT set_config('idle_in_transaction_session_timeout', '0', true), set_config('lock_timeout', '0', true)
