-- The roles and logins of a server. What is created or altered locks its own entry of the catalogue, no table of ours.
-- Names and passwords are filled in as identifiers and literals where a statement takes {…}.

-- name: existing
-- Returns: the names of all roles of the server.
SELECT rolname FROM pg_roles

-- name: may_create
-- Returns: whether the connecting user may create roles.
SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user

-- name: create
-- Creates a role that cannot log in.
CREATE ROLE {role} NOLOGIN

-- name: create_login
-- Creates a role that logs in with a password.
CREATE ROLE {role} LOGIN PASSWORD {password}

-- name: alter_login
-- Sets the password of a login.
ALTER ROLE {role} LOGIN PASSWORD {password}

-- name: exempt
-- Exempts a login from row-level security.
ALTER ROLE {role} BYPASSRLS

-- name: add_member
-- Gives a login the rights of a role.
GRANT {role} TO {member}

-- name: row_security
-- Returns: whether row-level security applies to the connecting user's reading of usages, and the user's name; no row
-- where there is no schema.
SELECT row_security_active(c.oid), current_user FROM pg_class AS c WHERE c.oid = to_regclass('taximeter.usages')

-- name: has_database
-- Returns: a row where the server has a database of the name that is given. Takes: its name.
SELECT 1 FROM pg_database WHERE datname = %(database)s

-- name: create_database
-- Creates a database for its owner.
CREATE DATABASE {database} OWNER {owner}

-- name: close_database
-- Leaves the database to its owner and to those who are named.
REVOKE ALL ON DATABASE {database} FROM PUBLIC
