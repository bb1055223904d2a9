"""What all in-context regressors have in common: demonstrations and a query go in, a prediction comes out.

A regressor is a TransformerLens `HookedRootModule`: `run_with_cache`, `run_with_hooks` and the names of activations
(`blocks.0.attn.hook_z`, `blocks.0.hook_resid_post`) are as in a language model, with contexts in place of texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens import HookedRootModule

from mechicl.predictors.examples import check_shapes

CHUNK = 4096  # contexts that run at once, so that memory does not grow with their number


class HookedRegressor(HookedRootModule):
    """Embeds a context (`embed`), runs `blocks` over it, and reads the prediction off the last position (`read`).

        model.predict(x, y, query)                                 numpy in, numpy out
        _, cache = model.run_with_cache(*model.tensors(x, y, query))
        cache["blocks.0.attn.hook_pattern"]                        [batch, head, pos, pos]

    Errors (ValueError) of all that takes contexts: no demonstrations, wrong shapes, inputs of another dimension.
    """

    cfg: Any
    blocks: nn.ModuleList
    name = ""

    def embed(
        self, x: Float[Tensor, "batch demo dim"], y: Float[Tensor, "batch demo"], query: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch pos d_model"]:
        """The residual stream before the first block; the query's token is the last."""
        raise NotImplementedError

    def read(self, residual: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos"]:
        """The prediction at every position, as far as the position makes one; the query's is the last."""
        raise NotImplementedError

    def forward(
        self, x: Float[Tensor, "batch demo dim"], y: Float[Tensor, "batch demo"], query: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch"]:
        """The prediction of each context."""
        residual = self.embed(x, y, query)
        for block in self.blocks:
            residual = block(residual)
        return self.read(residual)[:, -1]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return next(self.parameters()).dtype

    def tensors(self, x: np.ndarray, y: np.ndarray, query: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Contexts as `forward` takes them, on the model's device and in its dtype, leading axes made one."""
        check_shapes(np.shape(x), np.shape(y), np.shape(query))
        if np.shape(x)[-1] != self.cfg.dim:
            raise ValueError(
                f"got inputs of dimension {np.shape(x)[-1]}; this model reads {self.cfg.dim}: sample them from "
                f"RegressionTask(dim={self.cfg.dim}, ...)"
            )
        n_demos, dim = np.shape(x)[-2:]
        device = next(self.parameters()).device
        own = [torch.from_numpy(np.array(part)).to(device, self.dtype) for part in (x, y, query)]  # copies
        return own[0].reshape(-1, n_demos, dim), own[1].reshape(-1, n_demos), own[2].reshape(-1, dim)

    def predict(
        self,
        x: Float[np.ndarray, "*batch demo dim"],
        y: Float[np.ndarray, "*batch demo"],
        query: Float[np.ndarray, "*batch dim"],
    ) -> Float[np.ndarray, "*batch"]:
        """Predictions in float64, without gradients; hooks that are on the model take part."""
        found = self._in_chunks(x, y, query, lambda *context: self(*context))
        return found.reshape(np.shape(y)[:-1])

    def states(
        self,
        x: Float[np.ndarray, "batch demo dim"],
        y: Float[np.ndarray, "batch demo"],
        query: Float[np.ndarray, "batch dim"],
    ) -> Float[np.ndarray, "layer batch d_model"]:
        """The residual stream at the query after each layer; layer 0 is the embedding."""

        def run(*context: Tensor) -> Tensor:
            residual = self.embed(*context)
            kept = [residual[:, -1]]
            for block in self.blocks:
                residual = block(residual)
                kept.append(residual[:, -1])
            return torch.stack(kept, dim=1)

        return np.ascontiguousarray(self._in_chunks(x, y, query, run).swapaxes(0, 1))

    def sensitivity(
        self,
        x: Float[np.ndarray, "*batch demo dim"],
        y: Float[np.ndarray, "*batch demo"],
        query: Float[np.ndarray, "*batch dim"],
    ) -> Float[np.ndarray, "*batch dim"]:
        """The slope d yhat / d x_q of each prediction: for a model that is linear in the query, its weights w."""

        def run(*context: Tensor) -> Tensor:
            with torch.enable_grad():
                *demos, at = context
                at = at.detach().requires_grad_()
                (found,) = torch.autograd.grad(self(*demos, at).sum(), at)  # with respect to the query alone
            return found

        return self._in_chunks(x, y, query, run).reshape(np.shape(query))

    def _in_chunks(self, x: np.ndarray, y: np.ndarray, query: np.ndarray, run: Callable[..., Tensor]) -> np.ndarray:
        """The results of `run` on chunks of contexts, in float64."""
        context = self.tensors(x, y, query)
        with torch.no_grad():
            found = [run(*chunk).double().cpu() for chunk in _chunks(context)]
        return torch.cat(found).numpy() if found else np.zeros((0, *self._empty(context, run)))

    def _empty(self, context: tuple[Tensor, ...], run: Callable[..., Tensor]) -> tuple[int, ...]:
        """The shape of one context's result, asked of a context of zeros."""
        return tuple(run(*(part.new_zeros((1, *part.shape[1:])) for part in context)).shape[1:])


def _chunks(context: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, ...]]:
    for start in range(0, len(context[0]), CHUNK):
        yield tuple(part[start : start + CHUNK] for part in context)
