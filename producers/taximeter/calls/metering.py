"""What a `taximeter.Meter` knows of calls: who pays for them, and how they are followed."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, NoReturn, TypeVar, cast

from taximeter import names
from taximeter.addresses import BROKER_URL_VARIABLE
from taximeter.calls.attribution import Attribution
from taximeter.calls.call import Amounts
from taximeter.calls.holding import CallHolds, call_holds
from taximeter.calls.tracking import Track
from taximeter.errors import AIDisabled, BudgetExceeded, ClosedError, ConfigurationError
from taximeter.flags.budgets import Caller

if TYPE_CHECKING:
    from taximeter.meter import Meter
    from taximeter.spool.pipeline import Pipeline

C = TypeVar("C")


class Calls:
    """The part of a meter that follows calls. Whoever inherits it answers `enabled` and takes records."""

    _closed: bool
    _pipeline: Pipeline | None
    _top_up_url: str | None

    def attribution(
        self, workspace_id: str, *, tool: str, user: str | None = None, tags: Mapping[str, str] | None = None
    ) -> Attribution:
        """Say who pays for the calls of wrapped clients: a context manager, and a decorator.

        It holds within its ``with`` block, also across ``await`` and in tasks that are started there. A new thread
        begins without one.

        Args:
            workspace_id: Whose balance pays.
            tool: The AI feature, for example ``"chat"``.
            user: Who within the workspace: a pseudonym, it stands plainly in the log.
            tags: What to break the costs down by, at most 8.

        Raises:
            InvalidEventError: No event could bear these names.
        """
        return Attribution(workspace_id, tool, user, tags)

    def track(
        self,
        workspace_id: str | None = None,
        *,
        tool: str | None = None,
        user: str | None = None,
        tags: Mapping[str, str] | None = None,
        provider: str | None = None,
        model: str | None = None,
        quantities: Amounts | None = None,
        hold: Decimal | str | int | Amounts | None = None,
    ) -> Track:
        """Meter a call of anything: a context manager, sync and async, and a decorator.

        ``with meter.track("acme", tool="clip-maker") as call: call.add(seconds=90)``. It is checked before, and recorded
        once after; when it ends with an error, what was added until then is recorded. Within it, wrapped clients are
        attributed likewise, and record what they consume by themselves.

        Args:
            workspace_id: Whose balance pays. Default: that of the attribution around it, as all further names.
            tool: The AI feature.
            user: Who within the workspace.
            tags: What to break the costs down by.
            provider: Who runs the model.
            model: The model's name.
            quantities: What each call consumes in any case.
            hold: What each call costs at most, in USD; or the most that it consumes by unit, which is priced. It is held
                before the call, and settled by its record.

        Raises:
            InvalidEventError: No event could bear these names.
            ConfigurationError: Only one of workspace and tool is given.

        With ``hold``, a call that the balance does not afford raises what `taximeter.Meter.hold` raises.
        """
        if (workspace_id is None) != (tool is None):
            raise ConfigurationError("track takes a workspace and a tool, or neither inside of an attribution")
        attribution = None
        if workspace_id is not None and tool is not None:
            attribution = Attribution(workspace_id, tool, user, tags)
        elif user is not None or tags is not None:
            raise ConfigurationError("user and tags go with a workspace and a tool")
        return Track(cast("Meter", self), attribution, provider=provider, model=model, quantities=quantities, hold=hold)

    def wrap(
        self,
        client: C,
        *,
        attribution: Attribution | None = None,
        provider: str | None = None,
        outside: Literal["refuse", "pass"] = "refuse",
        hold: bool | CallHolds = False,
    ) -> C:
        """Put a meter around a provider's client: checked before each call, recorded after it, streams included.

        The client that comes back does what the given one does, which stays as it was. Its calls are made inside of
        `attribution`. What it could not follow it refuses, by `NotMeteredError`, before the call is made.

        Args:
            client: A client of a library that `taximeter.integrations` knows, sync or async.
            attribution: Who pays where no attribution holds.
            provider: Who runs the models, as the price book calls it. Default: told by the client's address.
            outside: What becomes of a call for which nobody pays: ``"refuse"`` it, or let it ``"pass"`` unmetered.
            hold: Hold what each call costs at most before it is made: its own limit of output tokens, and its input by an
                upper bound. `CallHolds` says more.

        Raises:
            ConfigurationError: Nothing here knows such a client.
        """
        from taximeter.integrations import Metering, wrap_client

        if outside not in {"refuse", "pass"}:
            raise ConfigurationError(f'outside must be "refuse" or "pass", not {outside!r}')
        metering = Metering(cast("Meter", self), attribution, provider, outside == "pass", call_holds(hold))
        return wrap_client(client, metering)

    def check_call(self, attribution: Attribution, model: str | None = None) -> None:
        """Raise if a call must not be made, or could not be recorded.

        Raises:
            AIDisabled: The workspace may not use AI.
            BudgetExceeded: A hard budget that concerns the call is used up.
            ConfigurationError: The meter cannot check, or cannot record.
            ClosedError: The meter is closed.
        """
        meter = cast("Meter", self)
        if self._closed:
            raise ClosedError("the meter is closed; make a new one")
        _ = self._pipeline or self._no_broker()
        user, tool, tags = attribution.user, attribution.tool, attribution.tags
        if not meter.enabled(attribution.workspace_id, user=user, tool=tool, model=model, tags=tags):
            status = meter.status(attribution.workspace_id).status
            if status != names.STATUS_INSUFFICIENT:
                require_budget(meter, attribution.workspace_id, Caller(user, tool, model, tags))
            self._disabled(attribution, status)

    def _no_broker(self) -> Pipeline:
        raise ConfigurationError(
            f"this meter cannot record: it has no broker address. Set {BROKER_URL_VARIABLE} or pass broker_url"
        )

    def _disabled(self, attribution: Attribution, status: str | None) -> NoReturn:
        workspace_id = attribution.workspace_id
        url = self._top_up_url.replace("{workspace}", workspace_id) if self._top_up_url else None
        why = (
            "its balance is below its minimum"
            if status == "insufficient"
            else "nothing is known of its balance, and then calls are refused (on_unknown)"
        )
        advice = f"top up at {url}" if url else f"top it up, for example by `taximeter credit {workspace_id} AMOUNT`"
        if status != "insufficient":
            advice = "see whether Redis answers and a worker runs"
        raise AIDisabled(
            f"AI is disabled for workspace {workspace_id}: {why}; {advice}. The call was not made",
            workspace=workspace_id,
            status=status,
            top_up_url=url,
        )


def require_budget(meter: Meter, workspace_id: str, caller: Caller) -> None:
    """Raise if a hard budget that concerns a call is used up.

    Raises:
        BudgetExceeded: One is.
    """
    budget = meter.used_up(workspace_id, caller)
    if budget is None:
        return
    conditions = {
        "user": budget.user,
        "tool": budget.tool,
        "model": budget.model,
        "tag": "=".join(budget.tag or ()) or None,
    }
    of = ", ".join(f"{name} {value}" for name, value in conditions.items() if value is not None)
    until = f"; its period ends at {budget.until:%Y-%m-%dT%H:%M:%SZ}" if budget.until is not None else ""
    raise BudgetExceeded(
        f"budget {budget.name} of workspace {workspace_id}{f' ({of})' if of else ''} is used up: {budget.limit} USD,"
        f" period {budget.period}{until}. Raise it, for example by `taximeter budget set`, or wait. The call was not made",
        workspace=workspace_id,
        status=meter.status(workspace_id).status,
        budget=budget.name,
    )
