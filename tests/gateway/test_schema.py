"""The gateway is what its OpenAPI document says, whatever it is asked: schemathesis finds nothing."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from holds.conftest import warm
from taximeter.pricing.price_book import PriceBook
from taximeter.pricing.published import pack
from taximeter_worker.flags.scripts import load_hold_script
from taximeter_worker.pricing.publishing import publish_book

QUICK = settings(
    max_examples=int(os.environ.get("TAXIMETER_TEST_EXAMPLES", "25")),
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
# What its envelope does not decide, such as a time that is none, is the worker's to refuse; and no schema says what makes a call
# of LiteLLM's one that can be billed.
LOOSER = {
    "/v1/litellm": [negative_data_rejection, positive_data_acceptance],
    "/v1/price": [negative_data_rejection, positive_data_acceptance],  # no book prices every unit
    "/v1/holds": [negative_data_rejection, positive_data_acceptance],  # nor does a balance afford every amount
    "/v1/holds/{hold_id}/extend": [negative_data_rejection, positive_data_acceptance],
    "/v1/holds/{hold_id}": [negative_data_rejection, positive_data_acceptance],
}


def test_nothing_is_found(start_gateway, new_key, redis_client):
    publish_book(redis_client, pack(PriceBook(1, [])))
    warm(redis_client)
    load_hold_script(redis_client)
    gateway, key = start_gateway(), new_key(kinds=("usage", "payment"))
    api: Any = schemathesis.openapi.from_url(f"{gateway.url}/openapi.json")

    @api.auth()
    class Key:
        def get(self, _case, _context):
            return key

        def set(self, case, held, _context):
            case.headers["Authorization"] = f"Bearer {held}"

    seen: Counter[int] = Counter()
    operations = [found.ok() for found in api.get_all_operations()]
    assert len(operations) == 7
    for operation in operations:

        @QUICK
        @given(case=operation.as_strategy(GenerationMode.POSITIVE) | operation.as_strategy(GenerationMode.NEGATIVE))
        def try_one(case: Any) -> None:
            answer = case.call_and_validate(excluded_checks=LOOSER.get(case.path, [negative_data_rejection]))
            seen[answer.status_code] += 1
            assert answer.status_code != 500

        try_one()
    assert {200, 202, 404, 422} <= set(seen)
