"""The model's answers rebuilt from demonstrations alone: labels weighed by attention, by a kernel, or by nothing.

    yhat = sum_i e(y_i) a_i / sum_i a_i

for the attention a_i of one head, of all heads together, for a kernel between texts, and for rivals that look at no
text (the most frequent label, the last one). Agreement is how often yhat's label is the model's answer, and accuracy
how often it is the true one; ties count in shares. The head, how tokens of a demonstration are taken together, and
every kernel's scale are chosen by agreement on one part of the prompts and judged on the other.

Agreement alone says little. A model that favours the last labels agrees with any head that looks at them: every way is
therefore set against a rule that weighs labels by their place alone. And a late head can look at demonstrations with
the label that the model is about to give. Source of the measure: Han et al., arXiv 2305.12766, section 4, who take the
maximum over tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from mechicl.hooks.demos.readings import DemoReadings
from mechicl.predictors.votes import agreement, label_votes, majority_votes, recency_votes, shares_of_best
from mechicl.stats import cluster_mean_interval

SCALES = np.geomspace(0.1, 100, 25)  # of a kernel's logarithm, in units of its spread within prompts
DECAYS = (0.0, 0.25, 0.5, 0.7, 0.8, 0.9, 1.0)  # of the weight of a demonstration with its distance from the query
RIVAL = "recency"  # what every other way is set against: it looks at no text


@dataclass(frozen=True)
class Answers:
    """What votes are held against. demo_labels: numbers of the labels shown. predicted: the model's answers. log_probs:
    of each label. true: the right answers. queries: rows of the task's frame, the unit of resampling."""

    demo_labels: Int[np.ndarray, "item demo"]
    predicted: Int[np.ndarray, " item"]
    log_probs: Float[np.ndarray, "item label"]
    true: Int[np.ndarray, " item"]
    queries: Int[np.ndarray, " item"]

    @property
    def n_labels(self) -> int:
        """Labels that may be answered."""
        return self.log_probs.shape[1]

    def taken(self, items: Bool[np.ndarray, " item"]) -> Answers:
        """Some of the prompts."""
        parts = (self.demo_labels, self.predicted, self.log_probs, self.true, self.queries)
        return Answers(*(part[items] for part in parts))

    def votes(self, weights: Float[np.ndarray, "item *head demo"]) -> Float[np.ndarray, "item *head label"]:
        """Of the demonstrations, with these weights."""
        return label_votes(weights, self.demo_labels, self.n_labels)


def head_agreement(
    readings: DemoReadings, answers: Answers
) -> tuple[dict[str, Float[np.ndarray, "layer head"]], dict[str, Float[np.ndarray, "layer head"]]]:
    """Agreement with the model and accuracy of every head, over all prompts, by how tokens are taken together."""
    with_model, with_truth = {}, {}
    for how, attention in readings.attention.items():
        votes = answers.votes(attention)
        with_model[how] = agreement(votes, answers.predicted).mean(0)
        with_truth[how] = agreement(votes, answers.true).mean(0)
    return with_model, with_truth


