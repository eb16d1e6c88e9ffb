"""The addresses of the gateway."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Annotated, Any, Final, TypeVar

import msgspec
from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from taximeter import errors as sdk
from taximeter import names
from taximeter.errors import InvalidEventError
from taximeter.events import check_workspace_id
from taximeter.flags import budgets
from taximeter_gateway import documents, events, litellm
from taximeter_gateway.context import Gateway, caller_of, gateway_of
from taximeter_gateway.errors import BusyError, NotFoundError, ProblemError, UnconfirmedError
from taximeter_gateway.events import JSON_TYPE, Accepted, Refusal
from taximeter_gateway.keys import Caller
from taximeter_gateway.metrics import ACCEPTED, REFUSED, UNCONFIRMED

PRICE_BYTES_MAX: Final = 64 * 1024
NOT_ALLOWED: Final = frozenset({"workspace_not_allowed", "tool_not_allowed", "type_not_allowed"})
Asked = TypeVar("Asked")
router = APIRouter()


@router.post("/v1/events", **documents.EVENTS)
async def publish(request: Request) -> Response:
    """Take usage events and payments: CloudEvents in structured, batched or binary mode.

    202 comes once the broker has confirmed the events; those of a batch that cannot be booked are named one by one.
    """
    gateway, caller = gateway_of(request), await caller_of(request)
    media_type = media_type_of(request)
    with gateway.place():
        async with gateway.memory.body(request, gateway.settings.gateway_body_bytes_max) as body:
            batch = events.events_of(media_type, request.headers.items(), body)
            caller.spend(len(batch))
            accepted, refused = _admit(gateway, caller, batch)
            del batch
        if any(event.hold is not None for event in accepted):
            await run_in_threadpool(_note_holds, gateway, accepted)
        refused += await deliver(gateway, accepted)
    return _told(gateway, accepted, refused, alone=media_type != names.CONTENT_TYPE_BATCH)


@router.post("/v1/litellm", **documents.LITELLM)
async def publish_litellm(
    request: Request, workspace: litellm.WorkspaceName = "team", tool: str | None = None
) -> Response:
    """Take what LiteLLM's generic API callback sends: each call that succeeded becomes a usage event."""
    gateway, caller = gateway_of(request), await caller_of(request)
    accepted: list[Accepted] = []
    refused: list[Refusal] = []
    with gateway.place():
        async with gateway.memory.body(request, gateway.settings.gateway_body_bytes_max) as body:
            payloads = litellm.payloads_of(body)
            caller.spend(len(payloads))
            billed = [(index, payload) for index, payload in enumerate(payloads) if not litellm.is_free(payload)]
            for index, payload in billed:
                try:
                    lines = list(litellm.lines_of(payload, caller, workspace, tool))
                    accepted += [events.admit(index, line, caller, gateway.settings.shards) for line in lines]
                except InvalidEventError as error:
                    refused.append(Refusal(index, error.code, str(error), litellm.id_of(payload)))
            skipped = len(payloads) - len(billed)
            del payloads, billed
        refused += await deliver(gateway, accepted)
    return _told(gateway, accepted, refused, alone=False, skipped=skipped)


@router.get("/v1/workspaces/{workspace_id}/enabled", **documents.ENABLED)
async def read_enabled(
    request: Request,
    workspace_id: str,
    user: str | None = None,
    tool: str | None = None,
    model: str | None = None,
    tag: Annotated[list[str] | None, Query(description="KEY=VALUE, as the usage will bear it; repeatable.")] = None,
) -> Response:
    """Whether AI is enabled for the workspace, and no hard budget that concerns such a call is used up."""
    gateway, caller = gateway_of(request), await caller_of(request)
    try:
        check_workspace_id(workspace_id)
    except InvalidEventError:
        raise NotFoundError from None
    if not caller.may_use(workspace_id):
        raise NotFoundError
    tags = {key: value for key, _, value in (text.partition("=") for text in tag or ())}
    found = await run_in_threadpool(gateway.meter.status, workspace_id)
    budget = await run_in_threadpool(gateway.meter.used_up, workspace_id, budgets.Caller(user, tool, model, tags))
    enabled = await run_in_threadpool(gateway.meter.enabled, workspace_id, user=user, tool=tool, model=model, tags=tags)
    named = {} if enabled or budget is None else {"budget": budget.name}
    return as_json({"workspace_id": workspace_id, "enabled": enabled, "status": found.status, **named})


