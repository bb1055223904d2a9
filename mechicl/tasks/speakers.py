"""Speakers that adapt to what they say: documents in which the law of structural priming is known.

A document is one speaker's talk, `n` sentences of the mini-language (`mechicl.tasks.mini_language`). Each verb v has a
bias b_v, and the speaker a state a, 0 at first. A sentence has a random verb; with probability `neutral` it has neither
structure, and otherwise

    P(PD | v) = sigmoid(b_v + a).

After a sentence of form s (1: PD, 0: DO) with a verb v the state moves, by what the learner is:

    delta     a += rate (s - P(PD | v))      error-driven: a surprising form moves it more, an inverse frequency effect
    boost     a += rate / 2 (2 s - 1)        activation: priming of the same size, without an inverse frequency effect
    static    a stays 0                      no priming

Neutral sentences move nothing, and the state does not decay. It always starts at 0: were it drawn, a reader would have
to infer it, and even a static speaker's past would tell of his future. What the past of a document says about its next
sentence is therefore exactly the learner's state, and nothing else.

Neutral sentences are there for a reason. Without them the error s - P(PD | v) is a sum of a part that knows the form
and a part that knows the verb, so that a reader who never combines the two would predict as well.

Units: states and biases in nats (log-odds of PD).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy.special import expit

from mechicl.tasks.mini_language import PERSONS, THINGS, TOKEN, VERBS

LEARNERS = ("delta", "boost", "static")
DO, PD, NEUTRAL = 0, 1, 2  # the forms in `Documents.form`


@dataclass(frozen=True)
class Documents:
    """Documents and their true probabilities.

    tokens: BOS, the sentences, then padding. verb_at: position of each sentence's verb, after which the form is
    told. verb: index into `VERBS`. form: 1 PD, 0 DO, 2 neutral. p_pd: true P(PD | PD or DO), given all before.
    state: the speaker's state before the sentence, in nats.
    """

    tokens: Int[np.ndarray, "batch pos"]
    verb_at: Int[np.ndarray, "batch demo"]
    verb: Int[np.ndarray, "batch demo"]
    form: Int[np.ndarray, "batch demo"]
    p_pd: Float[np.ndarray, "batch demo"]
    state: Float[np.ndarray, "batch demo"]


@dataclass(frozen=True)
class Speaker:
    """A kind of speaker: how it learns, how strongly, and its verb biases.

    `rate`: the mean priming effect L_PD - L_DO of one prime, in nats (0 for a static speaker, whatever the rate).
    `spread`: biases are evenly spaced from -spread to spread; `bias_seed` deals them out to the verbs.
    `neutral`: share of sentences in neither form, in [0, 1).
    """

    learner: str = "delta"
    rate: float = 1.5
    spread: float = 2.0
    neutral: float = 0.25
    bias_seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no speaker."""
        if self.learner not in LEARNERS:
            raise ValueError(f"got the learner {self.learner!r}; expected one of {list(LEARNERS)}")
        if not (np.isfinite(self.rate) and self.rate >= 0 and np.isfinite(self.spread) and self.spread > 0):
            raise ValueError(f"got rate={self.rate}, spread={self.spread}; expected rate >= 0 and spread > 0, in nats")
        if not 0 <= self.neutral < 1:
            raise ValueError(f"got neutral={self.neutral}; expected a probability below 1")

    @cached_property
    def bias(self) -> Float[np.ndarray, " verb"]:
        """b_v of every verb of `VERBS`, in nats."""
        even = np.linspace(-self.spread, self.spread, len(VERBS))
        return np.random.default_rng(self.bias_seed).permutation(even)

    def change(self, p_pd: Float[np.ndarray, "*any"], is_pd: Bool[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
        """How far a sentence of a form moves the state, where PD had the probability `p_pd`; in nats."""
        if self.learner == "delta":
            return self.rate * (is_pd - p_pd)
        return np.where(is_pd, 0.5, -0.5) * (self.rate if self.learner == "boost" else 0.0)

    def documents(self, n: int, *, n_sentences: int = 6, seed: int | tuple[int, ...] = 0) -> Documents:
        """`n` documents, a pure function of the arguments; a `seed` of several numbers is one seed."""
        if n < 1 or n_sentences < 1:
            raise ValueError(f"got n={n}, n_sentences={n_sentences}; expected 1 or more of each")
        rng = np.random.default_rng(seed)
        shape = (n, n_sentences)
        verb = rng.integers(len(VERBS), size=shape)
        has_structure, luck = rng.random(shape) >= self.neutral, rng.random(shape)
        state, p_pd, form = np.zeros(n), np.empty(shape), np.full(shape, NEUTRAL)
        states = np.empty(shape)
        for k in range(n_sentences):
            states[:, k] = state
            p_pd[:, k] = expit(self.bias[verb[:, k]] + state)
            is_pd, counts = luck[:, k] < p_pd[:, k], has_structure[:, k]
            form[counts, k] = np.where(is_pd, PD, DO)[counts]
            state = state + self.change(p_pd[:, k], is_pd) * counts
        tokens, at = document_tokens(verb, form, rng)
        return Documents(tokens, at, verb, form, p_pd, states)

    def after_verb(self, documents: Documents) -> Float[np.ndarray, "batch demo vocab"]:
        """The true distribution of the token after each verb, given all before: a thing, a person, the period."""
        shape = (*documents.verb.shape, len(TOKEN))
        probs, p = np.zeros(shape), documents.p_pd[..., None]
        first_thing, first_person = TOKEN[THINGS[0]], TOKEN[PERSONS[0]]
        structured = 1 - self.neutral
        probs[..., first_thing : first_thing + len(THINGS)] = structured * p / len(THINGS)
        probs[..., first_person : first_person + len(PERSONS)] = structured * (1 - p) / (len(PERSONS) - 1)
        agent = np.take_along_axis(documents.tokens, documents.verb_at - 1, axis=1)
        np.put_along_axis(probs, agent[..., None], 0.0, axis=-1)  # nobody gives to himself
        probs[..., TOKEN["."]] = self.neutral
        return probs

    def one_prime_table(self) -> pd.DataFrame:
        """What an ideal reader of this speaker makes of one prime of each verb, in closed form.

        Columns as `inverse_frequency_effect` takes them: verb, bias, bias_logit, then L_s and y_s for s in PD, DO,
        neutral: the means over targets of all verbs alike. L_s(v, t) = b_t + change(v, s); after a neutral prime b_t.
        """
        own = expit(self.bias)
        columns: dict[str, np.ndarray] = {"bias": own, "bias_logit": self.bias}
        moves = {form: self.change(own, np.full(len(own), form == "PD")) for form in ("PD", "DO")}
        for form, move in {**moves, "neutral": np.zeros(len(own))}.items():
            after = self.bias[None, :] + move[:, None]
            columns[f"L_{form}"], columns[f"y_{form}"] = after.mean(axis=1), expit(after).mean(axis=1)
        return pd.DataFrame({"verb": VERBS, **columns}).sort_values("verb", ignore_index=True)

    def ideal_priming(self) -> float:
        """L_PD - L_DO after one prime, in nats: the same for every verb and target."""
        return 0.0 if self.learner == "static" else float(self.rate)

    def ideal_slopes(self) -> pd.DataFrame:
        """Slopes over verb bias of an ideal reader: columns scale, estimand, estimate, as the analysis names them.

        For a delta speaker L_s has the slope -rate over the verb's probability of PD, for both forms; here it is
        regressed on what the analysis takes: L on the log-odds ("logit"), y on the probability.
        """
        table = self.one_prime_table()
        rows = []
        for scale, x, letter in (("probability", "bias", "y"), ("logit", "bias_logit", "L")):
            slope = {s: _slope(table[x], table[f"{letter}_{s}"]) for s in ("PD", "DO", "neutral")}
            common = -(slope["PD"] + slope["DO"]) / 2
            rows += [
                (scale, "slope_PD", slope["PD"]),
                (scale, "slope_DO", slope["DO"]),
                (scale, "common_shift", common),
                (scale, "pe_slope", slope["PD"] - slope["DO"]),
                (scale, "slope_neutral", slope["neutral"]),
                (scale, "common_shift_from_neutral", common + slope["neutral"]),
            ]
        return pd.DataFrame(rows, columns=["scale", "estimand", "estimate"])


def document_tokens(
    verb: Int[np.ndarray, "batch demo"], form: Int[np.ndarray, "batch demo"], rng: np.random.Generator
) -> tuple[Int[np.ndarray, "batch pos"], Int[np.ndarray, "batch demo"]]:
    """Tokens of documents with these verbs and forms, nouns at random, and the verbs' positions."""
    agent = rng.integers(len(PERSONS), size=verb.shape)
    recipient = (agent + rng.integers(1, len(PERSONS), size=verb.shape)) % len(PERSONS)  # somebody else
    first_verb, first_person, first_thing = TOKEN[VERBS[0]], TOKEN[PERSONS[0]], TOKEN[THINGS[0]]
    person, thing = first_person + recipient, first_thing + rng.integers(len(THINGS), size=verb.shape)
    is_pd, is_do = form == PD, form == DO
    words = np.stack(
        [
            first_person + agent,
            first_verb + verb,
            np.where(is_pd, thing, person),
            np.where(is_pd, TOKEN["to"], thing),
            person,
            np.full(verb.shape, TOKEN["."]),
        ],
        axis=-1,
    )
    structured, always = is_pd | is_do, np.ones(verb.shape, dtype=bool)
    kept = np.stack([always, always, structured, structured, is_pd, always], axis=-1).reshape(len(verb), -1)
    place = np.cumsum(kept, axis=1)  # BOS has place 0
    tokens = np.full((len(verb), 1 + kept.shape[1]), TOKEN["<pad>"])
    tokens[:, 0] = TOKEN["<s>"]
    rows, columns = np.nonzero(kept)
    tokens[rows, place[rows, columns]] = words.reshape(len(verb), -1)[rows, columns]
    return tokens[:, : 1 + int(place[:, -1].max())], place[:, 1::6]


def _slope(x: pd.Series, y: pd.Series) -> float:
    return float(np.cov(x, y)[0, 1] / np.var(x, ddof=1))
