"""The OpenAPI document: what goes in and what comes out. The routes read bodies themselves, so it says what they read."""

from __future__ import annotations

from typing import Any, Final

from taximeter import limits, names
from taximeter.labels import TEXTS_MAX
from taximeter_gateway.events import EVENTS_MAX, JSON_TYPE
from taximeter_gateway.problems import MEDIA_TYPE

_TEXT: Final = {"type": "string"}
_WORKSPACE: Final = {"type": "string", "pattern": f"^{limits.WORKSPACE_ID_PATTERN}$", "description": "The workspace."}
_TOOL: Final = {"type": "string", "pattern": r"^[!-~]{1,128}$", "examples": ["chat"]}
_QUANTITIES: Final[dict[str, Any]] = {
    "type": "object",
    "minProperties": 1,
    "maxProperties": limits.UNITS_MAX,
    "propertyNames": {"pattern": f"^{limits.UNIT_PATTERN}$"},
    "additionalProperties": {"type": "number", "minimum": 0, "maximum": limits.QUANTITY_MAX, "multipleOf": 1},
    "description": "By unit. A number has at most 6 decimals.",
    "examples": [{"input_tokens": 1200, "output_tokens": 300}],
}


def _printable(length_max: int) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^[!-~]{{1,{length_max}}}$"}


def _event(kind: str, data: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["specversion", "id", "type", "subject", "time", "data"],
        "properties": {
            "specversion": {"const": "1.0"},
            "id": {
                "type": "string",
                "pattern": r"^[!-~]{1,255}$",
                "examples": ["0199c7f2-6d0e-7a55-8f3c-2f4f8f0c9a11"],
            },
            "source": {"type": "string", "examples": ["/tools/chat/eu-1"]},
            "type": {"const": kind},
            "subject": _WORKSPACE,
            "time": {"type": "string", "format": "date-time"},
            "data": {"type": "object", "description": "docs/events.md describes it.", **data},
        },
    }


_EVENT: Final[dict[str, Any]] = {
    "anyOf": [
        _event(
            names.USAGE_TYPE,
            {
                "required": ["tool", "quantities"],
                "properties": {
                    "tool": _TOOL,
                    "provider": _printable(128),
                    "model": _printable(128),
                    "quantities": _QUANTITIES,
                    **{name: _printable(length) for name, length in TEXTS_MAX.items()},
                    "tags": {
                        "type": "object",
                        "maxProperties": limits.TAGS_MAX,
                        "propertyNames": {"pattern": f"^{limits.TAG_KEY_PATTERN}$"},
                        "additionalProperties": {"type": "string", "pattern": "^[!-~]{1,64}$"},
                    },
                },
            },
        ),
        _event(names.PAYMENT_TYPE, {"required": ["amount", "kind"]}),
    ]
}
_REFUSED: Final[dict[str, Any]] = {
    "type": "array",
    "description": "The events that were not taken.",
    "items": {
        "type": "object",
        "required": ["index", "code", "detail"],
        "properties": {
            "index": {"type": "integer", "minimum": 0, "description": "Its place in the batch, from 0."},
            "id": _TEXT,
            "code": {"type": "string", "description": "As in the quarantine."},
            "detail": _TEXT,
        },
    },
}
_ACCEPTED: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["accepted", "rejected"],
    "properties": {"accepted": {"type": "integer", "minimum": 0}, "rejected": _REFUSED},
}
_PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": _TEXT,
        "title": _TEXT,
        "status": {"type": "integer"},
        "detail": _TEXT,
        "code": _TEXT,
        "id": _TEXT,
        "rejected": _REFUSED,
    },
}
_PROBLEMS: Final = {
    402: "The balance does not afford it; `available` says what it does.",
    400: "The body or a header cannot be read.",
    401: "No key, or one that does not count.",
    403: "The key is not for this event.",
    404: "Absent, or another's.",
    408: "The body took too long.",
    413: "Too many bytes or events.",
    415: "Of a kind that is not read here.",
    422: "Nothing of it can be booked.",
    429: "Beyond the rate of the key.",
    503: "Too much waits, or a server is away; nothing was taken.",
    504: "The broker has not confirmed in time; the events are spooled.",
}
_WITH_BODY: Final = (400, 401, 408, 413, 415, 422, 503)


def _answer(description: str, schema: dict[str, Any], media_type: str = JSON_TYPE) -> dict[str, Any]:
    return {"description": description, "content": {media_type: {"schema": schema}}}


def _responses(success: tuple[int, dict[str, Any]], *problems: int) -> dict[int | str, dict[str, Any]]:
    return {success[0]: success[1], **{status: _answer(_PROBLEMS[status], _PROBLEM, MEDIA_TYPE) for status in problems}}


def _body(**schemas: dict[str, Any]) -> dict[str, Any]:
    return {
        "requestBody": {"required": True, "content": {kind: {"schema": schema} for kind, schema in schemas.items()}}
    }


