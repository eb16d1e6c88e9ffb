"""A database with targets, a deliverer within this process, and receivers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from notice_receivers import Receiver
from taximeter_cli.embedded.logins import WORKER, part_url
from taximeter_db import connect
from taximeter_db.notices import outbox, targets
from taximeter_db.notices.outbox import Notice
from taximeter_db.notices.targets import NewTarget
from taximeter_worker.metrics import Metrics
from taximeter_worker.notices import deliverer as deliverer_module
from taximeter_worker.notices.deliverer import Deliverer
from taximeter_worker.settings import Settings
from worker_fixtures import new_worker, priced_url, valkey_broker_url

__all__ = ["new_worker", "priced_url", "valkey_broker_url"]


@pytest.fixture(autouse=True)
def patient_runs(monkeypatch) -> None:
    """A run ends when nothing is due; on a slow machine that may take a while."""
    monkeypatch.setattr(deliverer_module, "RUN_SECONDS", 60.0)


@pytest.fixture
def conn(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with connect.booking_connection(database_url) as connection:
        yield connection


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def target(conn) -> Callable[..., targets.Added]:
    """``target(receiver.url)``: a webhook of acme's on loopback."""

    def make(address: str, workspace_id: str = "acme", **other: Any) -> targets.Added:
        fields = {"channel": "webhook", "allow_private": True, "any_service": True, **other}
        return targets.add(conn, NewTarget(workspace_id=workspace_id, address=address, **fields), None, "olga")

    return make


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Of a worker that delivers, with a worker's rights alone."""
    return Settings(database_url=part_url(database_url, WORKER), broker_url="redis://", redis_url="redis://")


@pytest.fixture
def deliverer(settings: Settings) -> Deliverer:
    return Deliverer(settings, Metrics())


@pytest.fixture
def put(conn) -> Callable[..., None]:
    """``put("low", "insufficient")``: notices of acme's status, one after another."""

    def write(*states: str, workspace_id: str = "acme") -> None:
        kinds = {"low": outbox.WORKSPACE_LOW, "insufficient": outbox.WORKSPACE_INSUFFICIENT}
        outbox.put(
            conn,
            [
                Notice(
                    workspace_id=workspace_id,
                    type=kinds.get(state, outbox.WORKSPACE_RESTORED),
                    at=0,
                    data={"status": state},
                    subject="status",
                    state=state,
                )
                for state in states
            ],
        )

    return write


@pytest.fixture
def make_due(conn) -> Callable[[], None]:
    """Ends every wait of a back-off, as if its time had passed."""

    def act() -> None:
        conn.execute("UPDATE taximeter.notice_targets SET retry_at = NULL")
        conn.execute("UPDATE taximeter.notice_lanes SET due_at = now(), retry_at = NULL WHERE due_at IS NOT NULL")

    return act


@pytest.fixture
def states(conn) -> Callable[[], list[str]]:
    """What became of every notice, in their order."""

    def read() -> list[str]:
        query = "SELECT state FROM taximeter.notice_deliveries ORDER BY notice_id, target_id"
        return [state for (state,) in conn.execute(query)]

    return read
