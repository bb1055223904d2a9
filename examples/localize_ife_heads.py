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
# # Which heads drive priming, and which the inverse frequency effect?
#
# A model that has read *A doctor brought a guest a file* prefers the same form in the next sentence (priming), and may
# do so more when the form was unexpected for the verb (the inverse frequency effect, IFE). Which of its attention heads
# are responsible?
#
# The method replaces one head's output at a time and measures the effect again. That sounds simple; the traps are in
# what is put in place of the output, and in choosing the largest of hundreds of changes. So we first try it on small
# models **whose mechanism we wrote into the weights ourselves**, where the answer can be wrong, and only then on
# SmolLM2-135M. All of it runs on two CPU cores in some minutes; set `MECHICL_EXAMPLE_SIZE=small` to see every step in
# less.

# %%
import os

import mechicl
from mechicl.analyses.head_localization import localize_heads
from mechicl.analyses.heads.pictures import draw_attention, draw_curves, draw_scatter
from mechicl.analyses.heads.viewer import show_heads, typical_item
from mechicl.analyses.priming import measure_priming
from mechicl.organisms import planted_decoys, planted_null
from mechicl.tasks import dative_corpus

SMALL = os.environ.get("MECHICL_EXAMPLE_SIZE") == "small"
QUICK = {"n_items": 24 if SMALL else 48, "n_random": 20, "n_boot": 500, "n_permutations": 2_000, "progress": False}

# %% [markdown]
# ## A model with a known answer
#
# `planted_decoys` builds a transformer of 3 layers and 4 heads that reads a miniature dative language. We know the part
# of each head:
#
# - the **ife** head writes the *prediction error* of the prime (its form, minus how much its verb prefers that form),
# - the **priming** head writes the form of the prime, whatever the verb,
# - **decoy** heads carry the verb's bias, but nothing reads what they write,
# - a **backup** head does what the ife head does, but only when that head is silenced,
# - a **carrier** takes the verb along within the prime; at the target's positions, where we look, it does nothing,
# - **spare** heads write a little noise, **idle** heads nothing.

# %%
planted = planted_decoys(noise=0.1, seed=0)
role = {f"L{layer}H{head}": name for name, heads in planted.heads.items() for layer, head in heads}
for name, heads in planted.heads.items():
    print(f"{name:8}", ", ".join(f"L{layer}H{head}" for layer, head in heads))

# %% [markdown]
# ## Priming
#
# For each head: put what it writes *when the prime is in the other form* in place of what it writes, at the positions
# of the target, and see how far priming falls. That is done for all heads on one half of the items; the strongest are
# tested again on the other half, which has other prime verbs and other targets. Only what holds there is called
# confirmed. Both the ife head and the priming head know the form of the prime, so both should be found.

# %%
planted_primed = measure_priming(planted.model, planted.corpus, progress=False)
priming = localize_heads(planted.model, planted.corpus, "priming", primed=planted_primed, **QUICK)
print(priming.verdict)


# %%
def with_parts(head_map) -> str:
    """The map's heads beside the parts that we gave them."""
    table = head_map.heads[["name", "effect", "confirm_effect", "confirm_p", "confirmed", "carries_bias"]]
    return table.assign(part=table["name"].map(role)).round(3).to_string(index=False)


print(with_parts(priming))

# %% [markdown]
# ## The inverse frequency effect
#
# The IFE is a slope: how the effect of a prime depends on its verb's bias. To take out *what is particular to the verb*
# and leave the form, a head's output is replaced by its mean over items with other verbs. The priming head writes the
# same for every verb, so its mean is what it writes anyway, and it must not be found.

# %%
ife = localize_heads(planted.model, planted.corpus, "ife", primed=planted_primed, **QUICK)
print(ife.verdict, "\n")
print(with_parts(ife))

# %% [markdown]
# The ife head alone is confirmed. The decoys are named for what they are: the bias can be read off their output
# (`carries_bias`), but replacing them changes nothing. **Finding information in a head does not show that it is used.**
#
# Behind the number stands this: the change of each item's outcome when the head is replaced, over the verb's bias.

# %%
ax = draw_scatter(ife, ife.heads.loc[ife.heads["confirmed"], "name"].iloc[0])

# %% [markdown]
# ## Two ways to go wrong
#
# **Zero ablation.** It is tempting to switch a head off by setting its output to zero. No prime ever makes it zero, and
# the backup head takes the silence as its cue. The head that drives the whole effect then seems to do nothing:

# %%
zero = localize_heads(planted.model, planted.corpus, "ife", ablation="zero", primed=planted_primed, **QUICK)
print(zero.verdict)
true_head = next(name for name, part in role.items() if part == "ife")
for way, head_map in (("mean over other verbs", ife), ("zero", zero)):
    effect = head_map.heads.set_index("name").loc[true_head, "effect"]
    print(f"{true_head} replaced by {way + ':':23} change of the IFE {effect:+.3f}")

# %% [markdown]
# **Localising nothing.** Some head always has the largest change. In a model without the effect that head is noise, so
# an effect whose interval includes 0 is not localised at all:

# %%
null = planted_null(noise=0.1, seed=0)
print(localize_heads(null.model, null.corpus, "priming", **QUICK).verdict)

# %% [markdown]
# ## A real model
#
# SmolLM2-135M has 30 layers of 9 heads. Here the truth is not known, and some dozens of pairs are few: the example
# shows the steps. `mechicl heads --model smollm2` does the same with more pairs and writes a report.

# %%
model = mechicl.load("smollm2")
# The more verbs the better: they are the sample, and heads are confirmed on one half of them.
verbs = ["give", "send", "show", "throw", "find", "make", "promise", "get", "save", "buy", "draw", "bring"]
verbs += [] if SMALL else ["sell", "keep"]
corpus = dative_corpus(verbs=verbs, targets_per_verb=2, seed=0)
print(corpus)
primed = measure_priming(model, corpus, progress=False)
print(primed.effects.query("scale == 'nats'")[["contrast", "estimate", "low", "high"]].round(3).to_string(index=False))

# %% [markdown]
# Priming is strong. Which heads carry it over to the target?

# %%
few = {"n_items": 6 if SMALL else 14, "n_random": 10, "untrained": False, "progress": False}
found = localize_heads(model, corpus, "priming", primed=primed, **few)
print(found.verdict)
ax = found.plot()

# %% [markdown]
# Brown cells lower priming when they are replaced, so these heads drive it; blue cells work against it. Dots mark the
# heads that were confirmed on the other half: there, too, their change has the same sign, and a p-value that is
# corrected for the number of candidates is at most .05. The candidates one by one (share: of what replacing all heads
# does):

# %%
candidates = found.heads[found.heads["candidate"]].sort_values("confirm_p")
columns = ["name", "effect", "confirm_effect", "confirm_low", "confirm_high", "confirm_share", "confirm_p", "confirmed"]
print(candidates[columns].round(3).to_string(index=False))

# %% [markdown]
# Do a few heads do it, or many? The solid line replaces the strongest heads together, the dashed line keeps them alone.

# %%
ax = draw_curves(found)

# %% [markdown]
# Controls stand beside the result: random sets of as many heads, pairs that share no preposition, how much worse the
# model reads unrelated text, and whether the heads are just those that copy (induction).

# %%
print(found.controls[["control", "quantity", "estimate", "low", "high"]].round(3).to_string(index=False))

# %% [markdown]
# ## What do these heads look at?
#
# Share of attention from the last token before the two forms of the target part, after primes of either form.

# %%
if found.confirmed:
    ax = draw_attention(found)
else:
    print("No head was confirmed on these few pairs, so there is none to look at.")

# %% [markdown]
# Over single texts, token by token, attention can be explored: run this notebook, choose a head and point at a token.

# %%
strongest = found.heads.reindex(found.heads["effect"].abs().sort_values(ascending=False).index)
heads = found.confirmed[:4] or list(zip(strongest["layer"][:2], strongest["head"][:2], strict=True))
item = typical_item(found, corpus) if found.confirmed else 0
show_heads(model, found, corpus, item, prime_form="DO", target_form="DO", heads=heads)

# %% [markdown]
# ## And the IFE in this model?
#
# The same question about the slope. If its interval includes 0 on these pairs, there is nothing to localise, and that
# is the answer.

# %%
model_ife = localize_heads(model, corpus, "ife", primed=primed, **few)
print(model_ife.verdict)

# %% [markdown]
# ## What a result means, and what it does not
#
# - **A confirmed head** changes the effect when its output is replaced, on verbs and targets on which it was not
#   chosen; the chance that any confirmed head is a false one is at most 5%.
# - **A head that was not confirmed** is not shown to be idle. With few pairs only large changes are found, and heads
#   can stand in for one another.
# - **What was put in place matters.** The other form finds heads that carry the form; the mean over other verbs finds
#   what is particular to the verb; zero misleads.
# - **Effects are total.** Part of a head's effect can pass through later heads.
#
# ## Where to go from here
#
# - `found.save("runs/heads")` and `mechicl.results.load("runs/heads")` keep a result bit for bit.
# - `mechicl heads --model smollm2 --effect priming ife` does this with more pairs and writes a page to read in a
#   browser; with `--roles prime` heads are replaced where the prime is read instead.
