"""How the Lua scripts of this package are read and called."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

import redis

from taximeter.holds import script
from taximeter_worker.flags.connecting import Client

_EVEN_WHEN_FULL = "#!lua flags=allow-oom\n"

Arguments = Sequence[str | int | bytes]


def read_lua(name: str) -> str:
    """Source of one of the package's scripts."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def load_hold_script(client: Client) -> None:
    """Give the server the script of holds: tools may run it by its digest, and load none. A cluster gets none, as no SDK uses one."""
    if isinstance(client, redis.Redis) and not all(client.script_exists(script.SHA)):
        client.script_load(script.SOURCE)


def run_script(client: Client, source: str, keys: Sequence[str], args: Arguments) -> Any:
    """EVALSHA, with EVAL where the server does not know the script yet."""
    try:
        return client.evalsha(_sha(source), len(keys), *keys, *args)
    except redis.exceptions.NoScriptError:
        return client.eval(source, len(keys), *keys, *args)


def run_even_when_full(client: Client, source: str, keys: Sequence[str], args: Arguments) -> Any:
    """Run a script that may write although the server's memory is full.

    A server that refused to flip a flag would leave AI on for whoever fills its memory. Redis before 7 knows no such scripts.
    """
    try:
        return run_script(client, _EVEN_WHEN_FULL + source, keys, args)
    except redis.ResponseError as error:
        if "compiling script" not in str(error):
            raise
        return run_script(client, source, keys, args)


@functools.lru_cache(maxsize=16)
def _sha(source: str) -> str:
    # SHA-1 is the name that Redis gives a script; it protects nothing.
    return hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
