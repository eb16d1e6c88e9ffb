"""Fixtures: workers as in the worker's tests, and the deployment's broker users on the tests' servers."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from deploy.compose_servers import make_secrets as load_make_secrets
from servers.rabbitmq import RabbitMQ
from servers.shipped_redis import USER_SUFFIX
from taximeter_cli.embedded.valkey import Valkey
from worker_fixtures import ledger, new_runtime, new_worker, priced_url

__all__ = ["ledger", "new_runtime", "new_worker", "priced_url"]

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture(scope="session")
def make_secrets() -> ModuleType:
    """`deploy/make_secrets.py` as a module."""
    return load_make_secrets()


@pytest.fixture(scope="session")
def passwords(make_secrets: ModuleType) -> dict[str, str]:
    """One for each name in `.env.example`."""
    made: dict[str, str] = make_secrets.passwords((DEPLOY / ".env.example").read_text(), "")
    return made


@pytest.fixture
def rabbitmq_user(
    rabbitmq: RabbitMQ, make_secrets: ModuleType, passwords: dict[str, str]
) -> Iterator[Callable[[str], str]]:
    """``rabbitmq_user(name)``: address of a virtual host of this test's own as that user of `deploy/rabbitmq`."""
    vhost, mark = rabbitmq.make_vhost(), secrets.token_hex(4)
    document: dict[str, Any] = json.loads(
        make_secrets.definitions((DEPLOY / "rabbitmq" / "definitions.in.json").read_text(), passwords)
    )
    # The node is shared: a test's users and rights are for its own virtual host.
    del document["vhosts"]
    for user in document["users"]:
        user["name"] += f"-{mark}"
    for right in document["permissions"] + document["topic_permissions"]:
        right["user"] += f"-{mark}"
        right["vhost"] = vhost
    rabbitmq.api("POST", "definitions", document)
    yield lambda name: rabbitmq.url(vhost).replace(
        "guest:guest@", f"{name}-{mark}:{passwords[f'RABBITMQ_{name.upper()}_PASSWORD']}@"
    )
    for user in document["users"]:
        rabbitmq.api("DELETE", f"users/{user['name']}")
    rabbitmq.drop_vhost(vhost)


@pytest.fixture
def valkey_user(
    valkey: Valkey, make_secrets: ModuleType, passwords: dict[str, str]
) -> Iterator[Callable[[str, int], str]]:
    """``valkey_user(name, database)``: address as that user of `deploy/valkey/users.in.acl`."""
    text = make_secrets.access_list((DEPLOY / "valkey" / "users.in.acl").read_text(), passwords)
    names = []  # not those of the server's own users: it is shared
    with valkey.client() as admin:
        for line in text.splitlines():
            _, name, *rules = line.split(" ", 2)
            if name != "default":  # the fixtures' own
                rule_list = [rule.strip() for rule in rules[0].replace(" (", "\0(").split("\0")]
                names.append(name + USER_SUFFIX)
                admin.execute_command("ACL", "SETUSER", names[-1], "reset", *rule_list[0].split(), *rule_list[1:])
        yield (
            lambda name, database: (
                urlsplit(valkey.url(database))
                ._replace(
                    netloc=f"{name}{USER_SUFFIX}:{passwords[f'VALKEY_{name.upper()}_PASSWORD']}@127.0.0.1:{valkey.port}"
                )
                .geturl()
            )
        )
        admin.execute_command("ACL", "DELUSER", *names)


@pytest.fixture
def as_user(valkey_user: Callable[[str, int], str]) -> Iterator[Callable[..., redis.Redis]]:
    """Clients as one of Valkey's users."""
    made: list[redis.Redis] = []

    def make(name: str, database: int = 0) -> redis.Redis:
        made.append(redis.Redis.from_url(valkey_user(name, database)))
        return made[-1]

    yield make
    for one in made:
        one.close()
