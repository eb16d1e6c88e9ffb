"""Every template can be compiled: so a template that no test renders cannot be broken unnoticed."""

from __future__ import annotations

import pytest

from taximeter_dashboard.pages import render


@pytest.mark.parametrize("name", render._templates.list_templates())
def test_a_template_compiles(name: str):
    render._templates.get_template(name)
