"""litellm's file: which of its numbers are prices, and under which names events find them."""

import json
from decimal import Decimal
from typing import Any

import pytest

from taximeter.errors import PriceMissingError
from taximeter_db.money import format_usd
from taximeter_worker.pricing.compare import book_of
from taximeter_worker.pricing.litellm_catalogue import Catalogue, read_catalogue

AT = 1_795_000_000_000_000


def read(models: dict[str, dict[str, Any]]) -> Catalogue:
    return read_catalogue(json.dumps(models).encode(), "prices.json")


def cost(catalogue: Catalogue, provider: str, model: str, quantities: dict[str, int]) -> str:
    book = book_of(catalogue.prices, {"litellm": catalogue.aliases})
    return format_usd(book.price("chat", provider, model, quantities, AT))


@pytest.mark.parametrize("seconds", [(0.0, 0.002), (0.002, 0.0), (0.002, 0.002), (None, 0.002), (0.002, None)])
def test_seconds_cost_the_price_that_is_not_zero(seconds: tuple[float | None, float | None]) -> None:
    fields = zip(("input_cost_per_second", "output_cost_per_second"), seconds, strict=True)
    model = {"litellm_provider": "openai", **{field: value for field, value in fields if value is not None}}
    catalogue = read({"clip": model, "reversed": dict(reversed(model.items()))})
    for name in ("clip", "reversed"):
        assert cost(catalogue, "openai", name, {"seconds": 3600}) == "7.2"


def test_two_different_prices_for_seconds_are_not_guessed() -> None:
    catalogue = read(
        {
            "clip": {"litellm_provider": "openai", "input_cost_per_second": 0.001, "output_cost_per_second": 0.002},
            "other": {"litellm_provider": "openai", "input_cost_per_token": 1e-6},
        }
    )
    with pytest.raises(PriceMissingError):
        cost(catalogue, "openai", "clip", {"seconds": 3600})
    assert any("two different prices for seconds" in note and "clip" in note for note in catalogue.notes)


@pytest.mark.parametrize(
    ("field", "unit"),
    [
        ("cache_read_input_token_cost", "cached_input_tokens"),
        ("cache_creation_input_token_cost", "cache_write_tokens"),
        ("cache_creation_input_token_cost_above_1hr", "cache_write_1h_tokens"),
        ("input_cost_per_audio_token", "input_audio_tokens"),
        ("cache_read_input_audio_token_cost", "cached_input_audio_tokens"),
        ("input_cost_per_image_token", "input_image_tokens"),
        ("output_cost_per_audio_token", "output_audio_tokens"),
        ("output_cost_per_image_token", "output_image_tokens"),
        ("output_cost_per_reasoning_token", "reasoning_tokens"),
    ],
)
def test_a_zero_for_a_part_of_the_tokens_is_not_a_price(field: str, unit: str) -> None:
    model = {"litellm_provider": "openai", "input_cost_per_token": 2e-6, "output_cost_per_token": 2e-6, field: 0}
    catalogue = read({"model": model})
    assert cost(catalogue, "openai", "model", {unit: 1_000_000}) == "2"
    assert any(f"model {field}" in note for note in catalogue.notes)


def test_a_zero_above_a_threshold_is_not_a_price_and_a_zero_of_the_output_is_one() -> None:
    model = {
        "litellm_provider": "openai",
        "input_cost_per_token": 2e-6,
        "input_cost_per_token_above_200k_tokens": 0,
        "output_cost_per_token": 0,
    }
    catalogue = read({"embedding": model})
    assert cost(catalogue, "openai", "embedding", {"input_tokens": 1_000_000, "output_tokens": 5}) == "2"


def test_a_model_that_is_free_in_all_is_left_out_as_before() -> None:
    models = {"a": {"litellm_provider": "x", "input_cost_per_token": 1e-6}, "b": {"litellm_provider": "x"}}
    models["free"] = {"litellm_provider": "x", "input_cost_per_token": 0, "cache_read_input_token_cost": 0}
    catalogue = read(models)
    assert {price.target.model for price in catalogue.prices} == {"a"}


