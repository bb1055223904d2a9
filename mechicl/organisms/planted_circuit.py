"""The weights of the planted models, every entry written down: attention only, no normalisation, no biases.

**Residual stream.** One coordinate a feature (`Features`): the structure logit sigma; a flag that a head leaves; a
direction that nothing reads; is-BOS, is-thing, is-person; the constant 1, the position j and its square; which verb the
token is; which verb the token before it is; which noun the token is. Embeddings set the token's own features, the
position's coordinates come from the position table, and "the verb before" is empty until a carrier head writes it.

**Unembedding.** Things get +sigma/2, persons -sigma/2, every other token 0. So log P(a thing) - log P(a person) = sigma
wherever they are predicted from, and where sigma = 0 all V tokens are equally likely. A PD target has one token more
than a DO target, at log(1/V); each verb's own sigma therefore holds log V besides logit(bias). Then

    L = logit(bias of the target's verb) + all that heads write into sigma at the target's verb.

**Carrier** (layer 0): a previous-token head that copies which verb the token before is. Positions are needed for this
and for nothing else. Its score is C (2 (i-1) j - j^2), which falls by C (j - (i-1))^2 from its peak at j = i-1: hard
at any distance. No softmax sees the term that j does not change.

**Heads of the upper layers** (`HeadPlan`) act at verbs and read the first object of the sentence before. Their score is

    G (is-verb(i) [after-verb(j) + is-noun(j)] + 1.5 is-BOS(j)).

At a verb the first object of an earlier sentence has 2 G, BOS 1.5 G, any other token at most G; at other positions BOS
has 1.5 G and all others 0. So a head without anything to read rests on BOS, whose value is 0: after no prime, after a
neutral prime (the word after its verb is no noun), and at every token that is no verb. A head may be made to read only
things, or only persons; then is-noun(j) is is-thing(j) or is-person(j). At the object a head's z holds

    z = (value of the object's kind + value of the verb before, value of the noun, 1),

and W_O writes `gain` z_0 + `noun_gain` z_1 into sigma or into the direction that nothing reads, and z_2 into the flag
if the head leaves one. A head that `waits` has is-verb(i) - flag(i) in the place of is-verb(i): where an earlier layer
left the flag, it rests.

**How hard.** The largest and the next score lie at least G/2 = C = 30 apart, so what leaks from all other tokens is
below n_tokens e^-30 < 2e-12 of a value. What is left is the rounding of float32, below 1e-5 in L (the tests find
about 2e-6).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float

from mechicl.organisms.planted_language import BOS, Language

Head = tuple[int, int]  # (layer, head)
Weights = Float[np.ndarray, "_ _"]

N_CTX = 160  # as wide as scoring packs its rows; the language's own texts have 13 tokens at most, BOS included
CARRIER_GAP = 30.0  # C
READER_GAP = 60.0  # G
READS = {"both": ("thing", "person"), "PD": ("thing",), "DO": ("person",)}  # form -> the first object's kind


@dataclass(frozen=True)
class HeadPlan:
    """What a head of the upper layers does, at a verb, with the first object of the sentence before.

    verbs, nouns: a value for each verb before and for each noun (persons, then things). thing, person: the value of the
    object's kind. reads: after which prime the head acts ("PD": a thing is the first object, "DO", "both").
    """

    verbs: Float[np.ndarray, "verb"]
    nouns: Float[np.ndarray, " _"]
    thing: float = 0.0
    person: float = 0.0
    gain: float = 1.0
    noun_gain: float = 0.0
    reads: str = "both"
    into_sigma: bool = True
    leaves_flag: bool = False
    waits: bool = False


class Features:
    """The coordinates of the residual stream: single ones, and blocks with one for each verb or noun."""

    SIGMA, FLAG, UNREAD, IS_BOS, THING, PERSON, ONE, POSITION, SQUARE = range(9)

    def __init__(self, language: Language) -> None:
        """Lay the blocks behind the single coordinates."""
        n, m = language.n_verbs, language.n_persons + language.n_things
        self.verb = slice(9, 9 + n)  # which verb the token is
        self.before = slice(9 + n, 9 + 2 * n)  # which verb the token before it is
        self.noun = slice(9 + 2 * n, 9 + 2 * n + m)  # which noun the token is
        self.size = 9 + 2 * n + m


@dataclass(frozen=True, eq=False)
class Circuit:
    """A planted model as numbers, before any network is made of it.

    bias: p_v of each verb, the probability of PD that the model gives the verb's unprimed targets. carrier: the
    previous-token head of layer 0. plans: every head of layers 1 and up.
    """

    language: Language
    bias: Float[np.ndarray, "verb"]
    n_layers: int
    n_heads: int
    carrier: Head
    plans: Mapping[Head, HeadPlan] = field(repr=False)

    @cached_property
    def features(self) -> Features:
        """Where each feature lies."""
        return Features(self.language)

    @property
    def d_head(self) -> int:
        """The carrier copies one number a verb; readers need three."""
        return max(self.language.n_verbs, 3)

    def embedding(self) -> Float[np.ndarray, "vocab d_model"]:
        """Every token's own features; a verb's sigma is logit(p_v) + log V."""
        language, at = self.language, self.features
        ids = {word: i for i, word in enumerate(language.vocabulary)}
        table = np.zeros((len(ids), at.size))
        table[ids[BOS], at.IS_BOS] = 1
        verbs = [ids[word] for word in language.verbs]
        table[verbs, at.verb] = np.eye(language.n_verbs)
        table[verbs, at.SIGMA] = np.log(self.bias / (1 - self.bias)) + math.log(len(ids))
        table[[ids[word] for word in language.persons], at.PERSON] = 1
        table[[ids[word] for word in language.things], at.THING] = 1
        nouns = [ids[word] for word in (*language.persons, *language.things)]
        table[nouns, at.noun] = np.eye(len(nouns))
        return table

    def positions(self) -> Float[np.ndarray, "pos d_model"]:
        """1, j and j^2."""
        table, j = np.zeros((N_CTX, self.features.size)), np.arange(N_CTX)
        table[:, self.features.ONE], table[:, self.features.POSITION], table[:, self.features.SQUARE] = 1, j, j**2
        return table

    def unembedding(self) -> Float[np.ndarray, "vocab d_model"]:
        """Half of sigma to things, minus half of it to persons."""
        table = self.embedding()
        read = np.zeros_like(table)
        read[:, self.features.SIGMA] = (table[:, self.features.THING] - table[:, self.features.PERSON]) / 2
        return read

    def attention(self, layer: int) -> dict[str, Float[np.ndarray, "head _ _"]]:
        """Q, K, V [head d_model d_head] and O [head d_head d_model] of a layer; heads without a plan are all zero."""
        shape = (self.n_heads, self.features.size, self.d_head)
        found = {name: np.zeros(shape) for name in "QKV"} | {"O": np.zeros((shape[0], shape[2], shape[1]))}
        if layer == self.carrier[0]:
            self._write_carrier({name: weights[self.carrier[1]] for name, weights in found.items()})
        for (at, head), plan in self.plans.items():
            if at == layer:
                self._write_reader(plan, {name: weights[head] for name, weights in found.items()})
        found["Q"] *= math.sqrt(self.d_head)  # attention divides by it
        return found

    def _write_carrier(self, w: Mapping[str, Weights]) -> None:
        at = self.features
        # q = C (2 (i - 1), -1), k = (j, j^2)
        w["Q"][at.POSITION, 0], w["Q"][at.ONE, 0], w["Q"][at.ONE, 1] = 2 * CARRIER_GAP, -2 * CARRIER_GAP, -CARRIER_GAP
        w["K"][at.POSITION, 0] = w["K"][at.SQUARE, 1] = 1
        # which verb a token is becomes, one token on, which verb stands before
        n = self.language.n_verbs
        w["V"][at.verb, :n] = np.eye(n)
        w["O"][:n, at.before] = np.eye(n)

    def _write_reader(self, plan: HeadPlan, w: Mapping[str, Weights]) -> None:
        at = self.features
        kinds = {"thing": at.THING, "person": at.PERSON}
        # q = G (is-verb [- flag], 1), k = (after-verb + is-noun, 1.5 is-BOS)
        w["Q"][at.verb, 0] = w["Q"][at.ONE, 1] = READER_GAP
        w["Q"][at.FLAG, 0] = -READER_GAP if plan.waits else 0
        w["K"][at.before, 0] = 1
        w["K"][[kinds[kind] for kind in READS[plan.reads]], 0] = 1
        w["K"][at.IS_BOS, 1] = 1.5
        # z = (kind and verb, noun, 1); BOS has none of these features
        w["V"][at.THING, 0], w["V"][at.PERSON, 0], w["V"][at.before, 0] = plan.thing, plan.person, plan.verbs
        w["V"][at.noun, 1] = plan.nouns
        w["V"][[at.THING, at.PERSON], 2] = 1
        into = at.SIGMA if plan.into_sigma else at.UNREAD
        w["O"][0, into], w["O"][1, into] = plan.gain, plan.noun_gain
        w["O"][2, at.FLAG] = 1 if plan.leaves_flag else 0
