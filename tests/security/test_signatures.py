"""Producer keys: on a Valkey broker a message says who sent it, and the worker believes no other."""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from taximeter import Meter, names
from taximeter.brokers.signing import ProducerKey, split
from taximeter.errors import ConfigurationError as SdkConfigurationError
from taximeter_cli.embedded.valkey import BROKER_DATABASE, Valkey
from taximeter_db.connect import booking_connection
from taximeter_db.errors import ConfigurationError
from taximeter_worker.consume.signatures import ProducerKeys
from taximeter_worker.runtime import Runtime
from taximeter_worker.settings import Settings
from taximeter_worker.tasks.replay import replay
from waiting import eventually
from workers import Ledger, payment, usage

CHAT, BILLING = secrets.token_hex(32), secrets.token_hex(32)
KEYS = f"chat:{CHAT}, billing:{BILLING}:payment"


@pytest.fixture
def broker_url(valkey: Valkey) -> str:
    return valkey.url(BROKER_DATABASE)


def _body(*events: object) -> bytes:
    return json.dumps(events).encode()


def test_what_is_signed_is_booked_and_the_rest_is_kept(
    new_runtime: Callable[..., Runtime], broker_url: str, ledger: Ledger, tmp_path: Path, priced_url: str
):
    new_runtime(broker_url, producer_keys=ProducerKeys.parse(KEYS))
    with Meter(broker_url=broker_url, producer_key=f"chat:{CHAT}", spool=tmp_path / "spool") as meter:
        meter.record("acme", tool="chat", provider="p", model="m", quantities={"input_tokens": 1000})
        meter.flush(timeout=20)
    chat, billing = ProducerKey("chat", CHAT), ProducerKey("billing", BILLING)
    body = _body(usage())
    good = chat.sign(names.USAGE_QUEUE, body)
    bad = {
        body: "not signed",
        ProducerKey("nobody", CHAT).sign(names.USAGE_QUEUE, _body(usage())): "key nobody, which is not known",
        ProducerKey("chat", BILLING).sign(names.USAGE_QUEUE, _body(usage())): "does not hold",
        good.replace(b'"acme"', b'"evil"'): "does not hold",
        billing.sign(names.PAYMENT_QUEUE, _body(usage())): "does not hold",  # signed for the other queue
        good.replace(b"taximeter-v1", b"taximeter-v2"): "malformed",
        b"taximeter-v1 chat \n[]": "malformed",
        b"[]": "not signed",
    }
    with redis.Redis.from_url(broker_url) as client:
        for item in bad:
            client.lpush(names.USAGE_QUEUE, item)
        client.lpush(names.PAYMENT_QUEUE, chat.sign(names.PAYMENT_QUEUE, _body(payment("acme", "7"))))
        client.lpush(names.PAYMENT_QUEUE, billing.sign(names.PAYMENT_QUEUE, _body(payment("acme", "5"))))
        client.lpush(names.USAGE_QUEUE, good)
    eventually(lambda: ledger.quarantined() == {"bad_signature": len(bad) + 1}, what="all that nobody vouches for")
    eventually(lambda: ledger.balance("acme") == "4.998")
    with booking_connection(priced_url) as conn:
        told = " ".join(row[0] for row in conn.execute("SELECT detail FROM taximeter.quarantine"))
        assert all(sentence in told for sentence in [*bad.values(), "may send usage and no payments"])
        assert CHAT not in told
        # an operator who knows where it comes from books it by hand
        query = "SELECT id FROM taximeter.quarantine WHERE detail LIKE '%key nobody%'"
        (entry,) = conn.execute(query).fetchone() or ()
        assert [one.result for one in replay(conn, [entry])] == ["booked"]


def test_without_keys_a_signature_is_ignored(new_runtime: Callable[..., Runtime], broker_url: str, ledger: Ledger):
    new_runtime(broker_url)
    with redis.Redis.from_url(broker_url) as client:
        client.lpush(names.USAGE_QUEUE, ProducerKey("chat", CHAT).sign(names.USAGE_QUEUE, _body(usage(), usage())))
        client.lpush(names.USAGE_QUEUE, _body(usage()))
    eventually(lambda: ledger.usages == 3)


