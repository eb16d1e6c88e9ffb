-- `taximeter rebuild`: what every workspace had at a moment, made from the log into a scratch schema and compared. {schema} is
-- its name, {partition} a table with rows of the log.
-- Locks: none that a booking waits for. Nothing outside of the scratch schema is written. All in one transaction with one
-- snapshot, so that a run that is killed leaves nothing behind.
-- %(until)s is the moment: what was recorded at it or before counts. 'infinity': all that the snapshot has.

-- name: planning
-- Under row security a query must fail instead of leaving rows out.
SELECT set_config('row_security', 'off', true)

-- name: moment
-- Returns: the server's clock, and whether the moment lies ahead of it.
SELECT statement_timestamp(), %(until)s::timestamptz > statement_timestamp()

-- name: create
CREATE SCHEMA {schema};
COMMENT ON SCHEMA {schema} IS 'Made by taximeter rebuild. It may be dropped.';
CREATE UNLOGGED TABLE {schema}.sums (
    workspace_id text COLLATE "C" NOT NULL, usages bigint NOT NULL, payments bigint NOT NULL, cost numeric NOT NULL,
    paid numeric NOT NULL, entries numeric NOT NULL, last_entry bigint NOT NULL, last_usage bigint, last_payment bigint,
    weighted numeric NOT NULL, running numeric NOT NULL, recorded_at timestamptz NOT NULL, used_at timestamptz
)

-- name: partitions
-- Returns: the tables with rows of the log that may count, whether they hold usages, and their sizes in blocks.
SELECT c.oid::regclass::text, p.is_usages, pg_relation_size(c.oid) / current_setting('block_size')::bigint
FROM (SELECT i.inhrelid AS oid, true AS is_usages
      FROM pg_catalog.pg_inherits AS i JOIN pg_catalog.pg_class AS k ON k.oid = i.inhrelid
      WHERE i.inhparent = 'taximeter.usages'::regclass
        AND NOT EXISTS (SELECT FROM taximeter.usage_partitions AS s
                        WHERE s.starts_at > %(until)s::timestamptz
                          AND pg_get_expr(k.relpartbound, k.oid) = format('FOR VALUES FROM (%%L) TO (%%L)', s.starts_at, s.ends_at))
      UNION ALL SELECT 'taximeter.payments'::regclass, false) AS p
JOIN pg_catalog.pg_class AS c USING (oid)
ORDER BY p.is_usages, 1

-- name: sum_usages
-- Adds up the usages of a run of blocks, each block once. `weighted` and `running` show any single running balance that is not
-- the sum of the log without sorting it: the balances after N entries add up to (N + 1) * sum(amount) - sum(entry * amount).
INSERT INTO {schema}.sums
SELECT workspace_id, count(*), 0, sum(cost), 0, sum(entry), max(entry), max(seq), NULL, -sum(cost * entry), sum(balance_after),
       max(recorded_at), max(recorded_at)
FROM {partition}
WHERE ctid >= %(first)s::text::tid AND ctid < %(end)s::text::tid AND recorded_at <= %(until)s::timestamptz
GROUP BY workspace_id

-- name: sum_payments
-- The same of payments.
INSERT INTO {schema}.sums
SELECT workspace_id, 0, count(*), 0, sum(amount), sum(entry), max(entry), NULL, max(seq), sum(amount * entry), sum(balance_after),
       max(recorded_at), NULL
FROM {partition}
WHERE ctid >= %(first)s::text::tid AND ctid < %(end)s::text::tid AND recorded_at <= %(until)s::timestamptz
GROUP BY workspace_id

-- name: add_up
CREATE UNLOGGED TABLE {schema}.totals AS
SELECT workspace_id, sum(usages)::bigint AS usages, sum(payments)::bigint AS payments, sum(cost) AS cost, sum(paid) AS paid,
       sum(entries) AS entries, max(last_entry) AS last_entry, coalesce(max(last_usage), 0) AS last_usage,
       coalesce(max(last_payment), 0) AS last_payment, sum(weighted) AS weighted, sum(running) AS running,
       max(recorded_at) AS recorded_at, max(used_at) AS used_at
FROM {schema}.sums GROUP BY workspace_id;
DROP TABLE {schema}.sums;
ANALYZE {schema}.totals

