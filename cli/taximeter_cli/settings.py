"""The command line's own settings, and the names of all that there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from taximeter.brokers.opening import PRODUCER_KEY_VARIABLE
from taximeter.environment import SPOOL_VARIABLE, TOP_UP_URL_VARIABLE
from taximeter_cli.embedded.state import DEFAULT_FOLDER
from taximeter_db.settings import EnvironmentSettings, exclusive, setting

SDK_VARIABLES: Final = frozenset({SPOOL_VARIABLE, PRODUCER_KEY_VARIABLE, TOP_UP_URL_VARIABLE})
"""What tools on this machine read beside the addresses and TAXIMETER_SHARDS."""
TOLD_VARIABLES: Final = frozenset({"TAXIMETER_METRICS_URL", "TAXIMETER_GATEWAY_URL"})
"""What `taximeter env` tells and no part reads."""
TEST_VARIABLES: Final = frozenset({"TAXIMETER_FAILPOINT", "TAXIMETER_SEED", "TAXIMETER_TEST_EXAMPLES"})
"""What only the tests set."""


@dataclass(frozen=True, kw_only=True)
class Settings(EnvironmentSettings):
    """What the command line reads beside the addresses and the limits of new workspaces."""

    data_dir: str = setting(DEFAULT_FOLDER)
    checkpoint_key: str = setting("", secret=True)
    checkpoint_key_file: str = setting("")

    def check(self) -> None:
        """Reject settings that contradict one another."""
        super().check()
        exclusive(self, "checkpoint_key", "checkpoint_key_file")


def all_variables() -> frozenset[str]:
    """Every variable that some part of the system reads."""
    from taximeter_dashboard.settings import Settings as PageSettings
    from taximeter_gateway.settings import Settings as GatewaySettings
    from taximeter_worker.settings import Settings as WorkerSettings

    parts: tuple[type[EnvironmentSettings], ...] = (Settings, WorkerSettings, PageSettings, GatewaySettings)
    return frozenset().union(SDK_VARIABLES, TOLD_VARIABLES, TEST_VARIABLES, *(part.variables() for part in parts))
