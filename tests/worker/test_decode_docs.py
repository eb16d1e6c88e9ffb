"""The pages about events and quarantine say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import amqp
import pytest
from kombu import Connection

from taximeter.errors import PriceMissingError
from taximeter_worker.decode.message import decode_message

ROOT = Path(__file__).parents[2]
NOW = 1_795_345_200_000_000
CODE = re.compile(
    r"""(?:EventRejectedError\(|reason=|\brejected\(|Rejected\.of\(\s*[^\s,]+,|Rejected\()\s*"([a-z]+(?:_[a-z]+)+)["]"""
)


def test_every_reason_is_documented():
    folders = [ROOT / "worker/taximeter_worker", ROOT / "db/taximeter_db"]
    given = {code for folder in folders for file in folder.rglob("*.py") for code in CODE.findall(file.read_text())}
    given.add(PriceMissingError.reason)
    assert {"bad_json", "id_conflict", "price_missing", "unknown_workspace", "delivery_limit"} <= given
    documented = set(re.findall(r"^\| `([a-z_]+)`", (ROOT / "docs/quarantine.md").read_text(), re.MULTILINE))
    assert given <= documented


@pytest.mark.parametrize(("number", "kind"), [(0, "usages"), (1, "payments")])
def test_the_events_of_the_page_are_accepted(number, kind):
    page = (ROOT / "docs/events.md").read_text()
    text = re.findall(r"```json\n(.*?)```", page, re.DOTALL)[number]
    assert len(getattr(decode_message(text.encode(), "application/cloudevents+json", now=NOW), kind)) == 1


def test_the_shell_example_is_accepted():
    page = (ROOT / "docs/events.md").read_text()
    body = re.search(r"LPUSH taximeter\.usage '(.*?)'", page, re.DOTALL)[1]
    assert len(decode_message(body.encode(), None, now=NOW).usages) == 1


def test_the_python_example_publishes_and_notices_a_missing_queue(amqp_url):
    page = (ROOT / "docs/events.md").read_text()
    example = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    with Connection(amqp_url) as server:
        info = server.info()
        channel = server.channel()
        channel.exchange_declare(exchange="taximeter", type="topic", durable=True, auto_delete=False)
        example = example.replace(
            '"localhost:5672", userid="guest", password="guest"',
            f'"{info["hostname"]}:{info["port"]}", userid="{info["userid"]}", password="{info["password"]}", '
            f'virtual_host="{info["virtual_host"]}"',
        )
        names = {"body": b"[]", "amqp": amqp}
        with pytest.raises(SystemExit, match="No queue"):
            exec(example, names)
        channel.queue_declare(queue="taximeter.usage", durable=True, auto_delete=False)
        channel.queue_bind(queue="taximeter.usage", exchange="taximeter", routing_key="usage")
        exec(example, names)
        message = channel.basic_get(queue="taximeter.usage", no_ack=True)
        assert message.body in {b"[]", "[]"}
        assert message.content_type == "application/cloudevents-batch+json"
