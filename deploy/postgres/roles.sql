-- The roles that log in, and their passwords from the environment. PostgreSQL's image runs it once, when the database is new.
\getenv owner BRIDGE_OWNER_PASSWORD
\getenv runtime BRIDGE_RUNTIME_PASSWORD
\getenv authenticator AUTHENTICATOR_PASSWORD
CREATE ROLE bridge_owner LOGIN PASSWORD :'owner';
CREATE ROLE bridge_runtime LOGIN PASSWORD :'runtime';
CREATE ROLE authenticator LOGIN NOINHERIT PASSWORD :'authenticator';
GRANT CREATE ON DATABASE :"DBNAME" TO bridge_owner;
