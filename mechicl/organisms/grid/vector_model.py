"""Models of the grid that read vectors, as TransformerLens models with the hook points of the other regressors.

Classification is the decoder of `mechicl.organisms.classification_transformer`: what its query says is the log-odds of
label 1, the difference of the two logits of the grid's model. Regression is here: its tokens x_1, y_1, x_2, y_2, ...,
x_q are vectors of d numbers, y being [y, 0, ...], and positions turn queries and keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from mechicl.organisms.classification_transformer import ClassificationTransformer, ClassifierConfig, RotaryAttention
from mechicl.organisms.grid.stack import StackConfig
from mechicl.organisms.hooked_regressor import HookedRegressor
from mechicl.organisms.regression_transformer import SoftmaxBlock


@dataclass(frozen=True)
class RotaryRegressorConfig(ClassifierConfig):
    """Sizes; `n_demos` is the largest number of demonstrations before the query."""

    kind: str = "rotary regressor"

    @property
    def n_ctx(self) -> int:
        """The number of positions: a demonstration is two tokens."""
        return 2 * self.n_demos + 1


class RotaryRegressor(HookedRegressor):
    """The decoder; its prediction is the mean of y. Trained ones come from `open_checkpoint`.

    model.predict(x, y, query)                                         numpy in, numpy out
    _, cache = model.run_with_cache(*model.tensors(x, y, query))
    cache["blocks.0.attn.hook_pattern"][:, 0, -1, 1::2]                attention from the query to each label
    """

    def __init__(self, cfg: RotaryRegressorConfig, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.cfg = cfg
        self.W_E = nn.Parameter(torch.zeros(cfg.dim, cfg.d_model, dtype=dtype))
        self.b_E = nn.Parameter(torch.zeros(cfg.d_model, dtype=dtype))
        self.hook_embed = HookPoint()  # [batch, pos, d_model]
        self.blocks = nn.ModuleList([SoftmaxBlock(cfg, dtype) for _ in range(cfg.n_layers)])
        for block in self.blocks:
            block.attn = RotaryAttention(cfg, dtype)
        self.ln_final = nn.LayerNorm(cfg.d_model, dtype=dtype)
        self.W_U = nn.Parameter(torch.zeros(cfg.d_model, dtype=dtype))
        self.b_U = nn.Parameter(torch.zeros((), dtype=dtype))
        self.setup()

    def embed(
        self, x: Float[Tensor, "batch demo dim"], y: Float[Tensor, "batch demo"], query: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch pos d_model"]:
        """Tokens x_1, y_1, ..., x_q; a ValueError for more demonstrations than the model was made for."""
        batch, n_demos, dim = x.shape
        if n_demos > self.cfg.n_demos:
            raise ValueError(f"got {n_demos} demonstrations; this model was made for {self.cfg.n_demos}")
        tokens = x.new_zeros(batch, 2 * n_demos + 1, dim)
        tokens[:, 0:-1:2] = x
        tokens[:, 1::2, 0] = y
        tokens[:, -1] = query
        return self.hook_embed(tokens @ self.W_E + self.b_E)

    def read(self, residual: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos"]:
        """The prediction at every position; those at labels mean nothing."""
        return self.ln_final(residual) @ self.W_U + self.b_U

    def after_each(
        self, x: Float[Tensor, "batch demo dim"], y: Float[Tensor, "batch demo"], query: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch pos"]:
        """The predictions for every x and the query, each from the demonstrations before it."""
        residual = self.embed(x, y, query)
        for block in self.blocks:
            residual = block(residual)
        return self.read(residual)[:, 0::2]


def vector_model(
    weights: Mapping[str, Tensor], cfg: StackConfig, *, dtype: torch.dtype = torch.float32
) -> ClassificationTransformer | RotaryRegressor:
    """The model with these weights of a stack; two outputs are a classifier, one is a regressor.

    Errors (ValueError): a model that reads tokens, another number of outputs.
    """
    if not cfg.vectors or cfg.d_out not in (1, 2):
        kind = "vectors" if cfg.vectors else "tokens"
        raise ValueError(f"got a model that reads {kind} and gives {cfg.d_out} numbers; expected vectors, and 1 or 2")
    weights = {name: weight.to(dtype) for name, weight in weights.items()}
    sizes: dict[str, Any] = {name: getattr(cfg, name) for name in ("n_layers", "d_model", "n_heads", "d_mlp", "rotary")}
    model: ClassificationTransformer | RotaryRegressor
    if cfg.d_out == 2:
        model = ClassificationTransformer(ClassifierConfig(cfg.d_in - 1, cfg.n_ctx - 1, **sizes), dtype=dtype)
        read_out = weights["unembed.W"][:, 1] - weights["unembed.W"][:, 0]
    else:
        model = RotaryRegressor(RotaryRegressorConfig(cfg.d_in, cfg.n_ctx // 2, **sizes), dtype=dtype)
        read_out = weights["unembed.W"][:, 0]
    own = {
        "W_E": weights["embed.W"], "b_E": weights["embed.b"], "W_U": read_out, "b_U": read_out.new_zeros(()),
        "ln_final.weight": weights["ln_final.w"], "ln_final.bias": weights["ln_final.b"],
    }  # fmt: skip
    for layer in range(cfg.n_layers):
        own |= _block(weights, cfg, f"blocks.{layer}")
    model.load_state_dict(own)
    return model.eval()


def _block(weights: Mapping[str, Tensor], cfg: StackConfig, here: str) -> dict[str, Tensor]:
    """The weights of a layer, heads apart."""
    its = {name.removeprefix(f"{here}."): weight for name, weight in weights.items() if name.startswith(f"{here}.")}
    found = {f"mlp.{name}": its[f"mlp.{name}"] for name in ("W_in", "b_in", "W_out", "b_out")}
    for norm in ("ln1", "ln2"):
        found |= {f"{norm}.weight": its[f"{norm}.w"], f"{norm}.bias": its[f"{norm}.b"]}
    for name, weight, bias in zip("QKV", its["attn.W_QKV"].chunk(3, -1), its["attn.b_QKV"].chunk(3, -1), strict=True):
        found[f"attn.W_{name}"] = rearrange(weight, "model (head d) -> head model d", head=cfg.n_heads)
        found[f"attn.b_{name}"] = rearrange(bias, "(head d) -> head d", head=cfg.n_heads)
    found["attn.W_O"] = rearrange(its["attn.W_O"], "(head d) model -> head d model", head=cfg.n_heads)
    return {f"{here}.{name}": weight for name, weight in (found | {"attn.b_O": its["attn.b_O"]}).items()}
