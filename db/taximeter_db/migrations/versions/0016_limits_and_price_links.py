"""Changes of limits are logged by the database, and the price book's revisions form a hash chain.

Revision ID: 0016
Revises: 0015
"""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

# Row triggers that fire for an UPDATE which names a limit: booking's own updates name none.
LIMITS = r"""
-- A change of limits is a change of the workspace's state, so that its flag is written again, whoever makes the change.
CREATE FUNCTION taximeter.count_limits() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.version = OLD.version THEN
        NEW.version := OLD.version + 1;
        NEW.updated_at := greatest(clock_timestamp(), OLD.updated_at + interval '1 microsecond');
    END IF;
    RETURN NEW;
END $$;

-- Logs a change of limits and notes the flag debt. Who: what the transaction says (taximeter.changed_by), which the command
-- line and the page do, or the user of the database. Those two log the change of status themselves.
CREATE FUNCTION taximeter.log_limits() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    said text := nullif(current_setting('taximeter.changed_by', true), '');
    who text := coalesce(said, 'database user ' || session_user);
    was text := taximeter.balance_status(OLD.balance, OLD.minimum_balance, OLD.low_balance_threshold);
    becomes text := taximeter.balance_status(NEW.balance, NEW.minimum_balance, NEW.low_balance_threshold);
BEGIN
    INSERT INTO taximeter.workspace_changes (workspace_id, changed_by, field, value_before, value_after)
    SELECT NEW.workspace_id, who, f.field, trim_scale(f.before)::text, trim_scale(f.after)::text
    FROM (VALUES ('minimum', OLD.minimum_balance, NEW.minimum_balance),
                 ('low', OLD.low_balance_threshold, NEW.low_balance_threshold)) AS f (field, before, after)
    WHERE f.before <> f.after;
    INSERT INTO taximeter.stale_flags (workspace_id) VALUES (NEW.workspace_id)
    ON CONFLICT (workspace_id) DO UPDATE SET noted_at = clock_timestamp();
    IF said IS NULL AND was <> becomes THEN
        INSERT INTO taximeter.status_changes (workspace_id, changed_at, status_before, status_after, balance_after,
                                              minimum_balance, low_balance_threshold, entry, cause, cause_id)
        VALUES (NEW.workspace_id, NEW.updated_at, was, becomes, NEW.balance, NEW.minimum_balance,
                NEW.low_balance_threshold, NEW.usage_count + NEW.payment_count, 'settings', who);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER count_limits BEFORE UPDATE OF minimum_balance, low_balance_threshold ON taximeter.workspaces
    FOR EACH ROW
    WHEN ((OLD.minimum_balance, OLD.low_balance_threshold) IS DISTINCT FROM (NEW.minimum_balance, NEW.low_balance_threshold))
    EXECUTE FUNCTION taximeter.count_limits();
CREATE TRIGGER log_limits AFTER UPDATE OF minimum_balance, low_balance_threshold ON taximeter.workspaces
    FOR EACH ROW
    WHEN ((OLD.minimum_balance, OLD.low_balance_threshold) IS DISTINCT FROM (NEW.minimum_balance, NEW.low_balance_threshold))
    EXECUTE FUNCTION taximeter.log_limits();
"""

PRICES = r"""
CREATE INDEX price_entries_revision_idx ON taximeter.price_entries (revision);

-- What a revision of the price book says: its row, its entries and its aliases, in order. The columns are named, so that one
-- that is added later changes nothing for the revisions before it.
CREATE FUNCTION taximeter.price_content(of_revision bigint) RETURNS bytea LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT sha256(record_send(ROW(r.revision, r.created_at, r.reason)))
                     FROM taximeter.price_revisions AS r WHERE r.revision = of_revision), '')
        || sha256(coalesce((SELECT string_agg(sha256(record_send(ROW(
                                       e.id, e.effective_from, e.effective_until, e.amount, e.per, e.tool, e.provider, e.model,
                                       e.workspace_id, e.unit, e.charge, e.tier_above, e.tier_amounts, e.daily_from,
                                       e.daily_until, e.daily_amounts, e.fallback_provider, e.fallback_model, e.source))),
                                   ''::bytea ORDER BY e.id)
                            FROM taximeter.price_entries AS e WHERE e.revision = of_revision), ''))
        || sha256(coalesce((SELECT string_agg(sha256(record_send(ROW(a.catalogue, a.rules))), ''::bytea ORDER BY a.catalogue)
                            FROM taximeter.price_aliases AS a WHERE a.revision = of_revision), ''))
$$;

-- The link of each revision: the one before, hashed with what the revision says.
CREATE TABLE taximeter.price_links (
    revision bigint NOT NULL,
    link bytea NOT NULL,
    CONSTRAINT price_links_pkey PRIMARY KEY (revision),
    CONSTRAINT price_links_link_check CHECK (octet_length(link) = 32)
);
SELECT taximeter.make_append_only('price_links');

-- Links a revision at the end of the transaction that writes it, when its entries are there.
CREATE FUNCTION taximeter.link_price_revision() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO taximeter.price_links (revision, link)
    SELECT NEW.revision,
           sha256(coalesce((SELECT l.link FROM taximeter.price_links AS l WHERE l.revision < NEW.revision
                            ORDER BY l.revision DESC LIMIT 1), '') || taximeter.price_content(NEW.revision));
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER link_revision AFTER INSERT ON taximeter.price_revisions DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION taximeter.link_price_revision();

DO $$
DECLARE
    next bigint;
BEGIN
    FOR next IN SELECT r.revision FROM taximeter.price_revisions AS r ORDER BY r.revision LOOP
        INSERT INTO taximeter.price_links (revision, link)
        SELECT next, sha256(coalesce((SELECT l.link FROM taximeter.price_links AS l ORDER BY l.revision DESC LIMIT 1), '')
                            || taximeter.price_content(next));
    END LOOP;
END $$;
"""


def upgrade() -> None:
    # Straight to the driver, as in 0001.
    cursor = op.get_bind().connection.cursor()
    for script in (LIMITS, PRICES):
        cursor.execute(script)
