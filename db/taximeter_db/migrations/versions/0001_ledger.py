"""The ledger: workspaces, usages, payments, quarantine, flags' epoch, views.

Revision ID: 0001
Revises:
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE taximeter.workspaces (
    workspace_id text COLLATE "C" NOT NULL,
    minimum_balance numeric(27,12) NOT NULL DEFAULT -0.12,
    low_balance_threshold numeric(27,12) NOT NULL DEFAULT 0,
    balance numeric(27,12) NOT NULL DEFAULT 0,
    usage_cost numeric(27,12) NOT NULL DEFAULT 0,
    payment_total numeric(27,12) NOT NULL DEFAULT 0,
    usage_count bigint NOT NULL DEFAULT 0,
    payment_count bigint NOT NULL DEFAULT 0,
    duplicate_count bigint NOT NULL DEFAULT 0,
    version bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT workspaces_pkey PRIMARY KEY (workspace_id),
    CONSTRAINT workspaces_workspace_id_check CHECK (char_length(workspace_id) BETWEEN 1 AND 128),
    CONSTRAINT workspaces_limits_check
        CHECK (minimum_balance <= low_balance_threshold AND low_balance_threshold <> 'NaN'),
    CONSTRAINT workspaces_balance_check CHECK (balance = payment_total - usage_cost AND balance <> 'NaN')
) WITH (fillfactor = 50);

CREATE TABLE taximeter.usage_keys (
    event_key uuid NOT NULL,
    workspace_id text COLLATE "C" NOT NULL,
    fingerprint uuid NOT NULL,
    booked_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT usage_keys_pkey PRIMARY KEY (event_key, workspace_id)
);

CREATE TABLE taximeter.usages (
    seq bigint NOT NULL,
    entry bigint NOT NULL,
    price_version bigint NOT NULL,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    cost numeric(27,12) NOT NULL,
    balance_after numeric(27,12) NOT NULL,
    workspace_id text COLLATE "C" NOT NULL,
    event_id text NOT NULL,
    tool text NOT NULL,
    provider text,
    model text,
    quantities jsonb NOT NULL,
    CONSTRAINT usages_pkey PRIMARY KEY (workspace_id, seq, recorded_at)
) PARTITION BY RANGE (recorded_at);

CREATE TABLE taximeter.usage_payloads (
    seq bigint NOT NULL,
    recorded_at timestamptz NOT NULL,
    codec smallint NOT NULL,
    workspace_id text COLLATE "C" NOT NULL,
    payload bytea NOT NULL,
    CONSTRAINT usage_payloads_pkey PRIMARY KEY (workspace_id, seq, recorded_at)
) PARTITION BY RANGE (recorded_at);

CREATE TABLE taximeter.usage_partitions (
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    CONSTRAINT usage_partitions_pkey PRIMARY KEY (starts_at)
);

CREATE TABLE taximeter.payments (
    workspace_id text COLLATE "C" NOT NULL,
    payment_id text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    entry bigint NOT NULL,
    kind text NOT NULL,
    amount numeric(27,12) NOT NULL,
    balance_after numeric(27,12) NOT NULL,
    transaction jsonb,
    note text,
    fingerprint uuid NOT NULL,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    CONSTRAINT payments_pkey PRIMARY KEY (workspace_id, payment_id),
    CONSTRAINT payments_amount_check
        CHECK (amount <> 'NaN' AND (amount > 0 OR kind = 'adjustment' AND amount < 0)),
    CONSTRAINT payments_kind_check CHECK (kind IN ('top_up', 'promo', 'refund', 'adjustment'))
);
CREATE UNIQUE INDEX payments_workspace_id_seq_idx ON taximeter.payments (workspace_id, seq);

CREATE TABLE taximeter.quarantine (
    id bigint GENERATED ALWAYS AS IDENTITY,
    kind text NOT NULL,
    workspace_id text COLLATE "C",
    event_id text,
    reason text NOT NULL,
    detail text NOT NULL,
    event bytea NOT NULL,
    content_type text,
    digest bytea NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    resolved_at timestamptz,
    resolution text,
    resolved_by text,
    resolution_note text,
    CONSTRAINT quarantine_pkey PRIMARY KEY (id)
);
CREATE UNIQUE INDEX quarantine_open_digest_idx ON taximeter.quarantine (digest) WHERE resolved_at IS NULL;
CREATE INDEX quarantine_open_reason_idx ON taximeter.quarantine (reason, id) WHERE resolved_at IS NULL;
CREATE INDEX quarantine_workspace_id_idx ON taximeter.quarantine (workspace_id, id);

CREATE TABLE taximeter.stale_flags (
    workspace_id text COLLATE "C" NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT stale_flags_pkey PRIMARY KEY (workspace_id)
);

CREATE TABLE taximeter.ledger_state (
    only_row boolean NOT NULL DEFAULT true,
    epoch bigint NOT NULL DEFAULT 1,
    partition_width text NOT NULL DEFAULT 'month',
    CONSTRAINT ledger_state_pkey PRIMARY KEY (only_row),
    CONSTRAINT ledger_state_only_row_check CHECK (only_row),
    CONSTRAINT ledger_state_partition_width_check CHECK (partition_width IN ('day', 'week', 'month'))
);
INSERT INTO taximeter.ledger_state DEFAULT VALUES;
"""

