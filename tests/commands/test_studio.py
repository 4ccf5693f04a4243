"""undiffuse studio, before anything is served."""

import importlib.util

import pytest
from helpers.commands import refused


def test_without_gradio_it_says_what_to_install(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gradio" else find(name))
    assert refused(capsys, "studio").endswith("The studio needs gradio: pip install 'undiffuse[studio]'")


def test_mistakes_are_found_before_gradio_is_loaded(capsys: pytest.CaptureFixture) -> None:
    assert "no run at" in refused(capsys, "studio", "nowhere")
    assert "--port 0 is too small" in refused(capsys, "studio", "--port", "0")
