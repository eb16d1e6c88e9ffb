"""What Compose makes of `deploy/compose.yaml`, as far as the tests need it: files merged, secrets put in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BASE = DEPLOY / "compose.yaml"
VALKEY_BROKER = DEPLOY / "compose.valkey.yaml"

_UNITS_SECONDS = {"s": 1, "m": 60, "h": 3600}


class MissingSecretError(Exception):
    """Compose would refuse to start, with this sentence."""


def load(path: Path = BASE) -> dict[str, Any]:
    """The file as it is written, with anchors and merge keys resolved by YAML itself."""
    loaded = yaml.safe_load(path.read_text())
    assert isinstance(loaded, dict)
    return loaded


def composed(secrets: Mapping[str, str], *overrides: Path) -> dict[str, Any]:
    """All files merged and every variable replaced, as ``docker compose config`` would print them.

    Raises:
        MissingSecretError: a variable has no value.
    """
    merged = load()
    for path in overrides:
        merged = _merge(merged, load(path))
    replaced = _replace(merged, secrets)
    assert isinstance(replaced, dict)
    return replaced


def secret_names() -> list[str]:
    """What Compose takes from ``.env``."""
    return sorted(set(re.findall(r"\$\{(\w+)", BASE.read_text() + VALKEY_BROKER.read_text())))


def all_secret_names() -> list[str]:
    """What ``.env`` has to define: also the passwords of the brokers' users."""
    templates = (DEPLOY / "rabbitmq" / "definitions.in.json", DEPLOY / "valkey" / "users.in.acl")
    text = "".join(path.read_text() for path in templates)
    return sorted({*secret_names(), *re.findall(r"\b[A-Z]+_[A-Z]+_PASSWORD\b", text)})


def seconds(duration: str) -> int:
    """``1m`` as 60."""
    parts = re.findall(r"(\d+)([smh])", duration)
    assert "".join(number + unit for number, unit in parts) == duration != ""
    return sum(int(number) * _UNITS_SECONDS[unit] for number, unit in parts)


def container_instructions() -> list[tuple[str, str]]:
    """The Containerfile's instructions, continued lines joined, comments left out."""
    lines = [line for line in (DEPLOY / "Containerfile").read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def entrypoint() -> list[str]:
    """The image's entry point."""
    found = json.loads(dict(container_instructions())["ENTRYPOINT"])
    assert isinstance(found, list)
    return found


def _merge(base: Any, over: Any) -> Any:
    # the rule for mappings; a test sees to it that the override files need no other
    if isinstance(base, dict) and isinstance(over, dict):
        return {**base, **{key: _merge(base.get(key), value) for key, value in over.items()}}
    return over


def _replace(value: Any, secrets: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _replace(one, secrets) for key, one in value.items()}
    if isinstance(value, list):
        return [_replace(one, secrets) for one in value]
    if not isinstance(value, str):
        return value

    def put(match: re.Match[str]) -> str:
        name, sentence = match.groups()
        if not secrets.get(name):
            raise MissingSecretError(f"required variable {name} is missing a value: {sentence}")
        return secrets[name]

    text = re.sub(r"\$\{(\w+):\?([^}]+)\}", put, value)
    assert "$" not in text, f"a form of variable that these tests do not know: {value}"
    return text
