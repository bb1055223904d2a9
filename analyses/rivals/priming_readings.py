"""Priming as contexts for accounts: a model's choice of form after one prime, and what each account may know.

One row an item and form of its prime. The base is L after the neutral prime where all items have one, else L of the
target alone (L: log-odds of the first form, nats; see `mechicl.analyses.priming`). The gradient step is
measured from the same base: L under weights stepped on the prime minus L under weights stepped on the neutral prime, or
under the model's own.

**Ceiling.** One prime has no order. What accounts other than the gradient step cannot know are the prime's words
besides its verb, so the ceiling is how far the model moves the target alike after other primes of that verb and form
(`mechicl.analyses.rivals.prime_ceiling`): prediction k is base + (L_k - base_k), L_k after prime k and base_k after its
neutral text, the given prime first. The gradient step knows all words of the prime and may come nearer than this.
Where a corpus has no other prime for some pair, there are no orders: the ceiling is then 0, and shares count what the
words do as unexplained.

**Units.** Halves and bootstrap go by prime verb (`cluster`): no verb is both fitted on and judged by. Targets are not
kept apart: each meets primes of several verbs, in the same way for every account. An interval that draws prime verbs
therefore holds for these targets; and it is as wide as the number of verbs is small.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.special import expit

from mechicl.accounts.contexts import Contexts
from mechicl.accounts.priming import PrimeExamples
from mechicl.analyses.finetuning import FinetunedPriming, check_steps, finetune_on_primes
from mechicl.analyses.gradient.first_order import first_order_rate
from mechicl.analyses.priming import PrimingResult, measure_priming
from mechicl.analyses.rivals.prime_ceiling import moved_by_others, other_primes
from mechicl.hooks.wrapper import WrappedModel, wrap
from mechicl.tasks.corpus import PrimingCorpus

MIN_VERBS = 4  # to fit on half of them, and to judge by two
_N_BOOT = 100  # intervals of effects are not used here
_KEYS = ["prime", "target"]


def read_priming(
    model: Any,
    corpus: PrimingCorpus,
    *,
    primed: PrimingResult | None = None,
    finetuned: FinetunedPriming | None = None,
    gradient: bool = True,
    learning_rate: float | None = None,
    n_contexts: int | None = 400,
    n_orders: int = 4,
    prepend_bos: bool = True,
    seed: int = 0,
    store: str | Path | None = None,
    memory_budget: int = 1 << 30,
    progress: bool = True,
) -> list[Contexts]:
    """A model's answers after single primes: one `Contexts` of length 1, with `PrimeExamples`; the truth is unknown.

    primed, finetuned: already measured on this model and corpus; what is missing is measured. gradient: whether steps
    are taken (False: no account of them). learning_rate: of the step; by default that of `first_order_rate`.
    n_contexts: pairs, as equal in number over prime verbs as can be; each gives two rows (None: all). n_orders: primes
    of one verb and form for the ceiling, the given one with them; 1 for none. seed: of the pairs, the other primes and
    the texts that the rate is chosen on. store: folder of finished scores and steps, from which an interrupted call
    goes on.

        read_priming(load_organism("delta-medium"), speaker_corpus(targets_per_verb=2, seed=1))

    A verb's bias is the mean over its sentences in the pairs that were read, or of `primed`. Steps take longest, one
    for each text that primes. Where a model is large, a corpus with few primes and many targets
    (`dative_corpus(design="factorial")`) or `gradient=False` saves most of it.

    Errors (ValueError), before any long work: fewer than 4 prime verbs, sizes below 1, a result of another corpus or
    another model; and what `measure_priming` and `finetune_on_primes` refuse.
    """
    wrapped = wrap(model)
    part = corpus if n_contexts is None or n_contexts >= len(corpus) else _sample(corpus, n_contexts, seed)
    _check(part, n_orders, learning_rate)
    given = [own for own in (primed, finetuned.priming if finetuned is not None else None) if own is not None]
    for own in given:
        _check_result(own, part, wrapped)
    kept = None if store is None else Path(store)
    running: dict[str, Any] = {"prepend_bos": prepend_bos, "memory_budget": memory_budget, "progress": progress}
    scores = kept and kept / "scores"
    if finetuned is None and gradient and learning_rate is None:
        learning_rate, _ = first_order_rate(wrapped, part, prepend_bos=prepend_bos, seed=seed)
    if primed is None:
        primed = measure_priming(wrapped, part, n_boot=_N_BOOT, seed=seed, store=scores, **running)
    if finetuned is None and gradient and learning_rate is not None:
        finetuned = finetune_on_primes(
            wrapped, part, learning_rate=learning_rate, n_boot=_N_BOOT, seed=seed, store=kept and kept / "steps",
            **running,
        )  # fmt: skip
    items = _items(primed, part)
    has_neutral = bool(items["L_neutral"].notna().all())
    examples, after = _examples(
        part, items, items["L_neutral" if has_neutral else "L_unprimed"].to_numpy(), primed.bias,
        None if finetuned is None else _items(finetuned.priming, part),
    )  # fmt: skip
    moved = _moved(wrapped, corpus, part, items, has_neutral, n_orders, seed, {**running, "store": scores})
    orders = None
    if moved is not None:  # rows: all items after the first form, then all after the second
        orders = _answers(np.stack([after, *(examples.base + one.reshape(-1) for one in moved)]))
    answers = _answers(after)
    return [Contexts(1, examples, answers, orders, np.full(answers.shape, np.nan), examples.verb)]


def _examples(
    part: PrimingCorpus,
    items: pd.DataFrame,
    base: Float[np.ndarray, " item"],
    bias: pd.DataFrame,
    stepped: pd.DataFrame | None,
) -> tuple[PrimeExamples, Float[np.ndarray, " batch"]]:
    """What accounts may know, and L after the prime: all items with the first form, then all with the second."""
    by_verb = bias.set_index("verb")["bias_logit"]
    step = None
    if stepped is not None:
        from_neutral = stepped["L_neutral"].notna().all() and items["L_neutral"].notna().all()
        start = stepped["L_neutral" if from_neutral else "L_unprimed"]
        step = np.concatenate([(stepped[f"L_{form}"] - start).to_numpy() for form in part.forms])
    number = {verb: i for i, verb in enumerate(part.verbs)}
    examples = PrimeExamples(
        base=np.tile(base, 2),
        form=np.repeat([1, -1], len(items)),
        step=step,
        bias=np.tile(items["prime_verb"].map(by_verb).to_numpy(float), 2),
        verb=np.tile(items["prime_verb"].map(number).to_numpy(int), 2),
    )
    return examples, np.concatenate([items[f"L_{form}"].to_numpy() for form in part.forms])


def _moved(
    wrapped: WrappedModel,
    corpus: PrimingCorpus,
    part: PrimingCorpus,
    items: pd.DataFrame,
    has_neutral: bool,
    n_orders: int,
    seed: int,
    options: Mapping[str, Any],
) -> Float[np.ndarray, "order 2 item"] | None:
    """What other primes of the same verb and form do; None where there are none."""
    others = other_primes(corpus, part, n_orders - 1, neutral=has_neutral, seed=seed)
    if not others[0]:
        return None
    base = None if has_neutral else items["L_unprimed"].to_numpy()
    return moved_by_others(wrapped, part, corpus, others, base=base, options=options)


def _answers(log_odds: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any 2"]:
    return np.stack([expit(log_odds), expit(-log_odds)], axis=-1)


def _items(result: PrimingResult, part: PrimingCorpus) -> pd.DataFrame:
    """The rows of a result that belong to the part's pairs, in their order."""
    return result.items.drop_duplicates(_KEYS).set_index(_KEYS).loc[list(map(tuple, part.pairs[_KEYS].to_numpy()))]


