"""`Checks`: what a `Meter` answers of flags and hard budgets."""

from __future__ import annotations

from collections.abc import Mapping

from taximeter.events import check_workspace_id
from taximeter.flags.budgets import ANYONE, Caller, UsedUp
from taximeter.flags.cache import FlagCache, FlagStatus


class Checks:
    """The part of a meter that is asked before a call. Whoever inherits it has a flag cache."""

    _answers: dict[str, bool]

    def enabled(
        self,
        workspace_id: str,
        *,
        user: str | None = None,
        tool: str | None = None,
        model: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> bool:
        """Say whether AI is enabled for the workspace, and no hard budget that concerns the call is used up.

        Usually answered from memory, which Redis keeps true. Waits at most ``timeout_seconds``; when Redis cannot
        answer, the last known answer stands in for ``grace_seconds``, then ``on_unknown``.

        Args:
            workspace_id: Whose balance would pay.
            user: Who within the workspace. A budget for a user concerns the calls that name the user, and so on.
            tool: The AI feature.
            model: The model's name, as the usage will name it.
            tags: As the usage will bear them.

        Raises:
            InvalidEventError: The workspace id is malformed.
            ConfigurationError: The meter has no Redis address.
            ClosedError: The meter is closed.
        """
        try:
            return self._answers[workspace_id]
        except (KeyError, TypeError):
            pass
        return self._flag_cache().enabled(check_workspace_id(workspace_id), Caller(user, tool, model, tags))

    def status(self, workspace_id: str) -> FlagStatus:
        """Give status, enabled, since when, and how stale the answer can be. Waits and raises like `enabled`."""
        return self._flag_cache().status(check_workspace_id(workspace_id))

    def used_up(self, workspace_id: str, caller: Caller = ANYONE) -> UsedUp | None:
        """The hard budget for which such a call is refused; None where there is none. Waits and raises like `enabled`."""
        return self._flag_cache().used_up(check_workspace_id(workspace_id), caller)

    def _flag_cache(self) -> FlagCache:
        raise NotImplementedError
