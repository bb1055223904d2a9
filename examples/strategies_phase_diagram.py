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
# # The phases of training, and what is inside
#
# Transformers that are trained on D tasks either learn the tasks by heart or learn the family of tasks. A Bayesian
# account with three numbers says which, for every D and every moment of training (Wurgaft and others, arXiv
# 2506.17859); examples/strategies_balls_and_urns.ipynb explains it and trains a small grid. Here are the results on the
# grids that come with mechicl: how good the account is, where it fails, and what can be seen inside of a model that
# generalises first and then turns half way to memorising. Nothing is trained here.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

from mechicl.analyses.components.regenerate import shipped_components
from mechicl.analyses.strategies.shipped import SHIPPED, shipped_strategies
from mechicl.organisms.grid import (
    GRID_MODELS,
    grid_model_card,
    grid_model_folder,
    held_out,
    load_grid_model,
    read_point,
)
from mechicl.views.strategies import plot_ablations, plot_residual_map
from mechicl.views.strategy_curves import plot_collapse, plot_posterior_odds, plot_training, plot_transience

plt.rcParams["figure.dpi"] = 60
print(SHIPPED)

# %% [markdown]
# ## Balls and urns: the phase diagram
#
# Each cell is a transformer (mean over seeds) at a checkpoint. Dark says what memorising says (d_rel 1), light what
# generalising says (0). On the right the account, fitted inside of the thick line alone.

# %%
account = shipped_strategies("balls_and_urns")
fit = account.fit
print(account.sizes, f"{len(fit.d_rel)} seeds, {fit.terms.shape[1]} checkpoints")
print(fit)
fit.plot()

# %% [markdown]
# Few urns are learned by heart within a few hundred steps; with 128 and more the transformers count to the end. The
# border (dashed) runs alike on both sides, also above and to the right of the fitted cells.
#
# d_rel assumes that a transformer is *somewhere between* the two strategies. Is it?

# %%
plot_residual_map(fit)

# %% [markdown]
# With few urns nearly. From D = 32 on about .3 of the distance between the strategies is left over, whatever the
# mixture: the transformers do something beside. Where it is above .5, at 13% of the cells, d_rel should not be
# believed; these lie shortly after the threshold, with many urns, where both strategies say nearly the same.
#
# ## How well is it predicted where it was not fitted?
#
# More than a third of the cells past the threshold were kept from the fit: the last checkpoints, and the largest
# diversities. Beside each measure stands its control: for d_rel and the loss, cells shuffled and fitted again; for the
# predictions themselves, one weight for all cells.

# %%
shown = fit.measures[fit.measures["cells"] != "all"]
print(shown[["measure", "cells", "value", "low", "high", "control", "p"]].round(4).to_string(index=False), "\n")
print(fit.baselines.round(4).to_string(index=False))

# %% [markdown]
# The correlation of d_rel is higher on what was not fitted (.994) than on what was, for there is less of the difficult
# beginning in it. On the larger diversities alone it is .54 [.06, .84]: nothing turns there, and little is left to
# correlate. Rank correlation, R² and agreement are those that were published; look at their controls: *one weight for
# all transformers at all times* reaches a rank correlation of .970 where the account reaches .981, because M and G are
# so much alike. The last table is the strict one. Of the way from one weight to the best weight for each cell, which no
# mixture can beat, the account goes 98% where it was not fitted.
#
# ## Which of the three numbers are needed?

# %%
print(fit.parameters.round(4).to_string(index=False))
plot_ablations(account.ablations, baselines=fit.baselines)

# %% [markdown]
# Not all of them. Without α, or with β = 1, the loss where it was not fitted rises by .0011 and .0012 nats, about a
# tenth. γ = 1 costs a hundredth of it: two numbers would nearly do. And a prior linear in K, in the place of the power,
# costs .0002, so that this grid hardly tells the two apart.
#
# Two richer accounts, each with the same numbers. A *third strategy*, predicting the same whatever the context, is the
# shortest of all descriptions and should come first. And odds that also see the *context*: a Bayesian who had these
# odds before a sequence would change them as it goes.

# %%
print(account.three.table.drop(columns=["converged"]).round(4).to_string(index=False), "\n")
print(account.context.table.drop(columns=["converged"]).round(4).to_string(index=False))

