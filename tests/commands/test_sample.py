"""undiffuse sample: the same seed, the same image, and only what is missing is made."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from undiffuse.cli import main
from undiffuse.diffusion.sampler_table import SAMPLERS
from undiffuse.runs.gallery import PNG_END
from undiffuse.runs.run import open_run
from undiffuse.sampling.options import sampling_config

TINY = ["--size", "8", "--images", "2k", "--out", "runs/tiny"]
TINY += ["--set", "network.channels=16", "network.groups=4", "network.patch=1"]


DISCRETE = ["--size", "8", "--images", "64", "--batch", "32", "--out", "runs/discrete"]
DISCRETE += ["--set", "network.channels=8", "network.groups=4", "network.multipliers=[1]", "network.patch=1"]
DISCRETE += ["network.attention_resolutions=[]", "diffusion.parametrization=v", "diffusion.objective=hybrid"]
DISCRETE += ["diffusion.sigma_sampler=discrete_uniform", "diffusion.schedule=cosine"]
DISCRETE += ["sampling.sampler=ancestral", "sampling.guidance=1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/tiny in it, trained once for all tests here, and runs/discrete, of a chain of 1,000 levels."""
    folder = tmp_path_factory.mktemp("trained")
    before = Path.cwd()
    os.environ["UNDIFFUSE_CACHE"] = str(folder / "cache")
    os.chdir(folder)
    main(["train", *TINY])
    main(["train", *DISCRETE])
    os.chdir(before)
    return folder


@pytest.fixture(autouse=True)
def in_its_folder(trained: Path, monkeypatch: pytest.MonkeyPatch, own_folders: None) -> None:
    monkeypatch.chdir(trained)


def pixels(folder: str, seed: int) -> np.ndarray:
    return np.asarray(Image.open(Path(folder) / f"{seed:06d}.png")).astype(int)


@pytest.mark.parametrize("sampler", ["ipndm", "heun", "ancestral"])
def test_a_seed_is_an_image_whatever_the_batch(sampler: str, tmp_path: Path) -> None:
    how = ["sample", "tiny", "--sampler", sampler, "--steps", "6"]
    main([*how, "--count", "8", "--batch", "8", "--out", str(tmp_path / "eight")])
    main([*how, "--count", "8", "--batch", "3", "--out", str(tmp_path / "three")])
    main([*how, "--count", "1", "--seed", "5", "--out", str(tmp_path / "alone")])
    for seed in range(8):
        assert np.abs(pixels(str(tmp_path / "eight"), seed) - pixels(str(tmp_path / "three"), seed)).max() <= 1
    assert np.abs(pixels(str(tmp_path / "eight"), 5) - pixels(str(tmp_path / "alone"), 5)).max() <= 1
    # And seeds differ from each other.
    assert np.abs(pixels(str(tmp_path / "eight"), 0) - pixels(str(tmp_path / "eight"), 1)).max() > 1


def made_with(folder: Path) -> dict:
    return json.loads((folder / "samples.json").read_text())


@pytest.mark.parametrize("steps", [1, 7, 999, 1000])
def test_a_discrete_schedule_is_sampled_in_any_number_of_steps(steps: int, tmp_path: Path) -> None:
    words = ["sample", "discrete", "--sampler", "ancestral", "--steps", str(steps), "--count", "1"]
    main([*words, "--out", str(tmp_path / "out")])
    assert pixels(str(tmp_path / "out"), 0).shape == (8, 8)
    said = made_with(tmp_path / "out")
    assert (said["sampler"], said["steps"]) == ("ancestral", steps)


