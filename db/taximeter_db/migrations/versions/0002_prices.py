"""The price book: revisions, entries, aliases; append-only.

Revision ID: 0002
Revises: 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE taximeter.price_revisions (
    revision bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    reason text NOT NULL,
    CONSTRAINT price_revisions_pkey PRIMARY KEY (revision)
);

CREATE TABLE taximeter.price_entries (
    id bigint GENERATED ALWAYS AS IDENTITY,
    revision bigint NOT NULL,
    effective_from timestamptz,
    amount numeric NOT NULL,
    per numeric NOT NULL,
    tool text COLLATE "C",
    provider text COLLATE "C",
    model text COLLATE "C",
    unit text COLLATE "C" NOT NULL,
    tier_above bigint[] NOT NULL DEFAULT '{}',
    tier_amounts numeric[] NOT NULL DEFAULT '{}',
    source text NOT NULL,
    CONSTRAINT price_entries_pkey PRIMARY KEY (id),
    CONSTRAINT price_entries_target_check
        CHECK ((tool IS NOT NULL OR provider IS NOT NULL) AND (provider IS NULL) = (model IS NULL)),
    CONSTRAINT price_entries_text_check
        CHECK (char_length(tool) BETWEEN 1 AND 256 AND char_length(provider) BETWEEN 1 AND 256
               AND char_length(model) BETWEEN 1 AND 256 AND char_length(unit) BETWEEN 1 AND 64),
    CONSTRAINT price_entries_amount_check CHECK (amount >= 0 AND amount < 'Infinity'),
    CONSTRAINT price_entries_per_check CHECK (per > 0 AND per < 'Infinity'),
    CONSTRAINT price_entries_tiers_check
        CHECK (cardinality(tier_above) = cardinality(tier_amounts) AND array_position(tier_above, NULL) IS NULL
               AND array_position(tier_amounts, NULL) IS NULL AND 0 <= ALL (tier_above)
               AND 0 <= ALL (tier_amounts) AND 'Infinity' > ALL (tier_amounts))
);
CREATE UNIQUE INDEX price_entries_version_idx ON taximeter.price_entries
    (tool, provider, model, unit, effective_from, revision) NULLS NOT DISTINCT;

CREATE TABLE taximeter.price_aliases (
    catalogue text COLLATE "C" NOT NULL,
    revision bigint NOT NULL,
    rules jsonb NOT NULL,
    CONSTRAINT price_aliases_pkey PRIMARY KEY (catalogue, revision)
);

SELECT taximeter.make_append_only(name)
FROM unnest(ARRAY['price_revisions', 'price_entries', 'price_aliases']) AS name;
"""


def upgrade() -> None:
    op.get_bind().connection.cursor().execute(TABLES)
