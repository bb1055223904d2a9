"""Controls beside a localisation: what kind of heads, what else they do, what chance and an untrained model give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import scipy.stats
from jaxtyping import Float

from mechicl.analyses.heads.effects import Rows, Sweeper
from mechicl.analyses.heads.question import Question
from mechicl.analyses.heads.selection import Confirmation, head_name
from mechicl.analyses.heads.unrelated import damage
from mechicl.circuit_scores import circuit_model_distance, circuit_performance_ratio
from mechicl.decoding import decode_over_verbs
from mechicl.hooks.head_scores import attention_scores
from mechicl.hooks.patch_items import log_odds
from mechicl.hooks.patching import patch_heads
from mechicl.hooks.replacements import Zero
from mechicl.hooks.role_outputs import head_outputs
from mechicl.hooks.wrapper import wrap
from mechicl.stats import cluster_bootstrap, slopes
from mechicl.untrained import shuffled_weights
from mechicl.verb_weights import verb_matrix

Row = tuple[str, str, float, float, float, str]
_NAN = float("nan")


def with_head_kinds(sweeper: Sweeper, question: Question, heads: pd.DataFrame, halves: Sequence[Rows]) -> pd.DataFrame:
    """Adds to every head what its output says of the prime verb's bias, and what it does on repeated tokens."""
    wrapped = sweeper.wrapped
    rows = Rows(*(np.concatenate([getattr(h, f) for h in halves]) for f in ("numbers", "prime_verb", "target")))
    parts: list[np.ndarray] = []
    for context in question.functional.contexts:
        items = [item for half in halves for item in sweeper.items(half, context)]
        z = head_outputs(wrapped, items, roles=sweeper.roles, progress=sweeper.progress)
        parts.append(z.flatten(1, 2).double().numpy())
    states = np.mean(parts, axis=0)
    # each half's verbs met other targets, so targets are taken out within a half
    by_verb, names = [], []
    for half in halves:
        own = np.isin(rows.numbers, half.numbers)
        verbs, matrix = verb_matrix(rows.prime_verb[own], rows.target[own])
        means = np.einsum("vi,ihd->hvd", matrix, states[own])
        by_verb.append(means - means.mean(1, keepdims=True) + states.mean(0)[:, None])
        names += verbs.tolist()
    found = decode_over_verbs(np.concatenate(by_verb, 1), question.bias.reindex(names).to_numpy(), seed=question.seed)
    period = min(25, (wrapped.n_ctx - 1) // 2)
    scores = attention_scores(wrapped, period=period, prepend_bos=sweeper.prepend_bos, seed=question.seed)
    return heads.assign(
        bias_r2=found.r2,
        bias_p=found.p_fwe,
        carries_bias=(found.p_fwe <= 1 - question.level) & ~heads["confirmed"].to_numpy(),
        induction=scores.induction.ravel(),
        duplicate_token=scores.duplicate_token.ravel(),
        previous_token=scores.previous_token.ravel(),
    )


def control_table(
    sweeper: Sweeper,
    question: Question,
    heads: pd.DataFrame,
    found: Confirmation,
    confirm: Rows,
    random_sets: pd.DataFrame,
    *,
    untrained: bool,
    texts: Sequence[str] | None,
    curves: pd.DataFrame,
) -> pd.DataFrame:
    """One row a control; see `HeadMap.controls`."""
    rows: list[Row] = [*_areas(curves), *_overlaps(heads)]
    if found.heads:
        rows += [*_against_random_sets(random_sets), *_by_preposition(sweeper, question, found, confirm)]
        if question.functional.over == "slope":
            rows += _with_other_verbs(sweeper, question, found, confirm)
        rows += damage(sweeper, found.heads, texts, question.seed)
    if untrained:
        rows += _untrained(sweeper, question, confirm)
    return pd.DataFrame(rows, columns=["control", "quantity", "estimate", "low", "high", "what"])


def _areas(curves: pd.DataFrame) -> Iterator[Row]:
    """How faithful are the strongest heads alone, over all shares of heads that are kept? arXiv 2504.13151."""
    keep = curves[(curves["kind"] == "keep") & (curves["k"] > 0)]
    share, f = keep["share_of_heads"].to_numpy(), keep["faithfulness"].to_numpy()
    if keep.empty or not np.isfinite(f).all():
        return
    whole = 1 - share[0]
    words = f"area under the faithfulness of the kept heads over their share; {whole:.3f} where it is 1 throughout"
    yield "circuit performance ratio", "CPR", circuit_performance_ratio(share, f).estimate, _NAN, _NAN, words
    words = "area between that faithfulness and 1; 0 where it is 1 throughout"
    yield "circuit-model distance", "CMD", circuit_model_distance(share, f).estimate, _NAN, _NAN, words


def _overlaps(heads: pd.DataFrame) -> Iterator[Row]:
    """Are heads with a large effect those that do induction, or look at the previous token?"""
    for kind in ("induction", "duplicate_token", "previous_token"):
        size, score = heads["effect"].abs().to_numpy(), heads[kind].to_numpy()
        if np.ptp(size) > 0 and np.ptp(score) > 0:
            found = scipy.stats.spearmanr(size, score)
            words = f"rank correlation over heads of |effect| and {kind.replace('_', ' ')} score (p {found.pvalue:.3f})"
            yield f"overlap with {kind}", "Spearman's rho", float(found.statistic), _NAN, _NAN, words


def _against_random_sets(random_sets: pd.DataFrame) -> Iterator[Row]:
    if random_sets.empty:
        return
    own = abs(random_sets.loc[random_sets["matched"] == "confirmed", "effect"].iloc[0])
    for (kind, exact), part in random_sets[random_sets["matched"] != "confirmed"].groupby(["matched", "exact"]):
        p = (1 + (part["effect"].abs() >= own * (1 - 1e-9)).sum()) / (1 + len(part))
        how = "patched together" if exact else "single effects summed"
        low, high = np.quantile(part["effect"], [0.025, 0.975])
        words = f"effect of {len(part)} random sets matched by {kind}, {how}: mean and middle 95%; p = {p:.4f}"
        yield (
            f"random sets ({kind}, {'exact' if exact else 'summed'})",
            "effect",
            part["effect"].mean(),
            low,
            high,
            words,
        )


def _by_preposition(sweeper: Sweeper, question: Question, found: Confirmation, confirm: Rows) -> Iterator[Row]:
    """Do the heads carry the form, or the preposition that prime and target share?"""
    pairs = sweeper.corpus.pairs
    if "shared_preposition" not in pairs:
        return
    shared = pairs["shared_preposition"].to_numpy()[confirm.numbers].astype(bool)
    change = found.change[found.confirmed].sum(0, keepdims=True)
    for yes, words in ((True, "the same preposition"), (False, "different prepositions")):
        chosen = shared == yes
        part = Rows(confirm.numbers[chosen], confirm.prime_verb[chosen], confirm.target[chosen])
        if len(np.unique(part.prime_verb)) < 3 or len(np.unique(part.target)) < 2:
            continue
        interval = question.intervals(change[:, chosen], part)
        yield (
            f"pairs with {words}", "effect", float(interval.estimate[0]), float(interval.low[0]),
            float(interval.high[0]), f"sum of the confirmed heads' effects on {chosen.sum()} pairs with {words}",
        )  # fmt: skip


def _with_other_verbs(sweeper: Sweeper, question: Question, found: Confirmation, confirm: Rows) -> Iterator[Row]:
    """Interchange of the prime's verb: does the outcome move as the donor verb's bias says?"""
    swap = replace(sweeper, ablation="resample")
    donors = swap.donor_rows(confirm)
    verbs = sweeper.corpus.to_frame()["prime_verb"].to_numpy()
    shift = question.bias.reindex(verbs[donors]).to_numpy() - question.bias.reindex(confirm.prime_verb).to_numpy()
    sets = [[head] for head in found.heads] + [found.heads]
    effects = swap.effects(confirm, confirm, sets, list(question.functional.contexts))
    change = question.change(effects)
    groups = [np.flatnonzero(confirm.prime_verb == verb) for verb in np.unique(confirm.prime_verb)]
    names = [*map(head_name, found.heads), "all confirmed heads"]
    for name, values in zip(names, change, strict=True):
        interval = _slope_by_verb(shift, values, groups, question)
        yield (
            f"verb interchange, {name}", "slope", *interval,
            "change of the outcome per unit of the donor verb's bias over the prime's, all else equal",
        )  # fmt: skip


def _slope_by_verb(
    x: Float[np.ndarray, " item"], y: Float[np.ndarray, " item"], groups: list[np.ndarray], question: Question
) -> tuple[float, float, float]:
    def of(chosen: np.ndarray) -> np.ndarray:
        flat = chosen.reshape(-1, chosen.shape[-1])
        picked = [np.concatenate([groups[g] for g in row]) for row in flat]
        return np.array([slopes(x[i], y[i]) for i in picked]).reshape(chosen.shape[:-1])

    found = cluster_bootstrap(
        of, len(groups), n_boot=question.n_boot, level=question.level, method="percentile", seed=question.seed
    )
    return found.estimate, found.low, found.high


def _untrained(sweeper: Sweeper, question: Question, rows: Rows) -> Iterator[Row]:
    """The effect itself in a model with shuffled weights: there should be none to localise."""
    copied = wrap(shuffled_weights(sweeper.wrapped.model, seed=question.seed))
    found = {
        context: patch_heads(
            copied, sweeper.items(rows, context), roles=sweeper.roles, replacement=Zero(), sets=[[]], metric=log_odds,
            memory_budget=sweeper.memory_budget, progress=False,
        ).clean
        for context in question.functional.contexts
    }  # fmt: skip
    interval = question.intervals(question.outcome(found)[None], rows)
    yield (
        "shuffled weights", question.functional.name, float(interval.estimate[0]), float(interval.low[0]),
        float(interval.high[0]), "the effect in a copy of the model with the entries of all weight matrices shuffled",
    )  # fmt: skip
