"""Where does the query look? Attention of a prompt's last token over the prompt's parts, layer by layer.

Prompts of different lengths are aligned by their parts (see `mechicl.analyses.demonstrations.prompt_parts`), each text
brought to a fixed number of bins, and averaged. Per layer, averaged over heads:

    share      attention to all tokens of a kind (start, text, template, label, separator, query, ending); they sum to 1
    chance     what a head that attends everywhere alike would give: tokens of the kind / tokens up to the last
    excess     share - chance, paired over prompts

Much attention rests on the start of a text in most trained models and takes little from there: a share tells where a
layer looks, and not what it reads. As a control the same model with its weights in random order can be run. In models
with attention windows chance is that of a head that sees everything. Source: Han et al., arXiv:2305.12766, section 5.

Caveats:
- Means over heads hide heads: `head_shares` has each.
- Parts of different lengths are brought to as many bins; `density` is attention a token, `mass` that of a bin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechicl.analyses.demonstrations.prompt_checks import n_demonstrations, query_clusters
from mechicl.analyses.demonstrations.prompt_parts import KINDS, Bins
from mechicl.analyses.updates.dual_intervals import ratio_intervals
from mechicl.hooks.demos.profiles import attention_profile
from mechicl.hooks.wrapper import wrap
from mechicl.provenance import Provenance
from mechicl.resampling import MIN_BOOT, check_level
from mechicl.results import Result
from mechicl.tasks.fewshot import FewShotPrompt
from mechicl.untrained import shuffled_weights


@dataclass(frozen=True)
class AttentionMap(Result):
    """Attention of the last token over the parts of a prompt.

    frame: one row a layer ("all": mean over layers) and kind: share, low, high, chance, excess, excess_low,
        excess_high, untrained (NaN without that control).
    parts, kinds: of each bin. mass: attention that a bin receives, summing to 1; density: attention a token there;
        mass_chance, density_chance: the same of a head that attends everywhere alike. Means over prompts and heads.
    head_shares: attention to each kind (in the order of `kind_names`) by head; head_density: density by head, if asked
        for.
    """

    task: str
    n_items: int
    n_demos: int
    level: float
    frame: pd.DataFrame
    kind_names: tuple[str, ...]
    parts: tuple[str, ...]
    kinds: tuple[str, ...]
    mass: Float[np.ndarray, "layer bin"]
    density: Float[np.ndarray, "layer bin"]
    mass_chance: Float[np.ndarray, " bin"]
    density_chance: Float[np.ndarray, " bin"]
    head_shares: Float[np.ndarray, "layer head kind"]
    head_density: Float[np.ndarray, "layer head bin"] | None
    provenance: Provenance

    def to_frame(self) -> pd.DataFrame:
        """Shares by layer and kind."""
        return self.frame.copy()

    def plot(self, ax: Any = None) -> Any:
        """Layers over positions; returns matplotlib Axes."""
        from mechicl.views.attention_maps import plot_attention_map

        return plot_attention_map(self, ax=ax)

    def plot_shares(self, ax: Any = None, layer: int | str = "all") -> Any:
        """Shares of the kinds beside chance, as bars; returns matplotlib Axes."""
        from mechicl.views.attention_maps import plot_attention_shares

        return plot_attention_shares(self, layer=layer, ax=ax)


def attention_map(
    model: Any,
    prompts: Sequence[FewShotPrompt],
    *,
    n_bins: int = 30,
    by_head: bool = False,
    untrained: bool = False,
    n_boot: int = 2_000,
    level: float = 0.95,
    seed: int = 0,
    memory_budget: int = 1 << 30,
    progress: bool = True,
) -> AttentionMap:
    """Measure where the last tokens of prompts look, averaged over prompts.

    n_bins: bins of each text. by_head: keep the map of every head. untrained: run a copy with its weights in random
    order as well (`seed` shuffles), which takes the memory of one more model. Intervals resample the queries, with
    `seed`. Attention is reduced inside the hooks, so memory does not grow with prompts.

        attention_map(model, fewshot_prompts(task, 8, 100, tokenizer=model.tokenizer, seed=0)).plot()

    Raises `ValueError`, before any forward pass, for fewer than 2 different queries, prompts with different numbers of
    demonstrations, n_bins below 1, and prompts longer than the context window.
    """
    check_level(level)
    wrapped = wrap(model)
    n_demos, clusters = n_demonstrations(prompts), query_clusters(prompts)
    if n_bins < 1 or n_boot < MIN_BOOT:
        raise ValueError(f"got n_bins={n_bins}, n_boot={n_boot}; expected at least 1 and {MIN_BOOT}")
    bins = Bins.of(prompts, n_bins)
    texts = [one.prompt for one in prompts]
    found = attention_profile(
        wrapped, texts, lambda i: _rows(bins, prompts[i]), n_kept=len(KINDS), memory_budget=memory_budget,
        progress=progress,
    )  # fmt: skip
    control = None
    if untrained:
        control = attention_profile(
            shuffled_weights(wrapped.model, seed=seed), texts, lambda i: bins.rows(prompts[i])[1],
            memory_budget=memory_budget, progress=progress,
        ).mean.mean(1)  # fmt: skip
    even, even_kinds = _even(bins, prompts)
    n = len(bins.bin_parts)
    mass, density, by_kind = np.split(found.mean, [n, 2 * n], axis=-1)
    draws: dict[str, Any] = {"n_boot": n_boot, "level": level, "seed": seed}
    return AttentionMap(
        task=prompts[0].task,
        n_items=len(prompts),
        n_demos=n_demos,
        level=level,
        frame=_frame(found.kept, even_kinds, control, clusters, draws),
        kind_names=KINDS,
        parts=bins.bin_parts,
        kinds=bins.bin_kinds,
        mass=mass.mean(1),
        density=density.mean(1),
        mass_chance=even[:n],
        density_chance=even[n : 2 * n],
        head_shares=by_kind,
        head_density=density if by_head else None,
        provenance=Provenance.of(
            wrapped.facts(),
            seeds={"bootstrap and shuffled weights": seed},
            options={"n_prompts": len(prompts), "n_bins": n_bins, "n_boot": n_boot, "untrained": untrained},
        ),
    )


def _rows(bins: Bins, one: FewShotPrompt) -> Float[np.ndarray, "row pos"]:
    """Mass by bin, density by bin, and kinds."""
    shares, kinds = bins.rows(one)
    return np.concatenate([shares, _density(shares), kinds])


def _even(
    bins: Bins, prompts: Sequence[FewShotPrompt]
) -> tuple[Float[np.ndarray, " row"], Float[np.ndarray, "item kind"]]:
    """What a head that attends everywhere alike would give: the mean of all rows, and kinds by prompt."""
    total, kinds = np.zeros(1), np.zeros((len(prompts), len(KINDS)))
    for i, one in enumerate(prompts):
        own = _rows(bins, one).mean(1)
        total = total + own / len(prompts)
        kinds[i] = own[-len(KINDS) :]
    return total, kinds


def _density(shares: Float[np.ndarray, "bin pos"]) -> Float[np.ndarray, "bin pos"]:
    """The mean over what a bin covers; 0 where this prompt has nothing for it."""
    total = shares.sum(1, keepdims=True)
    return np.asarray(np.divide(shares, total, out=np.zeros_like(shares), where=total > 0))


def _frame(
    kept: Float[np.ndarray, "item layer kind"],
    even: Float[np.ndarray, "item kind"],
    control: Float[np.ndarray, "layer kind"] | None,
    clusters: np.ndarray,
    draws: dict[str, Any],
) -> pd.DataFrame:
    """One row a layer and kind; layer "all" last."""
    whole = np.concatenate([kept, kept.mean(1, keepdims=True)], axis=1)
    n_items, n_layers = whole.shape[:2]
    flat = whole.reshape(n_items, -1)
    one = np.ones_like(flat)
    share, low, high = ratio_intervals(flat, one, clusters, **draws)
    excess = ratio_intervals(flat - np.tile(even, n_layers), one, clusters, **draws)
    nothing = np.full((n_layers, len(KINDS)), np.nan)
    if control is not None:
        nothing = np.concatenate([control, control.mean(0, keepdims=True)])
    return pd.DataFrame(
        {
            "layer": np.repeat([*map(str, range(n_layers - 1)), "all"], len(KINDS)),
            "kind": np.tile(KINDS, n_layers),
            "share": share,
            "low": low,
            "high": high,
            "chance": np.tile(even.mean(0), n_layers),
            "excess": excess[0],
            "excess_low": excess[1],
            "excess_high": excess[2],
            "untrained": nothing.ravel(),
        }
    )
