"""Workers that do not know each other's master keys do not work on one ledger."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from taximeter_db import connect
from taximeter_db.crypto import key_register, master_keys
from taximeter_db.crypto.key_register import check_in
from taximeter_db.errors import MasterKeyError, NotFoundError

OLD, NEW = master_keys.new(), master_keys.new()
OLD_ONLY, NEW_ONLY, BOTH = map(master_keys.parse, (OLD, NEW, f"{NEW} {OLD}"))


@pytest.fixture
def worker(role_url):
    with connect.connection(role_url("worker")) as connection:
        yield connection


def test_the_first_master_key_is_registered_and_others_are_refused_by_name(worker):
    check_in(worker, None)
    check_in(worker, OLD_ONLY)
    check_in(worker, OLD_ONLY)
    with pytest.raises(MasterKeyError) as refused:
        check_in(worker, NEW_ONLY)
    assert OLD_ONLY.current in str(refused.value)
    assert NEW_ONLY.current in str(refused.value)
    for text in (OLD, NEW):
        assert text not in str(refused.value)
    with pytest.raises(MasterKeyError, match="none is given here"):
        check_in(worker, None)
    assert key_register.registered(worker) == OLD_ONLY.current


def test_a_rotation_moves_the_register_and_leaves_the_old_key_alone_behind(worker):
    check_in(worker, OLD_ONLY)
    check_in(worker, BOTH)
    assert key_register.registered(worker) == NEW_ONLY.current
    check_in(worker, NEW_ONLY)
    with pytest.raises(MasterKeyError):
        check_in(worker, OLD_ONLY)


def test_a_lost_master_key_is_abandoned_by_name(worker, conn):
    check_in(worker, OLD_ONLY)
    with pytest.raises(NotFoundError):
        key_register.abandon(conn, NEW_ONLY.current)
    key_register.abandon(conn, OLD_ONLY.current)
    check_in(worker, NEW_ONLY)
    assert key_register.registered(worker) == NEW_ONLY.current


def test_of_two_that_start_at_once_one_is_refused(role_url):
    def start(masters) -> str:
        with connect.connection(role_url("worker")) as connection:
            try:
                check_in(connection, masters)
            except MasterKeyError:
                return "refused"
            return "started"

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(start, [OLD_ONLY, NEW_ONLY])) == ["refused", "started"]
