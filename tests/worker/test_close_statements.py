"""The task that closes months: under the worker's rights, for every workspace, and past one whose log does not add up."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import pytest

from factories import make_payment, make_usage
from past import past
from taximeter_db import connect
from taximeter_db.errors import StatementError
from taximeter_db.statements import reading
from taximeter_worker.tasks.close_statements import close_statements

OCTOBER = dt.datetime(2025, 10, 9, tzinfo=dt.UTC)


def test_the_worker_closes_what_is_over_and_goes_on_after_a_log_that_is_wrong(
    database_url: str, role_url: Callable[[str], str]
):
    with connect.booking_connection(database_url) as owner:
        with past(owner, OCTOBER) as it:
            for name in ("a", "b", "c"):
                it.book(OCTOBER, make_payment(name, "3"), make_usage(name, cost="1"))
        owner.execute("ALTER TABLE taximeter.payments DISABLE TRIGGER ALL")
        owner.execute("UPDATE taximeter.payments SET amount = 4 WHERE workspace_id = 'b'")
        with connect.connection(role_url("worker")) as conn:
            with pytest.raises(StatementError, match="The log of b does not add up in 2025-10"):
                close_statements(conn)
            assert reading.due(conn) == ["b"]
        owner.execute("UPDATE taximeter.payments SET amount = 3 WHERE workspace_id = 'b'")
        with connect.connection(role_url("worker")) as conn:
            assert close_statements(conn) == len(reading.closed(owner, "a", limit=1_000))
            assert close_statements(conn) == 0
