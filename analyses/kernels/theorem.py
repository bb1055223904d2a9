"""Does kernel regression learn in context what Bayes does? Errors over the number of demonstrations, on HMMs.

For prompts of a mixture of HMMs (`mechicl.tasks.hmm`) the estimator of the theorem (`mechicl.predictors.hmm_kernels`)
predicts the label of the query, in three forms:

    ratio           features T_x / P_pre(x), weights divided by their sum: consistent
    literal_ratio   features T_x as the theorem is written, weights divided by their sum
    literal_mean    the same features, weights divided by n: keeps a bias of scale

beside the exact Bayesian posterior (`bayes`), the frequencies of labels alone (`label_frequency`), and a control that
must learn nothing beyond these: `permuted`, the ratio with inputs in random order against their labels. Measures:

    error         max_y |prediction(y) - P_theta(y | x_test)|, theta the prompt's own task. 0 is perfect; at most 1 for
                  probabilities, but weights of both signs can take a prediction, and the error, anywhere
    bayes_error   the same distance to the Bayesian posterior: what the theorem bounds by eta^2 eps_theta + O(n^-1/2)
    accuracy      share of prompts whose label of the highest prediction is the most likely one under the own task;
                  chance is 1 / m, and `permuted` says what labels alone give
    gain          error of `label_frequency` minus error; above 0 where inputs help. 0 or less for `permuted`

Source: 2305.12766, theorem 1 and its table on synthetic tasks, whose distance is not the one defined here.

Caveats:
- It is about an estimator on data of a known kind: that a transformer computes it is another question, for
  `mechicl.analyses.kernel_regression`.
- Kernel and posterior are computed from the true mixture; only the demonstrations are samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechicl.analyses.updates.dual_intervals import ratio_intervals
from mechicl.predictors.hmm_bayes import label_probs, posterior_prediction, true_prediction
from mechicl.predictors.hmm_kernels import signed_average, theorem_kernel
from mechicl.provenance import Provenance
from mechicl.resampling import check_level
from mechicl.results import Result
from mechicl.tasks.hmm import HMMMixture
from mechicl.tasks.hmm_prompts import HMMPrompts, sample_prompts

FORMS = {"ratio": ("ratio", True), "literal_ratio": ("literal", True), "literal_mean": ("literal", False)}
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128)
MEASURES = ("error", "bayes_error", "accuracy", "gain")


@dataclass(frozen=True)
class KernelTheorem(Result):
    """Errors of the kernel's forms, of Bayes and of controls.

    frame: one row a predictor and n (demonstrations): error, bayes_error, accuracy and gain, means over prompts, each
        with its interval `..._low`, `..._high`; median_error, which the rare prompts whose weights sum to almost 0
        do not move; chance, of the accuracy.
    rank: the directions of Sigma that were kept, for each kind of features.
    """

    frame: pd.DataFrame
    rank: dict[str, int]
    n_prompts: int
    length: int
    level: float
    provenance: Provenance

    def to_frame(self) -> pd.DataFrame:
        """The table."""
        return self.frame.copy()

    def table(self, measure: str = "error") -> pd.DataFrame:
        """One measure, predictors over n, as papers print it."""
        if measure not in (*MEASURES, "median_error"):
            raise ValueError(f"got measure={measure!r}; expected one of {(*MEASURES, 'median_error')}")
        wide = self.frame.set_index(["predictor", "n"])[measure].unstack()  # noqa: PD010
        return wide.reindex(list(dict.fromkeys(self.frame["predictor"])))

    def plot(self, ax: Any = None, measure: str = "error") -> Any:
        """Curves over n with their intervals; see `mechicl.views.theorem`. Returns matplotlib Axes."""
        from mechicl.views.theorem import plot_theorem

        return plot_theorem(self.frame, measure=measure, ax=ax)


def kernel_theorem_errors(
    mixture: HMMMixture,
    *,
    length: int = 3,
    counts: Sequence[int] = COUNTS,
    n_prompts: int = 100,
    forms: Sequence[str] = tuple(FORMS),
    rows: str = "all",
    n_inputs: int | None = None,
    tolerance: float = 1e-10,
    n_boot: int = 2_000,
    level: float = 0.95,
    seed: int = 0,
) -> KernelTheorem:
    """Measure the theorem's estimator on fresh prompts of a mixture; see the module for what is measured.

    length: observations of an x. counts: numbers of demonstrations; the first n of each prompt are used. rows,
    n_inputs, tolerance: of the kernel, see `theorem_kernel`. seed: of prompts, drawn inputs, the control's order and
    the bootstrap over prompts (percentile intervals). The mixture has a seed of its own.

        mixture = random_mixture(4, 4, 20, seed=0)
        kernel_theorem_errors(mixture, counts=[64, 512, 4096]).table()

    Raises ValueError for unknown forms, counts below 1, fewer than 2 prompts, and as `theorem_kernel` does.
    """
    check_level(level)
    chosen = sorted(set(counts))
    if not chosen or chosen[0] < 1:
        raise ValueError(f"got counts={list(counts)}; expected numbers of demonstrations, 1 or more")
    if not forms or not set(forms) <= set(FORMS):
        raise ValueError(f"got forms={list(forms)}; expected some of {list(FORMS)}")
    if n_prompts < 2:
        raise ValueError(f"got n_prompts={n_prompts}; expected at least 2: the spread between prompts is unknown")
    kinds = [kind for kind in ("ratio", "literal") if kind == "ratio" or any(FORMS[f][0] == kind for f in forms)]
    options = {"rows": rows, "n_inputs": n_inputs, "tolerance": tolerance, "seed": seed}
    kernels = {kind: theorem_kernel(mixture, length, features=kind, **options) for kind in kinds}  # type: ignore
    prompts = sample_prompts(mixture, n_prompts, chosen[-1], length, seed=seed)
    shuffled = prompts.permuted(seed=seed)
    weights = {kind: kernel(prompts.query, prompts.x) for kind, kernel in kernels.items()}
    controls = kernels["ratio"](shuffled.query, shuffled.x)
    true = true_prediction(mixture, prompts)
    labels = label_probs(mixture, length)[prompts.task]
    rows_of_table = []
    posteriors = posterior_prediction(mixture, prompts, chosen)
    for n, bayes in zip(chosen, posteriors, strict=True):
        for name, found in _predictions(prompts, weights, controls, forms, n):
            rows_of_table.append((name, n, _measures(found, true, bayes, labels)))
        rows_of_table.append(("bayes", n, _measures(bayes, true, bayes, labels)))
        rows_of_table.append(("label_frequency", n, _measures(labels, true, bayes, labels)))
    return KernelTheorem(
        frame=_frame(rows_of_table, mixture.n_observations, n_boot, level, seed),
        rank={kind: kernel.rank for kind, kernel in kernels.items()},
        n_prompts=n_prompts,
        length=length,
        level=level,
        provenance=Provenance.of(
            seeds={"prompts, inputs, control and bootstrap": seed},
            options={
                "tasks": mixture.n_tasks,
                "states": mixture.n_states,
                "observations": mixture.n_observations,
                "switch": mixture.switch,
                "mixture_sha256": mixture.checksum(),
                "rows": rows,
                "n_inputs": kernels["ratio"].n_inputs,
                "tolerance": tolerance,
                "n_boot": n_boot,
            },
        ),
    )


def _predictions(
    prompts: HMMPrompts,
    weights: dict[str, np.ndarray],
    controls: Float[np.ndarray, "batch demo"],
    forms: Sequence[str],
    n: int,
) -> Iterator[tuple[str, np.ndarray]]:
    """The forms in their order, then the control; from the first n demonstrations."""
    y, m = prompts.y[:, :n], prompts.delimiter
    for name, (kind, normalise) in FORMS.items():
        if name in forms:
            yield name, signed_average(weights[kind][:, :n], y, m, normalise=normalise)
    yield "permuted", signed_average(controls[:, :n], y, m)


def _measures(
    found: Float[np.ndarray, "batch vocab"],
    true: Float[np.ndarray, "batch vocab"],
    bayes: Float[np.ndarray, "batch vocab"],
    labels: Float[np.ndarray, "batch vocab"],
) -> Float[np.ndarray, "batch measure"]:
    """The measures of every prompt, in the order of MEASURES."""
    error = np.abs(found - true).max(-1)
    hit = (found.argmax(-1) == true.argmax(-1)).astype(float)
    return np.stack([error, np.abs(found - bayes).max(-1), hit, np.abs(labels - true).max(-1) - error], axis=-1)


def _frame(
    rows: list[tuple[str, int, np.ndarray]], n_observations: int, n_boot: int, level: float, seed: int
) -> pd.DataFrame:
    values = np.concatenate([own for _, _, own in rows], axis=1)
    ends = ratio_intervals(values, np.ones_like(values), np.arange(len(values)), n_boot=n_boot, level=level, seed=seed)
    mean, low, high = (part.reshape(len(rows), len(MEASURES)) for part in ends)
    table = pd.DataFrame({"predictor": [name for name, _, _ in rows], "n": [n for _, n, _ in rows]})
    for at, measure in enumerate(MEASURES):
        table[measure], table[f"{measure}_low"], table[f"{measure}_high"] = mean[:, at], low[:, at], high[:, at]
    table["median_error"] = [float(np.median(own[:, 0])) for _, _, own in rows]
    table["chance"] = 1 / n_observations
    return table
