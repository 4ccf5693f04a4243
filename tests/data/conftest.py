import pytest


@pytest.fixture(autouse=True)
def direct_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would answer for servers that are not there."""
    monkeypatch.setenv("no_proxy", "*")
