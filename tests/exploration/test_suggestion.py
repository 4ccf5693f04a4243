import shlex
from collections.abc import Mapping

import pytest
from helpers.exploring import inventory

from undiffuse.exploration.framing import measure_framing
from undiffuse.exploration.suggestion import Request, SecondsPerImage, Suggestion, suggest

PHOTOS = {(500, 500): 300, (500, 750): 100, (750, 500): 100}

MANY_PHOTOS = {shape: 4 * count for shape, count in PHOTOS.items()}

PLAIN = Request("photos")


def suggested(
    shapes: Mapping,
    images_per_second: float,
    device: str = "cpu",
    auto: tuple[int, int] = (64, 64),
    request: Request = PLAIN,
    slowed: float = 1.0,
) -> Suggestion:
    """On a machine with that speed at 32x32, which falls with the number of pixels, and to a fraction when busy."""

    def measure(preset: str, size: tuple[int, int]) -> SecondsPerImage:
        seconds = size[0] * size[1] / 32**2 / images_per_second
        return SecondsPerImage(seconds, seconds / slowed)

    return suggest(inventory(shapes), request, auto, device, measure)


def option(first: Suggestion, name: str) -> str | None:
    words = shlex.split(first.command)
    return words[words.index(name) + 1] if name in words else None


@pytest.mark.parametrize(
    ("images_per_second", "size", "images"),
    [(100, (64, 64), 100_000), (40, (48, 48), 100_000), (20, (32, 32), 100_000), (5, (32, 32), 30_000)],
)
def test_a_first_run_on_a_cpu_takes_at_most_two_hours(
    images_per_second: float, size: tuple[int, int], images: int
) -> None:
    first = suggested(MANY_PHOTOS, images_per_second)
    assert (first.preset, first.size, first.total_images) == ("small", size, images)
    assert first.seconds <= 2 * 3600
    assert first.seconds == pytest.approx(images * size[0] * size[1] / 32**2 / images_per_second)
    assert first.images_per_second == pytest.approx(images / first.seconds)
    assert first.epochs == pytest.approx(images / 2000)
    assert option(first, "--size") == str(size[0])
    assert option(first, "--images") == f"{images // 1000}k"


def test_the_slowest_machine_still_gets_a_first_look() -> None:
    first = suggested(PHOTOS, 0.5)
    assert first.total_images == 20_000
    assert first.seconds > 2 * 3600


def test_the_speed_is_measured_on_small_images_without_a_gpu() -> None:
    assert suggested(PHOTOS, 100).measured_size == (32, 32)
    assert suggested(PHOTOS, 100, device="cuda").measured_size == (64, 64)
    assert suggested(PHOTOS, 100, request=Request("photos", (128, 256))).measured_size == (16, 32)


def test_images_are_not_enlarged() -> None:
    assert suggested({(40, 44): 50, (41, 40): 50}, 1000).size == (40, 40)
    assert suggested({(32, 32): 100}, 1000, auto=(32, 32)).size == (32, 32)


def test_images_of_one_shape_keep_it() -> None:
    first = suggested({(500, 750): 80, (600, 900): 20}, 1000)
    assert first.size == (40, 64)
    assert "keeps 94% of the images' area; a square keeps 67%." in " ".join(first.reasons)
    assert suggested({(500, 750): 50, (750, 500): 50}, 1000).size == (64, 64)


def test_the_fraction_kept_is_that_of_the_suggested_size() -> None:
    for images_per_second in (1000, 5):
        first = suggested({(300, 500): 60, (330, 550): 40}, images_per_second)
        kept = measure_framing({(300, 500): 1}, first.size, "crop").kept_mean
        assert f"keeps {kept:.0%} of the images' area; a square keeps 60%." in first.reasons[1]


@pytest.mark.parametrize("shape", [(30, 3000), (3000, 30), (300, 500), (200, 210)])
def test_a_faster_size_has_fewer_pixels(shape: tuple[int, int]) -> None:
    shapes = {shape: 50, (shape[0] + 1, shape[1] + 1): 50}
    fast, slow = (suggested(shapes, images_per_second) for images_per_second in (10_000, 1))
    assert "is faster" not in fast.reasons[1]
    assert ("is faster" in slow.reasons[1]) == (slow.size != fast.size)
    assert slow.size == fast.size or slow.size[0] * slow.size[1] < fast.size[0] * fast.size[1]
    assert all(side % 8 == 0 and side >= 16 for side in (*fast.size, *slow.size))


