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
# # Which account?
#
# A transformer learns from its prompt. Three accounts say how: it takes an implicit **gradient step**, it does **kernel
# regression** over the demonstrations, or it mixes **Bayesian strategies**. They are told in different words, on
# different tasks, with different measures. Here all are asked the same: *what would you predict from these
# demonstrations and this query?* What they leave open, a rate, a bandwidth, the odds of two strategies, is fitted to
# the model's answers on one half of the contexts. The other half judges:
#
# > share = (D_anchor − D_account) / (D_anchor − D_ceiling)
#
# D is the distance from the model's answers. 0 is no nearer than a trivial prediction, 1 as near as an account can come
# that does not know the order of the demonstrations.
#
# First the models whose mechanism is known, then one of which nobody knows. It takes some minutes on two CPU cores;
# `MECHICL_EXAMPLE_SIZE=small` takes fewer contexts.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np

import mechicl
from mechicl.accounts import Account
from mechicl.analyses import compare_accounts
from mechicl.organisms import load_regressor, planted_ife, planted_priming
from mechicl.organisms.grid import load_grid_model
from mechicl.tasks import dative_corpus, load_task
from mechicl.tasks.regression import RegressionTask
from mechicl.tasks.urns import UrnTask

plt.rcParams["figure.dpi"] = 72
SMALL = os.environ.get("MECHICL_EXAMPLE_SIZE") == "small"
N = 100 if SMALL else 400

# %% [markdown]
# ## A model that takes a gradient step
#
# `lsa-1` is one layer of linear attention, trained on in-context regression. It is known to take one step of gradient
# descent (von Oswald and others, arXiv 2212.07677). The accounts do not know that; they get its answers alone.

# %%
linear = compare_accounts(load_regressor("lsa-1"), RegressionTask(dim=10, n_demos=10, scale=0.5), n_contexts=N)
print(linear.verdict, "\n")
columns = ["account", "family", "n_free", "parameters", "share", "low", "high", "tied"]
print(linear.to_frame()[columns].round(3).to_string(index=False))
linear.plot()

# %% [markdown]
# One step, at the rate 6.06 that theory gives as the best. GD++ *contains* gradient descent, so it predicts the same
# with one number more; of accounts that are not told apart the one with fewer numbers is preferred. Kernel regression
# gets half of the way: a dot product of inputs is not far from what one step weighs labels by.
#
# How good are its answers? Here are errors against the right ones. The posterior mean ("generalising") makes none, for
# there is no noise. The model is far from it: it is not a good regressor, it is a good *gradient step*.

# %%
print(linear.truth.round(3).to_string(index=False))

# %% [markdown]
# ## Models that memorise and generalise
#
# Three transformers of balls and urns: one knows its 4 urns by heart, one has seen 1,024 and counts, and one with 64 is
# on its way from the one to the other.

# %%
urns = {
    name: compare_accounts(load_grid_model(name), UrnTask(diversity=diversity), n_contexts=N)
    for name, diversity in (("urns-memory", 4), ("urns-transient", 64), ("urns-general", 1024))
}
for name, found in urns.items():
    print(f"{name}: {found.verdict}\n")

# %% [markdown]
# How does each account do as the sequence grows, with the same numbers at all lengths? In the middle model, memorising
# and counting come to agree once enough balls are seen, so accounts are told apart by *short* contexts.

# %%
ax = urns["urns-transient"].plot_lengths()
ax.set_title("urns-transient")

# %% [markdown]
# What can these contexts tell apart at all? Dark cells off the diagonal are accounts that predict the same here. A
# recency kernel that forgets nothing, with pseudo-counts, *is* Laplace's rule: where one of the two is nearest, so is
# the other, and no behaviour on this task will separate them.

# %%
urns["urns-transient"].plot_apart()

# %% [markdown]
# ## An account of your own
#
# An account is a function of the examples, with numbers to be fitted. Perhaps the model remembers only the last few
# balls?


# %%
def last_few(examples, *, k):
    shown = np.eye(examples.dim)[examples.balls[:, -k:]]
    return (shown.sum(1) + 1) / (shown.shape[1] + examples.dim)


window = Account("window", "kernel", last_few, "counts the last k balls alone", choices={"k": (1, 2, 4, 8, 16, 32, 64)})
general, names = load_grid_model("urns-general"), ["uniform", "copy last", "generalising"]
found = compare_accounts(general, UrnTask(diversity=1024), accounts=[*names, window], n_contexts=N)
print(found.to_frame()[columns].round(3).to_string(index=False))

# %% [markdown]
# ## Priming: is a surprising prime worth more?
#
# A model that was built to write the prime's *prediction error* into its answers, and one that adds a constant.

# %%
for planted in (planted_ife(seed=1), planted_priming(seed=1)):
    found = compare_accounts(planted.model, planted.corpus, n_contexts=N, progress=False)
    print(found.verdict, "\n")

# %% [markdown]
# ## A language model
#
# SmolLM2-135M. The same questions, on sentences: what does one prime do to the next sentence?

# %%
model = mechicl.load("smollm2")
verbs = ["give", "send", "sell", "make", "bring", "show", "throw", "get", "buy", "draw", "promise", "find"]
corpus = dative_corpus(
    verbs=verbs[: 4 if SMALL else 12], design="factorial", primes_per_verb=4, targets_per_verb=2, seed=0
)
priming = compare_accounts(model, corpus, n_contexts=40 if SMALL else 200, progress=False)
print(priming.verdict)
priming.plot()

# %% [markdown]
# And what do demonstrations do to a label? Here kernels are those of texts and of the model's own states, the gradient
# step is a real one, taken on the prompt's demonstrations, and the Bayesian account multiplies what the model would say
# without demonstrations by what they say of the labels' shares.

# %%
sentiment = compare_accounts(
    model, load_task("sentiment"), lengths=(4,) if SMALL else (2, 4, 8), n_contexts=12 if SMALL else 40, progress=False
)
print(sentiment.verdict, "\n")
for sentence in sentiment.sentences.values():
    print("-", sentence)
sentiment.plot()

# %% [markdown]
# A share is behaviour: that an account *predicts* the model does not say that the model *computes* it so. What the
# other analyses find inside stands in `mechanisms`; `mechicl report --model smollm2` puts all of it on one page.
