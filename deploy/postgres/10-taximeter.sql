-- Makes the ledger's database, its owner, and a login for each part. The image runs this once, as the superuser, on an empty
-- data folder. None of them is a superuser: the database refuses to change or delete booked rows, and a superuser could
-- overrule it. What the four roles may do, `taximeter migrate` says.
\getenv owner TAXIMETER_PASSWORD
\getenv worker WORKER_PASSWORD
\getenv dashboard DASHBOARD_PASSWORD
\getenv metrics METRICS_PASSWORD
\getenv gateway GATEWAY_PASSWORD
CREATE ROLE taximeter LOGIN PASSWORD :'owner';
CREATE ROLE taximeter_worker NOLOGIN;
CREATE ROLE taximeter_dashboard NOLOGIN;
CREATE ROLE taximeter_metrics NOLOGIN;
CREATE ROLE taximeter_gateway NOLOGIN;
-- COPY does not work under row-level security, and a worker books for every workspace anyway.
CREATE ROLE worker LOGIN PASSWORD :'worker' BYPASSRLS IN ROLE taximeter_worker;
CREATE ROLE dashboard LOGIN PASSWORD :'dashboard' IN ROLE taximeter_dashboard;
CREATE ROLE metrics LOGIN PASSWORD :'metrics' IN ROLE taximeter_metrics;
CREATE ROLE gateway LOGIN PASSWORD :'gateway' IN ROLE taximeter_gateway;
CREATE DATABASE taximeter OWNER taximeter;
REVOKE ALL ON DATABASE taximeter FROM PUBLIC;