def test_more_steps_than_the_schedule_has_are_refused(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as end:
        main(["sample", "discrete", "--steps", "1001", "--count", "1"])
    assert end.value.code == 2
    assert "1001 steps do not fit this model's discrete schedule: choose between 1 and 1000" in capsys.readouterr().err


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_each_sampler_makes_images_of_every_kind_of_model(sampler: str, tmp_path: Path) -> None:
    for run in ("tiny", "discrete"):
        out = tmp_path / run
        main(["sample", run, "--sampler", sampler, "--steps", "7", "--count", "2", "--out", str(out)])
        assert np.abs(pixels(str(out), 0) - pixels(str(out), 1)).max() > 1
        assert made_with(out)["sampler"] == sampler


def test_below_a_hundred_steps_ancestral_gives_way_to_ipndm(tmp_path: Path) -> None:
    main(["sample", "discrete", "--steps", "7", "--count", "1", "--out", str(tmp_path / "few")])
    assert made_with(tmp_path / "few")["sampler"] == "ipndm"
    main(["sample", "discrete", "--steps", "100", "--count", "1", "--out", str(tmp_path / "many")])
    assert made_with(tmp_path / "many")["sampler"] == "ancestral"


@pytest.mark.parametrize(
    ("setting", "sampler", "sigmas"), [("sampler=ddim", "ddim", "auto"), ("sigmas=discrete", "ancestral", "discrete")]
)
def test_what_is_named_with_set_stays_at_few_steps(setting: str, sampler: str, sigmas: str, tmp_path: Path) -> None:
    main(["sample", "discrete", "--steps", "7", "--count", "1", "--out", str(tmp_path / "few"), "--set", setting])
    made = made_with(tmp_path / "few")
    assert (made["sampler"], made["sigmas"], made["steps"]) == (sampler, sigmas, 7)


@pytest.mark.parametrize(
    ("sampler", "setting"),
    [
        ("ddim", "eta=1"),
        ("ancestral", "variance=large"),
        ("ancestral", "variance=small"),
        ("ipndm", "order=1"),
        ("lms", "order=1"),
        ("heun", "s_churn=10"),
        ("euler", "sigmas=discrete"),
        ("euler", "sigmas=log_snr"),
    ],
)
def test_a_samplers_setting_changes_its_image_and_is_recorded(sampler: str, setting: str, tmp_path: Path) -> None:
    words = ["sample", "discrete", "--sampler", sampler, "--steps", "7", "--count", "1", "--out"]
    main([*words, str(tmp_path / "usual")])
    main([*words, str(tmp_path / "set"), "--set", setting])
    assert np.abs(pixels(str(tmp_path / "usual"), 0) - pixels(str(tmp_path / "set"), 0)).max() > 0
    name, _, value = setting.partition("=")
    assert str(made_with(tmp_path / "set")[name]).lower() in (value, f"{value}.0")


def test_only_missing_images_are_made(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["sample", "tiny", "--steps", "4", "--count", "6", "--out", str(tmp_path / "out")]
    main(words)
    kept = tmp_path / "out" / "000002.png"
    kept.write_bytes(b"kept as it is")
    kept.write_bytes(kept.read_bytes() + PNG_END)  # Whole, by its end.
    lost = tmp_path / "out" / "000004.png"
    before = lost.read_bytes()
    lost.unlink()
    kept_content = kept.read_bytes()
    capsys.readouterr()
    with pytest.raises(SystemExit):  # The grid cannot read the image that we spoiled, and says which.
        main(words)
    said = capsys.readouterr()
    assert "5 of 6 images are there already" in said.out
    assert kept.read_bytes() == kept_content
    assert lost.read_bytes() == before


def test_samples_made_otherwise_are_not_mixed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = str(tmp_path / "out")
    main(["sample", "tiny", "--steps", "4", "--count", "2", "--out", out])
    with pytest.raises(SystemExit) as end:
        main(["sample", "tiny", "--steps", "5", "--count", "2", "--out", out])
    assert end.value.code == 2
    assert "made with steps 4" in capsys.readouterr().err


def test_the_folder_says_what_made_the_images(tmp_path: Path) -> None:
    main(["sample", "tiny", "--steps", "3", "--count", "4", "--film", "--label", "3", "--out", str(tmp_path / "out")])
    said = json.loads((tmp_path / "out" / "samples.json").read_text())
    expected = {"sampler": "ipndm", "steps": 3, "label": 3, "weights": "ema", "run": "tiny"}
    assert {name: said[name] for name in expected} == expected
    with Image.open(tmp_path / "out" / "film.gif") as film:
        assert film.n_frames == 3  # ty: ignore[missing-attribute]
    assert Image.open(tmp_path / "out" / "grid.png").mode == "L"
    assert (tmp_path / "out" / "film.png").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--label", "eleven"], "no such class"),
        (["--label", "10"], "no such class"),
        (["--count", "0"], "--count 0"),
        (["--seed", "-1"], "--seed -1"),
        (["--steps", "0"], "sampling.steps 0"),
        (["--set", "sigmas=discrete"], "was not trained on a discrete schedule"),
        (["--set", "variance=learned"], "variance learned needs diffusion.objective hybrid or vlb"),
        (["--set", "eta=2"], "sampling.eta 2: Input should be less than or equal to 1"),
        (["--set", "steps"], "--set sampling.steps: write GROUP.NAME=VALUE"),
        (["--set", "wings=2"], "--set wings is not a setting"),
    ],
)
def test_what_the_model_does_not_have_is_refused(capsys: pytest.CaptureFixture, words: list[str], says: str) -> None:
    with pytest.raises(SystemExit) as end:
        main(["sample", "tiny", *words])
    assert end.value.code == 2
    assert says in capsys.readouterr().err


