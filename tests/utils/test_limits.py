from threading import Event, Thread

import pytest

from undiffuse.utils.limits import DEFAULT_GB, VARIABLE, Budget, how_to_raise, memory_gb, scaled


def test_one_variable_scales_every_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert (memory_gb(), scaled(80)) == (DEFAULT_GB, 80)
    monkeypatch.setenv(VARIABLE, "3")
    assert scaled(80) == 160
    assert how_to_raise(200, 160) == f"{VARIABLE}=3.8 raises the limit, where there is so much memory"
    assert how_to_raise(1e9, 160) == "make it smaller"


@pytest.mark.parametrize("text", ["much", "-1", "0", "nan", "inf"])
def test_what_is_no_number_of_gigabytes_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(ValueError, match=f"{VARIABLE} {text} is not a number of gigabytes"):
        memory_gb()


def test_who_needs_more_than_is_left_waits() -> None:
    budget, inside = Budget(), Event()

    def work() -> None:
        with budget.take(60, 100):
            inside.set()

    with budget.take(50, 100):
        thread = Thread(target=work)
        thread.start()
        assert not inside.wait(0.05)
    assert inside.wait(5)
    thread.join()


def test_one_alone_may_take_more_than_there_is() -> None:
    with Budget().take(1000, 100):
        pass
