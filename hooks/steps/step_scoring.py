"""Scores of targets after explicit gradient steps: what a learner of weights makes of what it read.

Each learner starts from the model's own weights, takes one step a text, and then reads its targets with nothing before
them. It is the counterpart of `score(model, context, target)`, where the same texts stand in the context.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from tqdm.auto import tqdm

from mechicl.hooks.log_probs import by_padding, check_causality_and_trees
from mechicl.hooks.prefix_tree import Continuation
from mechicl.hooks.score_store import ScoreStore, request_key
from mechicl.hooks.scoring import stored_facts
from mechicl.hooks.steps.dense_steps import DenseSteps, check_optimizer, filler_penalty
from mechicl.hooks.steps.filler_step import shared_step
from mechicl.hooks.steps.gradient_steps import DivergenceError, Learner, check_learners, low_rank_steps
from mechicl.hooks.steps.sites import Choice, weight_sites
from mechicl.hooks.steps.step_support import way_to_step
from mechicl.hooks.steps.updated_scoring import updated_log_probs
from mechicl.hooks.wrapper import WrappedModel, wrap

_FLUSH_SECONDS = 20.0  # work lost at most by a kill that cannot be caught


@dataclass(frozen=True)
class StepOptions:
    """How gradient steps are taken.

    learning_rate: of every step; optimizer: "sgd" or "adam". parameters: "all", "key_value" (the projections to keys
    and values), "attention", "mlp", or a function of a parameter's name. fillers: texts to whose loss the step holds
    (see `filler_penalty`), with `filler_weight`, plain or squared.
    """

    learning_rate: float
    optimizer: str = "sgd"
    parameters: Choice = "all"
    fillers: tuple[Continuation, ...] = ()
    filler_weight: float = 0.8
    filler_squared: bool = False

    def key(self) -> bytes:
        """All that scores depend on, for a store; raises `ValueError` where a function cannot be named."""
        if callable(self.parameters):
            raise ValueError("a store cannot tell one function of parameters from another; pass store=None")
        return repr(self).encode()


@dataclass(frozen=True)
class SteppedScores:
    """log_probs: of each learner's targets, summed over their scored tokens, nats. losses: nats a token of each
    learner's text before every step, and last of its last text after all steps.
    """

    log_probs: list[Float[np.ndarray, " _"]]
    losses: Float[np.ndarray, "learner reading"]


def score_after_steps(
    model: Any,
    learners: Sequence[Learner],
    targets: Sequence[Sequence[Continuation]],
    options: StepOptions,
    *,
    memory_budget: int = 1 << 30,
    progress: bool = True,
    store: str | Path | None = None,
) -> SteppedScores:
    """Log-probability of every target under the weights that its learner has after its steps.

    Plain SGD keeps the steps as outer products and runs many learners at once (see `hooks/steps/weight_updates`); what
    that cannot do (Adam; fillers over several steps; a model with other layers) moves the weights one learner at a
    time and puts them back bit for bit. `store` is a folder for finished learners, from which an interrupted run goes
    on. Weights, flags, gradients and hooks of the model are left as they were.

    Raises `ValueError` before any work for what cannot be learned from (see `check_learners`), an unknown optimiser,
    unequal numbers; and during it where a loss is not finite (what was finished is in `store`).
    """
    wrapped = wrap(model)
    _check(wrapped, learners, targets, options)
    kept = None if store is None else ScoreStore(store, stored_facts(wrapped))
    keys = [] if kept is None else [_key(*pair, options) for pair in zip(learners, targets, strict=True)]
    found: dict[int, np.ndarray] = {}
    for number, key in enumerate(keys):
        if kept is not None and (values := kept.get(key)) is not None:
            found[number] = values
    todo = [number for number in range(len(learners)) if number not in found]
    bar = tqdm(total=len(learners), initial=len(found), desc="gradient steps", unit="text", disable=not progress)
    flushed = time.monotonic()
    try:
        for number, values in _run(wrapped, learners, targets, todo, options, memory_budget):
            if not np.isfinite(values).all():
                raise DivergenceError(
                    f"the scores of learner {number} are not finite after its steps: gradient descent diverges with "
                    f"learning_rate={options.learning_rate}; choose a lower one"
                )
            found[number] = values
            bar.update()
            if kept is not None:
                kept.put(keys[number], values)
                if time.monotonic() - flushed > _FLUSH_SECONDS:
                    kept.flush()
                    flushed = time.monotonic()
    finally:  # also on Ctrl-C: what is finished stays
        bar.close()
        if kept is not None:
            kept.flush()
    n_losses = len(learners[0]) + 1
    every = [found[number].astype(np.float64) for number in range(len(learners))]
    return SteppedScores([values[n_losses:] for values in every], np.stack([values[:n_losses] for values in every]))


def _check(
    wrapped: WrappedModel, learners: Sequence[Learner], targets: Sequence[Sequence[Continuation]], options: StepOptions
) -> None:
    check_optimizer(options.optimizer)
    if len(targets) != len(learners):
        raise ValueError(f"got {len(learners)} learners and targets for {len(targets)}; give each learner its targets")
    check_learners(wrapped, learners, options.learning_rate)
    if options.fillers:
        if not np.isfinite(options.filler_weight):
            raise ValueError(f"got filler_weight={options.filler_weight}, expected a finite number, such as 0.8")
        check_learners(wrapped, [[text] for text in options.fillers], options.learning_rate)
    for number, own in enumerate(targets):
        if not own:
            raise ValueError(f"learner {number} has no targets; drop it")
        check_learners(wrapped, [[target] for target in own], options.learning_rate)


def _run(
    wrapped: WrappedModel,
    learners: Sequence[Learner],
    targets: Sequence[Sequence[Continuation]],
    todo: Sequence[int],
    options: StepOptions,
    budget: int,
) -> Iterator[tuple[int, np.ndarray]]:
    """Learner and its losses followed by its scores."""
    if not todo:
        return
    n_steps = len(learners[0])
    with wrapped.evaluating():
        read = [*targets, *([learner[-1]] for learner in learners)]  # the last text's loss is scored as well
        trees = check_causality_and_trees(wrapped) and not wrapped.has_hooks() and _within_window(wrapped, read)
    plain = options.optimizer == "sgd" and (not options.fillers or n_steps == 1)
    if not plain or way_to_step(wrapped, options.parameters) == "dense":
        yield from _one_by_one(wrapped, learners, targets, todo, options, budget)
        return
    sites = weight_sites(wrapped, options.parameters)
    size = max(1, budget // max(_bytes(wrapped, learners[number]) for number in todo))
    with shared_step(wrapped, options) as moved:
        for start in range(0, len(todo), size):
            part = todo[start : start + size]
            with moved.out():  # gradients are those at the model's own weights
                updates = low_rank_steps(
                    wrapped, [learners[n] for n in part], learning_rate=options.learning_rate, sites=sites
                )
            asked = [[*targets[n], learners[n][-1]] for n in part]
            scores = updated_log_probs(wrapped, updates, asked, trees=trees, memory_budget=budget)
            before = torch.stack(updates.losses, 1).cpu().double().numpy()  # MPS has no float64
            for number, own, losses in zip(part, scores, before, strict=True):
                yield number, _together(losses, own, learners[number][-1])


def _one_by_one(
    wrapped: WrappedModel,
    learners: Sequence[Learner],
    targets: Sequence[Sequence[Continuation]],
    todo: Sequence[int],
    options: StepOptions,
    budget: int,
) -> Iterator[tuple[int, np.ndarray]]:
    """The plain way, and any optimiser's."""
    penalty = None
    if options.fillers:
        penalty = filler_penalty(wrapped, options.fillers, options.filler_weight, squared=options.filler_squared)
    with DenseSteps(wrapped, options.parameters) as steps:
        for number in todo:
            losses = steps.learn(
                learners[number], learning_rate=options.learning_rate, optimizer=options.optimizer, penalty=penalty
            )
            asked = [*targets[number], learners[number][-1]]
            own = _dense_scores(wrapped, asked, budget)
            steps.restore()
            yield number, _together(losses.cpu().double().numpy(), own, learners[number][-1])


