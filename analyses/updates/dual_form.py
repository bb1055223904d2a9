"""The dual form of attention: in-context learning as an update of every head's output, measured exactly.

With attention alpha on the context (the demonstrations), A_C and A_x the attention-weighted mean values of the context
and of all other tokens, a head's output is z = alpha A_C + (1 - alpha) A_x, so that

    dz = alpha (A_C - A_x) = sum_i a_i (V_i - A_x)

is its update by the context, exact at fixed queries, keys and values. Measured at one token a prompt, for every head:

    alpha               attention to the context, 0 to 1; a head that looks everywhere alike gives its share of tokens
    relative            ||dz|| / ||A_x||: mean over mean
    written             ||dz W_O||, what reaches the residual stream (before a norm, where one follows attention)
    written_relative    ||dz W_O|| / ||A_x W_O||: mean over mean
    effective_rank      of the demonstrations' contributions dz_i [demo, d_head]: (sum s^2)^2 / sum s^4, from 1 (all in
                        one direction) to their number (all orthogonal and alike)
    share               <dz_i, dz> / ||dz||^2 of demonstration i; they sum to 1, below 0: against the others

Beside them stand two controls: BOS alone as the context (attention often rests there and takes little from it), and
spans of the same lengths at random places before the query. **The split holds for any weights, trained or not: it
describes what the context does and does not prove learning.** Evidence needs a comparison, with another context or with
a real gradient step. Source: Dai et al., arXiv:2212.10559; the split itself is exact where theirs relaxes the softmax.

Caveats:
- `dz` is written before the next layers read it: a large update may be of no use to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechicl.analyses.updates.dual_tables import demos_table, heads_table, random_spans, singular_values
from mechicl.hooks.attention_split import attention_parts
from mechicl.hooks.context_masks import Demos, demo_masks, query_positions
from mechicl.hooks.wrapper import wrap
from mechicl.provenance import Provenance
from mechicl.resampling import check_level
from mechicl.results import Result
from mechicl.tasks.prompts import Prompt

CAVEAT = (
    "The split holds for any weights, trained or not, and belongs to this query token: it describes what the context "
    "does, and does not prove that the model learns from it."
)


@dataclass(frozen=True)
class AttentionDual(Result):
    """What the context does to every head's output at one token.

    heads: one row a context ("context", "bos", "random"), layer and head: alpha, relative, written, written_relative,
        effective_rank, each with _low and _high, and alpha_with_bos (alpha if BOS counted as context).
    demos: one row a layer, head and demonstration: share, attention (a_i), each with _low and _high.
    spectrum: mean singular values of the contributions, largest first.
    random_overlap: share of the random spans' tokens that lie in the context; near 1 the control says little.
    """

    names: tuple[str, ...]
    n_items: int
    level: float
    heads: pd.DataFrame
    demos: pd.DataFrame
    spectrum: Float[np.ndarray, "layer head rank"]
    random_overlap: float
    caveat: str
    provenance: Provenance

    def to_frame(self) -> pd.DataFrame:
        """The heads."""
        return self.heads.copy()

    def values(self, measure: str, context: str = "context") -> Float[np.ndarray, "layer head"]:
        """One measure of all heads, as a map."""
        rows = self.heads[self.heads["context"] == context]
        if measure not in rows or rows.empty:
            raise ValueError(f"got {measure!r} of {context!r}; expected a column of heads, and context, bos or random")
        return rows.pivot_table(index="layer", columns="head", values=measure, dropna=False).to_numpy(dtype=float)

    def plot(self, ax: Any = None, measure: str = "written_relative") -> Any:
        """A measure as a map over layers and heads; returns matplotlib Axes."""
        from mechicl.views.dual import plot_update_map

        return plot_update_map(self.values(measure), measure=measure, ax=ax)

    def plot_spectrum(self, layer: int, ax: Any = None) -> Any:
        """Singular values of the heads' contributions in a layer."""
        from mechicl.views.dual import plot_spectra

        return plot_spectra(self.spectrum[layer], [f"{layer}.{h}" for h in range(self.spectrum.shape[1])], ax=ax)

    def plot_shares(self, layer: int, head: int, ax: Any = None) -> Any:
        """Each demonstration's share of one head's update, with intervals."""
        from mechicl.views.dual import plot_demo_shares

        rows = self.demos[(self.demos["layer"] == layer) & (self.demos["head"] == head)]
        share, low, high = (rows[name].to_numpy(float) for name in ("share", "share_low", "share_high"))
        return plot_demo_shares(share, low, high, names=list(rows["demo"]), head=f"{layer}.{head}", ax=ax)


