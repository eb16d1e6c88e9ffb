-- Recomputes a run of workspaces, or a stretch of one, from their logs and tells those that do not agree.
-- Takes: the rows to walk, the columns of columns.CHAINED, those and the condition of a usage without labels, and `looks_own`
--        of verify_keys.sql, put in by verify_chunks.py where braces stand, and arrays of one length that say where to begin in workspaces that do not begin at nothing: numbers, totals and chain up to there.
--        whole: the rows are all that there are, so that balances and counters can be compared with them.
-- Locks: nothing; one snapshot, the caller's.
-- Returns: for each workspace at fault the kinds of fault, see verify.py, and the first entries at which they show; and
--        one row without a workspace for the run: its counts and sums, the last link where it is one workspace, and what
--        verify_keys.py compares: sums of hashes of the usages' ids, like `sums` in verify_keys.sql.
-- Rows are sorted and grouped by a number of their workspace, its place: texts that begin alike are slow to compare. Who has a log
-- and no workspace gets a number below all places by a hash. A link that is missing is empty here: rows with a NULL are read slowly.
-- A batch is what one transaction booked in a workspace: its rows share their recorded_at, and the last one has the link.
WITH starts AS (
    SELECT *, paid - cost AS balance
    FROM unnest(%(ids)s::text[], %(start_usages)s::bigint[], %(start_payments)s::bigint[],
                %(start_costs)s::text[]::numeric[], %(start_paids)s::text[]::numeric[], %(start_chains)s::bytea[])
        AS s (workspace_id, usages, payments, cost, paid, chain)
), entries AS (
    SELECT u.workspace_id, u.recorded_at, u.entry, u.seq, true AS is_usage, -u.cost AS amount, u.balance_after,
           coalesce(u.link, '') AS link,
           -- the same bytes; most usages have no labels, and the function asks in a way that takes longer
           CASE WHEN {unlabelled} THEN taximeter.usage_content({chained_unlabelled})
                ELSE taximeter.usage_content({chained}) END AS content,
           u.fingerprint,
           CASE WHEN {looks_own} THEN hashtextextended(u.event_id, hashtextextended(u.workspace_id, 0)) END AS key_hash
    FROM {usages}
    UNION ALL
    SELECT p.workspace_id, p.recorded_at, p.entry, p.seq, false, p.amount, p.balance_after, coalesce(p.link, ''),
           taximeter.payment_content(p.payment_id, p.kind, p.amount, p.transaction, p.note, p.fingerprint, p.occurred_at),
           NULL, NULL
    FROM {payments}
    UNION ALL
    SELECT workspace_id, '-infinity', usages + payments, 0, NULL, balance, balance, '', NULL, NULL, NULL FROM starts
), places AS (
    SELECT workspace_id, row_number() OVER () AS place FROM {workspaces}
), placed AS (
    SELECT coalesce(p.place, hashtextextended(e.workspace_id, 0) | (-1::bigint << 63)) AS place, e.*
    FROM entries AS e LEFT JOIN places AS p USING (workspace_id)
), walked AS (
    SELECT *, sum(amount) OVER (PARTITION BY place ORDER BY recorded_at, entry ROWS UNBOUNDED PRECEDING) AS balance
    FROM placed
), batches AS (
    SELECT place, min(workspace_id) AS workspace_id, recorded_at, bool_or(is_usage) AS is_usage,
           count(*) FILTER (WHERE is_usage) AS usages, count(*) FILTER (WHERE NOT is_usage) AS payments,
           count(key_hash) AS keys, sum(key_hash) AS key_hashes,
           sum(uuid_hash_extended(fingerprint, key_hash)) AS content_hashes,
           count(*) FILTER (WHERE fingerprint IS NULL AND key_hash IS NOT NULL) AS without_fingerprint,
           -sum(amount) FILTER (WHERE is_usage) AS cost, sum(amount) FILTER (WHERE NOT is_usage) AS paid,
           min(entry) AS first_entry, max(entry) AS last_entry, min(seq) AS first_seq,
           -- numbers without a gap: the primary key leaves no room for twins within one recorded_at
           count(*) = max(seq) - min(seq) + 1 AND min(entry - seq) = max(entry - seq)
               AND bool_and(is_usage) = bool_or(is_usage) AS is_gapless,
           min(entry) FILTER (WHERE balance_after <> balance) AS running_at,
           nullif(string_agg(link, ''::bytea), '') AS link,
           taximeter.batch_digest(min(workspace_id), string_agg(content, ''::bytea ORDER BY entry)) AS digest
    FROM walked GROUP BY place, recorded_at
), numbered AS (
    SELECT b.*, lag(b.last_entry, 1, 0::bigint) OVER w AS entry_before, lag(b.link) OVER w AS link_before,
           lead(false, 1, true) OVER w AS is_last,
           (coalesce(t.usages, 0) + sum(b.usages) OVER w)::bigint AS usage_count,
           (coalesce(t.payments, 0) + sum(b.payments) OVER w)::bigint AS payment_count,
           coalesce(t.usages + t.payments, c.usage_count + c.payment_count, 0) AS chain_entry,
           coalesce(t.chain, c.chain, '') AS chain
    FROM batches AS b
    LEFT JOIN starts AS t USING (workspace_id)
    LEFT JOIN taximeter.chain_starts AS c USING (workspace_id)
    WINDOW w AS (PARTITION BY b.place ORDER BY b.recorded_at)
), checked AS (
    SELECT *,
           is_gapless AND first_entry = entry_before + 1 AND last_entry = usage_count + payment_count
               AND first_seq + usages + payments - 1 = CASE WHEN is_usage THEN usage_count ELSE payment_count END AS is_numbered,
           CASE WHEN last_entry <= chain_entry THEN link IS NULL
                ELSE coalesce(link = taximeter.chain_link(
                         CASE WHEN first_entry = chain_entry + 1 THEN chain ELSE link_before END,
                         digest, usage_count, payment_count, recorded_at), false) END AS is_linked
    FROM numbered
), summed AS (
    SELECT min(workspace_id) AS workspace_id, sum(usages)::bigint AS usages, sum(payments)::bigint AS payments,
           sum(keys)::bigint AS keys, sum(key_hashes) AS key_hashes, sum(content_hashes) AS content_hashes,
           sum(without_fingerprint)::bigint AS without_fingerprint,
           coalesce(sum(cost), 0) AS cost, coalesce(sum(paid), 0) AS paid,
           min(entry_before + 1) FILTER (WHERE is_usage IS NOT NULL AND NOT is_numbered) AS gap_at,
           min(running_at) AS running_at,
           min(first_entry) FILTER (WHERE is_usage IS NOT NULL AND NOT is_linked) AS unlinked_at,
           min(last_entry) FILTER (WHERE is_usage IS NOT NULL AND NOT is_linked) AS unlinked_upto,
           string_agg(CASE WHEN last_entry > chain_entry THEN link ELSE chain END, ''::bytea) FILTER (WHERE is_last) AS chain
    FROM checked GROUP BY place
), compared AS (
    SELECT workspace_id, gap_at, running_at, unlinked_at, unlinked_upto,
           s.usages, s.payments, s.cost, s.paid, s.chain,
           s.keys, s.key_hashes, s.content_hashes, s.without_fingerprint,
           w.workspace_id IS NULL AS is_orphan,
           %(whole)s AND (w.usage_count, w.payment_count, w.usage_cost, w.payment_total, w.balance) IS DISTINCT FROM
               (coalesce(t.usages, 0) + coalesce(s.usages, 0), coalesce(t.payments, 0) + coalesce(s.payments, 0),
                coalesce(t.cost, 0) + coalesce(s.cost, 0), coalesce(t.paid, 0) + coalesce(s.paid, 0),
                coalesce(t.balance, 0) + coalesce(s.paid - s.cost, 0)) AS is_off,
           %(whole)s AND w.chain IS DISTINCT FROM coalesce(s.chain, t.chain, '') AS is_unended,
           w.balance AS balance_stored, coalesce(t.balance, 0) + coalesce(s.paid - s.cost, 0) AS balance_computed
    FROM summed AS s
    FULL JOIN (SELECT * FROM {workspaces}) AS w USING (workspace_id)
    LEFT JOIN starts AS t USING (workspace_id)
)
SELECT NULL AS workspace_id, coalesce(sum(usages), 0)::bigint, coalesce(sum(payments), 0)::bigint,
       coalesce(sum(cost), 0.000000000000)::text, coalesce(sum(paid), 0.000000000000)::text, NULL::bigint, NULL::bigint,
       CASE WHEN count(*) = 1 THEN string_agg(chain, ''::bytea) END, NULL::boolean, NULL::boolean, NULL::boolean,
       coalesce(sum(keys), 0)::bigint, coalesce(sum(key_hashes), 0), coalesce(sum(content_hashes), 0),
       coalesce(sum(without_fingerprint), 0)::bigint
FROM compared
UNION ALL
SELECT workspace_id, gap_at, running_at, balance_stored::text, balance_computed::text,
       unlinked_at, unlinked_upto, NULL, is_orphan, is_off, is_unended,
       NULL, NULL, NULL, NULL
FROM compared
WHERE is_orphan OR is_off OR is_unended OR num_nonnulls(gap_at, running_at, unlinked_at) > 0
ORDER BY workspace_id NULLS FIRST
