"""What accounts say of the label that a language model gives to a text after some labelled demonstrations.

With y_i the label shown with demonstration i and e(y) its one-hot code, each account gives q over labels:

    constant                    nothing of the context: all labels alike
    label frequency             q = sum_i e(y_i) / n               copy last    q = e(y_n)
    prior alone                 what the model says of the query without demonstrations
    prior and label frequency   zero_shot^prior (count + pseudo_count)^counts: prior knowledge times what is shown
    kernel of the inputs        q = sum_i w_i e(y_i),  w = softmax(k(x, x_i) / temperature)
    attention of one head       the same, w the head's attention to the demonstrations' labels, its shares
    gradient step               what the model says of the query alone under weights after a real gradient step

All pass through one link (`mechicl.accounts.label_link`) with numbers fitted for each account, so what counts is which
label an account prefers from query to query, and not how sure a model speaks. "constant" is the link alone, the anchor;
"uniform" has no number at all. None but "copy last" and attention knows the demonstrations' order: a head may look at
them by their places, and its share may then be above 1. A late head may also look at the demonstrations with the label
that the model is about to give; whether the answer rests on a head is seen by changing its attention alone
(`mechicl.analyses.causality`).

Sources: votes of attention, Han et al., arXiv 2305.12766; a real step in place of the context, Dai et al., arXiv
2212.10559; prior knowledge beside what is shown, Xie et al., arXiv 2111.02080.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from mechicl.accounts.account import Account, Free
from mechicl.accounts.contexts import Contexts
from mechicl.accounts.label_examples import LabelExamples
from mechicl.accounts.label_link import linked, mixed_votes
from mechicl.accounts.label_search import LinkSearch

__all__ = ["ANCHOR", "KIND", "LabelExamples", "label_accounts"]
KIND = "few-shot"
ANCHOR = "constant"
MIXED = Free("mixed", 1e-3, 0.98, n_grid=6)
SHARPNESS = Free("sharpness", 1e-3, 1e3)  # declared to be counted: the link finds it by itself
TEMPERATURE = Free("temperature", 3e-4, 30.0, n_grid=11)
PSEUDO_COUNT = Free("pseudo_count", 0.05, 20.0)
Trials = Sequence[tuple[str, tuple[float, ...]]]  # a choice by name, and values of the numbers that are searched for
Says = Callable[[LabelExamples, Trials], np.ndarray]  # [trial, batch, label, what the link is linear in]


def label_accounts(examples: LabelExamples) -> tuple[Account, ...]:
    """The accounts that these examples allow: none of a kernel, a head or a step where they have none.

    accounts = label_accounts(contexts[0].examples)
    judge_accounts(contexts, accounts, anchor=ANCHOR)
    """
    link = (SHARPNESS, MIXED)
    last, alone = "the label shown last is said again", "what the model would say of the query without demonstrations"
    counted = _Rule(_prior_and_counts, (PSEUDO_COUNT,), weights=("prior", "counts"))
    numbers = (Free("prior", 1e-3, 1e3), Free("counts", 1e-3, 1e3), PSEUDO_COUNT)
    both = "prior knowledge of the query, times how often each label is shown"
    found = [
        _linked("constant", "baseline", _Rule(_constant, weights=()), (), "the context makes no difference"),
        Account("uniform", "baseline", _uniform, "all labels are as likely"),
        _linked("label frequency", "baseline", _Rule(_frequency, (MIXED,)), link, "labels as often as they are shown"),
        _linked("copy last", "baseline", _Rule(_last, (MIXED,)), link, last),
        _linked("prior alone", "bayes", _Rule(_prior, (MIXED,)), link, alone),
        _linked("prior and label frequency", "bayes", counted, numbers, both),
    ]
    if examples.kernels:
        rule = _Rule(_kernel, (MIXED, TEMPERATURE), "kernel", tuple(examples.kernels))
        words = "labels of demonstrations that are like the query, weighed by a kernel"
        found.append(_linked("kernel of the inputs", "kernel", rule, (*link, TEMPERATURE), words))
    if examples.attention:
        rule = _Rule(_attention, (MIXED,), "head", tuple(examples.attention))
        words = "labels of the demonstrations, weighed by one head's attention to them"
        found.append(_linked("attention of one head", "kernel", rule, link, words))
    if examples.stepped:
        rule = _Rule(_stepped, (MIXED,), "rate", tuple(examples.stepped))
        words = "what the model would say of the query alone after a gradient step on the demonstrations"
        found.append(_linked("gradient step", "gradient", rule, link, words))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class _Rule:
    """What an account says before the link, and how it is fitted.

    says: for examples and trials. searched: numbers that the link is not linear in. choice: what is chosen, of `names`.
    weights: names of what the link multiplies with.
    """

    says: Says
    searched: tuple[Free, ...] = ()
    choice: str = ""
    names: tuple[str, ...] = ("",)
    weights: tuple[str, ...] = ("sharpness",)

    def predict(self, examples: LabelExamples, **given: Any) -> Float[np.ndarray, "batch label"]:
        """Probabilities of the labels, with the numbers that `fit` finds."""
        trial = (given.get(self.choice, ""), tuple(given[one.name] for one in self.searched))
        features = self.says(examples, [trial])[0]
        weights = np.array([given[name] for name in self.weights], dtype=np.float64)
        bias = np.asarray(given.get("bias", np.zeros(features.shape[1])), dtype=np.float64)
        return linked(features, examples.allowed, weights, bias)

    def fit(self, contexts: Sequence[Contexts]) -> dict[str, Any]:
        """The numbers of least mean distance from the model; `bias`: one for each label, summing to 0."""
        parts: list[LabelExamples] = [one.examples for one in contexts]
        search = LinkSearch(
            features=lambda trials: np.concatenate(
                [self.says(own, [(self.names[i], values) for i, values in trials]) for own in parts], axis=1
            ),
            free=self.searched,
            target=np.concatenate([one.model for one in contexts]),
            allowed=np.concatenate([own.allowed for own in parts]),
            with_bias=parts[0].with_bias,
        )
        number, values, link = search.best(len(self.names))
        found: dict[str, Any] = {self.choice: self.names[number]} if self.choice else {}
        found |= values
        found |= {name: float(value) for name, value in zip(self.weights, link.weights[0], strict=True)}
        centred = link.bias[0] - link.bias[0].mean()
        return found | ({"bias": tuple(map(float, centred))} if search.with_bias else {})


def _linked(name: str, family: str, rule: _Rule, free: tuple[Free, ...], words: str) -> Account:
    choices = {rule.choice: rule.names} if rule.choice else {}
    return Account(name, family, rule.predict, words, free=free, choices=choices, fit=rule.fit)


def _uniform(examples: LabelExamples) -> Float[np.ndarray, "batch label"]:
    return np.asarray(examples.allowed / examples.allowed.sum(-1, keepdims=True))


def _constant(examples: LabelExamples, trials: Trials) -> np.ndarray:
    return np.zeros((len(trials), *examples.zero_shot.shape, 0))


def _frequency(examples: LabelExamples, trials: Trials) -> np.ndarray:
    return _mixed(examples, examples.votes(np.ones(examples.shown.shape[:2])), trials)


def _last(examples: LabelExamples, trials: Trials) -> np.ndarray:
    weights = np.zeros(examples.shown.shape[:2])
    weights[:, -1] = 1.0
    return _mixed(examples, examples.votes(weights), trials)


def _prior(examples: LabelExamples, trials: Trials) -> np.ndarray:
    return _mixed(examples, examples.shares(examples.zero_shot), trials)


def _stepped(examples: LabelExamples, trials: Trials) -> np.ndarray:
    shares = {name: examples.shares(own) for name, own in examples.stepped.items()}
    return _mixed(examples, np.stack([shares[name] for name, _ in trials]), trials)


def _attention(examples: LabelExamples, trials: Trials) -> np.ndarray:
    votes = examples.votes(np.stack([examples.attention[name] for name, _ in trials]))
    return _mixed(examples, votes, trials)


def _kernel(examples: LabelExamples, trials: Trials) -> np.ndarray:
    scores = np.stack([examples.kernels[name] / values[1] for name, values in trials])
    return _mixed(examples, examples.votes(np.exp(scores - scores.max(-1, keepdims=True))), trials)


def _prior_and_counts(examples: LabelExamples, trials: Trials) -> np.ndarray:
    allowed, counts = examples.allowed, examples.shown.sum(1)
    prior = np.log(np.where(allowed, np.maximum(examples.shares(examples.zero_shot), 1e-300), 1.0))
    shown = [np.where(allowed, np.log(counts + pseudo_count), 0.0) for _, (pseudo_count,) in trials]
    return np.stack([np.broadcast_to(prior, (len(trials), *prior.shape)), np.stack(shown)], axis=-1)


def _mixed(examples: LabelExamples, q: Float[np.ndarray, "*set batch label"], trials: Trials) -> np.ndarray:
    """The one feature of the link, a trial each; `mixed` is the first of the numbers that are searched for."""
    mixed = np.array([values[0] for _, values in trials])[:, None, None]
    return mixed_votes(np.broadcast_to(q, (len(trials), *q.shape[-2:])), examples.allowed, mixed)[..., None]
