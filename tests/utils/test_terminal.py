import io
import time

import pytest
from rich.console import Console

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


def on_a_terminal(monkeypatch) -> io.StringIO:
    shown = io.StringIO()
    monkeypatch.setattr(terminal, "console", Console(file=shown, force_terminal=True, width=80))
    return shown


def test_slow_steps_have_a_time_left_from_the_first_on(monkeypatch) -> None:
    on_a_terminal(monkeypatch)
    now = 100.0
    with speaking():
        meter = Meter("editing", 10)
        meter.bar.get_time = lambda: now
        with meter:
            meter.reach(0, "0 steps")
            for step in range(1, 4):
                now += 100
                meter.last_update = 0
                meter.reach(step, f"{step} steps")
                assert meter.bar.tasks[0].time_remaining == pytest.approx((10 - step) * 100, abs=1)


def test_a_word_in_between_stands_above_the_bar(monkeypatch, capsys) -> None:
    shown = on_a_terminal(monkeypatch)
    with speaking(), Meter("training", 1) as meter:
        meter.reach(0.5, "half")
        meter.bar.refresh()
        terminal.interject("stopping")
    _, before, after = shown.getvalue().partition("stopping\n")
    assert before
    assert "half" in after
    assert capsys.readouterr() == ("", "")


def test_a_word_in_between_goes_to_stderr_where_there_is_no_bar(capsys) -> None:
    terminal.interject("stop\x1b[2Jping")
    assert capsys.readouterr() == ("", "stop\N{REPLACEMENT CHARACTER}[2Jping\n")


def test_one_process_shows_that_it_is_loading(monkeypatch) -> None:
    shown = on_a_terminal(monkeypatch)
    monkeypatch.setenv("RANK", "1")
    with terminal.loading():
        pass
    assert shown.getvalue() == ""
    monkeypatch.setenv("RANK", "0")
    with terminal.loading():
        pass
    assert "loading ..." in shown.getvalue()


def test_a_log_is_not_flooded(monkeypatch, capsys) -> None:
    with speaking():
        assert list(track(range(5000), "counting", 5000)) == list(range(5000))
    assert capsys.readouterr().out == ""


def test_nothing_is_shown_unless_the_program_speaks(monkeypatch, capsys) -> None:
    monkeypatch.setattr(terminal, "LOG_SECONDS", 0)
    with Meter("decoding", 10) as meter:
        meter.reach(5, "half")
    assert capsys.readouterr() == ("", "")


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