EVENTS: Final[dict[str, Any]] = {
    "status_code": 202,
    "responses": _responses((202, _answer("The broker has these events.", _ACCEPTED)), *_WITH_BODY, 403, 429, 504),
    "openapi_extra": _body(
        **{
            names.CONTENT_TYPE_EVENT: _EVENT,
            names.CONTENT_TYPE_BATCH: {"type": "array", "items": _EVENT, "maxItems": EVENTS_MAX},
        }
    ),
}
LITELLM: Final[dict[str, Any]] = {
    "status_code": 202,
    "responses": _responses(
        (
            202,
            _answer(
                "The broker has these events.",
                {
                    **_ACCEPTED,
                    "properties": {
                        **_ACCEPTED["properties"],
                        "skipped": {"type": "integer", "minimum": 0, "description": "Calls that consumed nothing."},
                    },
                },
            ),
        ),
        *_WITH_BODY,
        429,
        504,
    ),
    "openapi_extra": _body(**{JSON_TYPE: {"type": "array", "items": {"type": "object"}, "maxItems": EVENTS_MAX}}),
}
ENABLED: Final[dict[str, Any]] = {
    "responses": _responses(
        (
            200,
            _answer(
                "Whether AI is enabled.",
                {
                    "type": "object",
                    "required": ["workspace_id", "enabled", "status"],
                    "properties": {
                        "workspace_id": _TEXT,
                        "enabled": {"type": "boolean"},
                        "status": {"enum": ["sufficient", "low", "insufficient", None]},
                        "budget": {"type": "string", "description": "The hard budget that is used up, if one is."},
                    },
                },
            ),
        ),
        401,
        404,
        422,
        503,
    )
}
PRICE: Final[dict[str, Any]] = {
    "responses": _responses(
        (
            200,
            _answer(
                "What it costs.",
                {
                    "type": "object",
                    "required": ["cost", "currency"],
                    "properties": {
                        "cost": {"type": "string", "pattern": r"^\d+(\.\d+)?$", "examples": ["0.0007625"]},
                        "currency": {"const": "USD"},
                    },
                },
            ),
        ),
        *_WITH_BODY,
        403,
        404,
    ),
    "openapi_extra": _body(
        **{
            JSON_TYPE: {
                "type": "object",
                "required": ["workspace", "tool", "quantities"],
                "properties": {
                    "workspace": _WORKSPACE,
                    "tool": _TOOL,
                    "provider": _printable(128),
                    "model": _printable(128),
                    "quantities": _QUANTITIES,
                    "time": {"type": "string", "format": "date-time"},
                },
            }
        }
    ),
}
_AMOUNT: Final = {"type": "string", "pattern": r"^-?\d+(\.\d+)?$", "examples": ["0.05"]}
_HELD: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["id", "workspace_id", "held", "available", "expires_in_seconds"],
    "properties": {
        "id": {
            "type": ["string", "null"],
            "description": "For `data.hold` of the usage that settles it. Null: dry run.",
        },
        "workspace_id": _TEXT,
        "granted": {"type": "boolean", "description": "False only in a dry run."},
        "held": _AMOUNT,
        "available": {"anyOf": [_AMOUNT, {"type": "null"}], "description": "What may still be held."},
        "output_tokens": {"type": ["integer", "null"], "description": "As many does it pay for, where it was priced."},
        "expires_in_seconds": {"type": "number", "minimum": 0},
    },
}
_MAX_COST: Final = {
    "type": "string",
    "pattern": r"^\d{1,9}(\.\d{1,12})?$",
    "examples": ["0.05"],
    "description": "In USD.",
}
_TTL: Final = {"type": "number", "exclusiveMinimum": 0, "maximum": 86400, "description": "Seconds to live, at most."}
_HOLD_PROBLEMS: Final = (*_WITH_BODY, 402, 404, 429)
HOLD: Final[dict[str, Any]] = {
    "status_code": 201,
    "responses": {
        **_responses((201, _answer("It is held.", _HELD)), *_HOLD_PROBLEMS, 403),
        200: _answer("Dry run: nothing is held.", _HELD),
    },
    "openapi_extra": _body(
        **{
            JSON_TYPE: {
                "type": "object",
                "required": ["workspace"],
                "properties": {
                    "workspace": _WORKSPACE,
                    "tool": _TOOL,
                    "max_cost": _MAX_COST,
                    "quantities": _QUANTITIES,
                    "provider": {"type": "string", "pattern": r"^[!-~]{1,128}$"},
                    "model": {"type": "string", "pattern": r"^[!-~]{1,128}$"},
                    "ttl": _TTL,
                    "key": {
                        "type": "string",
                        "pattern": r"^[!-~]{1,64}$",
                        "description": "Makes a repetition the same hold.",
                    },
                    "on_short": {"enum": ["reject", "cap"]},
                    "dry_run": {"type": "boolean"},
                },
                "oneOf": [{"required": ["max_cost"]}, {"required": ["quantities"]}],
            }
        }
    ),
}
EXTEND: Final[dict[str, Any]] = {
    "responses": _responses((200, _answer("It is held.", _HELD)), *_HOLD_PROBLEMS),
    "openapi_extra": _body(
        **{
            JSON_TYPE: {
                "type": "object",
                "required": ["max_cost"],
                "properties": {"max_cost": _MAX_COST, "ttl": _TTL, "workspace": _WORKSPACE},
            }
        }
    ),
}
RELEASE: Final[dict[str, Any]] = {
    "status_code": 204,
    "responses": _responses((204, {"description": "Nothing is held."}), 401, 404, 422, 429, 503),
}
