"""Settings: one reading for every part, one page that lists them, and sentences for what makes no sense."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

from taximeter.addresses import BROKER_SCHEMES, BrokerKind
from taximeter_cli import settings as cli
from taximeter_dashboard.settings import Settings as PageSettings
from taximeter_db.addresses import AMQP_SCHEMES, POSTGRES_SCHEMES, REDIS_SCHEMES, address
from taximeter_db.errors import ConfigurationError
from taximeter_db.settings import EnvironmentSettings, odd, variable_of
from taximeter_gateway.settings import Settings as GatewaySettings
from taximeter_worker.consume.signatures import ProducerKeys
from taximeter_worker.settings import Settings as WorkerSettings

ROOT = Path(__file__).parents[2]
PARTS: tuple[type[EnvironmentSettings], ...] = (WorkerSettings, PageSettings, GatewaySettings, cli.Settings)
WORKER = {
    "TAXIMETER_DATABASE_URL": "postgresql://u:p@h/d",
    "TAXIMETER_BROKER_URL": "amqp://u:p@h//",
    "TAXIMETER_REDIS_URL": "redis://h/0",
}
PAGE = {"TAXIMETER_DATABASE_URL": "postgresql://u:p@h/d", "TAXIMETER_DASHBOARD_SECRET": "s" * 40}
PASSWORD = "hunter2hunter2"


def _documented() -> dict[str, str]:
    rows = re.findall(r"^\| `(TAXIMETER_\w+)` \| ([^|]+) \|", (ROOT / "docs/settings.md").read_text(), re.MULTILINE)
    assert len(rows) == len(dict(rows)), "a variable is listed twice"
    return dict(rows)


def _shown(default: Any) -> str:
    if default is MISSING:
        return "required"
    if isinstance(default, tuple):
        return ",".join(default) or "none"
    if isinstance(default, float):
        return f"{default:g}"
    if default is None or isinstance(default, ProducerKeys) or default == "":
        return "none"
    return str(default)


def test_the_reference_lists_each_variable_with_its_default():
    declared = {variable_of(one.name): _shown(one.default) for part in reversed(PARTS) for one in fields(part)}
    declared["TAXIMETER_CONSUME_SHARDS"] = "all"
    documented = _documented()
    for variable in cli.SDK_VARIABLES:
        assert documented.pop(variable)
    assert documented == declared


def test_other_pages_name_no_variable_that_does_not_exist():
    known = cli.all_variables()
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        named = set(re.findall(r"TAXIMETER_[A-Z_]+[A-Z]\b", page.read_text()))
        assert named <= known | {"TAXIMETER_X"}, page.name


@pytest.mark.parametrize("part", PARTS)
def test_only_the_settings_read_the_environment(part: type[EnvironmentSettings]):
    """Every variable is declared; what else reads the environment hands it on, or belongs to the tests."""
    assert part.variables() <= cli.all_variables()
    source = "\n".join(
        path.read_text()
        for folder in ("cli", "worker", "dashboard", "gateway", "db")
        for path in (ROOT / folder).rglob("*.py")
    )
    read = set(re.findall(r"environ(?:ment)?(?:\.get\(|\[)\"(TAXIMETER_\w+)\"", source))
    assert read <= {"TAXIMETER_DATA_DIR", "TAXIMETER_DASHBOARD_HOST", "TAXIMETER_DASHBOARD_PORT"}


@pytest.mark.parametrize("variable", sorted({v for part in PARTS for v in part.variables()}))
def test_a_misspelled_variable_is_told_with_the_right_name(variable: str):
    known = cli.all_variables()
    assert odd({variable: "x", "PATH": "y", "TAXI": "z"}, known) == []
    for wrong in (variable[:-2] + variable[-1], variable[:12] + variable[13:] + "X"):
        if wrong in known:
            continue
        (sentence,) = odd({wrong: "secret"}, known)
        near = sentence.partition("Did you mean ")[2].rstrip("?")
        assert near in known
        assert "secret" not in sentence
    (sentence,) = odd({"TAXIMETER_ZZZZ_QQQQ": "x"}, known)
    assert "docs/settings.md" in sentence


@pytest.mark.parametrize(
    ("part", "given", "names"),
    [
        (WorkerSettings, {"MASTER_KEY": "A" * 43 + "=", "MASTER_KEY_FILE": "key"}, ("MASTER_KEY ", "MASTER_KEY_FILE")),
        (PageSettings, {"MASTER_KEY": "A" * 43 + "=", "MASTER_KEY_FILE": "key"}, ("MASTER_KEY ", "MASTER_KEY_FILE")),
        (WorkerSettings, {"MINIMUM_BALANCE": "1"}, ("MINIMUM_BALANCE", "LOW_BALANCE")),
        (PageSettings, {"MINIMUM_BALANCE": "1"}, ("MINIMUM_BALANCE", "LOW_BALANCE")),
        (WorkerSettings, {"PRODUCER_KEYS": f"a:{'x' * 40}"}, ("PRODUCER_KEYS",)),
        (WorkerSettings, {"CONSUME_SHARDS": "3"}, ("CONSUME_SHARDS", "SHARDS")),
        (WorkerSettings, {"EVENT_BYTES_MAX": "20000000"}, ("EVENT_BYTES_MAX", "MESSAGE_BYTES_MAX")),
        (WorkerSettings, {"BATCH_BYTES_MAX": "90000000"}, ("BATCH_BYTES_MAX", "HELD_BYTES_MAX")),
        (PageSettings, {"TOKEN_KEYS": "a", "TOKEN_KEYS_URL": "https://a"}, ("TOKEN_KEYS", "TOKEN_KEYS_URL")),
        (GatewaySettings, {"GATEWAY_BODY_BYTES_MAX": "90000000"}, ("GATEWAY_BODY_BYTES_MAX", "GATEWAY_HELD_BYTES_MAX")),
        (cli.Settings, {"CHECKPOINT_KEY": "a", "CHECKPOINT_KEY_FILE": "b"}, ("CHECKPOINT_KEY", "CHECKPOINT_KEY_FILE")),
    ],
)
def test_contradictions_are_rejected(
    part: type[EnvironmentSettings], given: dict[str, str], names: tuple[str, ...], tmp_path: Path
):
    (tmp_path / "key").write_text("A" * 43 + "=")
    variables = {variable_of(name): value for name, value in given.items()}
    if variables.get("TAXIMETER_MASTER_KEY_FILE"):
        variables["TAXIMETER_MASTER_KEY_FILE"] = str(tmp_path / "key")
    with pytest.raises(ConfigurationError) as rejected:
        part.from_env({**(PAGE if part is PageSettings else WORKER), **variables})
    for name in names:
        assert variable_of(name) in str(rejected.value)


REDIS, AMQP, POSTGRES = "redis://u:{}@h/0", "amqp://u:{}@h:5672//", "postgresql://u:{}@h:5432/d"


@pytest.mark.parametrize(
    ("pattern", "special"),
    [
        *((pattern, special) for pattern in (REDIS, AMQP, POSTGRES) for special in ("#", "/", "?", "@", "/x@", " ")),
        (AMQP, ";"),
    ],
)
@pytest.mark.parametrize("head", [PASSWORD, "12345"])
def test_an_address_that_is_cut_at_its_password_is_rejected_and_not_shown(pattern: str, special: str, head: str):
    parse = address(*REDIS_SCHEMES, *AMQP_SCHEMES, *POSTGRES_SCHEMES)
    password = f"{head}{special}{PASSWORD}"
    with pytest.raises(ValueError, match=r"[Pp]ercent-encode|must start with") as rejected:
        parse(pattern.format(password))
    assert PASSWORD not in str(rejected.value)
    parse(pattern.format("".join(f"%{ord(letter):02X}" for letter in password)))


@pytest.mark.parametrize(
    "text",
    [
        "redis://h",
        "redis://h:6379/0?ssl_ca_certs=/etc/ca.pem",
        "rediss://u:p%40q@[::1]:6379/0",
        "unix:///run/v@lkey.sock?db=1",
        "unix://u:p@/run/valkey.sock?db=1",
        "redis+socket:///run/v.sock?virtual_host=1",
        "amqp://u:p@h1:5672/%2F;amqp://u:p@h2:5672/%2F",
        "amqps://u:p@h//?ssl_ca_certs=/a",
        "postgresql://u:p@h1:5432,h2:5433/d?target_session_attrs=read-write",
        "postgresql:///d?host=/run/postgresql&port=5432",
        "postgresql+psycopg://u@h/d",
        "postgresql://x",
    ],
)
def test_good_addresses_are_taken_as_they_are(text: str):
    assert address(*REDIS_SCHEMES, *AMQP_SCHEMES, *POSTGRES_SCHEMES)(text) == text


def test_the_two_lists_of_schemes_agree():
    # taximeter_db may not import the SDK, nor may the page.
    listed = {BrokerKind.RABBITMQ: AMQP_SCHEMES, BrokerKind.REDIS: REDIS_SCHEMES}
    assert {kind: tuple(f"{scheme}://" for scheme in kind.value) for kind in listed} == listed
    assert set(BROKER_SCHEMES) >= {*AMQP_SCHEMES, *REDIS_SCHEMES}


def test_an_empty_variable_is_told_apart_from_a_missing_one():
    for variable, value in WORKER.items():
        with pytest.raises(ConfigurationError, match=rf"{variable} is empty.*quotation"):
            WorkerSettings.from_env({**WORKER, variable: ""})
        with pytest.raises(ConfigurationError, match=f"{variable} must not stand in quotation marks"):
            WorkerSettings.from_env({**WORKER, variable: f'"{value}"'})
