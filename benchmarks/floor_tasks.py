"""The floor: what everyone writes first. One Celery task per event, a session, two statements, a commit, a SET."""

from __future__ import annotations

import datetime as dt
import os
import uuid
from decimal import Decimal

import redis
from celery import Celery
from kombu import Queue
from sqlalchemy import DateTime, Numeric, Text, Uuid, create_engine, update
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

_ENVIRONMENT = {"broker": os.environ.get("TAXIMETER_BROKER_URL"), "set_as_current": False}
_SETTINGS = {"task_ignore_result": True, "worker_prefetch_multiplier": 8, "task_default_queue": "floor"}
app = Celery("floor", **_ENVIRONMENT)
app.conf.update(_SETTINGS)
# As safe on its way as our events: a quorum queue, and a confirm for each task before the next.
safe_app = Celery("floor", **_ENVIRONMENT)
safe_app.conf.update(
    _SETTINGS,
    task_queues=[Queue("floor", queue_arguments={"x-queue-type": "quorum"})],
    broker_transport_options={"confirm_publish": True},
)


class Base(DeclarativeBase):
    pass


class FloorUsage(Base):
    __tablename__ = "floor_usages"
    event_id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    workspace_id: Mapped[str] = mapped_column(Text, index=True)
    tool: Mapped[str] = mapped_column(Text)
    model: Mapped[str] = mapped_column(Text)
    quantities: Mapped[dict[str, int]] = mapped_column(JSONB)
    cost: Mapped[Decimal] = mapped_column(Numeric(27, 12))
    occurred_at: Mapped[dt.datetime] = mapped_column(DateTime(timezone=True))


class FloorBalance(Base):
    __tablename__ = "floor_balances"
    workspace_id: Mapped[str] = mapped_column(Text, primary_key=True)
    balance: Mapped[Decimal] = mapped_column(Numeric(27, 12), default=0)


_engine = None
_redis = None


def engine():
    """One engine a process, made after the fork."""
    global _engine  # noqa: PLW0603
    if _engine is None:
        url = os.environ["TAXIMETER_DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://", 1)
        _engine = create_engine(url)
    return _engine


def cache():
    global _redis  # noqa: PLW0603
    if _redis is None:
        _redis = redis.Redis.from_url(os.environ["TAXIMETER_REDIS_URL"])
    return _redis


def forget_connections() -> None:
    """The environment leads elsewhere now."""
    global _engine, _redis  # noqa: PLW0603
    _engine = _redis = None


def _record_usage(event: dict) -> None:
    quantities = event["quantities"]
    cost = quantities["input_tokens"] * Decimal("0.0000025") + quantities["output_tokens"] * Decimal("0.00001")
    with Session(engine()) as session:
        inserted = session.execute(
            insert(FloorUsage)
            .values(
                event_id=uuid.UUID(event["id"]),
                workspace_id=event["workspace"],
                tool=event["tool"],
                model=event["model"],
                quantities=quantities,
                cost=cost,
                occurred_at=dt.datetime.fromisoformat(event["time"]),
            )
            .on_conflict_do_nothing()
        )
        if inserted.rowcount:
            balance = session.execute(
                update(FloorBalance)
                .where(FloorBalance.workspace_id == event["workspace"])
                .values(balance=FloorBalance.balance - cost)
                .returning(FloorBalance.balance)
            ).scalar_one()
            session.commit()
            cache().set(f"floor:{event['workspace']}", "1" if balance >= Decimal("-0.12") else "0")


record_usage = app.task(acks_late=True, name="record_usage")(_record_usage)
record_usage_safely = safe_app.task(acks_late=True, name="record_usage")(_record_usage)


def prepare(workspaces: int) -> None:
    """Create the tables and the balances."""
    Base.metadata.create_all(engine())
    with Session(engine()) as session:
        session.execute(
            insert(FloorBalance), [{"workspace_id": f"ws-{n:06d}", "balance": 10**6} for n in range(workspaces)]
        )
        session.commit()
