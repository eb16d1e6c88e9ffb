-- Notes that something has no price: once for each workspace, tool, provider and model, and once more for each revision of the
-- price book that does not change it. Takes: arrays of one length. Locks: the rows that are new, sorted.
-- Returns: those that were not noted before.
WITH book AS MATERIALIZED (
    SELECT coalesce(max(revision), 0) AS revision FROM taximeter.price_revisions
), given AS (
    SELECT DISTINCT g.workspace_id COLLATE "C" AS workspace_id, g.tool COLLATE "C" AS tool,
           g.provider COLLATE "C" AS provider, g.model COLLATE "C" AS model
    FROM unnest(%(workspace_ids)s::text[], %(tools)s::text[], %(providers)s::text[], %(models)s::text[])
         AS g (workspace_id, tool, provider, model)
)
INSERT INTO taximeter.missing_prices AS m (workspace_id, tool, provider, model, revision)
SELECT g.workspace_id, g.tool, g.provider, g.model, b.revision FROM given AS g, book AS b
WHERE NOT EXISTS (
    SELECT FROM taximeter.missing_prices AS n
    WHERE n.workspace_id = g.workspace_id AND n.tool = g.tool AND n.provider = g.provider AND n.model = g.model
      AND n.revision >= b.revision)
ORDER BY 1, 2, 3, 4
ON CONFLICT (workspace_id, tool, provider, model)
DO UPDATE SET revision = excluded.revision, noted_at = clock_timestamp() WHERE m.revision < excluded.revision
RETURNING m.workspace_id, m.tool, m.provider, m.model