FUNCTIONS = r"""
CREATE FUNCTION taximeter.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%.% is append-only: % refused', TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation',
              HINT = 'Book a compensating adjustment instead of changing history.';
END $$;

CREATE FUNCTION taximeter.make_append_only(name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- Per statement, so that it costs an insert nothing and fires even where no row matches.
    EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON taximeter.%I
                    FOR EACH STATEMENT EXECUTE FUNCTION taximeter.refuse_change()', name);
END $$;

CREATE FUNCTION taximeter.refuse_quarantine_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.resolved_at IS NULL
       AND (NEW.id, NEW.kind, NEW.workspace_id, NEW.event_id, NEW.reason, NEW.detail, NEW.event, NEW.content_type,
            NEW.digest, NEW.received_at)
           IS NOT DISTINCT FROM
           (OLD.id, OLD.kind, OLD.workspace_id, OLD.event_id, OLD.reason, OLD.detail, OLD.event, OLD.content_type,
            OLD.digest, OLD.received_at) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'taximeter.quarantine: % refused, an entry can only be resolved, once', TG_OP
        USING ERRCODE = 'restrict_violation';
END $$;

CREATE FUNCTION taximeter.balance_status(balance numeric, minimum numeric, low numeric) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN balance >= low THEN 'sufficient' WHEN balance >= minimum THEN 'low' ELSE 'insufficient' END;

-- Makes the partitions of the usage log that cover now() until `until`, following on the last one. Runs as its owner,
-- so that a worker needs no right to create tables. Returns how many slices were made.
CREATE FUNCTION taximeter.ensure_partitions(until timestamptz) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    width text;
    slice_start timestamptz;
    slice_end timestamptz;
    parent text;
    part text;
    made integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(7480312908);
    SELECT partition_width INTO width FROM taximeter.ledger_state;
    SELECT max(ends_at) INTO slice_start FROM taximeter.usage_partitions;
    slice_start := coalesce(slice_start, date_trunc(width, now(), 'UTC'));
    WHILE slice_start <= until LOOP
        slice_end := (date_trunc(width, slice_start, 'UTC') AT TIME ZONE 'UTC' + ('1 ' || width)::interval)
                     AT TIME ZONE 'UTC';
        FOREACH parent IN ARRAY ARRAY['usages', 'usage_payloads'] LOOP
            part := parent || '_p' || to_char(slice_start AT TIME ZONE 'UTC', 'YYYYMMDD');
            EXECUTE format('CREATE TABLE taximeter.%I PARTITION OF taximeter.%I FOR VALUES FROM (%L) TO (%L)',
                           part, parent, slice_start, slice_end);
            -- Statement triggers are not inherited: without its own, a partition named directly could be emptied.
            PERFORM taximeter.make_append_only(part);
        END LOOP;
        INSERT INTO taximeter.usage_partitions VALUES (slice_start, slice_end);
        slice_start := slice_end;
        made := made + 1;
    END LOOP;
    RETURN made;
END $$;

SELECT taximeter.make_append_only(name) FROM unnest(ARRAY['usages', 'usage_payloads', 'usage_keys', 'payments']) AS name;
CREATE TRIGGER keep_entries BEFORE UPDATE OR DELETE ON taximeter.quarantine
    FOR EACH ROW EXECUTE FUNCTION taximeter.refuse_quarantine_change();
CREATE TRIGGER keep_table BEFORE TRUNCATE ON taximeter.quarantine
    FOR EACH STATEMENT EXECUTE FUNCTION taximeter.refuse_change();
SELECT taximeter.ensure_partitions(now() + interval '2 months');
"""

VIEWS = """
CREATE VIEW taximeter.workspace_balance AS
SELECT workspace_id, balance, minimum_balance, low_balance_threshold,
       taximeter.balance_status(balance, minimum_balance, low_balance_threshold) AS status,
       balance >= minimum_balance AS ai_enabled,
       usage_count, usage_cost, payment_total, updated_at
FROM taximeter.workspaces;

CREATE VIEW taximeter.usage_log AS
SELECT workspace_id, seq, event_id, tool, provider, model, quantities, cost, balance_after, occurred_at, recorded_at
FROM taximeter.usages;

CREATE VIEW taximeter.payment_log AS
SELECT workspace_id, payment_id, kind, amount, balance_after, transaction, occurred_at, recorded_at
FROM taximeter.payments;

CREATE VIEW taximeter.quarantine_log AS
SELECT id, workspace_id, event_id, reason, detail, event, received_at, resolved_at
FROM taximeter.quarantine;
"""


def upgrade() -> None:
    # Straight to the driver: SQLAlchemy would read the percent signs of format() as parameters.
    cursor = op.get_bind().connection.cursor()
    for script in (TABLES, FUNCTIONS, VIEWS):
        cursor.execute(script)
