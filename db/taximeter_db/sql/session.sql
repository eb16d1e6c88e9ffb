-- What a connection asks and settles when it is opened.

-- name: server
-- Returns: the process that answers (another one than was greeted: a pooler stands between), and the server's encoding.
SELECT pg_backend_pid(), current_setting('server_encoding')

-- name: session_settings
-- Sets parameters for the session. Takes: names and values, arrays of one length.
SELECT set_config(name, value, false) FROM unnest(%(names)s::text[], %(values)s::text[]) AS s (name, value)

-- name: transaction_settings
-- Sets parameters for the rest of the transaction. Takes: names and values, arrays of one length.
SELECT set_config(name, value, true) FROM unnest(%(names)s::text[], %(values)s::text[]) AS s (name, value)
