"""The task that delivers notices. Workers send it as soon as something is due; the beat only makes sure of it."""

from __future__ import annotations

from taximeter_worker.tasks.definition import TaskDefinition

DELIVER = TaskDefinition("taximeter.deliver_notices", every_seconds=10.0, expires_seconds=10.0)