@pytest.mark.parametrize(
    ("key", "theirs", "events"),
    [
        (
            "vertex_ai/claude-sonnet-4-5",
            "vertex_ai-anthropic_models",
            [
                ("google", "claude-sonnet-4-5"),
                ("vertex_ai", "claude-sonnet-4-5"),
                ("vertex_ai", "vertex_ai/claude-sonnet-4-5@20250929"),
                ("google", "vertex_ai/claude-sonnet-4-5"),
            ],
        ),
        ("azure_ai/phi-9", "azure_ai", [("azure", "phi-9"), ("azure_ai", "phi-9"), ("azure_ai", "azure_ai/phi-9")]),
        (
            "anthropic.claude-9",
            "bedrock_converse",
            [("aws", "anthropic.claude-9"), ("bedrock_converse", "anthropic.claude-9")],
        ),
        ("perplexity/perplexity/sonar", "perplexity", [("perplexity", "perplexity/sonar")]),
        ("openrouter/openai/gpt-4o", "openrouter", [("openrouter", "openai/gpt-4o")]),
    ],
)
def test_names_are_those_that_events_bear(key: str, theirs: str, events: list[tuple[str, str]]) -> None:
    catalogue = read({key: {"litellm_provider": theirs, "input_cost_per_token": 3e-6}})
    for provider, model in events:
        assert cost(catalogue, provider, model, {"input_tokens": 1_000_000}) == "3"


def priced(theirs: str, amount: float) -> dict[str, Any]:
    return {"litellm_provider": theirs, "input_cost_per_token": amount}


@pytest.mark.parametrize("reverse", [False, True])
def test_models_that_share_a_name_and_differ_keep_their_own_prices_and_are_listed(reverse: bool) -> None:
    models = {
        "azure/large": priced("azure", 1e-6),
        "azure_ai/large": priced("azure_ai", 4e-6),
        "azure_ai/small": priced("azure_ai", 5e-6),
        "gemini/image": priced("gemini", 2e-6),
        "vertex_ai/image": priced("vertex_ai-language-models", 8e-6),
        "bedrock_mantle/model": priced("bedrock_mantle", 9e-6),
        "model": priced("bedrock_converse", 7e-6),
    }
    catalogue = read(dict(reversed(models.items())) if reverse else models)
    million = {"input_tokens": 1_000_000}
    for provider, model, expected in (
        ("azure", "large", "1"),
        ("azure_ai", "large", "4"),
        ("azure_ai", "azure_ai/large", "4"),
        ("azure_ai", "small", "5"),
        ("azure", "small", "5"),
        ("gemini", "image", "2"),
        ("vertex_ai", "image", "8"),
        ("vertex_ai", "vertex_ai/image", "8"),
        ("aws", "model", "7"),
        ("bedrock_mantle", "model", "9"),
    ):
        assert cost(catalogue, provider, model, million) == expected, (provider, model)
    with pytest.raises(PriceMissingError):  # either price would be wrong for the other's events
        cost(catalogue, "google", "image", million)
    (note,) = (note for note in catalogue.notes if "differ in price" in note)
    assert note.startswith("3 differ")


def test_equal_prices_under_one_name_are_not_a_difference() -> None:
    catalogue = read({"gemini/m": priced("gemini", 1e-6), "vertex_ai/m": priced("vertex_ai", 1e-6)})
    assert cost(catalogue, "google", "m", {"input_tokens": 1_000_000}) == "1"
    assert not [note for note in catalogue.notes if "differ" in note]


def test_reasoning_has_a_price_of_its_own_in_both_catalogues() -> None:
    from taximeter_worker.pricing.genai_catalogue import read_catalogue as read_genai

    event = {"input_tokens": 2_000, "output_tokens": 904, "reasoning_tokens": 4_096}
    model = {"input_cost_per_token": 2e-6, "output_cost_per_token": 8e-6, "output_cost_per_reasoning_token": 3e-6}
    catalogue = read({"perplexity/sonar-deep-research": {"litellm_provider": "perplexity", **model}})
    assert cost(catalogue, "perplexity", "sonar-deep-research", event) == "0.02352"
    genai = read_genai()
    book = book_of(genai.prices, {"genai-prices": genai.aliases})
    assert Decimal(format_usd(book.price("chat", "perplexity", "sonar-deep-research", event, AT))) == Decimal("0.02352")
    assert Decimal(format_usd(book.price("chat", "openai", "o3", {"reasoning_tokens": 10**6}, AT))) == Decimal(
        format_usd(book.price("chat", "openai", "o3", {"output_tokens": 10**6}, AT))
    )
