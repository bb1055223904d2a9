"""How large the implicit update is that a prime makes: what changes inside the model before the target's form is told.

Measured at `last`, the last token before the target's two forms part, per pair and form of the prime, by layer:

    residual     ||r(prime) - r(baseline)|| / ||r(baseline)||, r the residual stream after the layer
    attention    ||sum over heads dz W_O|| / ||r(baseline)||, dz = alpha (A_C - A_x) the update of a head's output by
                 the prime's tokens (see `attention_dual`; before a norm, where one follows attention)

The baseline is the text with the neutral prime (the prime's verb in neither form) or, without one, the target alone.
For the neutral prime itself, measured from the target alone, the same sizes are the placebo: it shows no form, so they
cannot follow a form's prediction error. Sizes are 0 or more, without unit, and above 0 by chance, as any other text
changes a state: compare primes with primes. The baseline's text has another length than the prime's, which adds to the
residual update where positions are absolute; that part is the same for primes of one length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from mechicl.analyses.priming_prompts import priming_items
from mechicl.hooks.attention_split import AttentionCapture, attention_parts
from mechicl.hooks.wrapper import WrappedModel, wrap
from mechicl.provenance import Provenance
from mechicl.results import Result
from mechicl.tasks.corpus import PrimingCorpus
from mechicl.tasks.prompts import Prompt

UNPRIMED = "unprimed"


@dataclass(frozen=True)
class UpdateSizes(Result):
    """Sizes of updates, by what is measured, prime form and layer.

    rows: one row a measured pair: row (its number in the corpus), prime, target, prime_verb.
    sizes: kind -> an array whose second axis is `forms`. placebo: kind -> the same of the neutral prime; empty where
    the baseline is the target alone.
    """

    forms: tuple[str, str]
    baseline: str
    rows: pd.DataFrame
    sizes: dict[str, Float[np.ndarray, "item form layer"]]
    placebo: dict[str, Float[np.ndarray, "item layer"]]
    provenance: Provenance

    def to_frame(self) -> pd.DataFrame:
        """One row a pair and form: the mean over layers of every kind, and of its placebo (placebo_<kind>)."""
        frames = []
        for number, form in enumerate(self.forms):
            columns = {kind: values[:, number].mean(-1) for kind, values in self.sizes.items()}
            columns |= {f"placebo_{kind}": values.mean(-1) for kind, values in self.placebo.items()}
            frames.append(self.rows.assign(form=form, **columns))
        return pd.concat(frames, ignore_index=True)

    def with_kind(
        self,
        kind: str,
        sizes: Float[np.ndarray, "item form layer"],
        placebo: Float[np.ndarray, "item layer"] | None = None,
    ) -> UpdateSizes:
        """The same with one more measure of size, such as the norm of an MLP's update, for the same rows."""
        if sizes.shape[:2] != (len(self.rows), 2):
            raise ValueError(f"got sizes of shape {sizes.shape}; expected {len(self.rows)} rows, 2 forms, layers")
        more = {} if placebo is None else {kind: placebo}
        return replace(self, sizes={**self.sizes, kind: sizes}, placebo={**self.placebo, **more})

    def plot(self, ax: Any = None) -> Any:
        """Mean size by layer, a line a kind; returns matplotlib Axes."""
        from mechicl.views.dual import plot_sizes_by_layer

        return plot_sizes_by_layer({kind: x.mean((0, 1)) for kind, x in self.sizes.items()}, ax=ax)


