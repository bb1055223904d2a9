"""Models in which it is known, to the last digit, which head does what: the ground truth of head localisation.

Four models on a dative mini-language (`planted_corpus`; the weights are explained in `planted_circuit`). Write p_v for
the bias of the prime's verb v (the probability of PD that the model gives its unprimed targets), t for the target's
verb, k for the strength, s for the prime's structure (1 after PD, 0 after DO). A head writes into the structure logit,
at the target's verb and only after a prime of one of the two forms:

    planted_ife       "ife"       k (s - p_v)     the prediction error of the prime
    planted_priming   "priming"   k (s - 1/2)     the structure, whatever the verb
    planted_decoys    both of these, two "decoy" heads whose z is p_v and whose output nothing reads, and a "backup"
                      head that writes the same k (s - p_v), but only where the "ife" head's output is missing
    planted_null      no head writes anything

In all of them a "carrier" head of layer 0 takes the verb's identity to the prime's first object. So it matters at prime
positions only (there its mean ablation does what that of all heads that read it does together), and the other heads
matter at target positions only. All heads of the upper layers that have no other role are "spare": they read the
prime's verb and write `noise` r(head, v), with r standard normal and independent of p, which is 0 unless asked for.
Spare heads act in turn after primes of both forms, of PD, and of DO. With `item_noise` they also write item_noise
u(head, noun) for the prime's first object; u has mean 0 over the things and over the persons that stand in primes.

Without noise, in nats (logit means log p/(1 - p)):

    L_unprimed = L_neutral = logit p_t,     L_PD = logit p_t + c_PD(v),     L_DO = logit p_t + c_DO(v)

                      c_PD            c_DO        M = mean(L_PD - L_DO)    slopes on p_v     common shift from neutral
    planted_ife       k (1 - p_v)     -k p_v      k                        -k, -k, 0         k
    planted_priming   k/2             -k/2        k                        0, 0, 0           0
    planted_decoys    sum of the two              k_ife + k_priming        -k_ife, -k_ife, 0 k_ife
    planted_null      0               0           0                        0, 0, 0           0

(slopes of L_PD, L_DO, L_neutral, the target's own term taken out). What a patch at the target's positions does to L:

    interchange (z from the same item with the other form)    dL_PD = c_DO - c_PD, dL_DO = c_PD - c_DO. Both heads have
                                                              dM = -2k; no slope changes: it finds structure
    mean (z averaged within a form over other verbs' items)   dL = mean c(other verbs) - c(v). Both heads have dM = 0;
                                                              "ife" has dslope = k n/(n - 1): it finds the verb's part
    zero                                                      dL = -c, and for "ife" with a backup dL = 0

The factor n/(n - 1), for n verbs, is the price of averaging over *all other* verbs: their mean falls as the item's own
bias rises. Donors that are the same for a set of items (one half of the verbs for the other half) have the factor 1.

**Why zero ablation misleads.** The "ife" head of `planted_decoys` leaves a flag at the target's verb, and the backup
rests where it sees the flag. Mean and interchange ablation leave the flag as it is, and show what the head does. Zero
ablation takes it away, which no prime ever does; the backup then writes what the head would have written, and the head
that drives the whole effect seems to do nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict, Unpack

import numpy as np
from jaxtyping import Float

from mechicl.organisms.planted_circuit import Circuit, Head, HeadPlan
from mechicl.organisms.planted_language import Language, planted_corpus
from mechicl.organisms.planted_network import build_model
from mechicl.organisms.planted_places import place_heads
from mechicl.organisms.planted_truth import Planted
from mechicl.tasks.corpus import PrimingCorpus

SPARE_READS = ("both", "PD", "DO")  # spare heads take turns


class Sizes(TypedDict, total=False):
    """What all four models take besides their own arguments.

    n_layers (2; 3 for `planted_decoys`), n_heads (4): heads of layer 0 other than the carrier do nothing.
    n_verbs (22), n_persons (12), n_things (12): the language; a corpus must be made with the same three.
    noise (0), item_noise (0): standard deviations, nats, of what each spare head writes for a verb and for a noun.
    biases: p_v of each verb, in the verbs' order; else evenly spaced from .1 to .9 and shuffled.
    corpus: from `planted_corpus`, or a part of one; else the default one, drawn with `seed`.
    at: role -> (layer, head) for any of "carrier", "ife", "priming", "backup"; the others' places are drawn.
    dtype ("float32" or "float64"), seed (0: biases, places, noise, corpus).
    """

    n_layers: int
    n_heads: int
    n_verbs: int
    n_persons: int
    n_things: int
    noise: float
    item_noise: float
    biases: Sequence[float] | None
    corpus: PrimingCorpus | None
    at: Mapping[str, Head] | None
    dtype: str
    seed: int


def planted_ife(*, strength: float = 1.0, **sizes: Unpack[Sizes]) -> Planted:
    """One head writes strength (s - p_v), the prime's prediction error, into the structure logit.

    `sizes`: see `Sizes`. Errors (ValueError): sizes that cannot be had, places that are taken or out of range, biases
    outside (0, 1), numbers that are not finite, a corpus in other words.

    >>> planted = planted_ife(strength=0.5, at={"ife": (1, 2)})
    >>> planted.heads["ife"], round(planted.truth.slope_PD, 6)
    (((1, 2),), -0.5)
    """
    return _Draft(sizes).plant("planted-ife", {"ife": strength})


def planted_priming(*, strength: float = 1.0, **sizes: Unpack[Sizes]) -> Planted:
    """One head writes strength (s - 1/2): priming that does not depend on the verb. Arguments as `planted_ife`."""
    return _Draft(sizes).plant("planted-priming", {"priming": strength})


def planted_decoys(
    *, strength: float = 1.0, priming_strength: float | None = None, n_decoys: int = 2, **sizes: Unpack[Sizes]
) -> Planted:
    """An IFE head, a priming head (as strong unless told otherwise), decoys, and a backup of the IFE head.

    Needs three layers, since the backup reads what the IFE head left. Other arguments as `planted_ife`.
    """
    if n_decoys < 0:
        raise ValueError(f"got n_decoys={n_decoys}; expected 0 or more")
    priming = strength if priming_strength is None else priming_strength
    roles = {"ife": strength, "backup": strength, "priming": priming}
    return _Draft({"n_layers": 3, **sizes}).plant("planted-decoys", roles, n_decoys)


def planted_null(**sizes: Unpack[Sizes]) -> Planted:
    """No head writes structure or bias; with `noise`, heads write what has nothing to do with them. See `Sizes`."""
    return _Draft(sizes).plant("planted-null", {})


class _Draft:
    """Checked sizes, and all that is drawn, each kind from a random stream of its own."""

    def __init__(self, sizes: Sizes) -> None:
        unknown = sorted(sizes.keys() - Sizes.__annotations__.keys())
        if unknown:
            raise TypeError(f"got {unknown}; expected names of {sorted(Sizes.__annotations__)}")
        self.n_layers, self.n_heads = sizes.get("n_layers", 2), sizes.get("n_heads", 4)
        words = (sizes.get("n_verbs", 22), sizes.get("n_persons", 12), sizes.get("n_things", 12))
        self.language, self.seed, self.dtype = Language(*words), sizes.get("seed", 0), sizes.get("dtype", "float32")
        self.noise, self.item_noise = sizes.get("noise", 0.0), sizes.get("item_noise", 0.0)
        self.at = dict(sizes.get("at") or {})
        if self.n_layers < 2 or self.n_heads < 1:
            raise ValueError(
                f"got {self.n_layers} layers of {self.n_heads} heads; expected 2 layers or more (the carrier comes "
                "before the heads that read it) and 1 head or more"
            )
        if not (0 <= self.noise < np.inf and 0 <= self.item_noise < np.inf):
            raise ValueError(
                f"got noise={self.noise}, item_noise={self.item_noise}; expected finite numbers, 0 or more"
            )
        biases, self.places, verb_noise, noun_noise = np.random.default_rng(self.seed).spawn(4)
        self.bias = self._biases(sizes.get("biases"), biases)
        n_nouns = self.language.n_persons + self.language.n_things
        self.verb_noise = verb_noise.normal(size=(self.n_layers, self.n_heads, self.language.n_verbs))
        self.noun_noise = self._centred(noun_noise.normal(size=(self.n_layers, self.n_heads, n_nouns)))
        self.corpus = sizes.get("corpus") or planted_corpus(
            n_verbs=words[0], n_persons=words[1], n_things=words[2], seed=self.seed
        )

    def plant(self, name: str, strengths: Mapping[str, float], n_decoys: int = 0) -> Planted:
        """The model in which each role of `strengths` has one head."""
        if not np.isfinite(list(strengths.values())).all():
            raise ValueError(f"got the strengths {dict(strengths)}; expected finite numbers")
        carrier, places = place_heads([*strengths], n_decoys, self.n_layers, self.n_heads, self.at, self.places)
        plans, heads = dict[Head, HeadPlan](), dict[str, tuple[Head, ...]]()
        for role, chosen in places.items():
            heads[role] = chosen
            plans |= {head: self._plan(role, strengths.get(role, 1.0), head, i) for i, head in enumerate(chosen)}
        heads |= {"carrier": (carrier,), "idle": tuple((0, h) for h in range(self.n_heads) if (0, h) != carrier)}
        circuit = Circuit(self.language, self.bias, self.n_layers, self.n_heads, carrier, plans)
        return Planted(build_model(circuit, name, self.dtype), self.corpus, heads, circuit)

    def _plan(self, role: str, strength: float, head: Head, number: int) -> HeadPlan:
        verbs, nouns = np.zeros_like(self.bias), np.zeros_like(self.noun_noise[head])
        if role in ("ife", "backup"):
            first = role == "ife"
            return HeadPlan(-self.bias, nouns, thing=1.0, gain=strength, leaves_flag=first, waits=not first)
        if role == "priming":
            return HeadPlan(verbs, nouns, thing=0.5, person=-0.5, gain=strength)
        if role == "decoy":
            return HeadPlan(self.bias, nouns, into_sigma=False)
        reads = SPARE_READS[number % len(SPARE_READS)]
        return HeadPlan(
            self.verb_noise[head], self.noun_noise[head], gain=self.noise, noun_gain=self.item_noise, reads=reads
        )

    def _biases(self, given: Sequence[float] | None, rng: np.random.Generator) -> Float[np.ndarray, "verb"]:
        n = self.language.n_verbs
        bias = rng.permutation(np.linspace(0.1, 0.9, n)) if given is None else np.asarray(given, dtype=float)
        if bias.shape != (n,) or not ((bias > 0) & (bias < 1)).all():
            raise ValueError(f"got the biases {given}; expected {n} probabilities, one a verb, above 0 and below 1")
        return bias

    def _centred(self, nouns: Float[np.ndarray, "layer head _"]) -> Float[np.ndarray, "layer head _"]:
        """Mean 0 over the persons and the things of the half that primes draw on, so that no head primes by nouns."""
        n_persons, n_things = self.language.n_persons, self.language.n_things
        for start, number in ((0, n_persons), (n_persons, n_things)):
            half = nouns[..., start : start + number // 2]
            half -= half.mean(-1, keepdims=True)
        return nouns
