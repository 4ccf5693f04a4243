"""How an option without a fixed default is shown in --help."""

from typing import Any

import tyro


def unless_given(what: str, name: str | None = None, metavar: str | None = None, help: str | None = None) -> Any:
    """Marks an option whose default is worked out: --help shows `what` instead of None."""
    return tyro.conf.arg(name=name, metavar=metavar, help=help, help_behavior_hint=f"(default: {what})")
