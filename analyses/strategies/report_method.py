"""What a report says of how the Bayesian account was measured, and of what it does not show."""

from __future__ import annotations

from typing import Any

from mechicl.analyses.strategies.words_shared import unit_of
from mechicl.wording import MINUS, percent

TASKS = {
    "balls_and_urns": "A sequence is drawn from one urn with balls of several colours; the next ball is to be told.",
    "markov_chains": "A sequence is drawn from one Markov chain; the next state is to be told.",
    "linear_regression": "A sequence holds points x and noisy values of one linear function; each value is to be told.",
    "classification": "A sequence holds noisy items with labels; the label of a last one, seen before, is to be told.",
}
GENERALISING = {
    "balls_and_urns": "counts balls, with a uniform prior over all urns",
    "markov_chains": "counts transitions, with a uniform prior over all chains",
    "linear_regression": "is ridge regression, the posterior mean over all functions",
    "classification": "compares the last item with those of the context, and looks up no label of its own",
}
CAVEATS = [
    (
        "A description, not a mechanism",
        "Odds of two strategies describe what a transformer predicts. That something in it computes either strategy, "
        "or weighs them, is another claim, which takes interventions to test.",
    ),
    (
        "Two strategies were given",
        "Where transformers are near neither, d_rel means nothing; and early in training they are near neither, which "
        "is why checkpoints before the threshold are left out. An untrained model may look like memorising.",
    ),
    (
        "Correlations flatter",
        "d_rel is near 0 or 1 over large parts of the grid, and any model that has the border in the right place "
        "correlates. The distance to the predictions, beside one weight for all cells and the best weights, is the "
        "stricter measure.",
    ),
    (
        "Description lengths depend on the code",
        "K is the size of a compressed pool and of a predictor's source. Other codes have other lengths; beta takes up "
        "much of the difference, so its value is not to be compared between codes.",
    ),
    (
        "Later steps, larger diversities",
        "What was not fitted lies beyond what was, on two sides. It is extrapolation within one run of one "
        "architecture, with one rate of learning; other ones have other numbers.",
    ),
    (
        "Few seeds",
        "Intervals redraw seeds and sequences. With three seeds they are too narrow; with one they say nothing about "
        "other runs of training.",
    ),
]


def method(found: Any) -> list[tuple[str, str]]:
    """Title and text of each paragraph."""
    fit, options = found.fit, found.provenance.options
    held = (~fit.fitted & fit.kept[:, None]).sum() / max(fit.kept.sum() * fit.fitted.shape[1], 1)
    what = "half the symmetrised Kullback-Leibler divergence" if fit.distance == "kl" else "the mean squared distance"
    sequences = options.get("n_sequences")
    return [
        (
            "Models",
            f"{TASKS.get(found.setting, '')} D tasks were drawn once and for all; one transformer was trained for each "
            "D and seed, and its weights were kept at checkpoints spread evenly over the root of the step. Every "
            f"checkpoint then predicted {f'{sequences} ' if sequences else ''}sequences of its own tasks that training "
            "had not drawn.".strip(),
        ),
        (
            "Strategies",
            "Memorising (M) knows the D tasks and mixes them by how likely each makes the sequence. Generalising (G) "
            f"knows only the family of tasks: it {GENERALISING.get(found.setting, 'weighs all tasks of the family')}. "
            f"Relative distance d_rel = (clip[(d(h, G) {MINUS} d(h, M)) / d(M, G), {MINUS}1, 1] + 1) / 2 says where "
            f"predictions h stand: 1 is M, 0 is G; d is {what}, averaged over sequences and positions.",
        ),
        (
            "Model of training",
            f"A transformer is predicted to say w M + (1 {MINUS} w) G, with log odds of w at step N and diversity D: "
            f"gamma N^(1 {MINUS} alpha) (L_G {MINUS} L_M) {MINUS} ln 2 (K_M^beta {MINUS} K_G^beta). L: loss on the "
            "tasks trained on, "
            f"{unit_of(fit)}; K: bits of the description. The three numbers minimise the mean divergence of the "
            "transformers' predictions from it.",
        ),
        (
            "What was not fitted",
            f"The last checkpoints and the largest diversities were kept from the fit: {percent(float(held))} of all "
            "cells past the threshold. The threshold is the checkpoint from which on the best mixture is near the "
            "transformers at every diversity, by the two-hypothesis rule.",
        ),
        (
            "Intervals and controls",
            f"{percent(fit.level)} intervals refit the model to seeds and sequences drawn with replacement. As a "
            "control, cells change places and the model is fitted again.",
        ),
        (
            "Transition times",
            "Observed: the step at which d_rel, averaged over seeds, last rises through .5. Predicted: the step at "
            "which the log odds are 0. Exponents are slopes of log N* on log D.",
        ),
    ]
