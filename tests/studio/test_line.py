"""Visitors in line: in the order in which they came, one at a time, and free to leave."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import pytest

from undiffuse.studio import line as lines
from undiffuse.studio.context import Studio
from undiffuse.studio.line import Line, in_line
from undiffuse.studio.places import Places


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LOOK_SECONDS", 0.01)


def wait_for(condition, seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_ten_visitors_are_served_one_at_a_time_in_their_order() -> None:
    line, served, at_once, most = Line(), [], 0, 0
    told: dict[int, list[int]] = {}

    def visit(number: int) -> None:
        nonlocal at_once, most
        with line.place() as place:
            told[number] = list(place.waiting(threading.Event()))
            at_once += 1
            most = max(most, at_once)
            served.append(number)
            time.sleep(0.02)
            at_once -= 1

    threads = []
    for number in range(10):
        threads.append(threading.Thread(target=visit, args=(number,)))
        threads[-1].start()
        wait_for(lambda count=number: count in told or len(line) > 0)
        time.sleep(0.002)
    for thread in threads:
        thread.join(20)
    assert (served, most, len(line)) == (list(range(10)), 1, 0)
    assert told[0] == []
    for each in told.values():
        assert each == sorted(set(each), reverse=True), "told each place once, on the way to the front"
        assert 0 not in each


def test_a_full_line_is_a_sentence_and_a_place_that_is_left_is_free() -> None:
    line = Line(most_waiting=1)
    with line.place(), line.place():
        with pytest.raises(ValueError, match="The line is full: try again in a minute"), line.place():
            pass
        assert len(line) == 2
    with line.place() as place:
        assert list(place.waiting(threading.Event())) == []


def test_who_fails_or_is_forgotten_leaves_the_line() -> None:
    line = Line()

    def work() -> Iterator[int]:
        with line.place():
            yield 1
            raise KeyError

    with pytest.raises(KeyError):
        list(work())
    forgotten = work()
    next(forgotten)
    assert len(line) == 1
    del forgotten  # As when a visitor closes the page.
    assert len(line) == 0


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return Studio(Places(), tmp_path / "temporary")


def visitor(name: str) -> gr.Request:
    return gr.Request(session_hash=name)


def test_a_visitor_reads_where_he_stands_and_can_leave(studio: Studio) -> None:
    def work(stop: threading.Event) -> Iterator[str]:
        yield "working"
        yield "done"

    first = studio.in_turn(visitor("one"), "generate", work)
    assert next(first) == "working"
    second = studio.in_turn(visitor("two"), "edit", work)
    third = studio.in_turn(visitor("three"), "generate", work)
    said = next(second)
    assert "1 visitor is before you. Stop leaves the line." in said
    assert "running" in said, "which makes the stop button bright"
    assert "2 visitors are before you" in next(third)
    studio.stops.stopper("edit")(visitor("three"))  # Of another tab.
    studio.stops.stopper("edit")(visitor("two"))
    assert ["You left the line" in each for each in second] == [True]
    assert "1 visitor is before you" in next(third)
    assert list(first) == ["done"]
    assert list(third) == ["working", "done"]
    assert len(studio.sampling) == len(studio.stops) == 0


def test_a_full_line_is_told_on_the_page(studio: Studio) -> None:
    studio.sampling = Line(most_waiting=0)
    with studio.sampling.place():
        (said,) = studio.in_turn(visitor("one"), "generate", lambda stop: iter(["working"]))
        assert "The line is full" in said
        assert "trouble" in said
        with pytest.raises(ValueError, match="line is full"):
            studio.one_by_one(lambda: 3)
    assert studio.one_by_one(lambda: 3) == 3


def test_where_a_visitor_stands_in_words() -> None:
    assert in_line(1) == "1 visitor is before you."
    assert in_line(3) == "3 visitors are before you."
