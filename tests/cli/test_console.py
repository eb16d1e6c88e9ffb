"""What a person reads fits the window, and what is to be copied stays whole."""

from __future__ import annotations

import pytest

from taximeter_cli import console


def test_an_address_stays_on_its_line_and_a_sentence_beside_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(console, "_PIPE_WIDTH", 40)
    address = "redis://default:" + "p" * 60 + "@127.0.0.1:6379/1"
    console.facts([("Broker", address), ("Reason", "It is a long sentence. " * 5), ("Id", "acme"), ("None", None)])
    first, *lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert first == f"Broker  {address}"
    assert lines[-2:] == ["Id      acme", "None"]
    sentence = lines[:-2]
    assert len(sentence) > 2
    assert all(len(line) <= 40 for line in sentence)
    assert [line[:8] for line in sentence] == ["Reason  ", *[" " * 8] * (len(sentence) - 1)]
