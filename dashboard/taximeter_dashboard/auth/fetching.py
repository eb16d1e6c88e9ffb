"""Small documents from servers that the operator named: key sets, provider metadata, tokens. Bounded in size and time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
import msgspec

from taximeter_dashboard.errors import FetchError

SECONDS_MAX: Final = 5.0
BYTES_MAX: Final = 256 * 1024


def fetch_json(
    url: str,
    *,
    form: Mapping[str, str] | None = None,
    basic: tuple[str, str] | None = None,
    bearer: str | None = None,
) -> dict[str, Any]:
    """A JSON object by GET, or by POST where a form is given. Redirects are not followed.

    Raises:
        FetchError: No answer in time, no 200, too large, or no JSON object. The sentence holds no secret.
    """
    headers = {"accept": "application/json"}
    if bearer:
        headers["authorization"] = f"Bearer {bearer}"
    host = urlsplit(url).hostname or "?"
    try:
        with httpx2.Client(timeout=SECONDS_MAX, follow_redirects=False) as client:
            method = "GET" if form is None else "POST"
            with client.stream(method, url, headers=headers, data=form, auth=basic) as answer:
                if answer.status_code != 200:
                    raise FetchError(f"{host} answered {answer.status_code}.")
                body = _read(answer.iter_bytes(), host)
        document = msgspec.json.decode(body)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise FetchError(f"{host} did not answer: {type(error).__name__}.") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise FetchError(f"{host} answered something other than JSON.") from error
    if not isinstance(document, dict):
        raise FetchError(f"{host} answered something other than a JSON object.")
    return document


def _read(chunks: Any, host: str) -> bytes:
    """The body, unless it is too large or drips in too slowly: the client's timeout is for each read alone."""
    ends, body = time.monotonic() + SECONDS_MAX, bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > BYTES_MAX:
            raise FetchError(f"{host} answered more than {BYTES_MAX:,} bytes.")
        if time.monotonic() > ends:
            raise FetchError(f"{host} did not answer in time.")
    return bytes(body)