def test_images_of_a_namesake_model_are_not_mixed_in(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for seed in ("0", "1"):
        words = ["--size", "8", "--images", "128", "--seed", seed, "--out", str(tmp_path / seed / "twin"), *TINY[6:]]
        main(["train", *words])
    out = ["--count", "1", "--steps", "2", "--out", str(tmp_path / "out")]
    main(["sample", str(tmp_path / "0" / "twin"), *out])
    with pytest.raises(SystemExit):
        main(["sample", str(tmp_path / "1" / "twin"), *out])
    assert "made with weights_sha256" in capsys.readouterr().err


def test_guidance_without_classes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = str(tmp_path / "plain")
    main(["train", "--size", "8", "--images", "128", "--unconditional", "--out", run, *TINY[6:]])
    main(["sample", run, "--count", "1", "--steps", "2"])
    for words in (["--guidance", "2"], ["--set", "guidance=2"]):
        with pytest.raises(SystemExit) as end:
            main(["sample", run, *words])
        assert end.value.code == 2
        assert "without classes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["--sampler", "heun", "--set", "eta=1"], "--set eta does nothing for heun: it is for ddim"),
        (["--sampler", "euler", "--set", "order=2"], "it is for ipndm and lms"),
        (["--set", "s_churn=3"], "it is for heun"),
        (["--sampler", "heun", "--set", "s_churn=3", "s_tmin=9", "s_tmax=1"], "is below s_tmin"),
        (["--set", "etaa=0.5"], "--set etaa is not a setting of sampling: choose"),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused(
    settings: list[str], says: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["sample", "discrete", "--count", "1", *settings])
    assert end.value.code == 2
    assert says in capsys.readouterr().err


def test_a_sampler_for_few_steps_has_steps_of_its_own() -> None:
    config = open_run(Path("runs/discrete")).config
    config = replace(config, sampling=replace(config.sampling, steps=1000))
    assert sampling_config(config, "heun", None, None).steps == 18
    assert sampling_config(config, "ddim", None, None).steps == 1000
    assert sampling_config(config, None, None, None) == config.sampling


def test_labels_and_guidance_change_the_image(tmp_path: Path) -> None:
    for name, words in {
        "three": ["--label", "3"],
        "four": ["--label", "4"],
        "none": ["--label", "none"],
        "strong": ["--label", "3", "--guidance", "4"],
    }.items():
        main(["sample", "tiny", "--steps", "4", "--count", "1", "--out", str(tmp_path / name), *words])
    made = [pixels(str(tmp_path / name), 0) for name in ("three", "four", "none", "strong")]
    assert all(np.abs(a - b).max() > 0 for i, a in enumerate(made) for b in made[:i])


def test_empty_and_cut_images_are_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a crash or a full disk leaves them."""
    how = ["sample", "tiny", "--steps", "2", "--count", "4", "--out", str(tmp_path / "out")]
    main(how)
    whole = [pixels(str(tmp_path / "out"), seed) for seed in range(4)]
    for seed, left in ((1, 0), (2, 30), (3, -1)):
        file = tmp_path / "out" / f"{seed:06d}.png"
        file.write_bytes(file.read_bytes()[:left])
    capsys.readouterr()
    main(how)
    assert "1 of 4 images are there already" in capsys.readouterr().out
    assert all(np.abs(pixels(str(tmp_path / "out"), seed) - whole[seed]).max() <= 1 for seed in range(4))


def test_bf16_is_recorded_and_differs_little(tmp_path: Path) -> None:
    how = ["sample", "tiny", "--count", "16", "--out"]
    main([*how, str(tmp_path / "fp32")])
    main([*how, str(tmp_path / "bf16"), "--precision", "bf16"])
    recorded = [json.loads((tmp_path / name / "samples.json").read_text())["precision"] for name in ("fp32", "bf16")]
    assert recorded == ["fp32", "bf16"]
    differences = [np.abs(pixels(str(tmp_path / "fp32"), n) - pixels(str(tmp_path / "bf16"), n)) for n in range(16)]
    # bf16 has 8 bits: each evaluation is off by some 2^-8 of a range of 255, and here there are 18.
    assert 0 < np.mean(differences) < 2


def test_samples_of_another_precision_are_not_mixed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    how = ["sample", "tiny", "--count", "1", "--steps", "2", "--out", str(tmp_path / "one")]
    main(how)
    with pytest.raises(SystemExit):
        main([*how, "--precision", "bf16"])
    assert "holds samples made with precision fp32" in " ".join(capsys.readouterr().err.split())
    # Samples of older versions say nothing about it, and are fp32.
    file = tmp_path / "one/samples.json"
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "precision"}))
    main(how)


def test_a_guide_and_an_interval_are_recorded_and_change_the_images(tmp_path: Path) -> None:
    how = ["sample", "tiny", "--steps", "4", "--count", "2", "--guidance", "3"]
    ways = {
        "itself": [],
        "interval": ["--guidance-interval", "5-50"],
        "guide": ["--guide", "discrete@1k"],
    }
    for name, options in ways.items():
        main([*how, *options, "--out", str(tmp_path / name)])
    main([*how[:-2], "--guidance", "1", "--out", str(tmp_path / "plain")])
    shown = {name: pixels(str(tmp_path / name), 0) for name in [*ways, "plain"]}
    assert np.abs(shown["itself"] - shown["interval"]).max() > 1
    assert np.abs(shown["guide"] - shown["plain"]).max() > 1
    assert made_with(tmp_path / "interval")["guidance_interval"] == [5.0, 50.0]
    assert made_with(tmp_path / "guide")["guide"]["run"] == "discrete"
    for other in ([], ["--guidance-interval", "5-40"]):
        with pytest.raises(SystemExit):
            main([*how, *other, "--out", str(tmp_path / "interval")])
    with pytest.raises(SystemExit):
        main([*how, "--out", str(tmp_path / "guide")])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--guide", "nothing@2k"], "There is no run at"),
        (["--guide", "tiny@many"], "is not a count"),
        (["--guide", "tiny", "--guidance", "1"], "--guide does nothing at guidance 1"),
        (["--guide", "tiny@1k", "--guidance", "2"], "The guide is the model itself"),
        (["--guidance-interval", "1.6-0.28"], "is not an interval"),
        (["--guidance-interval", "1e8-2e8", "--guidance", "2"], "has none of the 18 noise levels"),
        (["--guidance-interval", "0.28-1.6", "--guidance", "1"], "--guidance-interval does nothing at guidance 1"),
        (["--label", "3*0"], "write how often"),
    ],
)
def test_guidance_that_makes_no_sense_is_refused(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["sample", "tiny", "--count", "1", *options])
    assert stopped.value.code == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_seeds_take_mixed_labels_in_turn(tmp_path: Path) -> None:
    how = ["sample", "tiny", "--steps", "4"]
    main([*how, "--count", "6", "--label", "3*2,7", "--out", str(tmp_path / "mixed")])
    main([*how, "--count", "2", "--seed", "4", "--label", "3*2,7", "--out", str(tmp_path / "later")])
    main([*how, "--count", "1", "--seed", "5", "--label", "7", "--out", str(tmp_path / "seven")])
    assert np.abs(pixels(str(tmp_path / "mixed"), 5) - pixels(str(tmp_path / "later"), 5)).max() <= 1
    assert np.abs(pixels(str(tmp_path / "mixed"), 5) - pixels(str(tmp_path / "seven"), 5)).max() <= 1
    assert made_with(tmp_path / "mixed")["label"] == [3, 3, 7]
    assert made_with(tmp_path / "seven")["label"] == 7
    assert Image.open(tmp_path / "mixed" / "grid.png").width > 3 * 8
