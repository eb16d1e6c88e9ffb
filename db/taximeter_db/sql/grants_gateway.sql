-- What the HTTP gateway may do: read the keys of its producers, and see whether the schema fits. Applied as `grants.sql` is, in
-- the same transaction, where the role exists. {database} is the database's name.

REVOKE ALL ON ALL TABLES IN SCHEMA taximeter FROM taximeter_gateway;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA taximeter FROM taximeter_gateway;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA taximeter FROM taximeter_gateway;
REVOKE ALL ON SCHEMA taximeter FROM taximeter_gateway;

GRANT CONNECT ON DATABASE {database} TO taximeter_gateway;
GRANT USAGE ON SCHEMA taximeter TO taximeter_gateway;
GRANT SELECT ON taximeter.alembic_version, taximeter.producer_keys TO taximeter_gateway;
