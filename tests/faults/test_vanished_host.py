"""A host vanishes, PostgreSQL's or its client's: no packet comes any more, none is refused, nobody closes a connection."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from proxy import Proxy
from servers import require
from servers.namespace import Namespace, possible
from taximeter_cli.embedded.logins import WORKER, part_url
from taximeter_db import connect, workspaces
from taximeter_db.migrate import upgrade

CLIENT = """
import sys
from taximeter_db import connect

open_one = {"booking": connect.booking_connection, "plain": connect.connect}[sys.argv[2]]
conn = open_one(sys.argv[1])
print("connected", flush=True)
try:
    conn.execute("SELECT pg_sleep(3600)")
except connect.psycopg.OperationalError as error:
    print("noticed", conn.closed, flush=True)
"""


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    require("network namespaces", possible(), "install iproute2 and run as root")
    made = Namespace()
    yield made
    made.close()


@pytest.mark.parametrize("kind", ["booking", "plain"])
def test_a_host_that_vanishes_mid_statement_is_noticed(namespace, database_url, kind):
    parts = urlsplit(database_url)
    with Proxy(parts.hostname or "", parts.port or 0, listen=namespace.host) as door:
        address = database_url.replace(f"{parts.hostname}:{parts.port}", f"{namespace.host}:{door.port}")
        client = namespace.popen(sys.executable, "-c", CLIENT, address, kind)
        try:
            assert client.stdout is not None
            assert client.stdout.readline() == "connected\n"
            namespace.drop_packets()
            # Without keepalives it would wait for two hours, and this test for its own time limit.
            assert client.communicate(timeout=110)[0] == "noticed True\n"
        finally:
            client.kill()
            client.wait()


COPYING = """
import sys
from taximeter_db import connect

conn = connect.booking_connection(sys.argv[1])
with conn.transaction(), conn.cursor() as cursor:
    conn.execute("SELECT 1 FROM taximeter.workspaces WHERE workspace_id = 'acme' FOR UPDATE")
    with cursor.copy("COPY taximeter.usages (workspace_id) FROM STDIN") as copy:
        print("locked", flush=True)
        sys.stdin.read()
"""


def test_the_locks_of_a_host_that_vanishes_mid_copy_are_freed(namespace, own_postgres, monkeypatch):
    """The server waits for the client's rows, which counts as busy: no timeout of PostgreSQL's ends such a session."""
    monkeypatch.setattr("taximeter_cli.embedded.postgres.LOOPBACK", f"127.0.0.1,{namespace.host}")
    server = own_postgres()
    monkeypatch.undo()
    url = server.url()
    upgrade(url)
    with psycopg.connect(server.admin_url(), autocommit=True) as admin:
        (rules,) = admin.execute("SHOW hba_file").fetchone()
        with Path(rules).open("a") as file:
            file.write(f"host all all {namespace.host}/30 scram-sha-256\n")
        admin.execute("SELECT pg_reload_conf()")
    with connect.connection(url) as conn:
        workspaces.set_limits(conn, "acme")
        worker_url = part_url(url, WORKER).replace("127.0.0.1", namespace.host)
        client = namespace.popen(sys.executable, "-c", COPYING, worker_url)
        try:
            assert client.stdout is not None
            assert client.stdout.readline() == "locked\n"
            with pytest.raises(psycopg.errors.LockNotAvailable):
                conn.execute("SELECT 1 FROM taximeter.workspaces WHERE workspace_id = 'acme' FOR UPDATE NOWAIT")
            namespace.drop_packets()
            conn.execute("SET lock_timeout = '100s'")
            conn.execute("SELECT 1 FROM taximeter.workspaces WHERE workspace_id = 'acme' FOR UPDATE")
        finally:
            client.kill()
            client.communicate()
