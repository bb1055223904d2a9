"""Structural priming by real gradient steps: the model learns from a prime in its weights, not in its context.

For every prime a fresh copy of the weights takes a few gradient steps on the prime, and then the target is scored
alone, in both forms. Effects are those of `mechicl.analyses.priming`, with "after the prime" read as "after steps on
the prime":

    L_s = log P(target in PD | weights stepped on the prime in s) - log P(target in DO | the same weights)    nats

L_unprimed is that of the model's own weights. What in-context priming shares with this baseline, item by item, is
tested by `mechicl.analyses.gradient.item_match`. Source: the fine-tuning baseline of Zhou, Frank & McCoy, arXiv
2406.18501, where GPT-2 small shows an IFE after both primes, larger after DO primes (slopes -.048 and -.117).

Caveats:
- One step on one sentence is not how the model was trained; it is the smallest thing that can be called learning from
  it.
- Above a certain rate steps raise the loss of their own prime (`share_diverged`) and are no descent; far below it
  effects sink into rounding.
- An effect of the same sign as in context is not yet agreement: see `mechicl.analyses.gradient.item_match`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mechicl.analyses.priming import PrimingResult, check_design, summarised
from mechicl.analyses.priming_texts import PrimingTexts
from mechicl.hooks.prefix_tree import Continuation
from mechicl.hooks.scoring import as_continuations, score
from mechicl.hooks.steps.dense_steps import check_optimizer
from mechicl.hooks.steps.gradient_steps import check_rate
from mechicl.hooks.steps.sites import Choice
from mechicl.hooks.steps.step_scoring import StepOptions, SteppedScores, score_after_steps
from mechicl.hooks.wrapper import WrappedModel, wrap
from mechicl.provenance import Provenance
from mechicl.results import Result
from mechicl.tasks.corpus import PrimingCorpus


@dataclass(frozen=True)
class FinetunedPriming(Result):
    """Priming by gradient steps, and how the steps went.

    priming: the same result as of `measure_priming`, so that every analysis of that takes it.
    training: one row a prime text: prime, context (its form, or "neutral"), loss_before and loss_after all steps, nats
        a token. A step that raises the loss of the text that it is taken on is too long.
    """

    priming: PrimingResult
    training: pd.DataFrame
    learning_rate: float
    steps: int
    optimizer: str
    parameters: str
    fillers: int
    provenance: Provenance

    @property
    def share_diverged(self) -> float:
        """Share of the primes whose own loss is higher after the steps than before: 0 where the rate is low enough."""
        return float((self.training["loss_after"] > self.training["loss_before"]).mean())

    def to_frame(self) -> pd.DataFrame:
        """The items."""
        return self.priming.to_frame()

    def plot(self, ax: Any = None) -> Any:
        """Priming effect of every prime verb with its interval; returns matplotlib Axes."""
        return self.priming.plot(ax=ax)


def finetune_on_primes(
    model: Any,
    corpus: PrimingCorpus,
    *,
    learning_rate: float,
    steps: int = 1,
    optimizer: str = "sgd",
    parameters: Choice = "all",
    fillers: Sequence[str] = (),
    filler_weight: float = 0.8,
    filler_squared: bool = False,
    prepend_bos: bool = True,
    n_boot: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
    store: str | Path | None = None,
    memory_budget: int = 1 << 30,
    progress: bool = True,
) -> FinetunedPriming:
    """Take `steps` gradient steps on every prime, from the model's own weights each time, and score its targets alone.

    The loss is the mean of -log P over the prime's tokens (BOS in front is not predicted). With `fillers`, texts to
    whose loss the steps hold, that of `filler_penalty` is added. Plain SGD runs many primes in one batch without a copy
    of the weights; see `score_after_steps`, also for `store` and for what is left as it was. `seed` is that of the
    bootstrap; the steps have no randomness.

    Raises `ValueError` before any work for what `measure_priming` refuses, fewer than one step, a rate of 0 or below,
    an unknown optimiser; and where a loss is not finite. Warns where steps raise the loss of most primes: the learning
    rate is too high, and effects say little about a gradient.
    """
    wrapped = wrap(model)
    check_design(corpus, level)
    check_steps(learning_rate, steps, optimizer)
    if isinstance(fillers, str):
        raise ValueError(f"got the text {fillers!r} as fillers, expected a list of texts")
    options = StepOptions(
        learning_rate=learning_rate,
        optimizer=optimizer,
        parameters=parameters,
        fillers=tuple(_whole(wrapped, fillers, prepend_bos)),
        filler_weight=filler_weight,
        filler_squared=filler_squared,
    )
    texts = PrimingTexts(corpus)
    targets: dict[str, dict[str, None]] = {}  # prime -> its targets, each once, in order
    contexts: dict[str, str] = {}
    for context, prime, sentence in texts.asked:
        if prime is not None:
            targets.setdefault(prime, {})[sentence] = None
            contexts.setdefault(prime, context)
    pairs = _target_pairs(wrapped, texts, prepend_bos)
    found = score_after_steps(
        wrapped,
        [[text] * steps for text in _whole(wrapped, list(targets), prepend_bos)],
        [[form for sentence in own for form in pairs[sentence]] for own in targets.values()],
        options,
        memory_budget=memory_budget,
        progress=progress,
        store=store,
    )
    unprimed = _unprimed(wrapped, pairs, memory_budget, progress, store)
    after = {
        (prime, sentence): values[2 * i] - values[2 * i + 1]
        for (prime, own), values in zip(targets.items(), found.log_probs, strict=True)
        for i, sentence in enumerate(own)
    }
    differences = [unprimed[sentence] if p is None else after[p, sentence] for _, p, sentence in texts.asked]
    sentences, items = texts.filled(np.array(differences))
    training = _training(contexts, found, learning_rate)
    named = parameters if isinstance(parameters, str) else "chosen by a function"
    provenance = Provenance.of(
        {**wrapped.facts(), "prepend_bos": prepend_bos},
        seeds={"bootstrap": seed} | ({} if corpus.seed is None else {"corpus": corpus.seed}),
        options={
            "corpus": corpus.name, "n_pairs": len(corpus), "n_boot": n_boot, "level": level, "steps": steps,
            "learning_rate": learning_rate, "optimizer": optimizer, "parameters": named, "fillers": len(fillers),
            "filler_weight": filler_weight, "filler_squared": filler_squared,
        },
    )  # fmt: skip
    return FinetunedPriming(
        priming=summarised(corpus, sentences, items, provenance, n_boot=n_boot, level=level, seed=seed),
        training=training,
        learning_rate=learning_rate,
        steps=steps,
        optimizer=optimizer,
        parameters=named,
        fillers=len(fillers),
        provenance=provenance,
    )


def check_steps(learning_rate: float, steps: int, optimizer: str) -> None:
    """Raises `ValueError` for steps that cannot be taken, whatever the model and the texts."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"got steps={steps!r}, expected at least 1, a whole number")
    check_optimizer(optimizer)
    check_rate(learning_rate)


