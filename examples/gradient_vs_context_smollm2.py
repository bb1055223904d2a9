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
# # Does a prime in the context act like a gradient step on it?
#
# A model that reads *A doctor brought a guest a file* becomes more likely to use the same form in the next sentence.
# One account says why: the forward pass amounts to a step of gradient descent on what was just read. A gradient step is
# driven by error, so a surprising prime should do more (the inverse frequency effect, IFE), and so it was tested until
# now: do slopes in context and slopes after fine-tuning have the same sign?
#
# Here we ask more of it. We **take** the gradient step, on every prime, from the model's own weights each time, score
# the same targets, and compare the two effects **item by item**. First in small models that were trained to learn
# from errors, or not to; then in SmolLM2-135M. Set `MECHICL_EXAMPLE_SIZE=small` to see every step in less time, and
# `MECHICL_EXAMPLE_STORE` to a folder to keep finished work, from which an interrupted run goes on.

# %%
import os

import matplotlib.pyplot as plt

import mechicl
from mechicl.analyses.finetuning import finetune_on_primes
from mechicl.analyses.gradient.first_order import first_order_rate
from mechicl.analyses.gradient.gradient_words import match_sentence
from mechicl.analyses.gradient.item_match import match_items
from mechicl.analyses.implicit_gradient import measure_implicit_gradient
from mechicl.analyses.inverse_frequency import inverse_frequency_effect
from mechicl.analyses.priming import measure_priming
from mechicl.analyses.resemblance.gradient_comparison import compare_to_gradient
from mechicl.organisms import load_organism
from mechicl.tasks import capitals_task, dative_corpus, fewshot_prompts, speaker_corpus

plt.rcParams["figure.dpi"] = 72  # scatters of thousands of items, in a file that should stay small
SMALL = os.environ.get("MECHICL_EXAMPLE_SIZE") == "small"
QUICK = {"n_boot": 1_000, "progress": False}
SHOWN = ["form", "level", "r", "low", "high", "chance", "p_holm", "context_sd", "gradient_sd"]

# %% [markdown]
# ## Two models with a known answer
#
# Both read texts of speakers who adapt to the forms that they heard. The speakers of `delta-medium` adapt by the
# *error* of what they expected (a delta rule), those of `boost-medium` by a fixed amount whatever they expected. Both
# models learned to follow their speakers almost perfectly, so both show priming.
#
# The step: plain gradient descent on the loss of the prime's words, one step, all weights. How long may it be? As long
# as it still does what the gradient says: `first_order_rate` looks for the longest step whose fall of the loss is at
# least nine tenths of what the first order promises.

# %%
pairs = speaker_corpus(targets_per_verb=3 if SMALL else 10, seed=1)
matches = {}
for name in ("delta-medium", "boost-medium"):
    model = load_organism(name)
    rate, _ = first_order_rate(model, pairs)
    context = measure_priming(model, pairs, **QUICK)
    steps = finetune_on_primes(model, pairs, learning_rate=rate, **QUICK)
    matches[name] = match_items(context, steps, n_boot=500)
    print(f"{name}, learning rate {rate:g}")
    print("  in context:", inverse_frequency_effect(context).verdict)
    print("  by gradient steps:", inverse_frequency_effect(steps.priming).verdict)
    print(" ", match_sentence(matches[name]), "\n")

# %% [markdown]
# Gradient steps show an IFE in *both* models: that is what gradients do. What differs is the context. In `delta-medium`
# a verb whose primes do much in the context is a verb whose primes do much as a gradient step; in `boost-medium` all
# verbs' primes do the same, and there is nothing that could follow the gradient. (Look at `context_sd`: a correlation
# of something that varies by thousandths of a nat is about next to nothing, however high it is.)

# %%
print(matches["delta-medium"].matches[SHOWN].round(3).to_string(index=False), "\n")
print(matches["boost-medium"].matches[SHOWN].round(3).to_string(index=False))

# %%
ax = matches["delta-medium"].plot()

# %% [markdown]
# ## SmolLM2
#
# The same for a real language model, and all that belongs to the gradient account in one call: real steps on every
# prime, their match with the context, growth of the implicit update with the prime's prediction error, and the two
# identities that rewrite the context as an update (of attention's output, and of the MLPs' weights).

