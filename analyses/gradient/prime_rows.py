"""Primes and their prediction errors: the frame that `error_driven` regresses on, one row a pair and form of its prime.

error_surprisal = -log P(form | verb), error_probability = 1 - P(form | verb), where the model chooses between the two
forms: P(first form) = sigmoid(L_unprimed of the prime's own sentence). Covariates of a prime: `length` in tokens;
`surprisal`, nats a token, the mean over both forms of -log P(prime) / length, so how unexpected its words are in
whichever form (a form's own surprisal holds the error, and would take its place); `frequency`, log P(first token of
the verb | BOS), the model's own stand-in for a unigram log-frequency.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.special import expit, log_expit

from mechicl.hooks.scoring import score
from mechicl.hooks.wrapper import WrappedModel
from mechicl.tasks.corpus import PrimingCorpus
from mechicl.tasks.prompts import tokenize

COVARIATES = ("length", "surprisal", "frequency")


def error_rows(items: pd.DataFrame, sentences: pd.DataFrame, forms: tuple[str, str], baseline: str) -> pd.DataFrame:
    """One row a pair and form: prime, target, verb, form, both errors, icl and placebo_icl (nats).

    `items` and `sentences` as in a `PrimingResult`. With s = 1 for the first form and -1 for the second, icl =
    s (L_form - L_baseline), above 0 where the target moves towards the prime's form, and placebo_icl =
    s (L_neutral - L_unprimed), NaN where the baseline is no neutral prime.
    """
    unprimed = items["prime"].map(sentences.set_index("sentence")["L_unprimed"]).to_numpy(dtype=float)
    frames = []
    for form, sign in zip(forms, (1.0, -1.0), strict=True):
        placebo = items["L_neutral"] - items["L_unprimed"] if baseline == "neutral" else np.nan
        frame = pd.DataFrame(
            {
                "prime": items["prime"].to_numpy(),
                "target": items["target"].to_numpy(),
                "verb": items["prime_verb"].to_numpy(),
                "form": form,
                "error_surprisal": -log_expit(sign * unprimed),
                "error_probability": expit(-sign * unprimed),
                "icl": sign * (items[f"L_{form}"] - items[f"L_{baseline}"]).to_numpy(dtype=float),
                "placebo_icl": sign * placebo,
            }
        )
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def with_covariates(
    rows: pd.DataFrame,
    wrapped: WrappedModel,
    corpus: PrimingCorpus,
    *,
    prepend_bos: bool = True,
    memory_budget: int = 1 << 30,
    progress: bool = True,
) -> pd.DataFrame:
    """The rows with `COVARIATES`, NaN where the corpus marks no verb or there is no BOS to ask after."""
    keys = list(dict.fromkeys(zip(rows["prime"], rows["form"], strict=True)))
    texts = [corpus.text(prime, form) for prime, form in keys]
    prompts = [tokenize(text, wrapped.tokenizer, prepend_bos=prepend_bos) for text in texts]
    lengths = np.array([len(prompt) - prepend_bos for prompt in prompts], dtype=float)
    if prepend_bos:
        tokens = [list(prompt.tokens[1:]) for prompt in prompts]
        total = -score(wrapped, [""] * len(tokens), tokens, memory_budget=memory_budget, progress=progress)
        unigram = _after_bos(wrapped)
        firsts = [prompt.part("verb")[0] if "verb" in prompt.roles else None for prompt in prompts]
        frequency = np.array([np.nan if first is None else unigram[first] for first in firsts])
    else:
        total, frequency = np.full((2, len(keys)), np.nan)
    table = pd.DataFrame(
        {"length": lengths, "total": total, "frequency": frequency},
        index=pd.MultiIndex.from_tuples(keys, names=["prime", "form"]),
    )
    table["surprisal"] = (table["total"] / table["length"]).groupby(level="prime").transform("mean")
    return rows.join(table.drop(columns="total"), on=["prime", "form"])


def _after_bos(wrapped: WrappedModel) -> Float[np.ndarray, " vocab"]:
    tokens = torch.tensor([[wrapped.bos_token_id]], device=wrapped.device)
    with wrapped.evaluating():
        logits = wrapped.logits(tokens, torch.zeros(1, dtype=torch.long, device=wrapped.device))
    return logits[0].double().log_softmax(-1).cpu().numpy()
