"""What a planted model must give: every item's L, the slopes, and every head's effect, in closed form.

Nothing here runs the model. All follows from one number a head, item and prime form: c(head), what the head writes into
the structure logit at the target's verb (see `planted`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from mechicl.organisms.planted_circuit import READS, Circuit, Head
from mechicl.stats import slopes
from mechicl.tasks.corpus import PrimingCorpus

FORMS = ("PD", "DO")
FIRST_OBJECT = {"PD": "theme", "DO": "recipient"}  # form -> role
INTERVENTIONS = ("interchange", "mean", "zero")


@dataclass(frozen=True)
class Truth:
    """Means and slopes that a planted model has on its corpus, noise included; nats, slopes in nats per unit of x.

    M = mean(L_PD - L_DO). slope_<context>: least squares slope, over the verbs that prime, of the verb's mean L on x,
    the targets' own terms taken out. common_shift_from_neutral = -(slope_PD + slope_DO)/2 + slope_neutral.
    """

    M: float
    slope_PD: float
    slope_DO: float
    slope_neutral: float
    common_shift_from_neutral: float


@dataclass(frozen=True, eq=False, repr=False)
class Planted:
    """A planted model, a corpus for it, and the truth about both.

    model: a TransformerBridge with a tokenizer. heads: role -> the (layer, head) that have it; every head of the model
    has one of "carrier", "ife", "priming", "backup", "decoy", "spare", "idle". circuit: the numbers behind the weights.
    """

    model: Any
    corpus: PrimingCorpus
    heads: dict[str, tuple[Head, ...]]
    circuit: Circuit

    def __post_init__(self) -> None:
        """Refuse a corpus in other words."""
        if self.corpus.forms != FORMS:
            raise ValueError(f"got a corpus with the forms {self.corpus.forms}; expected one from planted_corpus")
        language = self.circuit.language
        known = {*language.verbs, *language.persons, *language.things}
        used = set().union(*self._verb_names.values(), *self._first_objects)
        if not used <= known:
            raise ValueError(
                f"the corpus has words that the model lacks, e.g. {sorted(used - known)[:3]}; make it with "
                f"planted_corpus(n_verbs={language.n_verbs}, n_persons={language.n_persons}, "
                f"n_things={language.n_things})"
            )

    def __repr__(self) -> str:
        """One line."""
        planted = {role: places for role, places in self.heads.items() if role not in ("spare", "idle")}
        return f"Planted({self.model.cfg.model_name!r}, {planted}, {self.corpus!r})"

    @property
    def bias(self) -> dict[str, float]:
        """Verb -> p_v, the probability of PD after no prime."""
        return dict(zip(self.circuit.language.verbs, self.circuit.bias.tolist(), strict=True))

    @cached_property
    def truth(self) -> Truth:
        """Means and slopes over x = p_v."""
        return self.truth_over(self.circuit.bias)

    def truth_over(self, x: Float[np.ndarray, "verb"]) -> Truth:
        """The same with another x, one number for each verb of the language: the biases' logits, say."""
        per_form = {form: self.contributions(form).sum((0, 1)) for form in FORMS}
        return Truth(**self._functionals(per_form, x), slope_neutral=0.0)

    def contributions(self, form: str) -> Float[np.ndarray, "layer head item"]:
        """c: what each head writes into the structure logit, nats, for each pair of the corpus after a prime of `form`.

        0 for every head after a neutral prime or none.
        """
        return np.where(self._waits[..., None], 0.0, self._unhindered(form))

    def expected_L(self, context: str) -> Float[np.ndarray, "item"]:
        """L of each pair of the corpus, nats, after a prime in `context`: PD, DO, neutral or unprimed."""
        if context not in (*FORMS, "neutral", "unprimed"):
            raise ValueError(f"got context={context!r}; expected PD, DO, neutral or unprimed")
        bias = self.circuit.bias[self._verbs["target"]]
        primed = self.contributions(context).sum((0, 1)) if context in FORMS else 0.0
        return np.log(bias / (1 - bias)) + primed

    def item_effects(
        self, intervention: str, form: str, donor_verbs: Sequence[str] | None = None
    ) -> Float[np.ndarray, "layer head item"]:
        """dL = L(patched) - L of every item after primes of `form`, when one head's z is replaced at target positions.

        interchange: z of the same item with the other form. mean: z averaged, within the form and each target position,
        over the items whose prime verb is another than the item's own; with `donor_verbs` only these verbs' items.
        zero: z = 0. 0 after neutral primes and none, except for interchange, which has no other form there.
        """
        own = self.contributions(form)
        if intervention == "interchange":
            return self.contributions(FORMS[form == FORMS[0]]) - own
        if intervention == "mean":
            return own @ self._donors(donor_verbs) - own
        if intervention == "zero":
            # without its flag the heads that wait come in
            freed = np.where(self._waits[..., None], self._unhindered(form), 0.0).sum((0, 1))
            return np.where(self._leaves_flag[..., None], freed, 0.0) - own
        raise ValueError(f"got intervention={intervention!r}; expected one of {INTERVENTIONS}")

    def effects(self, intervention: str, donor_verbs: Sequence[str] | None = None) -> pd.DataFrame:
        """One row a head: layer, head, role, and the exact change of M, the slopes over p_v and the common shift.

        The patch is made at target positions, after primes of both forms; x = p_v stays as it is.
        """
        changes = {form: self.item_effects(intervention, form, donor_verbs) for form in FORMS}
        rows = [
            {"layer": layer, "head": head, "role": role}
            | self._functionals({form: change[layer, head] for form, change in changes.items()}, self.circuit.bias)
            for role, places in self.heads.items()
            for layer, head in places
        ]
        return pd.DataFrame(rows).sort_values(["layer", "head"], ignore_index=True)

    def _functionals(
        self, per_form: dict[str, Float[np.ndarray, "item"]], x: Float[np.ndarray, "verb"]
    ) -> dict[str, float]:
        verbs = self._verbs["prime"]
        number = np.bincount(verbs, minlength=len(x))
        primes = number > 0
        slope = {
            form: float(slopes(x[primes], np.bincount(verbs, values, len(x))[primes] / number[primes]))
            for form, values in per_form.items()
        }
        return {
            "M": float((per_form["PD"] - per_form["DO"]).mean()),
            "slope_PD": slope["PD"],
            "slope_DO": slope["DO"],
            "common_shift_from_neutral": 0.0 - (slope["PD"] + slope["DO"]) / 2,  # nothing happens after a neutral prime
        }

    def _unhindered(self, form: str) -> Float[np.ndarray, "layer head item"]:
        """What each head writes into sigma, or would if it did not wait."""
        if form not in FORMS:
            raise ValueError(f"got form={form!r}; expected PD or DO")
        circuit, verbs = self.circuit, self._verbs["prime"]
        kind = READS[form][0]
        nouns = self._first_nouns[FORMS.index(form)]
        found = np.zeros((circuit.n_layers, circuit.n_heads, len(self.corpus)))
        for head, plan in circuit.plans.items():
            if plan.into_sigma and kind in READS[plan.reads]:
                value = plan.thing if kind == "thing" else plan.person
                found[head] = plan.gain * (value + plan.verbs[verbs]) + plan.noun_gain * plan.nouns[nouns]
        return found

    def _donors(self, donor_verbs: Sequence[str] | None) -> Float[np.ndarray, "item item"]:
        """Column i: the weights with which the items make the mean that replaces item i's z."""
        verbs = self._verbs["prime"]
        weights = verbs[:, None] != verbs[None]
        if donor_verbs is not None:
            unknown = sorted(set(donor_verbs) - set(self.bias))
            if unknown:
                raise ValueError(f"got the donor verbs {unknown}, which the model does not know")
            weights &= np.isin(verbs, [self.circuit.language.verbs.index(verb) for verb in donor_verbs])[:, None]
        if not weights.any(0).all():
            raise ValueError("some items have no donor with another prime verb; give more donor verbs")
        return weights / weights.sum(0)

    @cached_property
    def _waits(self) -> Bool[np.ndarray, "layer head"]:
        return self._where("waits")

    @cached_property
    def _leaves_flag(self) -> Bool[np.ndarray, "layer head"]:
        return self._where("leaves_flag")

    def _where(self, trait: str) -> Bool[np.ndarray, "layer head"]:
        found = np.zeros((self.circuit.n_layers, self.circuit.n_heads), dtype=bool)
        for head, plan in self.circuit.plans.items():
            found[head] = getattr(plan, trait)
        return found

    @cached_property
    def _verb_names(self) -> dict[str, list[str]]:
        """The verbs of all pairs' primes and targets."""
        sentences, pairs = self.corpus.sentences, self.corpus.pairs
        verb = dict(zip(sentences["sentence"].tolist(), sentences["verb"].tolist(), strict=True))
        return {side: [verb[sentence] for sentence in pairs[side].tolist()] for side in ("prime", "target")}

    @cached_property
    def _verbs(self) -> dict[str, Int[np.ndarray, "item"]]:
        """Their numbers."""
        order = {verb: i for i, verb in enumerate(self.circuit.language.verbs)}
        return {side: np.array([order[verb] for verb in names]) for side, names in self._verb_names.items()}

    @cached_property
    def _first_objects(self) -> list[list[str]]:
        """The words of the primes' first objects, a list a form."""
        primes = self.corpus.pairs["prime"].tolist()
        word = {p: [self.corpus.text(p, form).part(FIRST_OBJECT[form]) for form in FORMS] for p in set(primes)}
        return [[word[p][i] for p in primes] for i in range(len(FORMS))]

    @cached_property
    def _first_nouns(self) -> list[Int[np.ndarray, "item"]]:
        """Their numbers among the nouns: persons, then things."""
        language = self.circuit.language
        order = {noun: i for i, noun in enumerate((*language.persons, *language.things))}
        return [np.array([order[word] for word in words]) for words in self._first_objects]
