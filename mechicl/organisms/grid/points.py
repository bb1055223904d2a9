"""A point of the grid: everything that a model's weights depend on, besides the versions of the libraries."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mechicl.organisms.grid.settings import SETTINGS, make_task
from mechicl.organisms.grid.stack import StackConfig


@dataclass(frozen=True)
class GridPoint:
    """One model to be trained.

    setting: which mixture of tasks. diversity: D. context: C. dim: d. steps: of AdamW without weight decay at a rate
    that rises over `warmup` steps and then stays. n_checkpoints: linear in the root of the step, the first after one
    step, the last at the end. init: the standard deviation of the first weights. seed: of the pool, the data, the noise
    and the first weights.

    Errors (ValueError): an unknown setting, sizes below 1, more tasks than a pool can hold.
    """

    setting: str
    diversity: int
    context: int = 64
    dim: int = 8
    d_mlp: int = 256
    n_layers: int = 1
    d_model: int = 64
    n_heads: int = 1
    steps: int = 5000
    batch: int = 64
    learning_rate: float = 5e-4
    warmup: int = 250
    clip: float = 1.0
    n_checkpoints: int = 50
    init: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every field, the task's and the model's sizes too."""
        if self.setting not in SETTINGS:
            raise ValueError(f"got setting={self.setting!r}; expected one of {', '.join(SETTINGS)}")
        for name in ("steps", "batch", "n_checkpoints"):
            if getattr(self, name) < 1:
                raise ValueError(f"got {name}={getattr(self, name)}; expected 1 or more")
        for name, least in (("learning_rate", 0), ("clip", 0), ("init", 0)):
            if not least < getattr(self, name) < np.inf:
                raise ValueError(f"got {name}={getattr(self, name)}; expected a finite number above 0")
        if self.warmup < 0 or self.seed < 0:
            raise ValueError(f"got warmup={self.warmup} and seed={self.seed}; expected 0 or more")
        _ = self.task, self.config

    @property
    def name(self) -> str:
        """The name of the point's folder."""
        return (
            f"{self.setting}-D{self.diversity}-C{self.context}-d{self.dim}-layers{self.n_layers}-mlp{self.d_mlp}"
            f"-seed{self.seed}"
        )

    @property
    def task(self) -> Any:
        """What the model is trained on."""
        return make_task(self.setting, self.dim, self.context, self.diversity, self.seed)

    @property
    def config(self) -> StackConfig:
        """The model's sizes."""
        setting = SETTINGS[self.setting]
        d_in, d_out, n_ctx, vectors = setting.sizes(self.dim, self.context)
        own = {name: getattr(self, name) for name in ("n_layers", "d_model", "n_heads", "d_mlp")}
        return StackConfig(d_in, d_out, n_ctx, vectors=vectors, last_only=setting.last_only, **own)

    @property
    def schedule(self) -> tuple[int, ...]:
        """The steps after which weights are kept, fewer than `n_checkpoints` where roots fall on the same step."""
        roots = np.linspace(1, np.sqrt(self.steps), self.n_checkpoints)
        return tuple(int(step) for step in np.unique(np.rint(roots**2))) if self.n_checkpoints > 1 else (self.steps,)

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        return self.learning_rate * min((step + 1) / self.warmup, 1.0) if self.warmup else self.learning_rate

    @property
    def kin(self) -> str:
        """What points of one stack have in common: all but diversity and seed."""
        return json.dumps({k: v for k, v in asdict(self).items() if k not in ("diversity", "seed")}, sort_keys=True)

    def to_json(self) -> str:
        """The point as a line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)


def from_json(text: str) -> GridPoint:
    """The point that `to_json` wrote."""
    return GridPoint(**json.loads(text))
