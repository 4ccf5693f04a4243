"""How a caller follows a long loop: metrics draw no progress bars themselves."""

from collections.abc import Callable, Iterable
from typing import Any

Watch = Callable[[Iterable[Any], str, int], Iterable[Any]]
"""(items, what is being done, how many items) -> the items; `undiffuse.utils.terminal.track` shows a progress bar."""


def plain(items: Iterable[Any], what: str, total: int) -> Iterable[Any]:
    """Shows nothing."""
    return items