def attention_dual(
    model: Any,
    prompts: Sequence[Prompt],
    *,
    demos: Demos,
    query: str = "last",
    clusters: Sequence[Any] | np.ndarray | pd.Series | None = None,
    prepended_bos: bool = True,
    n_boot: int = 2_000,
    level: float = 0.95,
    seed: int = 0,
    memory_budget: int = 1 << 30,
    progress: bool = True,
) -> AttentionDual:
    """Measure the update by the context of every head's output at the last token of the role `query`.

    demos: the demonstrations, as roles or as masks (see `attention_parts`). BOS, the first token where `prepended_bos`,
    belongs to the rest unless a demonstration holds it. clusters: one label a prompt where prompts belong together (the
    verb of the prime, say); whole clusters are resampled (percentile intervals; somewhat too narrow below 20). seed:
    that of the bootstrap and of the random spans.

        attention_dual(model, prompts, demos=["demo[0]", "demo[1]"], query="query").plot()

    Raises `ValueError` for fewer than 2 clusters, labels of another number than the prompts, and for what
    `attention_parts` refuses.
    """
    check_level(level)
    wrapped = wrap(model)
    labels = np.arange(len(prompts)) if clusters is None else np.asarray(clusters)
    if len(labels) != len(prompts):
        raise ValueError(f"got {len(labels)} cluster labels for {len(prompts)} prompts; expected one each")
    ends = query_positions(wrapped, prompts, query)
    masks = demo_masks(prompts, ends, demos, "demos")
    whole = [np.pad(mask, ((0, 0), (0, len(p) - mask.shape[1]))) for mask, p in zip(masks, prompts, strict=True)]
    contexts: dict[str, Demos] = {"context": whole}
    if prepended_bos:
        contexts["bos"] = [np.arange(len(prompt)) == 0 for prompt in prompts]
    contexts["random"] = control = random_spans(whole, ends, seed=seed, first=int(prepended_bos))
    found = attention_parts(
        wrapped, prompts, contexts=contexts, query=query, memory_budget=memory_budget, progress=progress
    ).parts
    draws: dict[str, Any] = {"n_boot": n_boot, "level": level, "seed": seed}
    alike = all(isinstance(demo, str) for demo in demos)
    names = tuple(str(demo) for demo in demos) if alike else tuple(f"demo[{i}]" for i in range(len(masks[0])))
    outside = np.array([not mask[:, 0].any() for mask in masks])
    own, bos = found["context"], found.get("bos")
    with_bos = own.alpha + (bos.alpha * outside[:, None, None] if bos is not None else 0)
    frames = [heads_table(wrapped, parts, labels, draws).assign(context=name) for name, parts in found.items()]
    heads = pd.concat(frames, ignore_index=True)
    heads.loc[heads["context"] == "context", "alpha_with_bos"] = with_bos.mean(0).ravel()
    overlap = [(r & w.any(0)).sum() / r.sum() for r, w in zip(control, whole, strict=True)]
    return AttentionDual(
        names=names,
        n_items=len(prompts),
        level=level,
        heads=heads[["context", *(c for c in heads if c != "context")]],
        demos=demos_table(own, names, labels, draws),
        spectrum=singular_values(own).mean(0),
        random_overlap=float(np.mean(overlap)),
        caveat=CAVEAT,
        provenance=Provenance.of(
            {**wrapped.facts(), "prepend_bos": prepended_bos},
            seeds={"bootstrap and spans": seed},
            options={"n_items": len(prompts), "demos": list(names), "query": query, "n_boot": n_boot, "level": level},
        ),
    )