def _sample(corpus: PrimingCorpus, n: int, seed: int) -> PrimingCorpus:
    if n < 1:
        raise ValueError(f"got n_contexts={n}; expected 1 or more pairs, or None for all")
    return corpus.sample(n, seed=seed)


def _check(part: PrimingCorpus, n_orders: int, learning_rate: float | None) -> None:
    n_verbs = int(part.to_frame()["prime_verb"].nunique())
    if n_verbs < MIN_VERBS:
        raise ValueError(
            f"got primes of {n_verbs} verb(s); expected {MIN_VERBS} or more, to fit on half of them and judge by the "
            "others; choose a corpus with more verbs, or more contexts"
        )
    if n_orders < 1:
        raise ValueError(f"got n_orders={n_orders}; expected 1 (no ceiling) or more primes of a verb and form")
    check_steps(1.0 if learning_rate is None else learning_rate, 1, "sgd")


def _check_result(result: PrimingResult, part: PrimingCorpus, wrapped: WrappedModel) -> None:
    """The result must have these pairs, read by this model."""
    known = set(map(tuple, result.items[_KEYS].to_numpy()))
    lacking = [pair for pair in map(tuple, part.pairs[_KEYS].to_numpy()) if pair not in known]
    if lacking or result.forms != part.forms:
        raise ValueError(
            f"the result given is of another corpus ({result.corpus}): it lacks {len(lacking)} of {len(part)} pairs; "
            "measure this corpus, or leave the result out"
        )
    if result.provenance.weights_sha256 not in (None, wrapped.checksum()):
        raise ValueError(f"the result given is of another model ({result.provenance.model}); measure this one")