def _dense_scores(wrapped: WrappedModel, asked: Sequence[Continuation], budget: int) -> np.ndarray:
    found = np.full(len(asked), np.nan)

    def sink(item: int, values: np.ndarray) -> None:
        found[item] = values.sum(dtype=np.float64)

    with wrapped.evaluating(), contextlib.suppress(ValueError):  # not finite: the caller names the learning rate
        by_padding(wrapped, asked, budget, sink)
    return found


def _together(losses: np.ndarray, scores: np.ndarray, last: Continuation) -> np.ndarray:
    """Losses before each step, the last text's loss after all, then the targets' scores."""
    after = -scores[-1] / (len(last.tokens) - last.start)
    return np.concatenate([losses, [after], scores[:-1]])


def _within_window(wrapped: WrappedModel, targets: Sequence[Sequence[Continuation]]) -> bool:
    return wrapped.window is None or max(len(c.tokens) for own in targets for c in own) <= wrapped.window


def _bytes(wrapped: WrappedModel, learner: Learner) -> int:
    """A cautious estimate of what a learner's outer products and the pass that finds them take."""
    tokens = sum(len(text.tokens) for text in learner)
    layer = 12 * wrapped.d_model + 6 * (getattr(wrapped.model.cfg, "d_mlp", None) or 4 * wrapped.d_model)
    return 4 * tokens * (3 * wrapped.d_vocab + 2 * wrapped.n_layers * layer)


def _key(learner: Learner, targets: Sequence[Continuation], options: StepOptions) -> bytes:
    return request_key(repr((list(learner), list(targets))).encode() + options.key())
