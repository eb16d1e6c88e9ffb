"""From the name a tool reports to the name the book prices: ``gpt-4o-2024-08-06`` is ``gpt-4o``.

A catalogue's rules, as stored in ``price_aliases.rules``::

    {"providers": [["contains", "bedrock", "aws"], …],          # in the catalogue's order, the first match counts
     "models": {"openai": [["equals", "gpt-4o-2024-08-06", "gpt-4o"], …]},
     "fallbacks": {"azure": ["openai", …]}}                     # whose models this provider resells

Order, ending at the first that matches: the exact name; the same in other letter case; an ``equals`` rule; the other
rules in their order; the same for the providers fallen back to; and all of it once more without a date at the name's
end (``-20250929``, ``-2025-09-29``, ``@20250929``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

Name = tuple[str, str]
"""Provider and model."""

_DATE: Final = re.compile(r"[-@]20[0-9]{2}(?:(?:0[1-9]|1[0-2])[0-9]{2}|-(?:0[1-9]|1[0-2])-[0-9]{2})$", re.ASCII)
MATCHES: Final[dict[str, Callable[[str, str], bool]]] = {
    "equals": str.__eq__,
    "starts_with": str.startswith,
    "ends_with": str.endswith,
    "contains": str.__contains__,
}
Rule = tuple[str, str, str]
"""Kind of match, pattern in lower case, name that it stands for."""


class ModelNames:
    """Resolves reported names against the priced ones and the catalogues' rules. Immutable."""

    def __init__(self, priced: Iterable[Name], catalogues: Mapping[str, Mapping[str, Any]]) -> None:
        self._priced = frozenset(priced)
        self._exact: dict[str, dict[str, str]] = {}
        self._rules: dict[str, list[Rule]] = {}
        self._providers: list[Rule] = []
        self._fallbacks: dict[str, tuple[str, ...]] = {}
        for provider, model in sorted(self._priced):
            self._exact.setdefault(provider, {}).setdefault(model.lower(), model)
        for rules in catalogues.values():
            self._providers += [(kind, pattern, name) for kind, pattern, name in rules["providers"]]
            for provider, models in rules["models"].items():
                exact = self._exact.setdefault(provider, {})
                for kind, pattern, model in models:
                    if kind == "equals":
                        exact.setdefault(pattern, model)
                    else:
                        self._rules.setdefault(provider, []).append((kind, pattern, model))
            for provider, others in rules["fallbacks"].items():
                self._fallbacks.setdefault(provider, tuple(others))

    def resolve(self, provider: str, model: str) -> tuple[Name, ...]:
        """The priced names that apply, the exact one first: none, one, or an exact name and what it is an alias of."""
        reported = (provider, model)
        priced = [reported] if reported in self._priced else []
        alias = self._alias(self._provider(provider), model.lower(), reported)
        if alias is not None:
            priced.append(alias)
        return tuple(priced)

    def _provider(self, provider: str) -> str:
        if provider in self._exact:
            return provider
        lowered = provider.lower().strip()
        if lowered in self._exact:
            return lowered
        return next((name for kind, pattern, name in self._providers if MATCHES[kind](lowered, pattern)), provider)

    def _alias(self, provider: str, model: str, reported: Name) -> Name | None:
        undated = _DATE.sub("", model)
        for name in (model, undated) if undated != model else (model,):
            for seller in (provider, *self._fallbacks.get(provider, ())):
                for candidate in self._matches(seller, name):
                    if (seller, candidate) != reported and (seller, candidate) in self._priced:
                        return seller, candidate
        return None

    def _matches(self, provider: str, model: str) -> Iterator[str]:
        exact = self._exact.get(provider, {}).get(model)
        if exact is not None:
            yield exact
        for kind, pattern, name in self._rules.get(provider, ()):
            if MATCHES[kind](model, pattern):
                yield name
