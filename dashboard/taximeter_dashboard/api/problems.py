"""The problems that the JSON API answers with, for the OpenAPI document."""

from __future__ import annotations

from typing import Any


def _problems(texts: dict[int, tuple[str, str, str]]) -> dict[int | str, dict[str, Any]]:
    """Answers for the OpenAPI document: from status to description, title and a detail such as comes with it."""
    reference = {"$ref": "#/components/schemas/ProblemDocument"}
    return {
        status: {
            "description": words,
            "content": {
                "application/problem+json": {
                    "schema": reference,
                    "example": {"type": "about:blank", "title": title, "status": status, "detail": detail},
                }
            },
        }
        for status, (words, title, detail) in texts.items()
    }


_TEXTS = {
    400: (
        "A cursor of another list, or none of ours",
        "Bad cursor",
        "This cursor does not belong to this list. Begin again without it.",
    ),
    401: ("Nobody is signed in, or the token does not hold", "Sign in needed", "Sign in to see this."),
    403: (
        "A member of the staff whom no owner allowed to look, or anyone but the owner who would change something",
        "Not allowed",
        "Only the owner and people they allow can see this.",
    ),
    404: (
        "Absent, or another account's",
        "Not found",
        "There is nothing here. The address may be mistyped, or be another account's.",
    ),
    422: ("A parameter that cannot be read", "Not valid", "limit: Input should be less than or equal to 100."),
    429: (
        "More requests than the rate allows; Retry-After says when to come back",
        "Too many requests",
        "Too many requests. Try again in 1 second.",
    ),
    503: (
        "The ledger, or the service that signs people in, cannot be reached",
        "Not available",
        "The ledger cannot be reached at the moment. Nothing is lost; try again.",
    ),
}
PROBLEMS = _problems(_TEXTS)
LIST_PROBLEMS = _problems({status: _TEXTS[status] for status in (401, 422, 429, 503)})
WRITE_PROBLEMS = _problems(
    {
        401: _TEXTS[401],
        403: (
            "A write that may have come from another site",
            "Not allowed",
            "This request came from another site and was refused.",
        ),
        429: _TEXTS[429],
        503: _TEXTS[503],
    }
)
