"""How close is a trained organism to the speakers that it read?

At the token after a verb the model's P(PD | PD or DO) meets the true one, q against p:

    KL = p log(p / q) + (1 - p) log((1 - p) / (1 - q))      nats a sentence; 0 or more, 0: equal

beside the KL of a reader who knows every verb's bias and never adapts (q = sigmoid(b_v)). `explained` is
1 - KL / KL of that reader: 1 where the model adapts as the speaker does, 0 where it might as well not adapt.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.special import expit, log_expit

from mechicl.tasks.mini_language import PERSONS, THINGS, TOKEN, VERBS
from mechicl.tasks.speakers import DO, NEUTRAL, PD, Speaker, document_tokens


@torch.no_grad()
def pd_log_odds(
    model: Any, tokens: Int[np.ndarray, "batch pos"], at: Int[np.ndarray, "batch demo"], *, batch: int = 512
) -> Float[np.ndarray, "batch demo"]:
    """Log-odds of PD against DO at the positions `at` (a thing follows against a person), by a transformers model."""
    thing, person = (slice(TOKEN[words[0]], TOKEN[words[-1]] + 1) for words in (THINGS, PERSONS))
    found = []
    for start in range(0, len(tokens), batch):
        logits = model(input_ids=torch.as_tensor(tokens[start : start + batch])).logits.double()
        odds = logits[..., thing].logsumexp(-1) - logits[..., person].logsumexp(-1)
        found.append(odds.gather(1, torch.as_tensor(at[start : start + batch])).numpy())
    return np.concatenate(found)


def bernoulli_kl(p: Float[np.ndarray, "*any"], log_odds: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    """KL from the true probability p to the one with these log-odds, in nats."""
    true = np.log(p) - np.log1p(-p)
    return p * (log_expit(true) - log_expit(log_odds)) + (1 - p) * (log_expit(-true) - log_expit(-log_odds))


def closeness(
    model: Any, speaker: Speaker, *, n_documents: int = 4000, n_sentences: int = 6, seed: int | tuple[int, ...] = 0
) -> dict[str, list[float | None]]:
    """`kl`, `kl_without_adaptation`, `explained` by sentence number (None where there is nothing to explain)."""
    documents = speaker.documents(n_documents, n_sentences=n_sentences, seed=seed)
    kl = bernoulli_kl(documents.p_pd, pd_log_odds(model, documents.tokens, documents.verb_at)).mean(axis=0)
    still = bernoulli_kl(documents.p_pd, speaker.bias[documents.verb]).mean(axis=0)
    moved = [bool(documents.state[:, k].any()) for k in range(n_sentences)]
    return {
        "kl": [float(f"{a:.3g}") for a in kl],
        "kl_without_adaptation": [float(f"{b:.3g}") if m else 0.0 for b, m in zip(still, moved, strict=True)],
        "explained": [round(1 - float(a / b), 4) if m else None for a, b, m in zip(kl, still, moved, strict=True)],
    }


def one_prime(model: Any, speaker: Speaker, *, seed: int = 0) -> dict[str, float]:
    """Priming and slopes after one prime: every verb in every form before every other verb, nouns at random.

    `priming`: mean L_PD - L_DO in nats (a true reader of the speaker: `speaker.ideal_priming()`). `slope_PD`,
    `slope_DO`, `slope_neutral`: slope of L_s over the prime verb's true probability of PD (delta: -rate, -rate, 0;
    the others 0). `common_shift_from_neutral`: slope_neutral - (slope_PD + slope_DO) / 2 (delta: rate).
    """
    n = len(VERBS)
    cells = np.array(list(product(range(n), (PD, DO, NEUTRAL), range(n))))
    verb, form = cells[:, [0, 2]], np.stack([cells[:, 1], np.full(len(cells), DO)], axis=1)
    tokens, at = document_tokens(verb, form, np.random.default_rng(seed))
    odds = pd_log_odds(model, tokens, at)[:, 1].reshape(n, 3, n)
    after = np.where(np.eye(n, dtype=bool)[:, None, :], np.nan, odds - odds.mean(axis=(0, 1)))  # targets' own level out
    by_verb = np.nanmean(after, axis=2)
    x = expit(speaker.bias)
    slopes = {
        f"slope_{name}": float(np.polyfit(x, by_verb[:, k], 1)[0]) for k, name in enumerate(("PD", "DO", "neutral"))
    }
    common = slopes["slope_neutral"] - (slopes["slope_PD"] + slopes["slope_DO"]) / 2
    found = {"priming": float((by_verb[:, 0] - by_verb[:, 1]).mean()), **slopes, "common_shift_from_neutral": common}
    return {key: round(value, 4) for key, value in found.items()}