def test_epochs_count_the_images_that_train_uses() -> None:
    first = suggested(PHOTOS, 1000, request=Request("photos", images=100))
    assert first.epochs == pytest.approx(first.total_images / 100)
    assert "Each image is then seen 1,000 times." in first.reasons[2]


def test_the_command_repeats_the_users_options() -> None:
    first = suggested(PHOTOS, 1, request=Request("my photos", (48, 64), "pad", {"data_root": "x y"}))
    assert first.size == (48, 64)
    assert shlex.split(first.command)[:6] == ["undiffuse", "train", "--data", "my photos", "--data-root", "x y"]
    assert option(first, "--size") == "48x64"
    assert option(first, "--fit") == "pad"


def test_a_size_that_networks_cannot_use_is_rounded() -> None:
    first = suggested(PHOTOS, 1000, request=Request("photos", (50, 50)))
    assert first.size == (48, 48)
    assert "48x48 instead of 50x50" in " ".join(first.reasons)


def test_digits_have_their_own_preset() -> None:
    first = suggested({(8, 8): 1797}, 1000, request=Request("digits"))
    assert (first.preset, first.size, first.total_images) == ("digits", (16, 16), 32_000)
    assert first.command == "undiffuse train --data digits --images 32k"


def test_a_gpu_gets_a_large_network_for_many_images() -> None:
    many = suggested({(500, 500): 5000, (500, 750): 1000}, 2000, device="cuda")
    assert many.preset == "flowers64"
    assert shlex.split(many.command)[-4:] == ["--preset", "flowers64", "--images", "10M"]
    few = suggested(PHOTOS, 2000, device="cuda")
    assert few.preset == "small"
    assert "memorize 500 images" in few.reasons[0]
    cifar10 = suggested({(32, 32): 60_000}, 2000, device="cuda", auto=(32, 32), request=Request("cifar10"))
    assert cifar10.command == "undiffuse train --data cifar10 --preset cifar10-edm --images 200M"
    assert suggested({(32, 32): 60_000}, 100, auto=(32, 32), request=Request("cifar10")).preset == "small"


def test_many_epochs_of_few_images_cause_a_warning() -> None:
    few, many = (suggested({(64, 64): n}, 1000) for n in (300, 3000))
    assert "memorize" in few.reasons[2]
    assert "memorize" not in many.reasons[2]


def test_the_reason_for_the_budget_names_the_measurement() -> None:
    first = suggested(MANY_PHOTOS, 100)
    assert "At 25 images/s (estimated from 32x32), 100,000 images take 67 min." in first.reasons[2]


def test_few_images_are_trained_on_patches_where_the_network_takes_them() -> None:
    first = suggested(PHOTOS, 100)
    assert first.size == (64, 64)
    assert option(first, "--set") == "augmentation.patches=0.5"
    assert "Half of the steps train on patches" in first.reasons[0]
    # Of the pixels of whole images, half of the steps see 0.6 / 4 + 0.4 / 16.
    assert first.seconds == pytest.approx(100_000 * 4 / 100 * (0.5 + 0.5 * (0.6 / 4 + 0.4 / 16)))
    assert "(estimated from 32x32, patches counted in)" in first.reasons[2]
    for whole in (suggested(MANY_PHOTOS, 100), suggested(PHOTOS, 100, request=Request("photos", (48, 48)))):
        assert option(whole, "--set") is None
        assert "patches" not in " ".join(whole.reasons)


def test_images_in_memory_get_a_python_call() -> None:
    run = suggested(PHOTOS, 1000, request=Request(None, (48, 64), options={"channels": "1"}))
    assert run.command == "undiffuse.train(data, channels='1', size='48x64', images='100k')"


def test_a_busy_machine_is_named_and_does_not_count() -> None:
    idle, busy = suggested(MANY_PHOTOS, 100), suggested(MANY_PHOTOS, 100, slowed=0.2)
    assert (busy.seconds, busy.total_images) == (idle.seconds, idle.total_images)
    assert "other work on this machine slowed it down to 5" in " ".join(busy.reasons)
    assert "other work" not in " ".join(idle.reasons)
