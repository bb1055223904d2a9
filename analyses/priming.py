"""Structural priming: does a prime's form make the same form of the target more likely?

For an item (a prime and a target of two forms each, say PD and DO) and a context s,

    L_s = log P(target in PD | s) - log P(target in DO | s)        nats; above 0: PD is preferred
    y_s = sigmoid(L_s)                                             probability of PD among the two forms

with s the prime in PD, the prime in DO, a neutral prime (the prime's verb in neither form) or no prime. The priming
effect is L_PD - L_DO (or y_PD - y_DO): above 0 where primes are followed, 0 by chance. Against the neutral prime it
splits into what a PD prime adds and what a DO prime takes away. Scores follow Zhou, Frank & McCoy (arXiv 2406.18501):
BOS, the prime, a space, the target, log-probabilities summed with no length normalisation. Only the tokens after the
common beginning of both target forms are scored; what stands before them cancels exactly.

Caveats:
- Repeating a word can pass for repeating a form. Where prime and target share their preposition, leave such pairs out:
  `corpus.where("not shared_preposition")`.
- Verbs are the sample, not pairs. With a dozen of them intervals are wide, and say nothing of verbs unlike these.
- L and y are of two written forms, token by token: what else a model would say is not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
from jaxtyping import Float
from scipy.special import expit

from mechicl.adjustment import adjusted_means
from mechicl.analyses.priming_texts import PrimingTexts
from mechicl.hooks.scoring import score
from mechicl.hooks.wrapper import wrap
from mechicl.provenance import Provenance
from mechicl.results import Result
from mechicl.stats import cluster_mean_interval, cluster_mean_p, holm
from mechicl.tasks.corpus import PrimingCorpus


@dataclass(frozen=True)
class PrimingResult(Result):
    """What a model made of a priming corpus, from single items to the mean.

    items: one row a prime-target pair: prime, target, prime_verb, target_verb, L_<form> for both forms, L_neutral (NaN
        where there is no neutral prime), L_unprimed, then the factors that the corpus recorded.
    sentences: one row a sentence of the corpus: sentence, verb, L_unprimed.
    bias: one row a verb: bias = mean sigmoid(L_unprimed) over its sentences, in 0 to 1 (.5: no preference), and
        bias_logit = mean L_unprimed in nats, each with a t interval over sentences (_low, _high).
    effects: one row a contrast ("PD vs DO", "PD vs neutral", ...) and scale ("nats", "probability"): the mean over
        items with a bootstrap interval that resamples prime verbs, p by flipping signs of whole verbs, and p_holm
        corrected over the contrasts of a scale.
    verb_effects: the same means for each prime verb, with intervals that resample targets.
    """

    forms: tuple[str, str]
    corpus: str
    level: float
    items: pd.DataFrame
    sentences: pd.DataFrame
    bias: pd.DataFrame
    effects: pd.DataFrame
    verb_effects: pd.DataFrame
    provenance: Provenance

    def to_frame(self) -> pd.DataFrame:
        """The items."""
        return self.items.copy()

    def verb_table(self) -> pd.DataFrame:
        """One row a prime verb: bias, bias_logit, and of every context the means over the verb's items.

        y_<context> and L_<context> are plain means, as in the paper; "unprimed" are the verb's targets without any
        prime, so what the pairing alone brings along. y_<context>_adjusted and L_<context>_adjusted are the means had
        all verbs met the same targets (see `mechicl.adjustment`), NaN where the design cannot tell.
        """
        items = self.items
        columns = {}
        for context in (*self.forms, "neutral", "unprimed"):
            for letter, values in (("y", expit(items[f"L_{context}"])), ("L", items[f"L_{context}"])):
                columns[f"{letter}_{context}"] = values.groupby(items["prime_verb"]).mean()
                if context != "unprimed" and values.notna().all():
                    adjusted = adjusted_means(values.to_numpy(), items["prime_verb"], items["target"])
                    columns[f"{letter}_{context}_adjusted"] = np.nan if adjusted is None else adjusted
        table = pd.DataFrame(columns).assign(n_pairs=items.groupby("prime_verb").size())
        bias = self.bias.set_index("verb")[["bias", "bias_logit"]]
        return bias.join(table, how="inner").rename_axis("verb").reset_index()

    def plot(self, ax: Any = None) -> Any:
        """Priming effect of every prime verb with its interval; returns matplotlib Axes."""
        from mechicl.views import plot_verb_effects

        return plot_verb_effects(self, ax=ax)


def measure_priming(
    model: Any,
    corpus: PrimingCorpus,
    *,
    prepend_bos: bool = True,
    n_boot: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
    store: str | Path | None = None,
    memory_budget: int = 1 << 30,
    progress: bool = True,
) -> PrimingResult:
    """Score every item of a corpus in every context, and estimate priming effects and verb biases.

    `store` is a folder for finished scores: an interrupted run goes on from there (see `score`). `seed` is that of the
    bootstrap; the scores have no randomness.

    Raises `ValueError`, before any forward pass, where fewer than 2 verbs prime (no interval over verbs), and for all
    that `score` refuses: texts longer than the context window, a non-causal model, and so on.
    """
    wrapped = wrap(model)
    check_design(corpus, level)
    texts = PrimingTexts(corpus)
    asked = [text for _, prime, sentence in texts.asked for text in texts.pair(sentence, prime)]
    log_probs = score(
        wrapped,
        [context for context, _ in asked],
        [continuation for _, continuation in asked],
        prepend_bos=prepend_bos,
        memory_budget=memory_budget,
        progress=progress,
        store=store,
    )
    sentences, items = texts.filled(log_probs[0::2] - log_probs[1::2])
    provenance = Provenance.of(
        {**wrapped.facts(), "prepend_bos": prepend_bos},
        seeds={"bootstrap": seed} | ({} if corpus.seed is None else {"corpus": corpus.seed}),
        options={"corpus": corpus.name, "n_pairs": len(corpus), "n_boot": n_boot, "level": level},
    )
    return summarised(corpus, sentences, items, provenance, n_boot=n_boot, level=level, seed=seed)


def summarised(
    corpus: PrimingCorpus,
    sentences: pd.DataFrame,
    items: pd.DataFrame,
    provenance: Provenance,
    *,
    n_boot: int,
    level: float,
    seed: int,
) -> PrimingResult:
    """The result of a corpus whose items have their L, whoever learned from the primes and how."""
    return PrimingResult(
        forms=corpus.forms,
        corpus=corpus.name,
        level=level,
        items=items,
        sentences=sentences,
        bias=_bias(sentences, level),
        effects=_effects(items, corpus.forms, n_boot, level, seed),
        verb_effects=_verb_effects(items, corpus.forms, n_boot, level, seed),
        provenance=provenance,
    )


def check_design(corpus: PrimingCorpus, level: float) -> None:
    """Raises `ValueError` where the corpus has fewer than two prime verbs, or for a level outside 0 to 1."""
    n_verbs = corpus.to_frame()["prime_verb"].nunique()
    if n_verbs < 2:
        raise ValueError(f"the corpus has {n_verbs} prime verb(s); at least 2 are needed for an interval over verbs")
    if not 0 < level < 1:
        raise ValueError(f"got level={level}, expected a number between 0 and 1, such as 0.95")


def _bias(sentences: pd.DataFrame, level: float) -> pd.DataFrame:
    rows = []
    for verb, group in sentences.groupby("verb", sort=True):
        logits = group["L_unprimed"].to_numpy()
        low, high = _t_interval(logits, level)
        shares = expit(logits)
        share_low, share_high = np.clip(_t_interval(shares, level), 0, 1)
        rows.append((verb, shares.mean(), share_low, share_high, logits.mean(), low, high, len(logits)))
    names = ["bias", "bias_low", "bias_high", "bias_logit", "bias_logit_low", "bias_logit_high"]
    return pd.DataFrame(rows, columns=["verb", *names, "n_sentences"])


def _t_interval(values: Float[np.ndarray, " item"], level: float) -> tuple[float, float]:
    if len(values) < 2:
        return float("nan"), float("nan")
    margin = scipy.stats.t.ppf((1 + level) / 2, len(values) - 1) * scipy.stats.sem(values)
    return float(values.mean() - margin), float(values.mean() + margin)


def _contrasts(items: pd.DataFrame, forms: tuple[str, str]) -> Iterator[tuple[str, str, pd.Series]]:
    """Name, scale and values of every contrast that the items allow; NaN where an item lacks a context."""
    first, second = forms
    pairs = [(first, second), (first, "neutral"), ("neutral", second), (first, "unprimed"), ("unprimed", second)]
    for more, less in pairs:
        if items[f"L_{more}"].notna().any() and items[f"L_{less}"].notna().any():
            yield f"{more} vs {less}", "nats", items[f"L_{more}"] - items[f"L_{less}"]
            yield f"{more} vs {less}", "probability", expit(items[f"L_{more}"]) - expit(items[f"L_{less}"])


def _effects(items: pd.DataFrame, forms: tuple[str, str], n_boot: int, level: float, seed: int) -> pd.DataFrame:
    rows = []
    for contrast, scale, values in _contrasts(items, forms):
        known = values.dropna()
        verbs = items.loc[known.index, "prime_verb"]
        found = cluster_mean_interval(known.to_numpy(), verbs, n_boot=n_boot, level=level, seed=seed)
        p = cluster_mean_p(known.to_numpy(), verbs, n_permutations=n_boot, seed=seed)
        rows.append((contrast, scale, found.estimate, found.low, found.high, p, len(known), found.n_clusters))
    frame = pd.DataFrame(rows, columns=["contrast", "scale", "estimate", "low", "high", "p", "n_pairs", "n_verbs"])
    corrected = frame.groupby("scale")["p"].transform(lambda p: holm(p.to_numpy()))
    frame.insert(6, "p_holm", corrected)
    return frame


def _verb_effects(items: pd.DataFrame, forms: tuple[str, str], n_boot: int, level: float, seed: int) -> pd.DataFrame:
    rows = []
    for contrast, scale, values in _contrasts(items, forms):
        for verb, known in values.dropna().groupby(items["prime_verb"], sort=True):
            targets = items.loc[known.index, "target"]
            low = high = float("nan")
            if len(targets.unique()) > 1:
                found = cluster_mean_interval(
                    known.to_numpy(), targets, n_boot=min(n_boot, 2_000), level=level, method="percentile", seed=seed
                )
                low, high = found.low, found.high
            rows.append((verb, contrast, scale, known.mean(), low, high, len(known)))
    return pd.DataFrame(rows, columns=["verb", "contrast", "scale", "estimate", "low", "high", "n_pairs"])
