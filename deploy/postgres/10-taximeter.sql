-- Makes the ledger's role and database. The image runs this once, as the superuser, on an empty data folder.
-- The role is no superuser: the database refuses to change or delete booked rows, and a superuser could overrule it.
\getenv password TAXIMETER_PASSWORD
CREATE ROLE taximeter LOGIN PASSWORD :'password';
CREATE DATABASE taximeter OWNER taximeter;
REVOKE ALL ON DATABASE taximeter FROM PUBLIC;
