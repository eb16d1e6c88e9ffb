"""The host's colours and logo: a small style sheet over our own, checked so that text stays readable."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import msgspec

from taximeter_db.errors import ConfigurationError

CONTRAST_MIN: Final = 4.5
"""WCAG 2.2, 1.4.3, for text of any size."""
LOGO_BYTES_MAX: Final = 64 * 1024
_COLOR: Final = re.compile(r"#[0-9a-fA-F]{6}", re.ASCII)
# Every surface on which a link may stand, and every text that may stand on the header.
_SURFACES: Final = {"light": ("#f7f7f5", "#ffffff", "#f0f0ed"), "dark": ("#0e0f11", "#16181b", "#1d2024")}
_INKS: Final = {"light": "#17181a", "dark": "#f2f3f4"}
_LOGOS: Final = {".svg": "image/svg+xml", ".png": "image/png"}


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, 1 to 21 (WCAG 2.2)."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(color: str) -> float:
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def header_text(background: str) -> str:
    """Black or white, whichever reads better on a header; one of the two always reaches 4.5."""
    return max(("#000000", "#ffffff"), key=lambda ink: contrast(ink, background))


class Theme(msgspec.Struct, frozen=True):
    """What a host may choose: colours such as ``#2b46c8`` and the path of a logo; empty where it did not."""

    accent: str = ""
    accent_dark: str = ""
    header: str = ""
    header_dark: str = ""
    logo: str = ""

    def check(self) -> None:
        """Deny what is not a colour, cannot be read, or is not a logo.

        Raises:
            ConfigurationError: The sentence says which, and what the contrast is.
        """
        for field in ("accent", "accent_dark", "header", "header_dark"):
            _check_color(field, getattr(self, field))
        self.read_logo()

    def read_logo(self) -> tuple[bytes, str] | None:
        """The logo and its content type; None where there is none. Raises ConfigurationError."""
        if not self.logo:
            return None
        path = Path(self.logo)
        content_type = _LOGOS.get(path.suffix.lower())
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigurationError(f"TAXIMETER_DASHBOARD_LOGO: {path} cannot be read: {error.strerror}.") from error
        if content_type is None or len(data) > LOGO_BYTES_MAX:
            raise ConfigurationError(
                f"TAXIMETER_DASHBOARD_LOGO: an SVG or PNG of at most {LOGO_BYTES_MAX // 1024} KiB is needed."
            )
        return data, content_type

    def style_sheet(self) -> bytes:
        """The rules that the choices ask for; empty where they ask for none."""
        text = ""
        for scheme, suffix in (("light", ""), ("dark", "_dark")):
            rules = _rules(getattr(self, f"accent{suffix}"), getattr(self, f"header{suffix}"))
            if rules:  # chosen and checked for one scheme, so they never spill into the other
                text += f"@media (prefers-color-scheme: {scheme}) {{\n{rules}}}\n"
        return text.encode()


def _check_color(field: str, color: str) -> None:
    variable = f"TAXIMETER_DASHBOARD_{field.upper()}"
    if color and not _COLOR.fullmatch(color):
        raise ConfigurationError(f"{variable}: a colour such as #2b46c8 is needed.")
    if color and field.startswith("accent"):
        scheme = "dark" if field.endswith("dark") else "light"
        worst = min(contrast(color, surface) for surface in _SURFACES[scheme])
        if worst < CONTRAST_MIN:
            raise ConfigurationError(
                f"{variable}: links in {color} have a contrast of {worst:.2f} on the {scheme} page;"
                f" {CONTRAST_MIN} is needed to read them."
            )


def _rules(accent: str, header: str) -> str:
    text = f":root {{ --accent: {accent}; }}\n" if accent else ""
    if header:
        ink = header_text(header)
        text += f".top {{ background: {header}; border-color: {header}; --accent: {ink}; }}\n"
        text += (
            ".top, .top a, .top .crumbs, .top .crumbs strong, .top .crumbs span, .top .zone, .top button.quiet"
            f" {{ color: {ink}; }}\n.top button.quiet:hover {{ background: none; text-decoration: underline; }}\n"
        )
    return text
