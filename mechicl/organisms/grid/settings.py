"""What each setting feeds to a model, asks of it, and reads from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from mechicl.tasks.chains import ChainTask
from mechicl.tasks.classification import ClassificationTask
from mechicl.tasks.pooled_regression import PooledRegressionTask
from mechicl.tasks.urns import UrnTask

QUERY_LABEL = -1.0


class Setting(ABC):
    """One kind of mixture, for models of `mechicl.organisms.grid.stack`."""

    last_only = False  # whether nothing but the last position is read

    @abstractmethod
    def task(self, dim: int, context: int, diversity: int, seed: int) -> Any:
        """The task, all its seeds the same."""

    @abstractmethod
    def sizes(self, dim: int, context: int) -> tuple[int, int, int, bool]:
        """d_in, d_out, n_ctx, and whether vectors come in."""

    @abstractmethod
    def encode(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Inputs and targets of sequences."""

    @abstractmethod
    def losses(self, outputs: Float[Tensor, "model batch _ d_out"], targets: Tensor) -> Float[Tensor, " model"]:
        """The training loss of each model, nats or squared error."""

    @abstractmethod
    def predictions(self, outputs: Float[Tensor, "model batch _ d_out"]) -> Float[Tensor, "model batch _ label"]:
        """Probabilities (or, for regression, a mean) at each position that predicts."""


class TokenSetting(Setting):
    """Sequences of tokens: the next one is asked for at every position."""

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def task(self, dim: int, context: int, diversity: int, seed: int) -> Any:
        """The task, all its seeds the same."""
        return self.kind(dim, context, diversity, task_seed=seed, data_seed=seed)

    def sizes(self, dim: int, context: int) -> tuple[int, int, int, bool]:
        """The start token counts in the vocabulary; the last token is never read."""
        return dim + 1, dim + 1, context, False

    def encode(self, batch: Any) -> tuple[Tensor, Tensor]:
        """All tokens but the last; all but the first."""
        tokens = torch.from_numpy(batch.tokens)
        return tokens[:, :-1], tokens[:, 1:]

    def losses(self, outputs: Float[Tensor, "model batch _ d_out"], targets: Tensor) -> Float[Tensor, " model"]:
        """Mean cross-entropy over the whole vocabulary, nats a token."""
        each = cross_entropy(outputs.flatten(0, 2), targets.flatten(), reduction="none")
        return each.view(len(outputs), -1).mean(1)

    def predictions(self, outputs: Float[Tensor, "model batch _ d_out"]) -> Float[Tensor, "model batch _ label"]:
        """Over the colours or states alone: the start token never comes again."""
        return outputs[..., :-1].softmax(-1)


class RegressionSetting(Setting):
    """Sequences x_1, y_1, x_2, y_2, ..., each y read as the vector [y, 0, ...]; asked for at every x."""

    def task(self, dim: int, context: int, diversity: int, seed: int) -> Any:
        """The task, all its seeds the same."""
        return PooledRegressionTask(dim, context, diversity, task_seed=seed, data_seed=seed, noise_seed=seed)

    def sizes(self, dim: int, context: int) -> tuple[int, int, int, bool]:
        """The last label is never read."""
        return dim, 1, 2 * context - 1, True

    def encode(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Inputs and labels one after another; the labels."""
        n, context, dim = batch.x.shape
        tokens = torch.zeros(n, 2 * context, dim)
        tokens[:, 0::2] = torch.from_numpy(batch.x).float()
        targets = torch.from_numpy(batch.y).float()
        tokens[:, 1::2, 0] = targets
        return tokens[:, :-1], targets

    def losses(self, outputs: Float[Tensor, "model batch _ d_out"], targets: Tensor) -> Float[Tensor, " model"]:
        """Mean squared error over the positions of x."""
        return (outputs[:, :, 0::2, 0] - targets).square().flatten(1).mean(1)

    def predictions(self, outputs: Float[Tensor, "model batch _ d_out"]) -> Float[Tensor, "model batch _ label"]:
        """The mean of y at each x; one "label"."""
        return outputs[:, :, 0::2]


class ClassificationSetting(Setting):
    """One token a pair, the item and its label, and a query with the label -1; asked for at the query."""

    last_only = True

    def task(self, dim: int, context: int, diversity: int, seed: int) -> Any:
        """The task, all its seeds the same; the context counts the query."""
        if context < 2:
            raise ValueError(f"got context={context}; expected 2 or more, a pair and the query")
        return ClassificationTask(dim, context - 1, diversity, task_seed=seed, data_seed=seed, noise_seed=seed)

    def sizes(self, dim: int, context: int) -> tuple[int, int, int, bool]:
        """An item's numbers and its label; log-probabilities of two labels."""
        return dim + 1, 2, context, True

    def encode(self, batch: Any) -> tuple[Tensor, Tensor]:
        """The pairs and the query; the query's label."""
        items = np.concatenate([batch.x, batch.query[:, None]], axis=1)
        labels = np.column_stack([batch.y.astype(np.float64), np.full(len(batch.y), QUERY_LABEL)])
        tokens = torch.from_numpy(np.concatenate([items, labels[..., None]], axis=-1)).float()
        return tokens, torch.from_numpy(batch.target)

    def losses(self, outputs: Float[Tensor, "model batch _ d_out"], targets: Tensor) -> Float[Tensor, " model"]:
        """Mean cross-entropy at the query, nats."""
        each = cross_entropy(outputs[:, :, -1].flatten(0, 1), targets.flatten(), reduction="none")
        return each.view(len(outputs), -1).mean(1)

    def predictions(self, outputs: Float[Tensor, "model batch _ d_out"]) -> Float[Tensor, "model batch _ label"]:
        """The probabilities of the labels at the query alone."""
        return outputs[:, :, -1:].softmax(-1)


SETTINGS: dict[str, Setting] = {
    "balls_and_urns": TokenSetting(UrnTask),
    "markov_chains": TokenSetting(ChainTask),
    "linear_regression": RegressionSetting(),
    "classification": ClassificationSetting(),
}


def make_task(setting: str, dim: int, context: int, diversity: int, seed: int) -> Any:
    """The task of a setting."""
    return SETTINGS[setting].task(dim, context, diversity, seed)
