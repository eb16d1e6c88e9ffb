"""The pages of buckets that OpenAI's and Anthropic's reports come in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from taximeter_worker.errors import BillError


def buckets(
    page: Any, key: str | None = None, value: str = ""
) -> Iterator[tuple[Mapping[str, Any], list[Mapping[str, Any]]]]:
    """Each bucket of time of a page, or of a list of pages, with its results.

    Raises:
        BillError: It is not such a page, or the last one says that there are more.
    """
    pages = page if isinstance(page, list) else [page]
    if not pages:
        raise BillError("The file holds no page.")
    for one in pages:
        if not isinstance(one, Mapping) or not isinstance(one.get("data"), list) or (key and one.get(key) != value):
            raise BillError(
                "The file is not a report as its provider's API returns it: it has no list `data` of buckets."
            )
        for bucket in one["data"]:
            results = bucket.get("results") if isinstance(bucket, Mapping) else None
            if not isinstance(results, list) or not all(isinstance(result, Mapping) for result in results):
                raise BillError("A bucket of the report has no list `results`.")
            yield bucket, results
    if pages[-1].get("has_more"):
        raise BillError("The report has more pages. Ask for all of them, and put them into one file as a JSON list.")
