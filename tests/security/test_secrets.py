"""No secret is ever printed: each command with a wrong password, an absent host and an address that cannot be read."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from instances import taximeter
from taximeter_cli.embedded.valkey import Valkey
from taximeter_dashboard.settings import Settings as PageSettings
from taximeter_db import secret
from taximeter_db.secret import MASK, Secret, redact
from taximeter_worker.settings import Settings
from waiting import eventually
from workers import WorkerProcess

HUSH = f"hush{secrets.token_hex(8)}"
# With an unescaped slash a parser takes the password's beginning for the port, and quotes it.
BROKEN = f"{HUSH}/{HUSH}"
COMMANDS = {
    "migrate": (),
    "verify": (),
    "workspace": ("show", "acme"),
    "credit": ("acme", "1", "--id", "p"),
    "prices": ("list",),
    "quarantine": ("list",),
    "flags": ("rebuild",),
    "worker": (),
    "dashboard": (),
}


def _addresses(password: str, host: str) -> dict[str, str]:
    return {
        "TAXIMETER_DATABASE_URL": f"postgresql://someone:{password}@{host}/taximeter",
        "TAXIMETER_BROKER_URL": f"redis://someone:{password}@{host}/1",
        "TAXIMETER_REDIS_URL": f"redis://someone:{password}@{host}/0",
        "TAXIMETER_DASHBOARD_SECRET": HUSH * 3,
    }


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in {"worker", "dashboard"}])
def test_a_command_that_fails_shows_no_password(name: str, database_url: str, tmp_path: Path):
    address = urlsplit(database_url)
    real = f"{address.hostname}:{address.port}"
    for password, host in ((HUSH, real), (BROKEN, "127.0.0.1:1")):
        done = taximeter(name, *COMMANDS[name], cwd=tmp_path, **_addresses(password, host))
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert done.stderr.startswith("taximeter: ")
        assert HUSH not in done.stdout + done.stderr, done.stderr


def test_a_worker_shows_no_password(new_worker: Callable[..., WorkerProcess], database_url: str, valkey: Valkey):
    place = urlsplit(database_url).netloc.rpartition("@")[2]
    wrong = f"redis://:{HUSH}@127.0.0.1:{valkey.port}"
    tried = {"background_waits", "canary_not_sent"}  # PostgreSQL, and the broker
    for broker in (f"{wrong}/1", f"amqp://someone:{HUSH}@127.0.0.1:1/%2F"):
        worker = new_worker(
            database_url, broker, f"{wrong}/0", TAXIMETER_DATABASE_URL=f"postgresql://worker:{HUSH}@{place}/x"
        )
        worker.start()
        eventually(
            lambda one=worker: not one.running or tried <= set(re.findall(r"\w+", one.text())),
            what="a worker that has tried",
        )
        worker.kill()
        assert worker.text()
        assert HUSH not in worker.text()


def test_settings_that_make_no_sense_quote_no_secret(tmp_path: Path):
    for variable in ("TAXIMETER_DATABASE_URL", "TAXIMETER_BROKER_URL", "TAXIMETER_REDIS_URL"):
        given = {**_addresses("x", "127.0.0.1:1"), variable: f"http://someone:{HUSH}@host"}
        for name in ("worker", "dashboard"):
            if name == "dashboard" and variable != "TAXIMETER_DATABASE_URL":
                continue
            if name == "dashboard":
                given["TAXIMETER_DASHBOARD_SECRET"] = HUSH[:10]
            done = taximeter(name, cwd=tmp_path, **given)
            assert done.returncode != 0
            assert HUSH[:10] not in done.stdout + done.stderr


def test_a_secret_works_and_never_shows():
    held = Secret(f"redis://me:{HUSH}@host/0")
    assert HUSH in held.reveal()
    assert urlsplit(held).password == HUSH
    for shown in (str(held), repr(held), f"{held}", "%s" % held, "{!r}".format([held]), f"{held:>9}"):  # noqa: UP031, UP032
        assert HUSH not in shown
    assert type(held.reveal()) is str
    assert redact(f"cannot reach {HUSH[:40]} now") == f"cannot reach {MASK} now"
    assert Secret(held).reveal() == held.reveal()
    assert secret.redact("nothing of it") == "nothing of it"


def test_settings_show_none():
    addresses = _addresses(HUSH, "host")
    worker = Settings.from_env({**addresses, "TAXIMETER_PRODUCER_KEYS": f"chat:{HUSH * 2}"})
    page = PageSettings.from_env({**addresses, "TAXIMETER_TOKEN_SECRET": "", "TAXIMETER_OIDC_CLIENT_SECRET": ""})
    for settings in (worker, page):
        assert HUSH not in repr(settings)
        for name in settings.__dataclass_fields__:
            assert HUSH not in f"{getattr(settings, name)} {getattr(settings, name)!r}", name


LISTS = (
    "amqp://someone:{}@rabbit-one:5672/%2F;amqp://someone:{}@rabbit-two:5672/%2F",
    "postgresql://someone:{}@postgres-one:5432,postgres-two:5433/ledger?target_session_attrs=read-write",
    "postgresql://postgres-one:5432,postgres-two:5433/ledger?password={}",
    "rediss://someone:{}@valkey-one:6379/0?ssl_ca_certs=/etc/authority.pem",
    "redis://valkey-one:6379/0",
    "amqp://rabbit-one:5672;amqp://rabbit-two:5672",
)


@pytest.mark.parametrize("pattern", LISTS)
def test_only_the_password_of_an_address_is_masked(pattern: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(secret, "_known", set())
    password = f"hush{secrets.token_hex(8)}"
    text = pattern.replace("{}", password)
    Secret(text)
    assert redact(text) == pattern.replace("{}", MASK)
    metrics = "metrics on rabbit-one:9464, valkey-one, postgres-two, 5672, someone, ledger, amqp://"
    assert redact(metrics) == metrics
