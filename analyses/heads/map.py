"""What a localisation found: every head's effect, the heads that were confirmed, and the controls beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechicl.provenance import Provenance
from mechicl.results import Result


@dataclass(frozen=True)
class HeadMap(Result):
    """Which heads drive an effect F, a linear functional of the items' outcomes (priming, the IFE).

    effect, unit: name of F and its unit. contexts, over: F is the "mean" over items, or the "slope" over verb bias, of
        the sum over contexts s of contexts[s] * outcome_s.
    roles, ablation: what was replaced where; see `localize_heads`.
    gate: one row: estimate, low, high of F on all items, n_pairs, n_verbs, n_targets, and `passed`: does the interval
        exclude 0? Where it does not there is nothing to localise, and `heads` is empty.
    heads: one row a head: layer, head, name ("L7H3"). On the selection split: effect = F(patched) - F(clean), low, high
        (crossed bootstrap over prime verbs and targets), share (effect / effect of replacing all heads at once), t, p
        (permutation), p_fwe (family-wise over all heads, max |t|), p_bh; d_priming (effect on the mean priming effect,
        NaN where only one form is measured) and conditional (relative change of F / priming: 0 for a head that merely
        scales priming; NaN for priming itself); candidate: is it one of those taken to the other split? On the
        confirmation split: confirm_effect, confirm_low, confirm_high, confirm_share, confirm_p (family-wise over the
        candidates), NaN for others; confirmed. And bias_r2, bias_p: how well the head's output predicts the prime
        verb's bias, verbs left out, and its family-wise p; carries_bias: bias_p below 1 - level in a head that was not
        confirmed; induction, previous_token, duplicate_token: attention on repeated random tokens, 0 to 1.
    confirmed_effects: one row a confirmed head and item of the confirmation split: name, prime_verb, target, bias,
        d_effect (change of the item's combined outcome).
    curves: one row a kind ("ablate": the k strongest replaced; "keep": all others replaced) and k: value of F on the
        confirmation split, low, high, faithfulness = (F - F(all replaced)) / (F(clean) - F(all replaced)).
    random_sets: one row a random set of as many heads as were confirmed: matched ("layer" or "norm"), value of F with
        the set replaced, `exact`: computed, or the sum of single heads' effects.
    attention: one row a confirmed head and a part of the prime or target: name, query, key, share of attention.
    controls: one row a control: control, quantity, estimate, low, high, what (a sentence).
    verbs: one row a prime verb: verb, bias, split ("selection" or "confirmation").
    verdict: in words.
    """

    effect: str
    unit: str
    contexts: dict[str, float]
    over: str
    roles: tuple[str, ...]
    ablation: str
    level: float
    gate: pd.DataFrame
    heads: pd.DataFrame
    confirmed_effects: pd.DataFrame
    curves: pd.DataFrame
    random_sets: pd.DataFrame
    attention: pd.DataFrame
    controls: pd.DataFrame
    verbs: pd.DataFrame
    verdict: str
    provenance: Provenance

    @property
    def confirmed(self) -> list[tuple[int, int]]:
        """The heads (layer, head) that were confirmed, strongest first."""
        if self.heads.empty:
            return []
        rows = self.heads[self.heads["confirmed"]]
        rows = rows.reindex(rows["confirm_effect"].abs().sort_values(ascending=False).index)
        return list(zip(rows["layer"].tolist(), rows["head"].tolist(), strict=True))

    def to_frame(self) -> pd.DataFrame:
        """The heads."""
        return self.heads.copy()

    def grid(self, column: str = "effect") -> Float[np.ndarray, "layer head"]:
        """A column of `heads` as layers by heads."""
        shape = (self.heads["layer"].max() + 1, self.heads["head"].max() + 1)
        return self.heads.sort_values(["layer", "head"])[column].to_numpy(float).reshape(shape)

    def plot(self, ax: Any = None) -> Any:
        """Effect of every head, layers by heads, the confirmed ones marked; returns matplotlib Axes."""
        from mechicl.views.heads import plot_head_map

        confirmed = self.grid("confirmed") > 0
        return plot_head_map(self.grid(), significant=confirmed, unit=f"change of {self.effect} ({self.unit})", ax=ax)