# %%
smollm2 = mechicl.load("smollm2")
few = {"verbs": ("give", "send", "show", "promise", "find", "make", "save", "draw"), "targets_per_verb": 1}
corpus = dative_corpus(**(few if SMALL else {"targets_per_verb": 2}), seed=0)
sizes = {"n_pairs": 24, "n_prompts": 8} if SMALL else {"n_pairs": 200, "n_prompts": 24}
found = measure_implicit_gradient(smollm2, corpus, store=os.environ.get("MECHICL_EXAMPLE_STORE"), **sizes, **QUICK)
print(f"{len(corpus)} pairs, {len(found.finetuned.training)} different primes, one gradient step on each\n")
print(found.verdict.replace(". ", ".\n"))

# %%
print(found.match.matches[SHOWN].round(3).to_string(index=False))

# %%
ax = found.match.plot()

# %% [markdown]
# **Reading it.** Four levels, each of which leaves less to chance agreement. *items*: all effects as they are; some
# targets are easily moved by anything, so chance is not 0 there. *within targets*: that is taken out. *beyond verb and
# target*: only what is particular to the pair. *between verbs*: the level at which the IFE is tested. A correlation of
# .1 says that 1% of the variance is shared: there, or not there, is one question, and enough to explain priming by a
# gradient step is another.
#
# ## The IFE, in context and by gradient steps
#
# Published fine-tuning of GPT-2 has an IFE after both primes, larger after DO primes (slopes -.048 and -.117), which is
# what made the account attractive. The slopes here, per unit of bias and, in the last column, relative to how much
# priming there is at all:

# %%
for name, ife, priming in (
    ("in context", found.ife, found.priming),
    ("by gradient steps", found.finetuned_ife, found.finetuned.priming),
):
    size = priming.effects.query("contrast == 'PD vs DO' and scale == 'probability'")["estimate"].iloc[0]
    print(f"{name}: {ife.verdict}; priming {size:.4f} (probability)")
    chosen = ["slope_PD", "slope_DO", "slope_PD_from_neutral", "slope_DO_from_neutral"]
    table = ife.estimates.query("scale == 'probability' and estimand in @chosen")
    table = table.assign(per_priming=table["estimate"] / size)
    print(
        table[["estimand", "estimate", "low", "high", "p_permutation", "per_priming"]].round(4).to_string(index=False)
    )

# %% [markdown]
# ## Do surprising primes do more?
#
# The prediction error of a prime is the surprisal of its form given its verb. The controls stand beside the slope: the
# same regression after neutral primes, which show no form, and with the errors of other verbs.

# %%
estimates = found.errors.estimates.query("forms == 'both'")
print(estimates[["outcome", "model", "estimate", "low", "high", "p_holm", "relative"]].round(3).to_string(index=False))
ax = found.errors.plot()

# %% [markdown]
# ## The context as a weight update
#
# For one token, the context can always be replaced by rank-1 updates of the MLPs' weights. It is an identity, checked
# here to the precision of the arithmetic, and it holds for untrained weights as well. What it gives are sizes: how
# much, relative to the weights, does a prime "write" in which layer?

# %%
print(found.mlp.report())
ax = found.mlp.plot()

# %% [markdown]
# ## Few-shot prompts, and why controls decide
#
# For labelled demonstrations there are published measures of resemblance. SimAOU: does attention's output change with
# demonstrations in the context as it changes after fine-tuning on them (cosine of the two changes, 0 if unrelated)?
# SimAM: the same of attention's scores. Here keys and values are fine-tuned, one step a demonstration, at the rate that
# answers held-out queries best. Beside it the controls, above all the same measure in an **untrained** copy of the
# model, which has learned nothing.

# %%
n_demos, n_prompts = (4, 8) if SMALL else (8, 8)
prompts = fewshot_prompts(capitals_task(), n_demos, n_prompts, tokenizer=smollm2.tokenizer, seed=0, n_candidates=8)
resemblance = compare_to_gradient(
    smollm2, prompts, learning_rates=[1e-3, 3e-3], held_out=0.4, n_boot=500, progress=False
)
print(resemblance.rates.round(3).to_string(index=False), "\n")
table = resemblance.frame.query("layer == 'all' and measure in ['SimAOU', 'SimAM']")
print(table.drop(columns=["variant", "layer"]).round(2).to_string(index=False))
ax = resemblance.plot()

# %% [markdown]
# A measure of resemblance that an untrained model passes as well is no evidence that the trained one descends a
# gradient; what is left to look at is where, over the layers, the trained model lies above its controls.
