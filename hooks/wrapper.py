"""One face over the two kinds of TransformerLens model: TransformerBridge (4.x) and HookedTransformer (3.x).

Everything above this file asks a `WrappedModel` and never the model itself. A wrapper holds no state of its own and
changes none of the model's: hooks, training flags and gradients are as before when a context manager here ends,
however it ends.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# The one table of hook names. TransformerBridge knows the same names as aliases of its own; `hook.name` inside a
# callback is then the bridge's, so callbacks close over layer and head and never parse it.
HOOK_NAMES = {
    "resid_pre": "blocks.{layer}.hook_resid_pre",
    "resid_mid": "blocks.{layer}.hook_resid_mid",
    "resid_post": "blocks.{layer}.hook_resid_post",
    "attn_out": "blocks.{layer}.hook_attn_out",
    "mlp_out": "blocks.{layer}.hook_mlp_out",
    "q": "blocks.{layer}.attn.hook_q",
    "k": "blocks.{layer}.attn.hook_k",
    "v": "blocks.{layer}.attn.hook_v",
    "z": "blocks.{layer}.attn.hook_z",
    "pattern": "blocks.{layer}.attn.hook_pattern",
    "unembed_in": "unembed.hook_in",
}

Hook = Callable[[Tensor], Tensor | None]  # receives the activation; what it returns, if anything, replaces it


@dataclass(frozen=True)
class WrappedModel:
    """Sizes, weights, hooks and facts of a TransformerLens model, named alike for both kinds.

    `n_kv_heads` is below `n_heads` under grouped-query attention; query head h then reads key-value head
    h // (n_heads // n_kv_heads). `window` is the shortest attention window of any layer (None: all see everything).
    """

    model: Any
    kind: str
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_vocab: int
    n_ctx: int
    window: int | None
    tokenizer: Any

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' own dtype (a model's configuration may say otherwise after `.to()`)."""
        return next(self.model.parameters()).dtype

    @property
    def bos_token_id(self) -> int:
        """The beginning-of-sequence token; raises `ValueError` where the model has none."""
        found = getattr(self.tokenizer, "bos_token_id", None)
        if found is None:
            found = getattr(self.model.cfg, "bos_token_id", None)
        if found is None:
            raise ValueError("the model's tokenizer has no BOS token; pass prepend_bos=False")
        return int(found)

    def W_Q(self, layer: int) -> Float[Tensor, "head d_model d_head"]:
        """Query weights of a layer, one matrix a head."""
        return self.model.blocks[layer].attn.W_Q

    def W_K(self, layer: int) -> Float[Tensor, "kv_head d_model d_head"]:
        """Key weights of a layer, one matrix a key-value head (not repeated under grouped-query attention)."""
        return self._own_heads(layer, "W_K")

    def W_V(self, layer: int) -> Float[Tensor, "kv_head d_model d_head"]:
        """Value weights of a layer, one matrix a key-value head (not repeated under grouped-query attention)."""
        return self._own_heads(layer, "W_V")

    def W_O(self, layer: int) -> Float[Tensor, "head d_head d_model"]:
        """Output weights of a layer, one matrix a head: the head's share of the residual stream is z W_O."""
        return self.model.blocks[layer].attn.W_O

    def _own_heads(self, layer: int, name: str) -> Tensor:
        attention = self.model.blocks[layer].attn
        own = getattr(attention, f"_{name}", None)  # HookedTransformer repeats key-value heads in W_K, not in _W_K
        return own if isinstance(own, Tensor) else getattr(attention, name)

    def point(self, name: str, layer: int | None = None) -> Any:
        """The hook point of a name in `HOOK_NAMES`; raises `ValueError` where this architecture has none."""
        if name not in HOOK_NAMES:
            raise ValueError(f"unknown activation {name!r}; known are {', '.join(HOOK_NAMES)}")
        if layer is not None and not 0 <= layer < self.n_layers:
            raise ValueError(f"layer {layer} is out of range: the model has layers 0 to {self.n_layers - 1}")
        full = HOOK_NAMES[name].format(layer=layer)
        if full not in self.model.hook_dict:
            raise ValueError(
                f"this model has no activation {name!r} ({full}); resid_mid, for one, is absent where attention and "
                "MLP run in parallel. Ask for resid_pre or resid_post"
            )
        return self.model.hook_dict[full]

    @contextmanager
    def hooked(self, hooks: Sequence[tuple[str, int | None, Hook]]) -> Iterator[None]:
        """Run with `hooks`, each (name, layer, function); on leaving, exactly these are gone and no other.

        TransformerLens' own context managers may also clear hooks of an outer context; this one removes by identity.
        """
        added: list[tuple[Any, Any]] = []
        try:
            for name, layer, function in hooks:
                point = self.point(name, layer)
                point.add_hook(_as_lens_hook(function))
                added.append((point, point.fwd_hooks[-1]))
            yield
        finally:
            for point, handle in reversed(added):
                handle.hook.remove()
                point.fwd_hooks[:] = [other for other in point.fwd_hooks if other is not handle]

    def has_hooks(self) -> bool:
        """Has the user put hooks of their own on the model (an ablation, say)?"""
        return any(point.fwd_hooks for point in self.model.hook_dict.values())

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Without gradients and in evaluation mode; every module's own training flag is restored."""
        inner = getattr(self.model, "original_model", None)
        modules = {*self.model.modules(), *(inner.modules() if inner is not None else ())}
        flags = [(module, module.training) for module in modules]
        try:
            for module, _ in flags:
                module.training = False
            with torch.no_grad():
                yield
        finally:
            for module, flag in flags:
                module.training = flag

    def logits(
        self,
        tokens: Int[Tensor, "batch pos"],
        keep: Int[Tensor, " kept"],
        **options: Any,
    ) -> Float[Tensor, "kept d_vocab"]:
        """Logits at the positions `keep` (indices into the flattened batch x pos), and only those are unembedded.

        The unembedding is where short sequences over a large vocabulary spend much of their time and most of their
        memory. `options` go to the model (`attention_mask`, `position_ids`). Rows are taken apart: under updates that
        differ from row to row use `row_logits`.
        """
        # A model whose tokenizer pads on the left would guess a mask from the token ids; with a mask given it does not.
        options.setdefault("attention_mask", torch.ones_like(tokens))
        with self.hooked([("unembed_in", None, lambda x: x.flatten(0, 1)[keep].unsqueeze(0))]):
            found = self.model(tokens, return_type="logits", **options)
        return (found[0] if isinstance(found, tuple) else found)[0]  # with a cache the model returns that too

    def row_logits(
        self, tokens: Int[Tensor, "batch pos"], keep: Int[Tensor, "batch kept"], **options: Any
    ) -> Float[Tensor, "batch kept d_vocab"]:
        """Logits at the positions `keep` of each row, equally many in every row; `options` as of `logits`."""
        options.setdefault("attention_mask", torch.ones_like(tokens))
        rows = torch.arange(len(tokens), device=tokens.device)[:, None]
        with self.hooked([("unembed_in", None, lambda x: x[rows, keep])]):
            found = self.model(tokens, return_type="logits", **options)
        return found[0] if isinstance(found, tuple) else found

    def log_probs(
        self,
        tokens: Int[Tensor, "batch pos"],
        node: Int[Tensor, " reading"],
        token: Int[Tensor, " reading"],
        **options: Any,
    ) -> Float[Tensor, " reading"]:
        """Log-probability, nats, of each `token` after the position `node` (an index into batch x pos).

        Every position that is read is unembedded once; float32 whatever the model's dtype (float64 stays).
        """
        keep, reading = torch.unique(node, return_inverse=True)
        logits = self.logits(tokens, keep, **options)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        # In slices that stay in the processor's cache: over the whole of it, normalising took a tenth of a pass.
        normaliser = torch.cat([part.logsumexp(-1) for part in logits.split(32)])
        return logits[reading, token] - normaliser[reading]

    def bytes_of_row(self, width: int) -> int:
        """A cautious estimate of the peak memory that one row of `width` tokens adds to a forward pass.

        Counted are the logits and one copy, attention scores and copies, and the states of a block.
        """
        states = 10 * self.d_model + 4 * (getattr(self.model.cfg, "d_mlp", None) or 0)
        return 4 * width * (2 * self.d_vocab + 4 * self.n_heads * width + states)

    def facts(self) -> dict[str, Any]:
        """What a result records of the model: name, architecture, size, checksum of the weights, device, dtype.

        `processed` tells whether weights were folded or centred, by `enable_compatibility_mode` or at loading.
        """
        cfg = self.model.cfg
        folded = str(getattr(cfg, "normalization_type", None)) in {"LNPre", "RMSPre"}
        family = getattr(cfg, "architecture", None) or getattr(cfg, "original_architecture", None) or self.kind
        return {
            "model": getattr(cfg, "model_name", None) or "custom",
            "family": family,
            "n_params": sum(parameter.numel() for parameter in self.model.parameters()),
            "weights_sha256": self.checksum(),
            "wrapper": f"{self.kind} (transformer-lens {version('transformer-lens')})",
            "device": self.device.type,
            "dtype": str(self.dtype).removeprefix("torch."),
            "processed": bool(getattr(self.model, "compatibility_mode", False)) or folded,
        }

    def checksum(self) -> str:
        """SHA-256 over all weights, in the order of their names."""
        digest = hashlib.sha256()
        for name, weight in sorted(self.model.named_parameters(), key=lambda item: item[0]):
            digest.update(name.encode())
            digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()


