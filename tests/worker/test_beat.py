"""The beat while the broker is away: a sentence when it begins, one when it is over, and tasks again."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from proxy import Proxy
from waiting import eventually
from workers import WorkerProcess

ROLLED_UP = 'taximeter_task_runs_total{outcome="succeeded",task="taximeter.roll_up"}'


def test_a_broker_that_is_away_is_told_once(
    new_worker: Callable[..., WorkerProcess], priced_url: str, broker_url: str, redis_url: str
):
    parts = urlsplit(broker_url)
    with Proxy(parts.hostname or "", parts.port or 0) as proxy:
        worker = new_worker(priced_url, proxy.url(broker_url), redis_url).start()
        eventually(lambda: worker.connected)
        eventually(lambda: worker.metrics()[ROLLED_UP] >= 1)
        proxy.refuse()
        eventually(lambda: "beat_waits" in worker.text(), 120)
        proxy.refuse(False)
        eventually(lambda: "beat_goes_on" in worker.text(), 120)
        before = worker.metrics()[ROLLED_UP]
        eventually(lambda: worker.metrics()[ROLLED_UP] > before, 120)
        assert worker.stop() == 0
    assert worker.text().count("beat_waits") == worker.text().count("beat_goes_on") == 1
    assert "Traceback" not in worker.text()
    assert "Message Error" not in worker.text()
