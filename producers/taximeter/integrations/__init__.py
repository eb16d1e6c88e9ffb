"""Metering of other libraries: clients of providers, and frameworks that call them.

An integration is a module ``taximeter.integrations.<name>``, which imports its library only when it is used.

**A client that `Meter.wrap` takes.** Add its package to `WRAPPERS`. The module has one function, ``wrap(client,
metering)``, which returns the wrapped client; usually a `taximeter.integrations.proxy.Proxy` over a `Surface`, which says

- ``methods``: which methods are metered, by their path from the client (``"chat.completions.create"``). A `Method` names
  the dialect of `taximeter.quantities` and says how the answer is followed (`Follow`);
- ``is_free``: which paths consume nothing, and pass. Any other callable is refused before the call, by `NotMeteredError`;
- ``is_branch``: which objects hold further methods.

A call then runs so::

    followed = metering.begin(method, path, arguments)  # refuses, or None: let it pass
    with followed.seam():
        answer = target(**followed.arguments)
    followed.whole(answer)  # or followed.event(event)… and in `finally` followed.end()

**A framework's callback or hook** needs no proxy. Where a call begins: ``call = begin(meter, provider=…, model=…)`` of
`taximeter.calls.call`, unless ``seams.is_inside()``; where it ends: ``call.end(quantities.read(dialect, answer))``, or
``call.abandon()`` when it failed and consumed nothing. Where the framework calls a client that may itself be wrapped, run
it inside ``with Seam():`` of `taximeter.calls.seams`: what is inside records nothing, so that the call is recorded once.
"""

from __future__ import annotations

import importlib
from typing import Any, Final, TypeVar

from taximeter.errors import ConfigurationError
from taximeter.integrations.following import Metering

__all__ = ["WRAPPERS", "Metering", "wrap_client"]

C = TypeVar("C")

WRAPPERS: Final[dict[str, str]] = {
    "anthropic": "anthropic",
    "botocore": "bedrock",
    "cohere": "cohere",
    "google.genai": "google_genai",
    "mistralai": "mistral",
    "openai": "openai",
}
"""The package in which a client's class is made, or the beginning of its name, and the module here that wraps it."""


def wrap_client(client: C, metering: Metering) -> C:
    """The wrapped client.

    Raises:
        ConfigurationError: Nothing here knows such a client.
    """
    from taximeter.integrations.proxy import Proxy, target_of

    if type(client) is Proxy:
        client = target_of(client)
    for kind in type(client).__mro__:
        name = next((name for name in WRAPPERS if f"{kind.__module__}.".startswith(f"{name}.")), None)
        if name is not None:
            module: Any = importlib.import_module(f"taximeter.integrations.{WRAPPERS[name]}")
            wrapped: C = module.wrap(client, metering)
            return wrapped
    known = ", ".join(sorted(WRAPPERS))
    raise ConfigurationError(
        f"{type(client).__module__}.{type(client).__qualname__} is not a client that can be wrapped; clients of {known}"
        " are. For anything else there is meter.track"
    )