-- name: balances
-- Every workspace that there was, with its balance, limits and status. The limits are those of the last change that was logged, of
-- a limit or of the status, which also names them; before the first change those that it replaced; without any, today's.
-- logged_balance is balance_after of the last entry; logged_status what the log of changes says, NULL from before it was kept.
CREATE TABLE {schema}.balances AS
WITH limits_before AS (
    SELECT DISTINCT ON (workspace_id, field) workspace_id, field, value_after::numeric AS value, changed_at
    FROM taximeter.workspace_changes WHERE field IN ('minimum', 'low') AND changed_at <= %(until)s::timestamptz
    ORDER BY workspace_id, field, id DESC
), limits_after AS (
    SELECT DISTINCT ON (workspace_id, field) workspace_id, field, value_before::numeric AS value
    FROM taximeter.workspace_changes WHERE field IN ('minimum', 'low') AND changed_at > %(until)s::timestamptz
    ORDER BY workspace_id, field, id
), status_before AS (
    SELECT DISTINCT ON (workspace_id) workspace_id, status_after AS status, minimum_balance, low_balance_threshold, changed_at
    FROM taximeter.status_changes WHERE changed_at <= %(until)s::timestamptz ORDER BY workspace_id, id DESC
), status_after AS (
    SELECT DISTINCT ON (workspace_id) workspace_id, status_before AS status
    FROM taximeter.status_changes WHERE changed_at > %(until)s::timestamptz ORDER BY workspace_id, id
), known AS (
    SELECT coalesce(t.workspace_id, w.workspace_id) AS workspace_id, w.workspace_id IS NULL AS is_orphan,
           coalesce(t.paid - t.cost, 0.000000000000) AS balance,
           coalesce(CASE WHEN m.changed_at > s.changed_at THEN m.value END, s.minimum_balance, m.value, mn.value,
                    w.minimum_balance) AS minimum_balance,
           coalesce(CASE WHEN l.changed_at > s.changed_at THEN l.value END, s.low_balance_threshold, l.value, ln.value,
                    w.low_balance_threshold) AS low_balance_threshold,
           s.changed_at AS status_since,
           CASE WHEN w.workspace_id IS NOT NULL AND %(until)s::timestamptz >= (SELECT status_changes_since FROM taximeter.ledger_state)
                THEN coalesce(s.status, n.status,
                              taximeter.balance_status(w.balance, w.minimum_balance, w.low_balance_threshold)) END AS logged_status,
           coalesce(t.usages, 0) AS usage_count, coalesce(t.cost, 0.000000000000) AS usage_cost,
           coalesce(t.payments, 0) AS payment_count, coalesce(t.paid, 0.000000000000) AS payment_total,
           coalesce(t.last_entry, 0) AS last_entry, t.recorded_at, t.last_usage, t.last_payment, t.used_at
    FROM {schema}.totals AS t
    FULL JOIN (SELECT * FROM taximeter.workspaces WHERE created_at <= %(until)s::timestamptz
               OR workspace_id IN (SELECT workspace_id FROM {schema}.totals)) AS w USING (workspace_id)
    LEFT JOIN limits_before AS m ON m.workspace_id = w.workspace_id AND m.field = 'minimum'
    LEFT JOIN limits_before AS l ON l.workspace_id = w.workspace_id AND l.field = 'low'
    LEFT JOIN limits_after AS mn ON mn.workspace_id = w.workspace_id AND mn.field = 'minimum'
    LEFT JOIN limits_after AS ln ON ln.workspace_id = w.workspace_id AND ln.field = 'low'
    LEFT JOIN status_before AS s ON s.workspace_id = w.workspace_id
    LEFT JOIN status_after AS n ON n.workspace_id = w.workspace_id
)
SELECT k.workspace_id, k.balance, k.minimum_balance, k.low_balance_threshold,
       taximeter.balance_status(k.balance, k.minimum_balance, k.low_balance_threshold) AS status,
       k.balance >= k.minimum_balance AS ai_enabled, k.status_since, k.usage_count, k.usage_cost, k.payment_count,
       k.payment_total, k.last_entry, k.recorded_at, coalesce(u.balance_after, p.balance_after) AS logged_balance,
       k.logged_status, k.is_orphan
FROM known AS k
LEFT JOIN LATERAL (
    -- LIMIT: looked up by key for each workspace, where a join would read and sort the whole log again
    SELECT balance_after FROM taximeter.usages
    WHERE workspace_id = k.workspace_id AND seq = k.last_usage AND recorded_at = k.used_at AND entry = k.last_entry LIMIT 1
) AS u ON true
LEFT JOIN LATERAL (
    SELECT balance_after FROM taximeter.payments
    WHERE workspace_id = k.workspace_id AND seq = k.last_payment AND entry = k.last_entry LIMIT 1
) AS p ON true

-- name: order
ALTER TABLE {schema}.balances ADD PRIMARY KEY (workspace_id);
ANALYZE {schema}.balances