# %% [markdown]
# From the first checkpoint on (no threshold here), the third strategy halves the loss: it is what the beginning is
# about. Odds that change within a sequence make all worse, the stronger the more: the transformers weigh the strategies
# by their training alone, as the account has it.
#
# ## What they are made of
#
# Marks are the mixtures nearest to the transformers; the solid line should hit them. With the fitted numbers all
# diversities fall on one curve when drawn over the posterior odds.

# %%
plot_posterior_odds(fit)

# %%
plot_collapse(fit, against="odds")

# %% [markdown]
# ## When do they turn?

# %%
times = account.transitions.times
print(times.drop(columns=["no_prediction", "no_observation"]).round(0).to_string(index=False), "\n")
print(account.transitions.scaling.round(2).to_string(index=False))
account.transitions.plot()

# %% [markdown]
# Observed times are of d_rel averaged over three seeds; four diversities turn while we watch. They grow faster than in
# proportion to D, with an exponent of 1.33 [1.28, 1.41]. The account's odds are even at times with an exponent of 1.79
# for the same four, and off by a factor of 2 on average (root mean square of logarithms). Much of this is D = 4: its
# odds are even after 30 steps, when no transformer has learned anything yet; it turns after 100. Without it:

# %%
later = times[(times["diversity"] > 4) & times["observed"].notna()]
for name in ("observed", "predicted"):
    slope = np.polyfit(np.log(later["diversity"]), np.log(later[name]), 1)[0]
    print(f"{name}: {slope:.2f} over {len(later)} diversities")

# %% [markdown]
# The order is right, growth is superlinear in both, and the law is rough.
#
# ## Learning to count, and unlearning it

# %%
plot_transience(fit)

# %%
transience = account.transience.groupby("diversity")[["lowest", "lowest_step", "last", "rise", "fresh_rise"]]
print(transience.mean().round(3).to_string())
at = float(transience.mean()["rise"].idxmax())
plot_training(account.losses, account.predictor_losses, diversity=at)

# %% [markdown]
# With 16 to 64 urns all seeds count first and memorise later: at D = 16 d_rel rises from .27 to .88, at D = 64 from .11
# to .50 (lowest values are of checkpoints near a mixture, with a residual of .5 at most). That something is unlearned
# shows in the loss on urns that are not in the pool, too: it rises by .071 nats at D = 16, by .021 at D = 64. On their
# own urns they only get better.
#
# ## The other settings

# %%
for setting in SHIPPED:
    if setting != "balls_and_urns":
        print(shipped_strategies(setting).verdict, "\n")

# %% [markdown]
# **Classification**: one seed, so intervals know nothing of other runs. An untrained classifier looks like memorising,
# which is why a third of the checkpoints is left out; small pools are memorised by then, and only D = 64 is seen to
# turn. From D = 256 on memorising has the larger loss (one noisy look does not tell so many items apart), so that
# the account predicts no turn however long one trains; none is seen. **Linear regression**: a null result. Its
# transformers are near no mixture, and then a correlation of .998 means nothing, the more so with three diversities.
#
# ## Inside of a model
#
# So far all of this is about what transformers *say*. A few of them come with the package, one at several steps of its
# training, and each opens as a TransformerLens model.

# %%
for name, description in GRID_MODELS.items():
    print(f"{name}: {description}")
    for step, said in grid_model_card(name)["steps"].items():
        print(f"  after {step} steps {said}")

# %% [markdown]
# Where does their one head look? Both strategies need to count the balls so far, for which a head may look at all
# earlier balls alike. Colours: attention over that, blue more, brown less, averaged over sequences.