def test_the_documented_format_needs_no_sdk(tmp_path: Path):
    text = (Path(__file__).parents[2] / "docs" / "events.md").read_text()
    examples = [part.split("```")[0] for part in text.split("```python\n")[1:]]
    (code,) = [one for one in examples if "taximeter-v1" in one]
    script = f"import sys\nkey_id, secret, queue, body = 'chat', {CHAT!r}, 'taximeter.usage', b'[{{}}]'\n{code}\nsys.stdout.buffer.write(item)"
    item = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, cwd=tmp_path).stdout
    assert ProducerKeys.parse(KEYS).check(item, names.USAGE_QUEUE) == (b"[{}]", None, "chat")


@pytest.mark.parametrize(
    "item", [b"", b"taximeter-v1 ", b"taximeter-v1 a b\n", b"\x00" * 9, b"taximeter-v1 " + b"a" * 99]
)
def test_taking_apart_never_raises(item: bytes):
    assert split(item)[:3] == (None, b"", item)


def _spoiled(item: bytes) -> dict[str, bytes]:
    header, line_feed, body = item.partition(b"\n")
    mark, key_id, digest = header.split(b" ")
    return {
        "CRLF": header + b"\r\n" + body,
        "byte-order mark": b"\xef\xbb\xbf" + item,
        "base64": b" ".join([mark, key_id, base64.b64encode(bytes.fromhex(digest.decode()))]) + b"\n" + body,
        "cut off": b" ".join([mark, key_id, digest[:-1]]) + b"\n" + body,
        "two spaces": mark + b"  " + key_id + b" " + digest + b"\n" + body,
        "no line feed": header + body,
        "other letters": b"Taximeter-V1" + item[len(mark) :],
        "other version": b"taximeter-v2" + item[len(mark) :],
        "white space in front": b"\n" + item,
        "no digest": mark + b" chat " + line_feed + body,
    }


def test_a_signature_in_another_form_is_malformed_and_upper_case_is_not():
    keys, item = ProducerKeys.parse(KEYS), ProducerKey("chat", CHAT).sign(names.USAGE_QUEUE, b"[{}]")
    header, _, body = item.partition(b"\n")
    mark, key_id, digest = header.split(b" ")
    upper = b" ".join([mark, key_id, digest.upper()]) + b"\n" + body
    assert keys.check(upper, names.USAGE_QUEUE) == (b"[{}]", None, "chat")
    for form, spoiled in _spoiled(item).items():
        checked = keys.check(spoiled, names.USAGE_QUEUE)
        assert "malformed" in (checked.distrusted or ""), form
        assert checked.body == spoiled, form
    assert "not signed" in (keys.check(b"[{}]", names.USAGE_QUEUE).distrusted or "")


@pytest.mark.parametrize(
    "text",
    ["chat", "chat:short", f":{CHAT}", f"a b:{CHAT}", f"chat:{CHAT}:admin"],
    # the secret is another in each process, and these are the tests' names
    ids=["no secret", "short secret", "no name", "odd name", "odd right"],
)
def test_a_wrong_key_is_said_without_its_secret(text: str):
    with pytest.raises(ConfigurationError, match="TAXIMETER_PRODUCER_KEYS") as caught:
        Settings.from_env({**_ADDRESSES, "TAXIMETER_PRODUCER_KEYS": text})
    assert CHAT not in str(caught.value)
    assert "short" not in str(caught.value)


_ADDRESSES = {
    "TAXIMETER_DATABASE_URL": "postgresql://x",
    "TAXIMETER_BROKER_URL": "redis://x",
    "TAXIMETER_REDIS_URL": "redis://x",
}


def test_on_rabbitmq_keys_are_refused(tmp_path: Path):
    with pytest.raises(SdkConfigurationError, match="RabbitMQ knows its users"):
        Meter(broker_url="amqp://x", producer_key=f"chat:{CHAT}", spool=tmp_path)
    with pytest.raises(ConfigurationError, match="RabbitMQ knows its users"):
        Settings.from_env({**_ADDRESSES, "TAXIMETER_BROKER_URL": "amqp://x", "TAXIMETER_PRODUCER_KEYS": KEYS})
