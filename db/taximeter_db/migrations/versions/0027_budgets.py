"""Budgets: what a part of a workspace's usage may cost in a period.

Revision ID: 0027
Revises: 0026
"""

from alembic import op

from taximeter_db.migrations.online import lock_tables

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

# `workspaces.budgets` is NULL where a workspace never had a budget: booking reads nothing more there. It may be NULL and has no
# default, so nothing is rewritten.
TABLES = """
CREATE TABLE taximeter.budgets (
    workspace_id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    amount numeric(27,12) NOT NULL,
    period text NOT NULL,
    hours integer NOT NULL,
    zone text NOT NULL,
    user_id text COLLATE "C",
    tool text COLLATE "C",
    model text COLLATE "C",
    tag text COLLATE "C",
    tag_value text COLLATE "C",
    selector text COLLATE "C" NOT NULL,
    hard boolean NOT NULL,
    thresholds integer[] NOT NULL,
    counted_from timestamptz NOT NULL,
    window_start timestamptz NOT NULL,
    reached integer NOT NULL DEFAULT 0,
    exceeded boolean NOT NULL DEFAULT false,
    due_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT budgets_pkey PRIMARY KEY (workspace_id, name),
    CONSTRAINT budgets_name_check CHECK (char_length(name) BETWEEN 1 AND 64),
    CONSTRAINT budgets_amount_check CHECK (amount >= 0 AND amount < 1000000000000000),
    CONSTRAINT budgets_period_check CHECK (period IN ('day', 'week', 'month', 'total', 'hours')
                                           AND (period = 'hours') = (hours > 0) AND hours BETWEEN 0 AND 744),
    CONSTRAINT budgets_tag_check CHECK ((tag IS NULL) = (tag_value IS NULL)),
    CONSTRAINT budgets_thresholds_check CHECK (array_position(thresholds, NULL) IS NULL AND 0 < ALL (thresholds))
);
CREATE INDEX budgets_workspace_id_selector_idx ON taximeter.budgets (workspace_id, selector);
CREATE INDEX budgets_due_at_idx ON taximeter.budgets (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE taximeter.budget_spending (
    workspace_id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    bucket timestamptz NOT NULL,
    cost numeric(27,12) NOT NULL,
    usages bigint NOT NULL,
    CONSTRAINT budget_spending_pkey PRIMARY KEY (workspace_id, name, bucket)
);

CREATE TABLE taximeter.budget_crossings (
    workspace_id text COLLATE "C" NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    crossed_at timestamptz NOT NULL,
    name text COLLATE "C" NOT NULL,
    kind text NOT NULL,
    percent integer NOT NULL,
    spent numeric(27,12) NOT NULL,
    amount numeric(27,12) NOT NULL,
    hard boolean NOT NULL,
    cause text NOT NULL,
    cause_id text,
    CONSTRAINT budget_crossings_pkey PRIMARY KEY (workspace_id, id),
    CONSTRAINT budget_crossings_kind_check CHECK (kind IN ('warned', 'exceeded', 'restored')),
    CONSTRAINT budget_crossings_cause_check CHECK (cause IN ('usage', 'period', 'settings', 'repricing'))
);

SELECT taximeter.make_append_only('budget_crossings');
SELECT taximeter.keep_to_workspace(name) FROM unnest(ARRAY['budgets', 'budget_spending', 'budget_crossings']) AS name;

ALTER TABLE taximeter.workspaces ADD COLUMN budgets text;
"""

FUNCTIONS = """
-- The slice of time that a moment is counted in. Of a day, week or month: when it begins in the zone. Rolling hours are counted by
-- the minute, more than 24 of them by the quarter-hour.
CREATE FUNCTION taximeter.budget_bucket(period text, hours integer, zone text, moment timestamptz) RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE WHEN period = 'total' THEN to_timestamp(0)
                WHEN period <> 'hours' THEN date_trunc(period, moment, zone)
                WHEN hours <= 24 THEN date_bin('1 minute', moment, to_timestamp(0))
                ELSE date_bin('15 minutes', moment, to_timestamp(0)) END;

-- The first bucket of the period that a moment lies in.
CREATE FUNCTION taximeter.budget_window(period text, hours integer, zone text, moment timestamptz) RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN taximeter.budget_bucket(period, hours, zone,
                                   CASE WHEN period = 'hours' THEN moment - make_interval(hours => hours) ELSE moment END);

-- When the day, week or month that a moment lies in ends; NULL for the other periods. Where the clocks go back over midnight, that
-- midnight comes twice: the first one ends the day.
CREATE FUNCTION taximeter.budget_period_end(period text, zone text, moment timestamptz) RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN e IS NULL THEN NULL
                WHEN date_trunc(period, e - interval '1 hour', zone) = date_trunc(period, e, zone) THEN e - interval '1 hour'
                ELSE e END
    FROM (SELECT CASE WHEN period IN ('day', 'week', 'month')
                      THEN (date_trunc(period, moment AT TIME ZONE zone) + ('1 ' || period)::interval) AT TIME ZONE zone
                 END AS e) AS ends
$$;

-- Budgets by state; names none of them.
CREATE FUNCTION taximeter.metrics_budgets() RETURNS TABLE (state text, budgets bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN b.exceeded THEN 'exceeded' WHEN b.reached > 0 THEN 'warned' ELSE 'within' END, count(*)
    FROM taximeter.budgets AS b GROUP BY 1
$$;
"""


def upgrade() -> None:
    lock_tables("workspaces")
    cursor = op.get_bind().connection.cursor()
    for script in (TABLES, FUNCTIONS):
        cursor.execute(script)
