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
# # Is in-context learning kernel regression?
#
# A model reads eight remarks with their sentiment and must judge a ninth. One account of what it does: it looks at the
# demonstrations that are *like* the ninth, and answers with their labels,
#
# $$\hat y = \frac{\sum_i e(y_i)\, K(x, x_i)}{\sum_i K(x, x_i)},$$
#
# kernel regression with attention as the kernel (Han et al., arXiv 2305.12766). The published evidence: labels weighed
# by the attention of one head give the model's own answer nine times out of ten.
#
# Here we ask what that shows. First on a model whose kernel we planted ourselves, then on a trained one whose ideal
# kernel is known, then on SmolLM2-135M. Set `MECHICL_EXAMPLE_SIZE=small` to see every step in less time, and
# `MECHICL_EXAMPLE_STORE` to a folder to keep finished work, from which an interrupted run goes on.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt

import mechicl
from mechicl.analyses.causality.replaced_attention import kernel_causality
from mechicl.analyses.demonstrations.attention_maps import attention_map
from mechicl.analyses.kernel_regression import measure_kernel_regression
from mechicl.analyses.kernels.classifier_attention import classifier_kernels
from mechicl.analyses.phenomena.experiments import kernel_phenomena
from mechicl.organisms import load_classifier, planted_kernel
from mechicl.organisms.classifiers import find_classifier
from mechicl.tasks import fewshot_prompts, sentiment_task
from mechicl.views.kernels import plot_kernel_curves, plot_rebuilt

plt.rcParams["figure.dpi"] = 72
SMALL = os.environ.get("MECHICL_EXAMPLE_SIZE") == "small"
STORE = os.environ.get("MECHICL_EXAMPLE_STORE")
QUICK = {"n_permutations": 200 if SMALL else 1_000, "n_boot": 1_000, "progress": False}
SHOWN = ["layer", "head", "kernel", "unique_r2", "unique_r2_low", "unique_r2_high", "position_r2", "label_r2", "kind"]
WAYS = ["name", "chosen", "agreement", "low", "high", "chance", "gain", "gain_low", "gain_high", "accuracy"]

# %% [markdown]
# ## A model that is a kernel regression
#
# `planted_kernel` has six heads that read the demonstrations' labels. One weighs them by a Gaussian kernel of bandwidth
# 0.6 between the words' vectors, and it alone writes the answer; the others look at what came last, at everything
# alike, at one label, or by other kernels, and write nothing.

# %%
planted = planted_kernel(bandwidth=0.6)
prompts = fewshot_prompts(planted.task, 8, 80, tokenizer=planted.tokenizer, seed=0)
known = measure_kernel_regression(planted.model, prompts, **QUICK)
print(planted.heads)
print(known.heads.query("layer == 1")[SHOWN].round(3).to_string(index=False))
rbf = known.heads.query("layer == 1 and head == 0").iloc[0]
print(f"\nthe writing head: R2 {rbf['r2']:.6f}, bandwidth {rbf['bandwidth']:.4f}")
print(known.rebuilt[WAYS].round(2).to_string(index=False))
known.plot()

# %% [markdown]
# Log attention of that head is the kernel's logarithm, so R² is 1 and the slope gives the bandwidth back. Every other
# head is called by what it follows. The *unique* R² is what a kernel explains beyond the place, label, length and words
# of a demonstration, and beyond what the demonstration draws from *any* query; kernel and coefficients are chosen on
# one half of the prompts and judged on the other.

# %% [markdown]
# ## A trained model whose ideal kernel is known
#
# Two one-layer transformers learned to find the label of a noisy item among noisy items. With 1,024 items in the pool
# the best that can be done is to compare: the ideal predictor *is* a Gaussian kernel regression, of known bandwidth.
# With 8 items it is better to know them by heart.

# %%
for name in ("classifier-general", "classifier-memory"):
    learned = classifier_kernels(load_classifier(name), find_classifier(name).task, name=name)
    print(name)
    print(learned.frame.drop(columns="head").round(3).to_string(index=False), "\n")

# %% [markdown]
# The general model's attention follows similarity, most of it; the memorising one's hardly. But the kernel that
# training found is not quite the ideal one: the product and the cosine of items fit its attention better than the
# Gaussian kernel does, and that kernel's fitted bandwidth is too wide.

