"""Pictures over training time: transience, the collapse of all diversities, posterior odds, losses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes

from mechicl.views import BLUE, GREY, INK, VERMILION, _axes, _require
from mechicl.views.strategy_axes import D_REL, chosen_columns, colours_of, mean_of_seeds, range_of_seeds, step_axis

TALLEST = 12.0  # log odds at the ends of an axis: a weight of 0 or 1 up to 6e-6
MARKERS = ("o", "^", "s", "D", "v", "P")
AGAINST = {
    "steps": "Training step N",
    "scaled": r"$N^{1 - \alpha}$, training steps to the fitted power",
    "odds": "Log posterior odds of the model of training (nats)",
}


def plot_transience(fit: Any, *, diversities: Iterable[float | int] | None = None, ax: Axes | None = None) -> Axes:
    """Draw d_rel over training, a colour a diversity: transformers as marks, the model of training as a line.

    Marks are means over seeds, bands their range. Lines are solid where the model was fitted and dashed where it was
    not; pale marks lie before the two-hypothesis threshold. A path that falls and then rises is transience.
    ``diversities``: by default six at most, evenly spread.
    """
    terms, columns = fit.terms, chosen_columns(fit.terms.diversities, diversities)
    observed, predicted = mean_of_seeds(fit.d_rel), mean_of_seeds(fit.predicted)
    low, high = range_of_seeds(fit.d_rel)
    with _axes(ax, (6.4, 4.2)) as ax:
        ax.axhline(0.5, color=GREY, linewidth=0.9, zorder=0)
        for at, (column, colour) in enumerate(zip(columns, colours_of(len(columns)), strict=True)):
            marker = MARKERS[at % len(MARKERS)]
            label = f"D = {terms.diversities[column]:g}"
            band = fit.kept
            ax.fill_between(terms.steps[band], low[band, column], high[band, column], color=colour, alpha=0.15,
                            linewidth=0, zorder=1)  # fmt: skip
            for kept, alpha, name in ((fit.kept, 1.0, label), (~fit.kept, 0.25, "_before")):
                ax.plot(terms.steps[kept], observed[kept, column], marker, color=colour, markersize=3.6, alpha=alpha,
                        linestyle="none", zorder=3, label=name)  # fmt: skip
            fitted = fit.fitted[:, column]
            for part, style in ((fitted, "-"), (fit.kept & ~_inner(fitted), "--")):
                line = np.where(part, predicted[:, column], np.nan)
                ax.plot(terms.steps, line, color=colour, linestyle=style, linewidth=1.7, zorder=2, label="_model")
        for style, words in (("-", "model, fitted"), ("--", "model, not fitted")):
            ax.plot([], [], color=INK, linestyle=style, linewidth=1.5, label=words)
        step_axis(ax, terms.steps)
        ax.set(ylim=(-0.03, 1.03), ylabel=D_REL)
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax


def plot_collapse(
    fit: Any, *, against: str = "scaled", diversities: Iterable[float | int] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw d_rel of all checkpoints past the threshold over one number, a colour a diversity.

    ``against``: "steps" (N), "scaled" (N to the power of 1 - alpha, along which the model's log odds are straight
    lines), or "odds" (the log posterior odds, on which all diversities fall together where the model is right; the
    grey line is the weight that these odds give memorising).
    """
    if against not in AGAINST:
        raise ValueError(f"Got {against!r}, expected one of: {', '.join(AGAINST)}.")
    terms, columns = fit.terms, chosen_columns(fit.terms.diversities, diversities, most=len(fit.terms.diversities))
    scaled = terms.steps ** (1 - fit.estimate.alpha)
    with _axes(ax, (5.6, 4.2)) as ax:
        ax.axhline(0.5, color=GREY, linewidth=0.9, zorder=0)
        for at, (column, colour) in enumerate(zip(columns, colours_of(len(columns)), strict=True)):
            y = fit.d_rel[:, fit.kept, column]
            odds = np.clip(fit.log_odds[:, fit.kept, column], -TALLEST, TALLEST)
            line = {"steps": terms.steps, "scaled": scaled}.get(against, scaled)[fit.kept]
            x = odds if against == "odds" else np.broadcast_to(line, y.shape)
            ax.plot(x.ravel(), y.ravel(), MARKERS[at % len(MARKERS)], color=colour, markersize=3, alpha=0.75,
                    linestyle="none", zorder=2, label=f"D = {terms.diversities[column]:g}")  # fmt: skip
            if against != "odds":
                model = mean_of_seeds(fit.predicted)[fit.kept, column]
                ax.plot(line, model, color=colour, linewidth=1.4, zorder=3, label="_model")
        if against == "odds":
            at_odds = np.linspace(-TALLEST, TALLEST, 200)
            ax.plot(
                at_odds, 1 / (1 + np.exp(-at_odds)), color=INK, linewidth=1.3, zorder=3, label="weight of memorising"
            )
        if against == "steps":
            step_axis(ax, terms.steps)
        ax.set(ylim=(-0.03, 1.03), xlabel=AGAINST[against], ylabel=D_REL)
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax


def plot_posterior_odds(fit: Any, *, diversities: Iterable[float | int] | None = None, ax: Axes | None = None) -> Axes:
    """Draw what the posterior odds are made of, over training: prior (dotted), Bayes factor (dashed), both (solid).

    Marks are the log odds of the mixture that is nearest to the transformer, past the threshold: what the solid line
    should hit. Lines are means over seeds, marks medians, left out where one strategy has all of the weight.
    ``diversities``: by default three, evenly spread.
    """
    terms, estimate = fit.terms, fit.estimate
    columns = chosen_columns(terms.diversities, diversities, most=3)
    evidence, prior = terms.evidence(estimate.alpha, estimate.gamma), terms.prior(estimate.beta)
    middle = np.median(fit.best_log_odds, axis=0)  # of seeds: some may have no end, and a mean without them leans
    best = np.where(fit.kept[:, None] & (np.abs(middle) < TALLEST), middle, np.nan)
    shown = [0.0]
    with _axes(ax, (6.4, 4.2)) as ax:
        ax.axhline(0, color=INK, linewidth=1, zorder=0)
        for at, (column, colour) in enumerate(zip(columns, colours_of(len(columns)), strict=True)):
            own = mean_of_seeds(prior)[column]
            factor, posterior = (mean_of_seeds(values)[:, column] for values in (evidence, fit.log_odds))
            for values, style in ((np.full(len(terms.steps), own), ":"), (factor, "--"), (posterior, "-")):
                ax.plot(terms.steps, values, color=colour, linestyle=style, linewidth=1.6, zorder=2, label="_part")
                shown += [float(values.min()), float(values.max())]
            ax.plot(terms.steps, best[:, column], MARKERS[at % len(MARKERS)], color=colour, markersize=3.6,
                    linestyle="none", zorder=3, label=f"D = {terms.diversities[column]:g}")  # fmt: skip
            shown += best[np.isfinite(best[:, column]), column].tolist()
        for style, words in ((":", "prior"), ("--", "Bayes factor"), ("-", "posterior")):
            ax.plot([], [], color=INK, linestyle=style, linewidth=1.5, label=words)
        step_axis(ax, terms.steps)
        ax.set_ylim(max(min(shown) - 0.5, -TALLEST), min(max(shown) + 0.5, TALLEST))
        ax.set_ylabel("Log odds of memorising\nagainst generalising (nats)")
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax


def plot_training(
    losses: pd.DataFrame,
    predictor_losses: pd.DataFrame,
    *,
    diversity: float | int,
    unit: str = "nats",
    ax: Axes | None = None,
) -> Axes:
    """Draw a transformer's loss over training beside those of both strategies: on its own tasks, and on fresh ones.

    ``losses``: seed, step, diversity, loss, fresh_loss. ``predictor_losses``: seed, diversity, memorising, generalising
    and both with fresh_ before them. Curves are means over seeds with their range; a strategy that is worse than all
    of the curve is left out, as memorising mostly is on fresh tasks.
    """
    _require(losses, ["seed", "step", "diversity", "loss", "fresh_loss"], "losses")
    names = ("memorising", "generalising", "fresh_memorising", "fresh_generalising")
    _require(predictor_losses, ["seed", "diversity", *names], "predictor_losses")
    own = losses[losses["diversity"] == diversity]
    if own.empty:
        known = ", ".join(f"{d:g}" for d in sorted(losses["diversity"].unique()))
        raise ValueError(f"Got the diversity {diversity:g}, expected one of {known}.")
    strategies = predictor_losses[predictor_losses["diversity"] == diversity][list(names)].mean()
    with _axes(ax, (5.6, 4.0)) as ax:
        top = 0.0
        for column, colour, style, words in (
            ("loss", BLUE, "-", "training tasks"),
            ("fresh_loss", VERMILION, "--", "fresh tasks"),
        ):
            by_step = own.groupby("step")[column]
            steps, mean = by_step.mean().index.to_numpy(float), by_step.mean().to_numpy(float)
            ax.fill_between(steps, by_step.min(), by_step.max(), color=colour, alpha=0.15, linewidth=0)
            ax.plot(steps, mean, color=colour, linestyle=style, linewidth=1.7, zorder=3, label=words)
            top = max(top, float(by_step.max().max()))
        _strategy_lines(ax, strategies, top)
        step_axis(ax, np.array(sorted(own["step"].unique()), dtype=np.float64))
        ax.set_ylabel(f"Loss ({unit})")
        ax.set_title(f"D = {diversity:g}", loc="left", fontsize=9.5)
        ax.legend(loc="upper left", bbox_to_anchor=(0.0, -0.16), ncols=2, columnspacing=1.2)
    return ax


def _strategy_lines(ax: Axes, strategies: pd.Series, top: float) -> None:
    """The losses of both strategies on both kinds of tasks, as levels."""
    for prefix, colour, words in (("", BLUE, "training"), ("fresh_", VERMILION, "fresh")):
        for strategy, style in (("memorising", (0, (1, 1))), ("generalising", (0, (5, 1, 1, 1)))):
            level = float(strategies[prefix + strategy])
            if level <= top:
                ax.axhline(level, color=colour, linestyle=style, linewidth=1.1, zorder=2,
                           label=f"{strategy}, {words}")  # fmt: skip


def _inner(fitted: Float[np.ndarray, " step"] | Any) -> Any:
    """Fitted checkpoints but the last of them: from there the line goes on to those that were not fitted."""
    inner = np.array(fitted, dtype=bool)
    if inner.any():
        inner[np.flatnonzero(inner)[-1]] = False
    return inner