def _whole(wrapped: WrappedModel, texts: Sequence[str], prepend_bos: bool) -> list[Continuation]:
    """Texts all of whose tokens are learned (without BOS, all but the first)."""
    if not texts:
        return []
    if prepend_bos:
        return as_continuations(wrapped, "", list(texts), True)
    ids = [wrapped.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    return as_continuations(wrapped, [own[:1] for own in ids], [own[1:] for own in ids], False)


def _target_pairs(
    wrapped: WrappedModel, texts: PrimingTexts, prepend_bos: bool
) -> dict[str, tuple[Continuation, Continuation]]:
    """Both forms of every sentence, scored from where they part."""
    names = list(texts.corpus.sentences["sentence"])
    asked = [text for name in names for text in texts.pair(name)]
    found = as_continuations(wrapped, [a for a, _ in asked], [b for _, b in asked], prepend_bos)
    return {name: (found[2 * i], found[2 * i + 1]) for i, name in enumerate(names)}


def _unprimed(
    wrapped: WrappedModel,
    pairs: dict[str, tuple[Continuation, Continuation]],
    budget: int,
    progress: bool,
    store: str | Path | None,
) -> dict[str, float]:
    both = [form for pair in pairs.values() for form in pair]
    found = score(
        wrapped, [c.tokens[: c.start] for c in both], [c.tokens[c.start :] for c in both], prepend_bos=False,
        memory_budget=budget, progress=progress, store=store,
    )  # fmt: skip
    return dict(zip(pairs, found[0::2] - found[1::2], strict=True))


def _training(contexts: dict[str, str], found: SteppedScores, rate: float) -> pd.DataFrame:
    training = pd.DataFrame(
        {
            "prime": list(contexts),
            "context": list(contexts.values()),
            "loss_before": found.losses[:, 0],
            "loss_after": found.losses[:, -1],
        }
    )
    worse = (training["loss_after"] > training["loss_before"]).mean()
    if worse > 0.5:
        warnings.warn(
            f"gradient descent diverges: the steps raise the loss of {worse:.0%} of the primes that they are taken on; "
            f"choose a learning rate below {rate:g}",
            stacklevel=3,
        )
    return training
