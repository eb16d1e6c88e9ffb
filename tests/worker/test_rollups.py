"""The task that keeps the page's rollups close behind the log."""

from __future__ import annotations

from benchmarks.generate import Shape, fill
from celery import Celery

from taximeter_db import connect, rollups
from taximeter_worker import rollups as task_module
from taximeter_worker.settings import Settings


def test_one_worker_at_a_time_rolls_up_and_the_farthest_behind_come_first(database_url):
    fill(database_url, Shape(usages=90, workspaces=3, days=1))
    app = Celery("rollups", set_as_current=False)
    settings = Settings(database_url=database_url, broker_url="amqp://nowhere", redis_url="redis://nowhere")
    task_module.register(app, settings)
    roll_up = app.tasks[task_module.ROLL_UP].run
    with connect.connection(database_url) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [task_module._LOCK])
        assert roll_up() == 0
        for _ in range(2):
            rollups.advance(other, "ws-000000", run_max=10)
        rollups.advance(other, "ws-000001", run_max=10)
        assert rollups.behind(other) == ["ws-000002", "ws-000001", "ws-000000"]
        assert rollups.behind(other, limit=1) == ["ws-000002"]
        # By word: the server notices a closed connection only a moment later.
        other.execute("SELECT pg_advisory_unlock_all()")
    assert roll_up() == 3
    with connect.connection(database_url) as conn:
        assert rollups.behind(conn) == []