def measure_update_sizes(
    model: Any,
    corpus: PrimingCorpus,
    *,
    rows: Sequence[int] | Int[np.ndarray, " item"] | None = None,
    n_pairs: int | None = None,
    prepend_bos: bool = True,
    memory_budget: int = 1 << 30,
    seed: int = 0,
    progress: bool = True,
) -> UpdateSizes:
    """Measure the updates by the primes of a corpus' pairs.

    rows: numbers of pairs; else `n_pairs` of them drawn with `seed` by `crossed_rows`, else all. Pairs whose prime has
    no neutral form are left out; where none has, the baseline is the target alone. One forward pass a distinct text,
    up to the target's `last` token. The model is left as it was.

    Raises `ValueError` for rows that the corpus lacks, n_pairs out of range, and what `attention_parts` refuses.
    """
    wrapped = wrap(model)
    frame = corpus.to_frame()
    neutral = frame["prime_neutral"].notna().to_numpy()
    baseline = "neutral" if neutral.any() else UNPRIMED
    if rows is None:
        rows = np.arange(len(frame)) if n_pairs is None else crossed_rows(frame, n_pairs, seed=seed)
    chosen = np.asarray(rows, dtype=np.int64)
    if len(chosen) == 0 or chosen.min() < 0 or chosen.max() >= len(frame):
        raise ValueError(f"got rows {chosen[:5].tolist()}...; expected numbers from 0 to {len(frame) - 1}")
    chosen = chosen[neutral[chosen]] if baseline == "neutral" else chosen
    if len(chosen) == 0:
        raise ValueError("none of these pairs has a neutral prime, though others have; choose other rows")
    read = _Reader(wrapped, corpus, chosen, prepend_bos, memory_budget, progress)
    contexts = [*corpus.forms] + (["neutral"] if baseline == "neutral" else [])
    captures = {context: read.capture(context) for context in (*contexts, UNPRIMED)}
    norms = {name: _norm(captures[name].residuals["resid_post"]) for name in (baseline, UNPRIMED)}
    sizes = {
        kind: np.stack([by_kind(read, captures[form], captures[baseline], norms[baseline]) for form in corpus.forms], 1)
        for kind, by_kind in _KINDS.items()
    }
    placebo = {}
    if baseline == "neutral":
        placebo = {
            kind: by_kind(read, captures["neutral"], captures[UNPRIMED], norms[UNPRIMED])
            for kind, by_kind in _KINDS.items()
        }
    table = frame.iloc[chosen][["prime", "target", "prime_verb"]].reset_index(drop=True)
    table.insert(0, "row", chosen)
    return UpdateSizes(
        forms=corpus.forms,
        baseline=baseline,
        rows=table,
        sizes=sizes,
        placebo=placebo,
        provenance=Provenance.of(
            {**wrapped.facts(), "prepend_bos": prepend_bos},
            seeds={"pairs": seed} if n_pairs is not None else {},
            options={"corpus": corpus.name, "n_pairs": len(chosen), "baseline": baseline},
        ),
    )


def crossed_rows(frame: pd.DataFrame, n_pairs: int, *, seed: int = 0) -> Int[np.ndarray, " item"]:
    """Numbers of about `n_pairs` pairs: whole targets with all their primes, the targets' verbs taking turns.

    So prime verbs stay crossed with targets, and each is there about as often; pairs drawn one by one would meet
    nearly every target once, and nothing could be adjusted for targets. The last target may be cut.
    """
    if not 1 <= n_pairs <= len(frame):
        raise ValueError(f"got n_pairs={n_pairs}; expected 1 to {len(frame)}, which is what the corpus has")
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(frame))
    shuffled = frame.iloc[order]
    targets = shuffled.drop_duplicates("target")[["target", "target_verb"]]
    turn = targets.groupby("target_verb").cumcount()  # every verb's first target, then every verb's second, ...
    rank = pd.Series(np.argsort(np.argsort(turn.to_numpy(), kind="stable")), index=targets["target"])
    by_target = np.argsort(shuffled["target"].map(rank).to_numpy(), kind="stable")
    return np.sort(order[by_target[:n_pairs]])


@dataclass(frozen=True)
class _Reader:
    wrapped: WrappedModel
    corpus: PrimingCorpus
    rows: Int[np.ndarray, " item"]
    prepend_bos: bool
    memory_budget: int
    progress: bool

    def capture(self, context: str) -> AttentionCapture:
        """The states at `last` after primes in a context, and what attention took from the prime."""
        prompts = self.prompts(context)
        contexts: dict[str, list[str]] = {} if context == UNPRIMED else {"prime": ["prime"]}
        return attention_parts(
            self.wrapped, prompts, contexts=contexts, streams=["resid_post"], memory_budget=self.memory_budget,
            progress=self.progress,
        )  # fmt: skip

    def prompts(self, context: str) -> list[Prompt]:
        """One a row; a target alone is the same for all of its primes."""
        targets = self.corpus.pairs["target"].to_numpy()[self.rows]
        _, first, own = np.unique(targets, return_index=True, return_inverse=True)
        rows, own = (self.rows[first], own) if context == UNPRIMED else (self.rows, np.arange(len(self.rows)))
        items = priming_items(self.corpus, self.wrapped.tokenizer, rows, context, prepend_bos=self.prepend_bos)
        return [items[i].prompts[0] for i in own]


def _residual(
    _: _Reader, after: AttentionCapture, before: AttentionCapture, norm: Float[np.ndarray, "item layer"]
) -> Float[np.ndarray, "item layer"]:
    return _norm(after.residuals["resid_post"] - before.residuals["resid_post"]) / norm


def _attention(
    read: _Reader, after: AttentionCapture, _: AttentionCapture, norm: Float[np.ndarray, "item layer"]
) -> Float[np.ndarray, "item layer"]:
    update = torch.from_numpy(after.parts["prime"].update)
    written = np.empty(norm.shape)
    for layer in range(read.wrapped.n_layers):
        out = read.wrapped.W_O(layer).detach().to("cpu", update.dtype)
        written[:, layer] = _norm(torch.einsum("ihd,hdm->im", update[:, layer], out).numpy())
    return written / norm


def _norm(x: Float[np.ndarray, "*any d_model"]) -> Float[np.ndarray, "*any"]:
    return np.asarray(np.linalg.norm(x.astype(np.float64), axis=-1))


_KINDS = {"residual": _residual, "attention": _attention}