def wrap(model: Any) -> WrappedModel:
    """A `WrappedModel` for a TransformerBridge or a HookedTransformer (or what is one already).

    Raises `ValueError` for anything else, and for models whose attention is not causal: a context of which later words
    are part of earlier states has no log-probability of a continuation.
    """
    if isinstance(model, WrappedModel):
        return model
    if not all(hasattr(model, name) for name in ("cfg", "hook_dict", "run_with_hooks", "parameters")):
        raise ValueError(
            f"got {type(model).__name__}, expected a TransformerLens model. Load one with mechicl.load(NAME), or "
            "make one of your own with TransformerBridge.boot_transformers(FOLDER)"
        )
    cfg = model.cfg
    if str(getattr(cfg, "attention_dir", "causal")) != "causal":
        raise ValueError(
            f"{getattr(cfg, 'model_name', 'the model')} is not causal (attention_dir={cfg.attention_dir!r}); "
            "in-context learning is measured on models that predict the next token"
        )
    return WrappedModel(
        model=model,
        kind="HookedTransformer" if type(model).__name__ == "HookedTransformer" else "TransformerBridge",
        n_layers=cfg.n_layers,
        n_heads=cfg.n_heads,
        n_kv_heads=getattr(cfg, "n_key_value_heads", None) or cfg.n_heads,
        d_model=cfg.d_model,
        d_head=cfg.d_head,
        d_vocab=cfg.d_vocab,
        n_ctx=cfg.n_ctx,
        window=_shortest_window(model),
        tokenizer=getattr(model, "tokenizer", None),
    )


def additive(seen: Bool[Tensor, "row query key"], dtype: torch.dtype) -> Float[Tensor, "row 1 query key"]:
    """A mask to be added to attention scores: 0 where a query may look, the dtype's lowest number where it may not."""
    blocked = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return blocked.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


def _shortest_window(model: Any) -> int | None:
    inner = getattr(getattr(model, "original_model", None), "config", None)
    sizes = [getattr(inner, "sliding_window", None), getattr(inner, "attention_chunk_size", None)]
    if getattr(model.cfg, "use_local_attn", False):
        sizes.append(getattr(model.cfg, "window_size", None))
    return min((int(size) for size in sizes if size), default=None)


def _as_lens_hook(function: Hook) -> Callable[..., Tensor | None]:
    def call(activation: Tensor, hook: Any) -> Tensor | None:
        return function(activation)

    return call