# %%
shown = {"memory": ("urns-memory", 5000), "general": ("urns-general", 5000)}
shown |= {f"transient, step {step:,}": ("urns-transient", step) for step in (327, 5000)}
figure, panels = plt.subplots(1, 4, figsize=(9, 2.7), sharey=True, layout="constrained")
for panel, (label, (name, step)) in zip(panels, shown.items(), strict=True):
    tokens = torch.from_numpy(held_out(read_point(grid_model_folder(name)), 64).tokens)[:, :-1]
    with torch.no_grad():
        _, cache = load_grid_model(name, step).run_with_cache(tokens)
    each = cache["blocks.0.attn.hook_pattern"][:, 0].numpy()  # sequence, query, key
    pattern = each.mean(0)
    alike = np.tril(np.ones_like(pattern)) / np.arange(1, len(pattern) + 1)[:, None]
    ratio = np.divide(pattern, alike, out=np.ones_like(pattern), where=alike > 0)
    image = panel.imshow(np.log2(ratio.clip(2**-4)), vmin=-1, vmax=1, cmap="PuOr")
    panel.set_title(label, fontsize=9)
    panel.set_xlabel("looked at (0: start)")
    off = np.abs(each - alike).sum(-1)[:, 1:].mean() / 2
    start = pattern[1:, 0].mean()
    print(f"{label}: {off:.3f} of its attention lies elsewhere than looking at all alike; {start:.3f} is on the start")
panels[0].set_ylabel("position that looks")
figure.colorbar(image, ax=panels, label="log2 ratio")
plt.show()

# %% [markdown]
# Nearly alike: .02 to .09 of the attention lies elsewhere, most in the model that knows four urns, and no more after
# the turn than before it. The head all but counts, for both strategies; the share on the start tells how many balls
# there were. What differs must come after it.
#
# What one checkpoint computes can be put into the other's run, and parts of its weights into the other's. 1 is the
# whole change of d_rel between them. (`measure_strategy_components(folder)` does this for any model; these results come
# with the package.)

# %%
inside = shipped_components("balls_and_urns")["transient"]
print(inside.verdict)
inside.patches.plot()

# %% [markdown]
# Patterns carry next to nothing (.01 [.00, .02]), as we saw. What the MLP adds carries most: .76 [.67, .84] one way and
# .97 [.89, 1.05] the other; and of the weights those into the MLP. To know an urn from its counts is the work of a
# layer of neurons. But mind the residuals: with parts of another checkpoint these models are .8 of the strategies'
# distance away from either (and 49 of 128 sets of weights leave a model that is near neither; pale marks), so that
# their d_rel says where the change is *not* rather than how it is done. And without attention or the MLP nothing is
# left of either strategy.
#
# In **classification** parts can be told apart. There the generalising predictor is a Gaussian kernel regression of
# known bandwidth, a task for attention, and memorising needs no context at all.

# %%
others = shipped_components("classification")
columns = ["strength", "component", "moved", "control", "beyond", "beyond_low", "beyond_high", "residual", "carries"]
parts, kernels = others["classifier"], others["kernels"]
for step, ablated in zip((parts.before, parts.after), parts.ablations, strict=True):
    print(f"D = 64, after {step:,} steps\n{ablated.frame[columns].round(2).to_string(index=False)}\n")
print(kernels.together.sort_values("diversity").drop(columns=["seed", "head"]).round(3).to_string(index=False))
kernels.plot()

# %% [markdown]
# Take the MLP out, and d_rel falls by .46 [.41, .50] and .60 [.55, .64] more than with random changes as large: the MLP
# carries memorising. Attention alone carries neither beyond chance. One would think, then, that attention's kernel
# comes with generalising and goes with memorising. It does not go. The ideal kernel explains the more of log attention
# the longer one trains, at every D. With 256 items and more the models generalise the more as it rises (`rho`, the rank
# correlation of kernel and generalising over training); with 16 to 128 they move to memorising meanwhile, and rho is
# below −.8. As far as attention tells, such a transformer does not give up how it generalises; it adds a memory that
# outweighs it.
#
# ## What a result means, and what it does not
#
# - **The account describes predictions**, by three numbers, on the grids that it was fitted to. It says little about
#   how a transformer does it, and the parts above are those of one model of one seed.
# - **Held out is not far away.** Later steps and larger diversities of the same models; not other sizes or settings.
# - **Share of a change.** Parts that carry most of it *changed* most in effect; they need not compute a strategy alone.
#
# ## Where to go from here
#
# - `mechicl strategies --setting balls_and_urns` writes all of this as a page; `mechicl train` makes a run of your own,
#   `mechicl strategies --results runs/balls_and_urns` measures it.
# - `measure_strategy_components(folder)` compares two checkpoints of any model of a run, part by part.
# - [docs/strategies.md](../docs/strategies.md) says how to read each number, and how to fit your own transformer.
