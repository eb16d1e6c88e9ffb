"""Every template can be compiled: a page that nobody opened in a test is no page."""

from __future__ import annotations

import pytest

from taximeter_dashboard import render


@pytest.mark.parametrize("name", render._templates.list_templates())
def test_a_template_compiles(name: str):
    render._templates.get_template(name)
