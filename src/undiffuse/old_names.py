"""What settings and their values were called before, so that old runs and old commands go on working."""

from typing import Any

RENAMES = {
    "diffusion.chain_length": "diffusion.num_timesteps",
    "diffusion.draw": "diffusion.sigma_sampler",
    "diffusion.draw_mean": "diffusion.sigma_mean",
    "diffusion.draw_std": "diffusion.sigma_std",
    "optimizer.decay_share": "optimizer.decay_fraction",
    "sampling.grid": "sampling.sigmas",
    "sampling.churn": "sampling.s_churn",
    "sampling.churn_min": "sampling.s_tmin",
    "sampling.churn_max": "sampling.s_tmax",
    "sampling.churn_noise": "sampling.s_noise",
}
"""Settings that had another name, old -> new, in the same group. Old names go on working in config.json and `--set`."""

RENAMED_VALUES = {
    ("diffusion.sigma_sampler", "loss_aware"): "loss_second_moment",
    ("sampling.sigmas", "chain"): "discrete",
}
"""(setting, old value) -> new value."""


def current(values: dict[str, Any], group: str = "") -> dict[str, Any]:
    """The settings of a group, or of all groups as in config.json, by their current names and values.

    Raises:
        ValueError: a setting is there by its old and by its new name.
    """
    renamed: dict[str, Any] = {}
    for name, value in values.items():
        new = current_name(name, group)
        if new in renamed:
            raise ValueError(f"{group}.{new} is there twice, once by an old name: remove one")
        inside = isinstance(value, dict) and not group
        renamed[new] = current(value, name) if inside else current_value(f"{group}.{new}", value)
    return renamed


def current_name(name: str, group: str) -> str:
    """The current name of a setting of a group: "s_churn" for "churn" in "sampling"."""
    return RENAMES.get(f"{group}.{name}", f"{group}.{name}").removeprefix(f"{group}.")


def current_value(setting: str, value: Any) -> Any:
    """The current word for a value of the setting "group.name"."""
    return RENAMED_VALUES.get((setting, value), value) if isinstance(value, str) else value
