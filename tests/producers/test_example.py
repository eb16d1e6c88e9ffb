from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from taximeter import names

EXAMPLE = Path(__file__).parents[2] / "examples" / "chat_tool.py"


def test_the_example_records_only_what_the_flag_allows(
    broker: Any, redis_url: str, redis_client: Any, tmp_path: Path, environment: dict[str, str]
) -> None:
    settings = {
        "TAXIMETER_BROKER_URL": broker.url,
        "TAXIMETER_REDIS_URL": redis_url,
        "TAXIMETER_SPOOL": str(tmp_path / "spool"),
    }

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "error", str(EXAMPLE), "acme", "How far is the moon?"]
        return subprocess.run(command, capture_output=True, text=True, check=False, env={**environment, **settings})

    redis_client.hset(names.flag_key("acme"), mapping={"enabled": "0", "status": "insufficient"})
    refused = run()
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "disabled for acme (status: insufficient)" in refused.stderr
    redis_client.hset(names.flag_key("acme"), mapping={"enabled": "1", "status": "low"})
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    (event,) = broker.events()
    assert done.stdout == f"You asked: How far is the moon?\nrecorded as {event['id']}\n"
    assert event["data"]["quantities"] == {"input_tokens": 5, "output_tokens": 7}
