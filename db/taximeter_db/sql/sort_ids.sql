-- Writes the sorted ids of whole runs of a workspace's usages, page by page.
-- Takes: workspace_id, first and last seq (the first of one run, the last of another), run_usages, page_ids.
-- Locks: nothing that another writer wants; the caller holds the workspace's row of rollup_progress.
INSERT INTO taximeter.usage_id_pages (workspace_id, run, low_id, high_id, ids, seqs)
SELECT %(workspace_id)s, run, min(id), max(id), array_agg(id ORDER BY id), array_agg(seq ORDER BY id)
FROM (
    SELECT u.event_id COLLATE "C" AS id, u.seq, (u.seq - 1) / %(run_usages)s::bigint AS run,
           (row_number() OVER (PARTITION BY (u.seq - 1) / %(run_usages)s::bigint ORDER BY u.event_id COLLATE "C") - 1)
               / %(page_ids)s AS page
    FROM taximeter.usages AS u
    WHERE u.workspace_id = %(workspace_id)s AND u.seq BETWEEN %(first)s AND %(last)s
) AS sorted
GROUP BY run, page
ON CONFLICT DO NOTHING
