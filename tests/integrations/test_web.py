"""The middleware of ASGI and of Django, in real applications whose view calls a real client."""

from __future__ import annotations

import asyncio
from typing import Any

import django
import openai
import pytest
from django.conf import settings
from django.http import HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client
from django.urls import path
from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from adapter_fixtures import FIXTURES, pools
from servers.provider import as_json
from taximeter.integrations import asgi
from taximeter.integrations import django as ours

ANSWER = as_json(FIXTURES["oai-chat-cached"]["response"])
ASKED: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}
STATE: dict[str, Any] = {}
"""What the views of Django use; it knows one configuration a process."""


@pytest.fixture
def client(provider: Any, meter: Any) -> Any:
    with openai.OpenAI(api_key="k", base_url=provider.address, max_retries=0) as plain:
        yield meter.wrap(plain)


def web(meter: Any, client: Any, check: bool = True) -> Any:
    app = FastAPI()

    def who_pays(scope: Any) -> Any:
        workspace = dict(scope["headers"]).get(b"x-workspace")
        return meter.attribution(workspace.decode(), tool="chat", user="u-17") if workspace else None

    @app.get("/ask")
    def ask() -> Any:
        return client.chat.completions.create(**ASKED).id

    @app.get("/stream")
    async def stream() -> Any:
        async def pieces() -> Any:
            yield client.chat.completions.create(**ASKED).id

        return StreamingResponse(pieces())

    @app.websocket("/socket")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(client.chat.completions.create(**ASKED).id)
        await websocket.close()

    @app.get("/free")
    def free() -> Any:
        return "free"

    app.add_middleware(asgi.TaximeterMiddleware, meter=meter, attribution=who_pays, check=check)
    return TestClient(app)


def is_problem(response: Any) -> bool:
    problem = response.json()
    assert response.status_code == 402
    assert response.headers["content-type"] == "application/problem+json"
    assert (problem["status"], problem["workspace"], problem["workspace_status"]) == (402, "broke", "insufficient")
    assert "broke" in problem["detail"]
    return bool(problem["title"] == "AI is disabled")


@pytest.mark.parametrize("address", ["/ask", "/stream"])
def test_asgi_requests_are_attributed(address: str, meter: Any, client: Any, provider: Any, recorded: Any) -> None:
    provider.queue(ANSWER)
    with web(meter, client) as browser:
        assert browser.get(address, headers={"x-workspace": "acme"}).status_code == 200
    (event,) = recorded()
    assert (event["workspace"], event["tool"], event["user"]) == ("acme", "chat", "u-17")
    assert event["quantities"] == pools("oai-chat-cached")


@pytest.mark.parametrize("check", [True, False])
def test_asgi_answers_402_where_ai_is_off(check: bool, meter: Any, client: Any, provider: Any) -> None:
    with web(meter, client, check) as browser:
        assert is_problem(browser.get("/ask", headers={"x-workspace": "broke"}))
        free = browser.get("/free", headers={"x-workspace": "broke"})
        assert free.status_code == (402 if check else 200)
        assert browser.get("/free").json() == "free"
    assert provider.requests == []


def test_asgi_websockets(meter: Any, client: Any, provider: Any, recorded: Any) -> None:
    provider.queue(ANSWER)
    with web(meter, client) as browser:
        with browser.websocket_connect("/socket", headers={"x-workspace": "acme"}) as socket:
            socket.receive_text()
        with pytest.raises(WebSocketDisconnect), browser.websocket_connect("/socket", headers={"x-workspace": "broke"}):
            pass
    assert [event["workspace"] for event in recorded()] == ["acme"]


class Metered(ours.TaximeterMiddleware):
    @property
    def meter(self) -> Any:
        return STATE["meter"]

    @property
    def check(self) -> bool:
        return bool(STATE["check"])

    def attribution(self, request: Any) -> Any:
        workspace = request.headers.get("x-workspace")
        return self.meter.attribution(workspace, tool="site", user="u-17") if workspace else None


def called(_request: Any = None) -> str:
    return str(STATE["client"].chat.completions.create(**ASKED).id)


async def called_async(_request: Any) -> Any:
    return HttpResponse(await asyncio.to_thread(called))


async def pieces_async() -> Any:
    yield called()


urlpatterns = [
    path("ask", lambda request: HttpResponse(called(request))),
    path("ask-async", called_async),
    path("stream", lambda _request: StreamingHttpResponse(called() for _ in range(1))),
    path("stream-async", lambda _request: StreamingHttpResponse(pieces_async())),
    path("free", lambda _request: HttpResponse("free")),
]


@pytest.fixture
def site(meter: Any, client: Any) -> None:
    STATE.update(meter=meter, client=client, check=True)
    if not settings.configured:
        settings.configure(
            ROOT_URLCONF=__name__, MIDDLEWARE=[f"{__name__}.Metered"], ALLOWED_HOSTS=["*"], SECRET_KEY="k"
        )
        django.setup()


@pytest.mark.parametrize("address", ["/ask", "/stream"])
def test_django_requests_are_attributed(address: str, site: None, provider: Any, recorded: Any) -> None:
    provider.queue(ANSWER)
    response = Client().get(address, headers={"x-workspace": "acme"})
    assert response.status_code == 200
    assert response.getvalue().decode() == FIXTURES["oai-chat-cached"]["response"]["id"]
    (event,) = recorded()
    assert (event["workspace"], event["tool"], event["user"]) == ("acme", "site", "u-17")


@pytest.mark.parametrize("address", ["/ask-async", "/stream-async"])
def test_async_django_requests_are_attributed(address: str, site: None, provider: Any, recorded: Any) -> None:
    async def get() -> Any:
        response = await AsyncClient().get(address, headers={"x-workspace": "acme"})
        return [piece async for piece in response] if response.streaming else [response.content]

    provider.queue(ANSWER)
    assert b"".join(asyncio.run(get())).decode() == FIXTURES["oai-chat-cached"]["response"]["id"]
    assert [event["workspace"] for event in recorded()] == ["acme"]


@pytest.mark.parametrize("check", [True, False])
def test_django_answers_402_where_ai_is_off(check: bool, site: None, provider: Any) -> None:
    async def get() -> Any:
        return await AsyncClient().get("/ask-async", headers={"x-workspace": "broke"})

    STATE["check"] = check
    assert is_problem(Client().get("/ask", headers={"x-workspace": "broke"}))
    assert is_problem(asyncio.run(get()))
    assert Client().get("/free").content == b"free"
    assert Client().get("/free", headers={"x-workspace": "broke"}).status_code == (402 if check else 200)
    assert provider.requests == []
