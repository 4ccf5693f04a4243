import time

import pytest

from undiffuse.utils import terminal
from undiffuse.utils.terminal import Meter, console, log, silence, speaking, track
from undiffuse.utils.text import duration, in_batches


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (44.6, "45 s"),
        (600, "10 min"),
        (3599, "60 min"),
        (5300, "88 min"),
        (5400, "1 h 30 min"),
        (7199, "2 h 0 min"),
        (3 * 3600 + 20 * 60, "3 h 20 min"),
        (47.5 * 3600, "47 h 30 min"),
        (48 * 3600, "2 days"),
        (4.4 * 86400, "4 days"),
        (25470 * 86400, "70 years"),
    ],
)
def test_durations_are_said_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_batch_says_which_images_it_makes() -> None:
    assert in_batches(64, 36, 1500, 3, 18) == "65-100 of 1,500, step 3/18"


def test_no_duration_has_sixty_minutes_or_seconds_beside_a_larger_unit() -> None:
    assert not [seconds for seconds in range(0, 50 * 3600, 7) if " 60 " in duration(seconds)]


def test_track_passes_on_every_item_when_it_is_asked_for() -> None:
    made = []

    def items():
        for i in range(3):
            made.append(i)
            yield i

    tracked = track(items(), "counting", 3)
    assert next(tracked) == 0
    assert made == [0]
    assert list(tracked) == [1, 2]


def test_a_log_gets_lines_with_the_time_left(monkeypatch, capsys) -> None:
    monkeypatch.setattr(terminal, "LOG_SECONDS", 0)
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with speaking(), Meter("decoding", 1000) as meter:
        meter.reach(100, "100 done")
        now += 60
        meter.reach(400, "400 done")
    # 300 in 60 s, so the last 600 take 120 s; the first 100 were there before.
    assert capsys.readouterr().out.splitlines() == ["decoding: 100 done", f"decoding: 400 done, {duration(120)} left"]


def test_a_log_is_not_flooded(monkeypatch, capsys) -> None:
    with speaking():
        assert list(track(range(5000), "counting", 5000)) == list(range(5000))
    assert capsys.readouterr().out == ""


def test_nothing_is_shown_unless_the_program_speaks(monkeypatch, capsys) -> None:
    monkeypatch.setattr(terminal, "LOG_SECONDS", 0)
    with Meter("decoding", 10) as meter:
        meter.reach(5, "half")
    assert capsys.readouterr() == ("", "")


def test_loading_is_announced_on_a_terminal_alone(monkeypatch, capsys) -> None:
    for words in (terminal.Console(force_terminal=True), terminal.Console(force_terminal=False)):
        monkeypatch.setattr(terminal, "console", words)
        with terminal.loading():
            pass
        assert capsys.readouterr().out == ""  # A library is quiet.
        with terminal.speaking(), terminal.loading():
            pass
        assert ("Loading torch" in capsys.readouterr().out) == words.is_terminal


def test_brackets_and_colons_in_names_are_printed_as_they_are(capsys) -> None:
    name = "[bold]red[/bold] [/] :smile: " + "long " * 40
    console.print(name)
    assert capsys.readouterr().out == name + "\n"


def test_notices_are_shown_while_the_program_speaks(capsys) -> None:
    log.info("not heard")
    with speaking():
        log.info("heard")
        with speaking(False):
            log.info("still heard")
    log.info("not heard either")
    assert capsys.readouterr().out == "heard\nstill heard\n"


def test_silenced_work_shows_nothing_and_the_rest_goes_on(capsys) -> None:
    with speaking():
        with silence():
            log.info("not heard")
            assert list(track(range(3), "counting", 3)) == [0, 1, 2]
        log.info("heard again")
    assert capsys.readouterr().out == "heard again\n"
