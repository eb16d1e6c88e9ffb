"""Core statements on psycopg connections."""

from __future__ import annotations

import datetime as dt
from decimal import Inexact

import pytest
from sqlalchemy import ARRAY, Text, any_, bindparam, case, delete, func, insert, literal, literal_column, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from taximeter_db import connect
from taximeter_db.core import Statement, copy_in
from taximeter_db.models.base import Id, Money, table
from taximeter_db.models.flags import StaleFlag
from taximeter_db.models.ledger import Workspace
from taximeter_db.models.page import OperatorLook
from taximeter_db.models.prices import PriceAliases

NAMED = Workspace.workspace_id == bindparam("workspace_id", type_=Id)
CREATE = Statement(
    insert(Workspace).values(workspace_id=bindparam("workspace_id"), minimum_balance=bindparam("minimum_balance"))
)
LARGEST = 10**27 - 1


@pytest.fixture
def conn(database_url: str):
    with connect.connection(database_url) as connection:
        yield connection


@pytest.mark.parametrize("pico", [0, -1, 1, -120_000_000_000, -LARGEST])
def test_amounts_are_picodollars_both_ways(conn, pico: int):
    assert CREATE.run(conn, workspace_id="acme", minimum_balance=min(pico, 0)) == 1
    read = Statement(select(Workspace.minimum_balance, Workspace.created_at).where(NAMED))
    amount, created = read.one(conn, workspace_id="acme")
    assert amount == min(pico, 0)
    assert type(amount) is int
    assert isinstance(created, dt.datetime)
    text = conn.execute("SELECT minimum_balance::text FROM taximeter.workspaces").fetchone()[0]
    assert int(text.replace(".", "")) == min(pico, 0)
    assert read.first(conn, workspace_id="nobody") is None
    with pytest.raises(LookupError):
        read.one(conn, workspace_id="nobody")


def test_sums_of_amounts_are_picodollars_whatever_scale_postgresql_gives_them(conn):
    total = Statement(select(func.coalesce(func.sum(Workspace.minimum_balance), 0), func.count()))
    assert total.one(conn) == (0, 0)
    for name in ("a", "b"):
        CREATE.run(conn, workspace_id=name, minimum_balance=-LARGEST)
    assert total.one(conn) == (-2 * LARGEST, 2)
    difference = select(func.sum(Workspace.balance - Workspace.minimum_balance))
    assert Statement(difference).scalar(conn) == 2 * LARGEST
    larger = case(
        (Workspace.balance > bindparam("limit", type_=Money), Workspace.balance), else_=bindparam("limit", type_=Money)
    )
    assert Statement(select(larger).limit(1)).scalar(conn, limit=7) == 7


def test_what_is_finer_than_a_picodollar_is_an_error_and_not_rounded(conn):
    with pytest.raises(Inexact):
        Statement(select(literal_column("0.0000000000001::numeric", Money))).scalar(conn)


def test_lists_upserts_and_deletions(conn):
    for name in ("a", "b", "c"):
        CREATE.run(conn, workspace_id=name, minimum_balance=-1)
    among = Statement(
        select(Workspace.workspace_id)
        .where(Workspace.workspace_id == any_(bindparam("ids", type_=ARRAY(Text))))
        .order_by(Workspace.workspace_id)
    )
    assert among.scalars(conn, ids=["c", "a", "x"]) == ["a", "c"]
    assert among.scalars(conn, ids=[]) == []
    insertion = upsert(Workspace).values(
        workspace_id=bindparam("workspace_id"), balance=bindparam("balance"), payment_total=bindparam("balance")
    )
    put = Statement(
        insertion.on_conflict_do_update(
            index_elements=[Workspace.workspace_id],
            set_={"balance": insertion.excluded.balance, "payment_total": insertion.excluded.payment_total},
        ).returning(Workspace.balance)
    )
    assert put.all(conn, workspace_id="a", balance=5) == [(5,)]
    raised = Statement(
        update(Workspace).where(NAMED).values(version=Workspace.version + 1).returning(Workspace.version)
    )
    assert raised.scalar(conn, workspace_id="a") == 1
    assert raised.scalar(conn, workspace_id="nobody") is None
    note = Statement(insert(StaleFlag).values(workspace_id=bindparam("workspace_id")))
    assert note.run(conn, workspace_id="b") == 1
    assert Statement(delete(StaleFlag).where(StaleFlag.workspace_id == "b")).run(conn) == 1
    many = Statement(insert(Workspace).values(workspace_id=bindparam("workspace_id")))
    assert many.run_many(conn, [{"workspace_id": f"w{number}"} for number in range(3)]) == 3


def test_percent_signs_and_json_pass(conn):
    like = Statement(select(Workspace.workspace_id).where(Workspace.workspace_id.like("50%")))
    CREATE.run(conn, workspace_id="50_x", minimum_balance=0)
    assert like.scalars(conn) == ["50_x"]
    put = Statement(insert(PriceAliases).values(catalogue=bindparam("catalogue"), revision=1, rules=bindparam("rules")))
    put.run(conn, catalogue="c", rules={"a": ["%", None, 1]})
    assert Statement(select(PriceAliases.rules)).scalar(conn) == {"a": ["%", None, 1]}


def test_a_parameter_that_is_missing_or_unknown_is_an_error(conn):
    read = Statement(select(Workspace.balance).where(NAMED))
    with pytest.raises(TypeError, match="no parameter workspace"):
        read.first(conn, workspace_id="a", workspace="a")
    with pytest.raises(Exception, match="workspace_id"):
        read.first(conn)


def test_copy_names_columns_of_the_model(conn):
    with conn.cursor() as cursor, copy_in(cursor, table(Workspace), ["workspace_id", "version"]) as copy:
        copy.write_row(("acme", 3))
    assert Statement(select(Workspace.version).where(NAMED)).scalar(conn, workspace_id="acme") == 3
    with conn.cursor() as cursor, pytest.raises(TypeError, match="workspaces has no column versoin"):
        copy_in(cursor, table(Workspace), ["versoin"])


def test_works_on_a_booking_connection(database_url: str):
    with connect.booking_connection(database_url) as conn:
        for name in ("a", "b"):
            CREATE.run(conn, workspace_id=name, minimum_balance=-5)
        assert Statement(select(func.min(Workspace.minimum_balance))).scalar(conn) == -5


def test_an_insert_reads_nothing_that_it_was_not_asked_for():
    look = Statement(insert(OperatorLook).values(workspace_id=bindparam("workspace_id")))
    assert "RETURNING" not in look.text()


def test_values_that_were_given_no_name_are_converted_too(conn):
    limits = Statement(select(func.coalesce(bindparam("given", type_=Money), literal(5, Money)), func.concat("a", "b")))
    assert limits.one(conn, given=None) == (5, "ab")
    assert limits.one(conn, given=7) == (7, "ab")
