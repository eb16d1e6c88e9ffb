"""Sending a notice through Apprise, in a process of its own: see `apprise_child`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Collection
from typing import Final

from taximeter_db.notices.addresses import Network
from taximeter_db.notices.deliveries import FAILED, OUTCOMES, Delivery, Try
from taximeter_worker.notices import texts

SECONDS_MAX: Final = 30.0
"""For the start of the process, a conversation with a mail server, and its end."""
_ENVIRONMENT: Final = (
    "PATH",
    "HOME",
    "LANG",
    "TZ",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "VIRTUAL_ENV",
)
"""What the process is given of ours: none of our own addresses and keys."""
_CHILD: Final = "taximeter_worker.notices.apprise_child"


def send(delivery: Delivery, networks: Collection[Network]) -> Try:
    """Send a notice once. Never raises for what the service does."""
    began = time.monotonic()
    text = texts.of(delivery.body)
    order = {
        "address": delivery.address,
        "title": text.title,
        "body": text.body,
        "networks": [str(network) for network in networks],
        "anywhere": delivery.allow_private,
    }
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    try:
        done = subprocess.run(
            [sys.executable, "-m", _CHILD],
            input=json.dumps(order).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            timeout=SECONDS_MAX,
            check=False,
        )
        said = json.loads(done.stdout)
        outcome, detail = str(said["outcome"]), str(said["detail"])
    except subprocess.TimeoutExpired:
        outcome, detail = FAILED, f"The service did not take it within {SECONDS_MAX:g} seconds."
    except (OSError, ValueError, KeyError, TypeError):
        outcome, detail = FAILED, "The process that sends it failed."
    if outcome not in OUTCOMES:
        outcome = FAILED
    return Try(outcome, detail, int((time.monotonic() - began) * 1000))
