# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Memorise or generalise?
#
# A transformer is trained on sequences of coloured balls, each drawn from one of D urns. It can do well in two ways:
# learn the D urns by heart, or learn to count. Which of the two it does depends on D and on how long it has been
# trained. One account says *when* it does which: training weighs both strategies as Bayes would, by how well they
# predict against how long it takes to write them down (Wurgaft and others, arXiv 2506.17859).
#
# Here we train fourteen small transformers, ask all of them at forty moments of their training, and fit that account to
# what they say. Training takes a few minutes on two CPU cores. Set `MECHICL_EXAMPLE_SIZE=small` for seconds, with
# models that have hardly learned, and `MECHICL_EXAMPLE_STORE` to a folder to keep the models.

# %%
import os
from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from mechicl.analyses.strategies.account import measure_strategies
from mechicl.analyses.strategies.readings import median_of_means
from mechicl.organisms.grid import each_checkpoint, grid_points, held_out, train_grid
from mechicl.predictors import urns
from mechicl.predictors.bayes import predict_strategies, prediction_losses
from mechicl.strategies import fit_strategies, strategy_bits, strategy_field
from mechicl.tasks.urns import UrnTask
from mechicl.views.strategies import plot_ablations
from mechicl.views.strategy_curves import plot_posterior_odds, plot_training, plot_transience

plt.rcParams["figure.dpi"] = 72
SMALL = os.environ.get("MECHICL_EXAMPLE_SIZE") == "small"
STORE = Path(os.environ.get("MECHICL_EXAMPLE_STORE") or mkdtemp())
N_LOSSES = 2_000 if SMALL else 10_000
DIVERSITIES = (4, 16, 64) if SMALL else (4, 8, 16, 32, 64, 128, 256)
SEEDS = (0,) if SMALL else (0, 1)

# %% [markdown]
# ## The task
#
# Eight colours. An urn is eight probabilities, drawn uniformly from all there are; the pool holds D of them. A sequence
# picks an urn of the pool and draws 32 balls, with replacement. Token 8 is the start.

# %%
task = UrnTask(dim=8, context=32, diversity=4)
print(task.pool.round(2), "\n")
for tokens, urn in zip(task.sample(3, step=0).tokens, task.sample(3, step=0).task, strict=True):
    print(f"urn {urn}: {' '.join(map(str, tokens))}")

# %% [markdown]
# ## Two strategies
#
# **Memorising** (M) knows the pool. It weighs each urn by how likely it makes the balls so far, and predicts as the
# weighted urns do. **Generalising** (G) knows only that urns are drawn uniformly, and for such urns Laplace's rule is
# exact: one more than the count of each colour, over the number of balls and colours. Both are Bayesian; they differ in
# what they hold for possible.


# %%
def counts_before(balls, dim):
    """How many balls of each colour came before each ball."""
    shown = np.eye(dim)[balls]
    return shown.cumsum(1) - shown


