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
# # Does a language model show the inverse frequency effect?
#
# People who have just heard *A doctor brought a file to a guest* are more likely to describe the next scene in the same
# form (PD, prepositional dative) than in the other one (DO, double object: *brought a guest a file*). This is
# **structural priming**. And a prime whose verb rarely takes the form it is heard in primes more: the **inverse
# frequency effect** (IFE). That is what learning from prediction errors would do, since a surprise is a large error.
#
# Zhou, Frank & McCoy (arXiv:2406.18501) asked whether in-context learning behaves like this. Here we ask a small
# pretrained model, SmolLM2-135M, with sentences of our own. All of it runs on two CPU cores in some minutes; set
# `MECHICL_EXAMPLE_SIZE=small` to see every step in less.

# %%
import os
from pathlib import Path

import pandas as pd
from scipy.special import expit

import mechicl
from mechicl.analyses.inverse_frequency import inverse_frequency_effect
from mechicl.analyses.priming import measure_priming
from mechicl.hooks.scoring import score
from mechicl.tasks import dative_corpus, read_primelm, tokenize

SMALL = os.environ.get("MECHICL_EXAMPLE_SIZE") == "small"

# %% [markdown]
# ## The model
#
# A TransformerLens model in evaluation mode, its weights as they were published: nothing is folded or centred.

# %%
model = mechicl.load("smollm2")
print(f"{model.cfg.model_name}: {model.cfg.n_layers} layers, {model.cfg.n_heads} heads, width {model.cfg.d_model}")

# %% [markdown]
# ## The corpus
#
# Every sentence exists in both forms, and without either (*A doctor brought a file*, the neutral prime). In a pair, the
# target has another verb than the prime, the other determiner and no content word in common with it, so what carries
# over is the structure. Prepositions can be shared; each pair records whether they are.

# %%
few = {"verbs": ["give", "send", "show", "save"], "targets_per_verb": 2}
corpus = dative_corpus(**(few if SMALL else {"targets_per_verb": 4}), seed=0)
print(corpus)
row = corpus.to_frame().iloc[0]
for name in ("prime_PD", "prime_DO", "prime_neutral", "target_PD", "target_DO", "shared_preposition"):
    print(f"{name:19} {row[name]}")

# %% [markdown]
# The parts of a sentence have names, which survive tokenization. Later analyses ask for "the verb of the prime", not
# for "position 3".

# %%
text = corpus.prime_target(0, "PD", "DO")
prompt = tokenize(text, model.tokenizer, prepend_bos=True)
for role in ("prime.verb", "prime.post_verb", "target.verb", "target.post_verb"):
    start, stop = prompt.roles[role]
    print(f"{role:17} {text.part(role)!r:38} tokens {start} to {stop - 1}")

# %% [markdown]
# ## One item by hand
#
# The model reads a prime, then a target. We compare the log-probabilities of the target's two forms:
#
# $$L_s = \log P(\mathrm{target\ in\ PD} \mid s) - \log P(\mathrm{target\ in\ DO} \mid s)$$
#
# in nats, where $s$ is what was read before. Above 0, PD is preferred. The priming effect is
# $L_\mathrm{PD} - L_\mathrm{DO}$: above 0, a form makes itself more likely.

# %%
targets = [" " + row["target_PD"], " " + row["target_DO"]]
L = {}
for form in corpus.forms:
    in_pd, in_do = score(model, row[f"prime_{form}"], targets, progress=False)
    L[form] = in_pd - in_do
    print(f"after the {form} prime: L = {L[form]:+.2f} nats, share of PD {expit(L[form]):.2f}")
print(f"priming effect of this item: {L['PD'] - L['DO']:+.2f} nats")

# %% [markdown]
# One item says little. Nouns, verbs and chance all move it.
#
# ## All items
#
# `measure_priming` does the same for the whole corpus, and also for the neutral prime and for no prime at all. What
# several sequences share is computed once. Intervals resample the verbs of the primes: pairs that share a verb are not
# independent, so the verbs are the sample, not the pairs.

# %%
primed = measure_priming(model, corpus, progress=False)
effects = primed.effects.query("scale == 'nats'")
print(effects[["contrast", "estimate", "low", "high", "p_holm", "n_pairs", "n_verbs"]].round(4).to_string(index=False))

# %% [markdown]
# "PD vs DO" is the priming effect. The contrasts with the neutral prime split it into what a PD prime adds and what a
# DO prime takes away. Verb by verb:

# %%
ax = primed.plot()

# %% [markdown]
# ## What the model expects of each verb
#
# The bias of a verb is its mean share of PD without any prime: what the model expects before it has read anything. It
# comes with an interval, for it is estimated from a handful of sentences.

