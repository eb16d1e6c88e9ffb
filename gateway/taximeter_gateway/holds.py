"""Holds over HTTP. Nothing of them stays in the process: another gateway may extend or release what this one has placed.

So an id begins with its workspace (``acme~0199c7f2…``), and a hold is not renewed here: its caller extends it in time.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final, Literal, TypeVar

import msgspec
from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from taximeter import Hold, limits
from taximeter import errors as sdk
from taximeter.errors import InvalidEventError
from taximeter.events import check_workspace_id
from taximeter.ids import new_event_id
from taximeter_db.money import format_usd, to_pico
from taximeter_gateway import documents
from taximeter_gateway.context import Gateway, caller_of, gateway_of
from taximeter_gateway.errors import BusyError, NotFoundError, ProblemError
from taximeter_gateway.keys import Caller
from taximeter_gateway.routes import PRICE_BYTES_MAX, as_json, problem_of, read_json

SEPARATOR: Final = "~"
"""Between the workspace and the rest of an id; no workspace's own id has it."""
T = TypeVar("T")
Answered = TypeVar("Answered")
router = APIRouter()


class _Asked(msgspec.Struct):
    workspace: str
    tool: str | None = None
    max_cost: str | int | None = None
    quantities: dict[str, Any] | None = None
    provider: str | None = None
    model: str | None = None
    ttl: int | float = 60
    key: str | None = None
    on_short: Literal["reject", "cap"] = "reject"
    dry_run: bool = False


class _Extended(msgspec.Struct):
    max_cost: str | int
    ttl: int | float = 60
    workspace: str | None = None


_read_asked = msgspec.json.Decoder(_Asked, float_hook=Decimal).decode
_read_extended = msgspec.json.Decoder(_Extended).decode


@router.post("/v1/holds", **documents.HOLD)
async def place_hold(request: Request) -> Response:
    """Set an amount aside for a call that is about to run. The usage whose ``data.hold`` names it settles it."""
    gateway, caller = gateway_of(request), await caller_of(request)
    with gateway.place():
        asked = await _body(gateway, request, _read_asked)
        _check(caller, asked.workspace, asked.tool)
        caller.spend(1)
        hold = await _told(_place, gateway, asked)
    known = {"granted": hold.granted, "output_tokens": hold.output_tokens}
    return as_json(_shown(hold) | known, 200 if asked.dry_run else 201)


@router.post("/v1/holds/{hold_id}/extend", **documents.EXTEND)
async def extend_hold(request: Request, hold_id: str) -> Response:
    """Hold this amount in all from now on, and for another ``ttl`` seconds."""
    gateway, caller = gateway_of(request), await caller_of(request)
    with gateway.place():
        asked = await _body(gateway, request, _read_extended)
        workspace = _workspace_of(hold_id, asked.workspace)
        _check(caller, workspace, None)
        caller.spend(1)
        hold = await _told(_extend, gateway, workspace, hold_id, asked)
    return as_json(_shown(hold))


@router.delete("/v1/holds/{hold_id}", **documents.RELEASE)
async def release_hold(request: Request, hold_id: str, workspace: str | None = None) -> Response:
    """Give back what is held. One that is gone already counts as released."""
    gateway, caller = gateway_of(request), await caller_of(request)
    with gateway.place():
        named = _workspace_of(hold_id, workspace)
        _check(caller, named, None)
        caller.spend(1)
        await _told(_release, gateway, named, hold_id)
    return Response(status_code=204)


def _place(gateway: Gateway, asked: _Asked) -> Hold:
    own = asked.key or new_event_id()
    named = f"{asked.workspace}{SEPARATOR}{own}"
    hold = gateway.meter.hold(
        asked.workspace,
        max_cost=asked.max_cost,
        ttl=asked.ttl,
        key=named if len(named) <= limits.HOLD_ID_MAX else own,
        on_short=asked.on_short,
        dry_run=asked.dry_run,
        tool=asked.tool or "",
        provider=asked.provider,
        model=asked.model,
        quantities=asked.quantities,
    )
    hold.detach()
    return hold


def _extend(gateway: Gateway, workspace: str, hold_id: str, asked: _Extended) -> Hold:
    hold = gateway.meter.hold_by_id(workspace, hold_id, ttl=asked.ttl)
    hold.extend(asked.max_cost)
    return hold


def _release(gateway: Gateway, workspace: str, hold_id: str) -> None:
    gateway.meter.hold_by_id(workspace, hold_id).release("its caller said so")


def _workspace_of(hold_id: str, given: str | None) -> str:
    workspace, separator, _ = hold_id.partition(SEPARATOR)
    return given if given is not None else workspace if separator else ""


def _check(caller: Caller, workspace: str, tool: str | None) -> None:
    """Refuse what is beyond a key as if it were not there."""
    try:
        check_workspace_id(workspace)
    except InvalidEventError:
        raise NotFoundError from None
    if not caller.may_use(workspace) or (tool is not None and not caller.may_name(tool)):
        raise NotFoundError


async def _body(gateway: Gateway, request: Request, decode: Callable[[bytes], T]) -> T:
    async with gateway.memory.body(request, PRICE_BYTES_MAX) as body:
        return read_json(request, body, decode)


async def _told(function: Callable[..., Answered], *arguments: Any) -> Answered:
    """Ask Redis in a thread, and tell what the SDK raises as problems."""
    try:
        return await run_in_threadpool(function, *arguments)
    except sdk.InsufficientCredit as error:
        known = {"workspace_status": error.status, "top_up_url": error.top_up_url}
        members = {"code": "insufficient_credit", "workspace": error.workspace, "available": _amount(error.available)}
        raise ProblemError(
            f"{error}.",
            status=402,
            title="Insufficient credit",
            members=members | {name: value for name, value in known.items() if value is not None},
        ) from None
    except sdk.BudgetExceeded as error:
        members = {"code": "budget_exceeded", "workspace": error.workspace, "budget": error.budget}
        raise ProblemError(f"{error}.", status=402, title="Budget exceeded", members=members) from None
    except InvalidEventError as error:
        raise problem_of(error) from None
    except (sdk.PriceMissingError, sdk.OutOfRangeError) as error:
        raise ProblemError(str(error), status=422, title="Not priced", members={"code": error.reason}) from None
    except sdk.ConfigurationError as error:
        raise ProblemError(f"{error}.", status=422, title="Not valid") from None
    except sdk.HoldsUnavailableError as error:
        raise BusyError(f"{error}.", retry_after_seconds=error.retry_after_seconds) from None
    except sdk.PricesUnavailableError:
        raise BusyError("The price book cannot be read at the moment.") from None


def _amount(usd: Decimal | None) -> str | None:
    return None if usd is None else format_usd(to_pico(usd))


def _shown(hold: Hold) -> dict[str, Any]:
    return {
        "id": hold.id,
        "workspace_id": hold.workspace_id,
        "held": _amount(hold.held),
        "available": _amount(hold.available),
        "expires_in_seconds": hold.live_seconds if hold.id is not None else 0,
    }
