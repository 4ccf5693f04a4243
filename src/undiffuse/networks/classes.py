"""How a label embedding is fitted to other classes."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class ClassChange:
    """The classes that a network has, by name, and those that it is to have. Printed, it says what becomes of them."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    trained_unlabeled: bool = True
    """Whether labels were sometimes dropped in training, so that the network knows what "no label" means."""

    def __str__(self) -> str:
        kept = len(set(self.before) & set(self.after))
        new, dropped = len(self.after) - kept, len(self.before) - kept
        changes = [f"{count:,} {what}" for count, what in ((new, "new"), (dropped, "dropped")) if count]
        return ", ".join([f"{kept:,} {'class' if kept == 1 else 'classes'} kept", *changes])

    def table(self, before: Float[Tensor, "rows d"]) -> Float[Tensor, "rows_after d"]:
        """The table of embeddings, whose last row is "no label", with a row for each class to be.

        A class that the network has keeps its row. A new one starts as `unlabeled`: before the first step the network
        predicts for it what it predicts for any image, rather than for images of another class.
        """
        index = {name: i for i, name in enumerate(self.before)}
        new = self.unlabeled(before)
        rows = [before[index[name]] if name in index else new for name in self.after]
        return torch.stack([*rows, before[-1]])

    def unlabeled(self, table: Float[Tensor, "rows d"]) -> Float[Tensor, " d"]:
        """What stands for any class: the row "no label" or, where that was never trained, the mean of the classes."""
        return table[-1] if self.trained_unlabeled else table[:-1].mean(dim=0)