-- name: compare
-- What does not agree: with the log's own numbers and running balances, and with its log of changes of status. %(now)s: also with
-- the live tables, which the same snapshot shows.
CREATE TABLE {schema}.differences AS
WITH suspects AS (
    -- first whether anything at all is wrong with a workspace, which is cheap; then what
    SELECT b.workspace_id
    FROM {schema}.balances AS b
    LEFT JOIN {schema}.totals AS t USING (workspace_id)
    LEFT JOIN taximeter.workspaces AS w USING (workspace_id)
    WHERE b.is_orphan OR t.last_entry <> t.usages + t.payments OR t.last_usage <> t.usages OR t.last_payment <> t.payments
       OR 2 * t.entries <> t.last_entry::numeric * (t.last_entry + 1) OR b.logged_balance <> b.balance
       OR t.running <> (t.last_entry + 1) * b.balance - t.weighted OR b.logged_status <> b.status
       OR %(now)s AND (w.balance, w.usage_cost, w.payment_total, w.usage_count, w.payment_count, w.minimum_balance,
                       w.low_balance_threshold)
                   <> (b.balance, b.usage_cost, b.payment_total, b.usage_count, b.payment_count, b.minimum_balance,
                       b.low_balance_threshold)
)
SELECT workspace_id, d.kind, d.field, d.stored, d.computed
FROM suspects
JOIN {schema}.balances AS b USING (workspace_id)
LEFT JOIN {schema}.totals AS t USING (workspace_id)
LEFT JOIN taximeter.workspaces AS w USING (workspace_id)
CROSS JOIN LATERAL (
    SELECT 'orphan' AS kind, NULL AS field, NULL AS stored, NULL AS computed WHERE b.is_orphan
    UNION ALL
    SELECT 'gap', NULL, t.last_entry::text, (t.usages + t.payments)::text
    WHERE (t.last_entry, t.last_usage, t.last_payment, t.entries)
          <> (t.usages + t.payments, t.usages, t.payments,
              (t.usages + t.payments) * (t.usages + t.payments + 1)::numeric / 2)
    UNION ALL
    SELECT 'running', NULL, trim_scale(b.logged_balance)::text, trim_scale(b.balance)::text
    WHERE b.logged_balance <> b.balance OR t.running <> (t.last_entry + 1) * b.balance - t.weighted
    UNION ALL
    SELECT 'status', NULL, b.logged_status, b.status WHERE b.logged_status <> b.status
    UNION ALL
    SELECT 'table', f.field, f.stored, f.computed
    FROM (VALUES ('balance', trim_scale(w.balance)::text, trim_scale(b.balance)::text),
                 ('usage_cost', trim_scale(w.usage_cost)::text, trim_scale(b.usage_cost)::text),
                 ('payment_total', trim_scale(w.payment_total)::text, trim_scale(b.payment_total)::text),
                 ('usage_count', w.usage_count::text, b.usage_count::text),
                 ('payment_count', w.payment_count::text, b.payment_count::text),
                 ('minimum', trim_scale(w.minimum_balance)::text, trim_scale(b.minimum_balance)::text),
                 ('low', trim_scale(w.low_balance_threshold)::text, trim_scale(b.low_balance_threshold)::text))
         AS f (field, stored, computed)
    WHERE %(now)s AND NOT b.is_orphan AND f.stored <> f.computed
) AS d

-- name: tidy
DROP TABLE {schema}.totals

-- name: counts
-- Returns: how many workspaces, usages and payments there were, the sum of balances, and how many had which status.
SELECT count(*), coalesce(sum(usage_count), 0)::bigint, coalesce(sum(payment_count), 0)::bigint, coalesce(sum(balance), 0)::text,
       count(*) FILTER (WHERE status = 'sufficient'), count(*) FILTER (WHERE status = 'low'),
       count(*) FILTER (WHERE status = 'insufficient')
FROM {schema}.balances

-- name: differences
-- Returns: what does not agree, by workspace.
SELECT workspace_id, kind, field, stored, computed FROM {schema}.differences ORDER BY workspace_id, kind, field

-- name: first_wrong
-- Takes: a workspace. Returns: its first entry whose number or running balance is not what the log adds up to: the entry, the
-- number that it should have, the balance stored after it and the sum.
WITH entries AS (
    SELECT entry, -cost AS amount, balance_after FROM taximeter.usages
    WHERE workspace_id = %(workspace_id)s AND recorded_at <= %(until)s::timestamptz
    UNION ALL
    SELECT entry, amount, balance_after FROM taximeter.payments
    WHERE workspace_id = %(workspace_id)s AND recorded_at <= %(until)s::timestamptz
), walked AS (
    SELECT entry, balance_after, row_number() OVER w AS number, sum(amount) OVER w AS balance
    FROM entries WINDOW w AS (ORDER BY entry ROWS UNBOUNDED PRECEDING)
)
SELECT entry, number, trim_scale(balance_after)::text, trim_scale(balance)::text
FROM walked WHERE entry <> number OR balance_after <> balance ORDER BY number LIMIT 1