def rebuilt_predictions(
    readings: DemoReadings,
    answers: Answers,
    selection: Bool[np.ndarray, " item"],
    log_kernels: Mapping[str, Float[np.ndarray, "item demo"]],
    *,
    n_boot: int = 2_000,
    n_permutations: int = 1_000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """One row a way to rebuild the answers, judged on the prompts that are not for selection.

    log_kernels: name -> logarithm of a kernel between query and demonstrations, whose scale is chosen.

    Columns: name, chosen (what was chosen on the other prompts), agreement with low, high; chance, the agreement that
    is expected from how often both give each label; p, of permuting answers over prompts (one-sided); gain with
    gain_low, gain_high: agreement minus that of "recency", paired over prompts; accuracy with its interval; r, the
    correlation of votes with the model's log-probabilities, both centred within prompts and labels.
    """
    chosen = dict(_chosen(readings, answers, selection, log_kernels))
    rows = []
    test = answers.taken(~selection)
    rival = agreement(chosen[RIVAL][1][~selection], test.predicted)
    for name, (what, votes) in chosen.items():
        votes = votes[~selection]
        right, true = agreement(votes, test.predicted), agreement(votes, test.true)
        boot: dict[str, Any] = {"n_boot": n_boot, "level": level, "method": "percentile", "seed": seed}
        own, gain, accuracy = (cluster_mean_interval(x, test.queries, **boot) for x in (right, right - rival, true))
        best = shares_of_best(votes)
        rng = np.random.default_rng(seed)  # the same permutations for every way: what is the same has the same p
        drawn = [agreement(votes, rng.permutation(test.predicted)).mean() for _ in range(n_permutations)]
        rows.append({
            "name": name, "chosen": what,
            "agreement": own.estimate, "low": own.low, "high": own.high,
            "chance": float(best.mean(0) @ np.bincount(test.predicted, minlength=test.n_labels) / len(test.true)),
            "p": (1 + sum(one >= right.mean() - 1e-12 for one in drawn)) / (1 + n_permutations),
            "gain": gain.estimate, "gain_low": gain.low, "gain_high": gain.high,
            "accuracy": accuracy.estimate, "accuracy_low": accuracy.low, "accuracy_high": accuracy.high,
            "r": _vote_correlation(votes, test.log_probs),
        })  # fmt: skip
    return pd.DataFrame(rows)


def fitted_scale(
    log_kernel: Float[np.ndarray, "item demo"], answers: Answers, items: Bool[np.ndarray, " item"]
) -> tuple[float, float]:
    """The scale of a kernel's logarithm with which its votes for the model's answers are largest, and their mean log.

    Of `SCALES` over the standard deviation within prompts: small ones make all demonstrations alike, large ones leave
    the nearest.
    """
    chosen = log_kernel[items]
    chosen = chosen[np.isfinite(chosen).all(-1)]  # a kernel of 0 has no logarithm; its prompts do not set the scale
    spread = float((chosen - chosen.mean(-1, keepdims=True)).std()) if len(chosen) else 0.0
    if not np.isfinite(spread) or spread == 0:
        return 0.0, -np.inf
    own = answers.taken(items)
    best = (0.0, -np.inf)
    for scale in SCALES / spread:
        votes = own.votes(kernel_weights(log_kernel[items], scale))
        # Weight that all lies on other labels would cost infinitely much: a hundredth is left to chance.
        likely = 0.99 * np.nan_to_num(votes, nan=0.0) + 0.01 / own.n_labels
        value = float(np.log(likely[np.arange(len(likely)), own.predicted]).mean())
        best = max(best, (float(scale), value), key=lambda pair: pair[1])
    return best


def kernel_weights(log_kernel: Float[np.ndarray, "*item demo"], scale: float) -> Float[np.ndarray, "*item demo"]:
    """exp(scale log k), largest 1; a kernel of 0 stays 0, and at scale 0 all are alike."""
    if scale == 0:
        return np.ones_like(log_kernel)
    largest = log_kernel.max(-1, keepdims=True)
    return np.exp(scale * (log_kernel - np.where(np.isfinite(largest), largest, 0.0)))


def _chosen(
    readings: DemoReadings,
    answers: Answers,
    selection: Bool[np.ndarray, " item"],
    log_kernels: Mapping[str, Float[np.ndarray, "item demo"]],
) -> list[tuple[str, tuple[str, np.ndarray]]]:
    """Name, what was chosen, and the votes on all prompts."""
    picked = answers.taken(selection)
    found: list[tuple[str, tuple[str, np.ndarray]]] = []
    best: tuple[float, str, np.ndarray] = (-1.0, "", np.zeros(0))
    for how, attention in readings.attention.items():
        agreed = agreement(picked.votes(attention[selection]), picked.predicted).mean(0)
        layer, head = np.unravel_index(np.nanargmax(agreed), agreed.shape)
        own = (f"L{layer}H{head} {how}", answers.votes(attention[:, layer, head]))
        found.append((f"best head, {how}", own))
        best = max(best, (float(agreed.max()), *own), key=lambda one: one[0])
    found.insert(0, ("best head", best[1:]))
    found.append(("all heads", ("mean over heads, sum", answers.votes(readings.attention["sum"].mean((1, 2))))))
    for name, log_kernel in log_kernels.items():
        scale, _ = fitted_scale(log_kernel, answers, selection)
        found.append((name, (f"scale {scale:.3g}", answers.votes(kernel_weights(log_kernel, scale)))))
    if log_kernels:
        found.append(("nearest", nearest_votes(log_kernels, answers, selection)))
    found.append(("majority", ("", majority_votes(answers.demo_labels, answers.n_labels))))
    found.append(("last label", ("", recency_votes(answers.demo_labels, answers.n_labels))))
    rules = [recency_votes(answers.demo_labels, answers.n_labels, decay=decay) for decay in DECAYS]
    served = [agreement(votes[selection], picked.predicted).mean() for votes in rules]
    found.append((RIVAL, (f"decay {DECAYS[int(np.argmax(served))]:g}", rules[int(np.argmax(served))])))
    return found


def nearest_votes(
    log_kernels: Mapping[str, Float[np.ndarray, "item demo"]], answers: Answers, selection: Bool[np.ndarray, " item"]
) -> tuple[str, Float[np.ndarray, "item label"]]:
    """The label of the demonstration that is most like the query, in the kernel that agrees best on the selection."""
    best: tuple[float, str, np.ndarray] = (-1.0, "", np.zeros((0, 0)))
    for name, log_kernel in log_kernels.items():
        votes = answers.votes((log_kernel >= log_kernel.max(-1, keepdims=True)).astype(np.float64))
        agreed = float(agreement(votes[selection], answers.predicted[selection]).mean())
        best = max(best, (agreed, f"by {name}", votes), key=lambda one: one[0])
    return best[1:]


def _vote_correlation(votes: Float[np.ndarray, "item label"], log_probs: Float[np.ndarray, "item label"]) -> float:
    """What labels gain beyond their own mean: a model's liking for one label is no agreement with votes."""
    both = []
    for values in (np.nan_to_num(votes, nan=1 / votes.shape[1]), log_probs):
        within = values - values.mean(1, keepdims=True)
        both.append((within - within.mean(0)).ravel())
    size = np.linalg.norm(both[0]) * np.linalg.norm(both[1])
    return float(both[0] @ both[1] / size) if size > 0 else float("nan")