# %%
bias = primed.bias.sort_values("bias")
print(bias[["verb", "bias", "bias_low", "bias_high", "n_sentences"]].round(3).to_string(index=False))

# %% [markdown]
# ## The inverse frequency effect
#
# A PD prime is a surprise with a verb of low bias, a DO prime with one of high bias. So if surprising primes do more,
# the share of PD in the target *falls* as the bias of the prime's verb rises, after primes of either form. The two
# slopes are the test.

# %%
ife = inverse_frequency_effect(primed)
print(ife.verdict, "\n")
columns = ["scale", "estimand", "estimate", "low", "high", "p_permutation", "p_holm"]
print(ife.estimates[columns].round(4).to_string(index=False))

# %%
ax = ife.plot()

# %% [markdown]
# ## What the verdict means, and what it does not
#
# - **"IFE on DO primes"** says that the slope after DO primes is below 0: its interval over verbs excludes 0, and so
#   does a permutation test that is corrected for testing both forms. **"No IFE"** says that the data do not show it.
#   That is no proof of absence: read the interval for how large the effect could still be. "Reversed" is a slope above
#   0 by the same rule: primes do more where their form is expected.
# - **It does not show that the model descends a gradient.** An error-driven learner has this effect, but activation
#   that decays and beliefs that are updated can have it too.
# - **Common shift and PE-slope tell two stories apart.** A verb may push the target whatever structure it is in. That
#   gives both lines the same slope: a common shift without a PE-slope (the slope of the priming effect itself). The
#   estimates "from neutral" subtract what the same verb does in neither structure.
# - **Plain means fall by themselves.** The target never has the verb of its prime, so that primes which lean to PD meet
#   targets which lean to DO. The slopes are therefore adjusted for the targets that each verb met; `slope_PD_raw` and
#   `slope_DO_raw` are the plain ones, as in the paper, and `slope_unprimed` is how far the pairing alone brings them.
# - **The sigmoid saturates.** Near 0 or 1 a share cannot move. The logit scale has no such walls, but weighs rare forms
#   more. Where the two disagree, quote neither alone.

# %%
ax = ife.plot(scale="logit")

# %% [markdown]
# ## Scores from elsewhere
#
# The test needs a table with one row a verb, not a model. The authors published theirs for GPT-3. If a folder with that
# table is here (`MECHICL_DATA` names it), we ask it the same question. Its verbs' means are not adjusted, since a table
# of means does not say who met whom.

# %%
data = Path(os.environ.get("MECHICL_DATA", Path(mechicl.__file__).parents[2] / "shared" / "data"))
published = data / "published_ife" / "gpt3_pronoun.csv"
if published.is_file():
    theirs = inverse_frequency_effect(pd.read_csv(published))
    print(theirs.verdict, "\n")
    shown = theirs.estimates.query("scale == 'probability'")[["estimand", "estimate", "low", "high", "p_ols"]]
    print(shown.round(4).to_string(index=False))
    ax = theirs.plot()
else:
    print("The published table is not here; set MECHICL_DATA to the folder that holds published_ife/gpt3_pronoun.csv.")

# %% [markdown]
# In GPT-3's table both slopes fall, but the PE-slope is near 0: the shift is common to both structures. Whether that is
# learning from the prime's error or an effect of the verb alone cannot be read off these two columns.
#
# ## Another corpus
#
# `read_primelm` reads files in the format of PrimeLM (Sinclair et al. 2022), whatever their alternation; verbs and
# parts are found in the text. The same two functions then do the rest.

# %%
primelm = data / "primelm_core_dative.csv"
if primelm.is_file():
    other = read_primelm(primelm, max_pairs=22 if SMALL else 220, seed=0)
    print(other)
    other_primed = measure_priming(model, other, progress=False)
    whole = other_primed.effects.query("scale == 'nats'")
    print(whole[["contrast", "estimate", "low", "high"]].round(3).to_string(index=False), "\n")
    print(inverse_frequency_effect(other_primed).verdict)
else:
    print("The PrimeLM file is not here; set MECHICL_DATA to the folder that holds primelm_core_dative.csv.")

# %% [markdown]
# ## Where to go from here
#
# - `primed.save("runs/priming")` and `mechicl.results.load("runs/priming")` keep a result bit for bit, with the model's
#   checksum, versions, seeds and options.
# - `mechicl report --model smollm2 --parts priming` does all of this from the command line and writes a page to read.
# - `mechicl.load` takes any folder with a model and a tokenizer; `compare` in `mechicl.analyses.comparison` puts
#   several models side by side.
