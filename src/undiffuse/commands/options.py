"""How an option without a value of its own is shown in --help."""

from typing import Any

import tyro


def unless_given(what: str, name: str | None = None, metavar: str | None = None) -> Any:
    """Marks an option whose default is worked out: --help says `what` in place of None."""
    return tyro.conf.arg(name=name, metavar=metavar, help_behavior_hint=f"(default: {what})")
