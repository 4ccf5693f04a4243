import pytest

from undiffuse.data import building


@pytest.fixture(autouse=True)
def direct_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would answer for servers that are not there."""
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The sizes of the images as they are decoded."""
    sizes = []
    decode = building.decode

    def counting(image, *options):
        sizes.append(image.size)
        return decode(image, *options)

    monkeypatch.setattr(building, "decode", counting)
    return sizes
