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
# # Does a transformer do gradient descent in its forward pass?
#
# Give a transformer some points of a line it has never seen, (x, y), and ask for the y of a new x. Trained on many such
# contexts it answers well, although no weight changes: it learns *in context*. One account says that its layers carry
# out steps of gradient descent on the points. For linear attention that can be made exact, so we begin where the answer
# is known, and end where it is not. All of it runs on one CPU core in a minute or two; set
# `MECHICL_EXAMPLE_SIZE=small` to see every step in less.

# %%
import os

import numpy as np

from mechicl.analyses.algorithms.algorithm_lengths import curves_over_length
from mechicl.analyses.algorithms.alignment import align_with_step
from mechicl.analyses.algorithms.alignment_scales import align_over_scales
from mechicl.analyses.algorithms.fits import algorithm_fit
from mechicl.analyses.algorithms.implicit_weights import compare_weights
from mechicl.analyses.algorithms.layer_probes import probe_layers
from mechicl.analyses.algorithms.order import order_sensitivity
from mechicl.analyses.algorithms.weight_interpolation import interpolate_weights
from mechicl.organisms.gradient_constructions import descending_transformer
from mechicl.organisms.regression_recipes import REGRESSOR_RECIPES
from mechicl.organisms.regressors import load_regressor, new_regressor
from mechicl.predictors.gradient import best_rate, gradient_descent, least_squares, ridge
from mechicl.tasks.regression import RegressionTask

SMALL = os.environ.get("MECHICL_EXAMPLE_SIZE") == "small"
N_CONTEXTS = 600 if SMALL else 1_200
FEWER_STEPS = {"steps": (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64), "n_boot": 500}

# %% [markdown]
# ## An identity
#
# Ten points in ten dimensions, inputs uniform between -1/2 and 1/2. For one step of gradient descent from zero the best
# learning rate, and its expected loss, follow from the inputs' moments. `descending_transformer` writes weights of
# linear attention that carry out such steps, one a layer. Nothing is trained, and the difference is rounding:

# %%
task = RegressionTask(dim=10, n_demos=10, inputs="uniform", scale=0.5)
contexts = task.sample(N_CONTEXTS, seed=0)
variance, fourth_moment = task.moments
rate, loss = best_rate(task.dim, task.n_demos, variance=variance, fourth_moment=fourth_moment)
print(f"best rate {rate:.3f}, expected loss of one step {loss / 2:.4f} (half squared error)")
for steps in (1, 3):
    made = descending_transformer(task.dim, rate=rate, steps=steps)
    by_layers = made.predict(contexts.x, contexts.y, contexts.query)
    by_steps = gradient_descent(contexts.x, contexts.y, contexts.query, rate=rate, steps=steps)
    print(f"{steps} layer(s) against {steps} step(s): largest difference {np.abs(by_layers - by_steps).max():.1e}")

# %% [markdown]
# ## Can we find the algorithm again?
#
# `algorithm_fit` holds a model's predictions against many algorithms. Rates, penalties and numbers of steps are chosen
# on one half of the contexts, and all are judged on the other. The score is the squared distance to the *model*, as a
# share of that of the guess 0: 0 means the same predictions. Three hand-written layers should be named as three steps.

# %%
made_fit = algorithm_fit(descending_transformer(task.dim, rate=4.0, steps=3), contexts, task=task, **FEWER_STEPS)
print(made_fit.verdict)

# %% [markdown]
# The algorithms that are "not told apart" contain gradient descent as a special case; the simplest is named.
#
# ## A trained layer
#
# `lsa-1` is one layer of linear attention whose weights were trained, from random ones, on this task. Is it the step?

# %%
trained = load_regressor("lsa-1")
alignment = align_with_step(trained, contexts, task=task)
estimate, low, high = alignment.half_mse_controlled
print(f"half squared error {estimate:.4f} [{low:.4f}, {high:.4f}]; one best step: {alignment.expected_half_mse:.4f}")
print(alignment.verdict)

# %% [markdown]
# The loss is that of the best step. *Cosine* compares how predictions change with the query, d yhat / d x_q, which for
# the step are its weights. The controls show what chance looks like: the same weights in random order, and the step on
# another context's points.

# %%
ax = alignment.plot()

# %% [markdown]
# A model may agree where it was trained and nowhere else. Change the size of the inputs, or of the laws' weights:

