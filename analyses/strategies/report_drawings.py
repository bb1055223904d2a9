"""The pictures of the Bayesian account's report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from mechicl.analyses.pages.section import Drawing
from mechicl.analyses.strategies.words_shared import unit_of
from mechicl.analyses.strategies.words_transience import turning_points
from mechicl.strategies.vector_field import strategy_field

HALF = (5.4, 4.2)
WIDE = (7.2, 4.2)


def strategy_drawings(found: Any, slug: str) -> list[Drawing]:
    """All of them, in the page's order; they are drawn when the page is written."""
    from mechicl.views import strategies as views

    fit = found.fit

    def drawing(name: str, caption: str, size: tuple[float, float], draw: Callable[..., Axes], **own: Any) -> Drawing:
        return Drawing(f"{slug}_{name}", caption, size, lambda ax: draw(ax=ax, **own), half=size == HALF)

    return [
        drawing(
            "phase",
            "Where transformers stand between generalising (0) and memorising (1) over training and task diversity, "
            "and where the model of training puts them. It was fitted to what lies within the thick line; everything "
            "else is prediction. On the dashed line both strategies weigh alike. Hatched: before the two-hypothesis "
            "threshold.",
            (9.6, 4.0),
            lambda ax: views.plot_strategy_fit(fit, ax=ax),
        ),
        drawing(
            "transience",
            "The same over training, for some diversities: transformers (marks: means over seeds, bands: their range; "
            "pale: before the threshold) and the model (lines; dashed where it was not fitted).",
            WIDE,
            lambda ax: views.plot_transience(fit, ax=ax),
        ),
        drawing(
            "threshold",
            "The last checkpoint over task diversity: with more tasks, models generalise. Bars: range over seeds.",
            HALF,
            lambda ax: views.plot_diversity_threshold(fit, ax=ax),
        ),
        drawing(
            "residual",
            "How far transformers are from every mixture of both strategies. Where it is dark, d_rel means nothing.",
            HALF,
            lambda ax: views.plot_residual_map(fit, ax=ax),
        ),
        drawing(
            "odds",
            "What the posterior odds are made of: a prior against the longer description, evidence that grows with "
            "training. Marks: odds of the mixture nearest to the transformers. The axis ends where a strategy has all "
            "of the weight.",
            WIDE,
            lambda ax: views.plot_posterior_odds(fit, ax=ax),
        ),
        drawing(
            "scaled",
            "d_rel over training time to the fitted power, along which the model's log odds are straight lines.",
            HALF,
            lambda ax: views.plot_collapse(fit, ax=ax),
        ),
        drawing(
            "collapse",
            "d_rel over the model's log odds: where the model is right, all diversities fall together.",
            HALF,
            lambda ax: views.plot_collapse(fit, against="odds", ax=ax),
        ),
        drawing(
            "transitions",
            "When transformers turn from generalising to memorising, N*(D). Steeper than the dotted line is faster "
            "than in proportion to D.",
            HALF,
            lambda ax: views.plot_transitions(found.transitions, ax=ax),
        ),
        drawing(
            "field",
            "Where training and diversity push the model: arrows point to where the odds of memorising grow.",
            HALF,
            lambda ax: views.plot_vector_field(strategy_field(fit.terms, fit.estimate), ax=ax),
        ),
        drawing(
            "ablations",
            "What is lost without parts of the model of training: distance to the transformers' predictions where "
            "nothing was fitted. The correlation of d_rel stands on the right.",
            (6.6, 4.0),
            lambda ax: views.plot_ablations(found.ablations, baselines=fit.baselines, ax=ax),
        ),
        *(
            drawing(
                f"training_{diversity:g}",
                f"Loss over training at D = {diversity:g}, on the tasks trained on and on fresh ones, beside that of "
                "both strategies; bands: range over seeds. Levels above the curves are left out.",
                HALF,
                lambda ax, diversity: views.plot_training(
                    found.losses, found.predictor_losses, diversity=diversity, unit=unit_of(fit), ax=ax
                ),
                diversity=diversity,
            )
            for diversity in telling_diversities(found)
        ),
    ]


def telling_diversities(found: Any) -> list[float]:
    """The smallest and the largest diversity, and between them the two whose d_rel rises most; four at most."""
    known = found.fit.terms.diversities
    by_diversity = turning_points(found.fit, found.transience).groupby("diversity")
    rises = by_diversity["rise"].mean().reindex(known).fillna(-1.0).to_numpy(float)
    inner = [at for at in np.argsort(-rises, kind="stable") if 0 < at < len(known) - 1]
    chosen = {0, len(known) - 1, *inner[:2]}
    return [float(known[at]) for at in sorted(chosen)]