@router.post("/v1/price", **documents.PRICE)
async def read_price(request: Request) -> Response:
    """What a usage costs: exactly what its booking will charge at the prices that hold."""
    gateway, caller = gateway_of(request), await caller_of(request)
    with gateway.place():
        async with gateway.memory.body(request, PRICE_BYTES_MAX) as body:
            asked = read_json(request, body, _read_asked)
            _check_workspace(asked.workspace)
        if not (caller.may_use(asked.workspace) and caller.may_name(asked.tool)):
            raise NotFoundError
        try:
            cost = await run_in_threadpool(
                gateway.meter.price,
                asked.workspace,
                tool=asked.tool,
                provider=asked.provider,
                model=asked.model,
                quantities=asked.quantities,
                time=asked.time,
            )
        except InvalidEventError as error:
            raise problem_of(error) from None
        except (sdk.PriceMissingError, sdk.OutOfRangeError) as error:
            raise ProblemError(str(error), status=422, title="Not priced", members={"code": error.reason}) from None
        except sdk.PricesUnavailableError:
            raise BusyError("The price book cannot be read at the moment.") from None
    return as_json({"cost": format(cost, "f"), "currency": "USD"})


@router.get("/health", include_in_schema=False)
async def read_health() -> Response:
    """Whether the process serves."""
    return as_json({"status": "ok"})


def media_type_of(request: Request) -> str:
    """The media type of a request's body, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def deliver(gateway: Gateway, accepted: list[Accepted]) -> list[Refusal]:
    """Wait for the broker's confirm of these events; returns those that it refuses for their size, and takes them out.

    Raises:
        BusyError: They could not be spooled.
        UnconfirmedError: They are spooled, and the broker has not confirmed them in time.
    """
    try:
        refused = await gateway.delivery.deliver([(event.routing_key, event.line) for event in accepted])
    except UnconfirmedError:
        gateway.metrics.events.labels(UNCONFIRMED).inc(len(accepted))
        raise
    large = [event for at, event in enumerate(accepted) if at in refused]
    accepted[:] = [event for at, event in enumerate(accepted) if at not in refused]
    return [
        Refusal(
            event.index, "too_large", "the broker refuses an event of this size; the gateway keeps it aside", event.id
        )
        for event in large
    ]


def problem_of(error: InvalidEventError, **members: Any) -> ProblemError:
    """The problem of a single event that cannot be taken."""
    if error.code in NOT_ALLOWED:
        status, title = 403, "Not allowed"
    else:
        status, title = 422, "Not valid"
    return ProblemError(str(error), status=status, title=title, members={"code": error.code, **members})


def _admit(gateway: Gateway, caller: Caller, batch: list[bytes]) -> tuple[list[Accepted], list[Refusal]]:
    accepted: list[Accepted] = []
    refused: list[Refusal] = []
    for index, event in enumerate(batch):
        try:
            gateway.pipeline.check_size(event)
            accepted.append(events.admit(index, event, caller, gateway.settings.shards))
        except InvalidEventError as error:
            refused.append(Refusal(index, error.code, str(error), events.id_of(event)))
    return accepted, refused


def _note_holds(gateway: Gateway, accepted: list[Accepted]) -> None:
    """Holds that these events settle do not expire before that; told before they are spooled, as the SDK does."""
    for event in accepted:
        if event.hold is not None:
            gateway.meter.note_recorded(*event.hold)


def _told(gateway: Gateway, accepted: list[Accepted], refused: list[Refusal], *, alone: bool, **more: int) -> Response:
    gateway.metrics.events.labels(ACCEPTED).inc(len(accepted))
    gateway.metrics.events.labels(REFUSED).inc(len(refused))
    refused.sort(key=lambda refusal: refusal.index)
    if refused and not accepted:
        forbidden = all(refusal.code in NOT_ALLOWED for refusal in refused)
        first = refused[0]
        named: Mapping[str, Any] = {"code": first.code} | ({"id": first.id} if first.id else {}) if alone else {}
        raise ProblemError(
            first.detail if alone else "None of the events can be taken.",
            status=403 if forbidden else 422,
            title="Not allowed" if forbidden else "Not valid",
            members={**named, "rejected": refused},
        )
    return as_json({"accepted": len(accepted), "rejected": refused, **more}, 202)


class _Asked(msgspec.Struct):
    workspace: str
    tool: str
    quantities: dict[str, Any]
    provider: str | None = None
    model: str | None = None
    time: dt.datetime | None = None


_read_asked = msgspec.json.Decoder(_Asked, float_hook=Decimal).decode


def _check_workspace(workspace_id: str) -> None:
    try:
        check_workspace_id(workspace_id)
    except InvalidEventError as error:
        raise problem_of(error) from None


def read_json(request: Request, body: bytes, decode: Callable[[bytes], Asked]) -> Asked:
    """What a JSON body asks.

    Raises:
        ProblemError: 400: it cannot be read. 415: it is of another kind. 422: it is not what is asked here.
    """
    if media_type_of(request) != JSON_TYPE:
        raise ProblemError(f"Send {JSON_TYPE}.", status=415, title="Not read here")
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise ProblemError(f"{error}.", status=422, title="Not valid") from None
    except (msgspec.DecodeError, ArithmeticError, RecursionError):
        raise ProblemError("The body cannot be read as JSON.") from None


def as_json(value: Any, status: int = 200) -> Response:
    """An answer in JSON."""
    return Response(msgspec.json.encode(value), status, media_type=JSON_TYPE)
