"""The drawing of a loss."""

import xml.etree.ElementTree as ElementTree

from undiffuse.studio.curve import HEIGHT, POINTS, WIDTH, loss_curve


def lines(count: int) -> list[dict]:
    return [{"images": 100 * (i + 1), "loss": 1 / (i + 1)} for i in range(count)]


def points(svg: str, name: str) -> list[tuple[float, float]]:
    drawn = next(each for each in ElementTree.fromstring(svg).iter("polyline") if each.get("class") == name)
    return [tuple(map(float, pair.split(","))) for pair in drawn.get("points", "").split()]  # ty: ignore


def test_a_falling_loss_falls_inside_the_drawing() -> None:
    line = points(loss_curve(lines(50)), "logged")
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in line)
    assert line == sorted(line), "to the right, and down: y grows downward"


def test_equal_factors_are_equal_distances() -> None:
    (_, a), (_, b), (_, c) = points(loss_curve([{"images": i, "loss": 4.0**-i} for i in (1, 2, 3)]), "logged")
    assert abs((b - a) - (c - b)) < 0.2


def test_a_long_run_is_thinned_out_and_keeps_its_end() -> None:
    line = points(loss_curve(lines(10 * POINTS)), "logged")
    assert len(line) == POINTS
    assert line[-1][0] == max(x for x, _ in line)


def test_held_out_losses_are_points() -> None:
    logged = [*lines(3), {"images": 400, "loss": 0.2, "held_out_loss": 0.9}]
    svg = loss_curve(logged, total_images=800)
    (circle,) = ElementTree.fromstring(svg).iter("circle")
    assert float(circle.get("cx", 0)) < 0.6 * WIDTH, "the axis ends with the budget"
    assert "0.9000 on held-out images" in svg


def test_without_losses_nothing_is_drawn() -> None:
    assert loss_curve([]) == loss_curve([{"images": 1, "loss": None}] * 9) == ""