def memorise(balls, pool):
    logs = counts_before(balls, pool.shape[1]) @ np.log(pool).T  # of each urn, up to a constant
    weights = np.exp(logs - logs.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ pool


def generalise(balls, dim):
    counts = counts_before(balls, dim)
    return (counts + 1) / (counts.sum(-1, keepdims=True) + dim)


balls = task.sample(100, step=0).tokens[:, 1:]
print(f"{np.abs(memorise(balls, task.pool) - urns.memorising(balls, task.pool)).max():.1e} beside the library's M")
print(f"{np.abs(generalise(balls, task.dim) - urns.generalising(balls, task.dim)).max():.1e} beside the library's G")

# %% [markdown]
# How good are they? On sequences from the pool M is always better, since it knows more. The more urns there are, the
# less the pool differs from "any urn", and the smaller the gain. On urns that are *not* in the pool M is worse, and it
# pays dearly for few urns. And M is the longer story: it has to hold the pool, here in bits of the compressed numbers.

# %%
rows = []
for diversity in DIVERSITIES:
    pool = UrnTask(dim=8, context=32, diversity=diversity)
    row = {"D": diversity}
    for name, fresh in (("pool", False), ("fresh urns", True)):
        batch = pool.sample(2_000, step=(1, 2), fresh=fresh)
        said = predict_strategies(pool, batch)
        for letter, prediction in (("M", said.memorising), ("G", said.generalising)):
            row[f"loss of {letter}, {name}"] = prediction_losses(prediction, batch.tokens[:, 1:]).mean()
    row["bits of M"], row["bits of G"] = strategy_bits(pool.pool, urns.memorising, urns.generalising)
    rows.append(row)
strategies = pd.DataFrame(rows).set_index("D")
print(strategies.round(3).to_string())

# %% [markdown]
# ## The model of training
#
# Take training for an inference about the two strategies. A step is evidence for the strategy with the smaller loss on
# what is trained on; a long description counts against a strategy from the start. After N steps on D urns
#
# $$\log\frac{P(M)}{P(G)} = \underbrace{\gamma\, N^{1-\alpha}\,(L_G - L_M)}_{\text{evidence}}
# \;-\; \underbrace{\ln 2\,(K_M^\beta - K_G^\beta)}_{\text{prior}}$$
#
# and the transformer is predicted to say w M + (1 − w) G, with these odds of w. L are the losses and K the bits of the
# table above. Three numbers are free: γ, how much a step counts; α, how much less each further step does; β, how much
# simplicity is worth. Nothing in it looks at weights or attention.
#
# Before any fit this says what to expect. Few urns: a short description and a large gain, so memorising at once. Many
# urns: a long one and a small gain, so generalising for long. In between the prior wins first and the evidence later:
# the transformer should learn to count, and then *unlearn* it.
#
# ## The transformers
#
# One layer, one head, 64 dimensions. One for each D and seed; a seed sets the urns, the sequences and the first
# weights. `mechicl train` does the same from the command line.

# %%
sizes = {"dims": (4,), "contexts": (16,), "steps": 200, "n_checkpoints": 12, "batch": 32, "warmup": 10}
if not SMALL:
    sizes = {"dims": (8,), "contexts": (32,), "steps": 2_000, "n_checkpoints": 40, "d_model": 64, "mlps": (256,)}
points = grid_points("balls_and_urns", "small", diversities=DIVERSITIES, seeds=SEEDS, **sizes)
jobs = 1 if SMALL else 2  # processes; with progress=True a bar tells how long it will take
run = train_grid(points, STORE / "urns", stack=len(DIVERSITIES), n_jobs=jobs, progress=False)
first = points[0]
print(f"{len(points)} transformers, {first.steps} steps each, kept after {first.schedule}")

# %% [markdown]
# ## What they say, as plain arrays
#
# All that the fit needs are probabilities. `predictions[seed, step, diversity, item, label]` are the transformer's; an
# item is a place in a sequence that training never drew. `memorising` and `generalising` are those of the strategies
# for the same items. With your own transformer and two strategies of your own you fill the same arrays.

# %%
n, places = 64 if SMALL else 128, np.unique(np.rint(np.linspace(0, first.context - 1, 16)).astype(int))
clusters = np.repeat(np.arange(n), len(places))  # which sequence an item belongs to: intervals redraw sequences
shape = (len(SEEDS), len(DIVERSITIES))


def loss_on(said, name):
    return median_of_means(prediction_losses(getattr(said, name), said.truth).mean(1))


def read(point):
    """Of one model: its predictions, those of both strategies, their losses and bits."""
    batch = held_out(point, n, part=1)
    said = predict_strategies(point.task, batch)
    theirs = predict_strategies(point.task, held_out(point, N_LOSSES, part=2))
    return {
        "h": np.stack([seen[:, places].reshape(-1, point.dim) for _, seen in each_checkpoint(run, point, batch)]),
        "m": said.memorising[:, places].reshape(-1, point.dim),
        "g": said.generalising[:, places].reshape(-1, point.dim),
        "losses": [loss_on(theirs, name) for name in ("memorising", "generalising")],
        "bits": strategy_bits(point.task.pool, urns.memorising, urns.generalising),
    }


found = [read(point) for point in points]  # seeds first, then diversities
stacked = {key: np.stack([one[key] for one in found]) for key in found[0]}
stacked = {key: values.reshape(*shape, *values.shape[1:]) for key, values in stacked.items()}
predictions = np.moveaxis(stacked["h"], 2, 1)  # seed step diversity item label
losses, bits = ((stacked[key][..., 0], stacked[key][..., 1]) for key in ("losses", "bits"))
print(predictions.shape)

# %% [markdown]
# ## The fit
#
# It sees the first 80% of checkpoints, and the smaller diversities; the last ones are kept for judging. Where a
# transformer stands between the strategies is its **relative distance**, d_rel: 1 says what M says, 0 what G says.
# Early in training it is near neither, and d_rel means nothing; such checkpoints are hatched and left out.

# %%
fit = fit_strategies(
    predictions, stacked["m"], stacked["g"], losses, bits,
    steps=np.array(first.schedule), diversities=np.array(DIVERSITIES), clusters=clusters, n_boot=100,
)  # fmt: skip
print(fit, "\n")
columns = ["measure", "cells", "value", "low", "high", "control", "p"]
shown = fit.measures[fit.measures["cells"].isin(["fitted", "held_out"])]
print(shown[columns].round(4).to_string(index=False))

# %%
fit.plot()

# %% [markdown]
# On the left the transformers, on the right the account, fitted inside of the thick line and extrapolated to the rest.
# On what it was not fitted to, d_rel correlates by .988 [.979, .992]; with shuffled cells by nothing.
#
# Before believing this: *are* the transformers between the strategies? The residual is what even the best mixture of M
# and G leaves, as a share of the distance between M and G. And how good would simpler accounts be? "constant" is one
# weight for all transformers at all times, "free" the best weight of every cell, which no mixture can beat.

# %%
residual = pd.DataFrame(fit.residual[:, fit.kept].mean(0), fit.terms.steps[fit.kept], DIVERSITIES)
print(residual.iloc[:: max(len(residual) // 6, 1)].round(2).to_string(), "\n")
print(fit.baselines.round(4).to_string(index=False))

# %% [markdown]
# With few urns the mixture says nearly all. With 64 and more a third or more of the distance is left over, early in
# training more than the distance itself: M and G are close to each other there, and a model that has not quite learned
# to count is far from both. There d_rel should be taken with care.
#
# Of the way from one weight to the best weights the account goes 94% on what it was not fitted to. Look at the rank
# correlation, too: it is .965, as published ones are, but one weight for all reaches .955.
#
# ## Transience
#
# Curves of d_rel over training. One that begins low and rises is a transformer that learns to count and then gives it
# up for the urns that it has meanwhile learned by heart, though nothing about the task has changed.

# %%
plot_transience(fit)

# %% [markdown]
# At D = 16 and above all seeds begin nearer to counting; with 16, 32 and 64 urns they end at or beyond the middle, on
# the side of the urns. (With 4 and 8 they have turned by the time that anything is learned.)
#
# The same in one call, which also keeps losses and transition times and says in words what was found:

# %%
account = measure_strategies(run, n_boot=100, progress=False, n_sequences=n, n_losses=N_LOSSES)
print(account.verdict, "\n")
print(account.transience.round(3).to_string(index=False))

# %%
turning = float(account.transience.groupby("diversity")["rise"].mean().idxmax())
plot_training(account.losses, account.predictor_losses, diversity=turning)

# %% [markdown]
# On its own urns the transformer only gets better, and ends between counting and memorising. On urns that it has never
# seen it first learns to do well and then gets worse: that is the price of memorising, and what transience means for
# who uses such a model.
#
# ## What the odds are made of

# %%
plot_posterior_odds(fit)

# %% [markdown]
# Marks are the mixtures nearest to the transformers, and the solid lines should hit them: prior (dotted, against
# memorising, the more so the more urns) plus evidence (dashed). On this scale failures show that d_rel hides. With 256
# urns the transformers memorise more than they should: odds near 1 : 4 where the account has 1 : 20.
#
# Where do the odds grow? Arrows point to where they grow fastest, over steps and diversities.

# %%
strategy_field(fit.terms, fit.estimate).plot()

# %% [markdown]
# ## When does it turn?

# %%
times = account.transitions.times.drop(columns=["no_prediction", "no_observation", "nearest"])
print(times.round(0).to_string(index=False), "\n")
print(account.transitions.scaling.round(2).to_string(index=False))
account.transitions.plot()

# %% [markdown]
# Turning takes longer than in proportion to D: the exponent is 1.83 [1.55, 1.83] for the four diversities that turn
# while we watch, where the account's is 2.32 [2.23, 2.41]. It has the order right, and is too late for many urns and
# too early for few. With two seeds the interval of what is observed is hardly one.
#
# ## Are all three numbers needed?

# %%
plot_ablations(account.ablations, baselines=fit.baselines)

# %% [markdown]
# Filled: the account. α and β earn their place, by little; γ does not, and a prior that is linear in K does nearly as
# well as the power. The lines are one weight for all cells and the best weights.
#
# ## What a result means, and what it does not
#
# - **It is about what a transformer says.** w M + (1 − w) G describes its predictions. That two circuits compute M and
#   G inside, and that something weighs them, is another claim; examples/strategies_phase_diagram.ipynb looks there.
# - **A correlation of d_rel is the weaker test.** Most cells are near 0 or 1. Compare losses with what one weight for
#   all cells reaches, and look at the cells that the fit did not see.
# - **Intervals** redraw sequences and seeds. Two seeds say little about other runs of training.
# - **K depends on the code.** Another way of writing down the urns, or the predictors, moves β.
#
# ## Where to go from here
#
# - `mechicl train --setting balls_and_urns` trains nine diversities and three seeds at a larger scale in about an hour,
#   `mechicl strategies --results runs/balls_and_urns` writes a report of it.
# - The other settings: `grid_points("classification")`, `"linear_regression"`, `"markov_chains"`.
# - The results that come with the package: examples/strategies_phase_diagram.ipynb; how to read each number:
#   [docs/strategies.md](../docs/strategies.md).