# %%
scales = align_over_scales(trained, task, rate=alignment.rate, n_contexts=N_CONTEXTS // 2, n_boot=200)
columns = ["kind", "scale", "share", "model_error", "step_error"]
print(scales.frame[columns].round(4).to_string(index=False))

# %% [markdown]
# The share stays small throughout, also where both do badly: large inputs make a step of this rate overshoot, and the
# model overshoots with it.
#
# Are the weights the same, too? Only the products of query and key weights, and of value and output weights, mean
# anything, and only the product of their sizes. After rescaling we walk from the trained weights to the hand-written
# ones:

# %%
made = descending_transformer(task.dim, rate=alignment.rate)
between = interpolate_weights(trained, made, contexts)
print(between.frame.round(4).to_string(index=False))
ax = between.plot()

# %% [markdown]
# ## More layers
#
# Is a model of two layers two steps, and one of four layers four? Which algorithm is nearest, and by how much?

# %%
deeper = {}
for name in ("lsa-1", "lsa-2", "lsa-4"):
    first_weights = new_regressor(REGRESSOR_RECIPES[name])  # the control: where its training began
    deeper[name] = algorithm_fit(load_regressor(name), contexts, task=task, untrained=first_weights, **FEWER_STEPS)
    print(f"{name}: {deeper[name].verdict}\n")

# %%
families = ["gradient_descent", "gradient_descent_plus", "gradient_descent_plus_each", "newton", "ridge"]
for name, fit in deeper.items():
    rows = fit.frame.set_index("family").loc[families]
    print(f"\n{name} (error on the task {fit.model_error:.3f} of the guess 0's)")
    print(rows[["steps", "score", "low", "high", "untrained", "task_error"]].round(4).to_string())

# %% [markdown]
# One layer: one step of gradient descent leaves some ten-thousandths, and a matrix in place of the rate, which can copy
# what training left uneven, leaves less still. More layers are not as many plain steps. GD++ improves the conditioning
# of the inputs on the way, and with a rate and a gamma of its own for each step it comes nearest of these families to
# two and four layers. The number of steps that fits best need not be the number of layers: a trained layer is freer
# than a step of GD++. For four layers Newton's iteration, which goes twice as far with every step, comes next.

# %%
ax = deeper["lsa-2"].plot()

# %% [markdown]
# ## Softmax attention
#
# Now transformers as they are used: softmax attention, MLPs, norms, positions; ten points in five dimensions. Nobody
# wrote an algorithm into these. What are their predictions nearest to, as they get deeper?

# %%
NAMES = [f"regression-softmax-{depth}" for depth in (1, 2, 4, 8)]
normal = REGRESSOR_RECIPES[NAMES[0]].task
softmax_contexts = normal.sample(N_CONTEXTS, seed=1)
softmax = {name: load_regressor(name) for name in NAMES}
fits = {}
for name, model in softmax.items():
    first_weights = new_regressor(REGRESSOR_RECIPES[name])
    fits[name] = algorithm_fit(model, softmax_contexts, task=normal, untrained=first_weights, **FEWER_STEPS)
    print(f"{name}: {fits[name].verdict}\n")

# %%
ax = fits["regression-softmax-4"].plot()

# %% [markdown]
# One layer is near to nothing. Deeper ones are near to several algorithms at once, which on such contexts are near to
# each other: all go towards least squares. What fits the task best need not fit the model best: compare filled and open
# marks. And how do errors fall with the number of points?

# %%
curves = curves_over_length(
    softmax["regression-softmax-4"],
    softmax_contexts,
    {
        "one best step": lambda x, y, query: gradient_descent(x, y, query, rate=x.shape[-2] / (x.shape[-2] + 6)),
        "ridge(penalty=0.5)": lambda x, y, query: ridge(x, y, query, penalty=0.5),
        "least_squares": least_squares,
    },
    n_boot=200,
)
ax = curves.plot()

# %% [markdown]
# Squared differences of predictions (SPD), and of the linear laws that predictions imply (ILWD), against least squares
# and ridge. The rows *zero* and *other contexts* say what is far.

# %%
few = normal.sample(200 if SMALL else 400, seed=2)
for name, model in softmax.items():
    weights = compare_weights(model, few, n_boot=500)
    print(f"\n{name}: a linear law explains {weights.r2:.3f} of how it answers")
    print(weights.frame[["algorithm", "spd", "ilwd", "ilwd_low", "ilwd_high"]].round(3).to_string(index=False))

# %% [markdown]
# ## Inside
#
# Do layers take steps? A linear probe reads the residual stream after each layer at the query, and is asked for the
# prediction of k steps, of gradient descent and of Newton's iteration. Which k does a layer match best, on contexts
# that the probe has not seen?

# %%
probes = {}
for name in NAMES[2:]:
    probes[name] = probe_layers(softmax[name], normal.sample(1_000 if SMALL else 3_000, seed=3), n_boot=300)
    print(f"{name}: {probes[name].verdict}\n")
ax = probes[NAMES[-1]].plot()

# %% [markdown]
# The number of steps rises with the layer for both, because both go to the same end, least squares. In published work
# it rises linearly for Newton's iteration and exponentially for gradient descent; the steps above say how it is here.
# Steps of gradient descent depend on its rate (here the largest that never overshoots), and what a probe can read from
# a layer is not yet what the layer uses.
#
# ## The order of the points
#
# Gradient descent on all points at once does not see their order. Do the models?

# %%
for name in ("lsa-1", NAMES[2]):
    sample = contexts if name == "lsa-1" else softmax_contexts
    order = order_sensitivity(load_regressor(name), sample, n_orders=8, n_boot=500)
    print(f"{name}: {order.verdict}\n")
ax = order.plot()

# %% [markdown]
# Linear attention cannot see the order. The softmax model does, if little: to this extent it is not gradient descent on
# all points, whatever the rate. *Agreement* asks whether the order changes its predictions as it changes those of a
# learner that takes the points in turn. It does not: the correlation is near 0.
#
# ## What a result means, and what it does not
#
# - **A score near 0** says that predictions agree on contexts like these. Other algorithms may agree as well: read what
#   is "not told apart".
# - **The control matters.** Untrained models answer, too; `untrained` says how well the same family fits such a one.
# - **Linear attention is the easy case.** There the identity holds by construction; for softmax models several
#   algorithms are equally near, and outputs alone do not decide between them.
#
# ## Where to go from here
#
# - `algorithm_fit` takes any function `(x, y, query) -> predictions`, so your own model can be asked the same.
# - `fit.save("runs/fit")` and `mechicl.results.load("runs/fit")` keep a result bit for bit.