# %% [markdown]
# ## SmolLM2 on the sentiment of remarks
#
# Where does the token that answers look?

# %%
model = mechicl.load("smollm2")
prompts = fewshot_prompts(sentiment_task(), 8, 24 if SMALL else 47, tokenizer=model.tokenizer, seed=0)
profile = attention_map(model, prompts[: 8 if SMALL else 24], progress=False)
profile.plot()

# %% [markdown]
# At the start of the text, at what follows the query's text, and at labels, more than their share of the tokens
# (dashed: what attention to all tokens alike would give). Now the head-by-head question.

# %%
store = str(Path(STORE) / "readings") if STORE else None
found = measure_kernel_regression(model, prompts, store=store, **QUICK)
print(found.verdict)
print(found.rebuilt[WAYS].round(2).to_string(index=False))
plot_rebuilt(found)

# %% [markdown]
# Read the table from its bottom. Here the model tends to repeat the *last label*, whatever the texts. So labels weighed
# by their place alone give many of its answers; that is the rival which an attention head must beat (`gain`), and which
# the published comparison lacks. Agreement by itself shows no kernel.
#
# The rows "words" and "states" are kernels between the texts themselves. Words mislead here, below chance: the remarks
# come in pairs that share their words and differ in sentiment. The model's own states of the texts, each read alone,
# do not fall for it: labels weighed by these are right for most queries (`accuracy`), though often not where the model
# is, which suggests that the states know more than the answer makes of them.
#
# Which heads look at what is *like* the query?

# %%
print(found.heads["kind"].value_counts().to_string(), "\n")
best = found.heads.sort_values("unique_r2", ascending=False)
print(best[[*SHOWN, "p_fwe", "follows_kernel"]].head(8).round(3).to_string(index=False))
found.plot()

# %%
plot_kernel_curves(found)

# %% [markdown]
# ## Does it matter?
#
# A kernel that describes attention may still be idle. So we put the kernel's weights in the place of the attention of
# the named heads, on prompts that had no part in choosing or fitting, and read the answer again. 1 is the answer as it
# was, 0 as if the heads had looked at all demonstrations alike.

# %%
items = found.evaluation.nonzero()[0]
weights = {head: found.kernel_weights[items, i] for i, head in enumerate(found.named_heads)}
nuisance = {head: found.nuisance_weights[items, i] for i, head in enumerate(found.named_heads)}
sets = {name: heads for name, heads in found.named.items() if heads}  # with few prompts no head may follow a kernel
causes = kernel_causality(
    model, [prompts[i] for i in items], weights, sets=sets, nuisance=nuisance, span="label", n_boot=1_000,
    progress=False,
)  # fmt: skip
rows = causes.frame.query("condition == 'kernel' and reference == 'uniform' and measure == 'faithfulness'")
controls = ["set", "control", "estimate", "low", "high", "difference", "diff_low", "diff_high"]
print(rows[controls].round(2).to_string(index=False))
causes.plot()

# %% [markdown]
# Beside the kernel stand its own weights permuted over the demonstrations, what the nuisances alone predict (place,
# label, length, words), and random heads. The weights give much of the answer back, but so do the nuisances: in these
# heads it is the *place* of a demonstration that matters for the answer, and the similarity that is there adds nothing
# that this many prompts could show.
#
# ## What a kernel explains of in-context learning, and what not
#
# The same queries under other demonstrations. A kernel account must change its accuracy where the model does.

# %%
conditions = ["random", "similar", "flipped labels", "order"]
trials = kernel_phenomena(
    model, sentiment_task(), n_queries=12 if SMALL else 40, conditions=conditions, n_boot=1_000, progress=False,
    store=str(Path(STORE) / "phenomena") if STORE else None,
)  # fmt: skip
columns = ["condition", "predictor", "accuracy", "low", "high", "difference", "p_holm"]
print(trials.frame[columns].round(2).to_string(index=False))
print(trials.orders.round(2).to_string(index=False))
trials.plot()

# %% [markdown]
# Every kernel account is blind to the order of the demonstrations; the model is not: two orders of the same
# demonstrations give different answers for a good share of the queries (`disagreement`).
#
# The whole account of one model on one task, as a page: `mechicl kernel --model smollm2 --task sentiment`, or with a
# table of your own, `mechicl kernel --model smollm2 --task reviews.tsv --label sentiment`.
