"""What a model makes of queries: attention at the last token and the labels' probabilities, learned or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import logsumexp

from mechicl.analyses.resemblance.variants import FineTuning, learned
from mechicl.hooks.attention_readings import AttentionStates, Learned, attention_states
from mechicl.hooks.label_scores import label_log_probs
from mechicl.hooks.scoring import score
from mechicl.hooks.steps.gradient_steps import Learner
from mechicl.hooks.wrapper import WrappedModel
from mechicl.tasks.fewshot import FewShotPrompt
from mechicl.update_similarity import implied_attention, kendall

Change = Callable[[Learned, Sequence[int]], Learned]


@dataclass(frozen=True)
class Readings:
    """One entry a prompt; NaN (and False) where the learner diverged.

    output: attention outputs at the last token. own: scores before the softmax of the query's own tokens, one array
    [layer head pos] a prompt; None where the model gives none. log_odds: of the right label against all others, nats.
    loss: minus the log-probability of the right label, nats. right: is it the most probable one?
    """

    output: Float[np.ndarray, "item layer d_model"]
    own: list[np.ndarray] | None
    log_odds: Float[np.ndarray, "item"]
    loss: Float[np.ndarray, "item"]
    right: Bool[np.ndarray, "item"]

    @property
    def finite(self) -> Bool[np.ndarray, "item"]:
        """Which prompts have numbers."""
        return np.isfinite(self.log_odds) & np.isfinite(self.output).all((1, 2))


def read(
    wrapped: WrappedModel, prompts: Sequence[FewShotPrompt], *, zero_shot: bool, memory_budget: int
) -> tuple[Readings, list[AttentionStates]]:
    """With the demonstrations in the context or the query alone; and the states, with what attention reads if alone."""
    chosen = [one.zero_shot if zero_shot else one.prompt for one in prompts]
    states = attention_states(wrapped, chosen, inputs=zero_shot, memory_budget=memory_budget)
    pairs = [(p.tokens, label) for p, one in zip(chosen, prompts, strict=True) for label in one.label_tokens]
    scores = score(
        wrapped, [context for context, _ in pairs], [label for _, label in pairs],
        prepend_bos=False, memory_budget=memory_budget, progress=False,
    )  # fmt: skip
    ends = np.cumsum([len(one.label_tokens) for one in prompts])[:-1]
    return _readings(wrapped, prompts, states, np.split(scores, ends)), states


def read_tuned(
    wrapped: WrappedModel,
    prompts: Sequence[FewShotPrompt],
    tuning: FineTuning,
    learners: Sequence[Learner],
    rate: float,
    *,
    memory_budget: int,
    change: Change | None = None,
    states: bool = True,
) -> Readings:
    """The query alone, prompt i after learner i's steps. `change` is shown the learned weights of some prompts and
    their numbers, and may put others in their place.

    states=False leaves attention out (NaN): enough to choose a learning rate.
    """
    found: list[AttentionStates | None] = [None] * len(prompts)
    labels: list[np.ndarray] = [np.full(len(one.label_tokens), np.nan) for one in prompts]
    for numbers, updates in learned(wrapped, tuning, learners, rate):
        if updates is None:
            continue
        updates = updates if change is None else change(updates, numbers)
        own = [prompts[i] for i in numbers]
        alone = [one.zero_shot for one in own]
        values = label_log_probs(
            wrapped, alone, [one.label_tokens for one in own], updates=updates, memory_budget=memory_budget
        )
        seen = attention_states(wrapped, alone, updates=updates, memory_budget=memory_budget) if states else None
        for place, i in enumerate(numbers):
            labels[i] = values[place]
            found[i] = None if seen is None else seen[place]
    return _readings(wrapped, prompts, found, labels)


def dual_ranks(
    wrapped: WrappedModel,
    prompts: Sequence[FewShotPrompt],
    in_context: Sequence[AttentionStates],
    alone: Sequence[AttentionStates],
    *,
    memory_budget: int,
) -> tuple[Float[np.ndarray, "item layer"], Float[np.ndarray, "item layer"]] | None:
    """Kendall's tau of attention to the demonstrations' tokens with what steps on them imply, item by item.

    First with the item's own query, then with the next item's: what the tokens alone explain, whatever is asked. None
    where the model gives no scores.
    """
    if any(one.scores is None for one in in_context):
        return None
    attention: list[np.ndarray] = []
    own: list[np.ndarray] = []
    other: list[np.ndarray] = []
    for i, prompt in enumerate(prompts):
        roles = [f"demo[{k}]" for k in range(len(prompt.examples))]
        attention.append(in_context[i].scores_of(roles))
        read_alone = attention_states(wrapped, prompt.examples, inputs=True, memory_budget=memory_budget)
        tokens = np.concatenate(
            [
                state.inputs[:, len(state.prompt) - len(prompt.prompt.part(role)) :]
                for state, role in zip(read_alone, roles, strict=True)
                if state.inputs is not None
            ],
            axis=1,
        )
        for query, found in ((i, own), ((i + 1) % len(prompts), other)):
            inputs = alone[query].inputs
            if inputs is not None:
                found.append(implied_attention(tokens, inputs[:, -1]))
    return kendall(attention, own, n_boot=100).values, kendall(attention, other, n_boot=100).values


def _readings(
    wrapped: WrappedModel,
    prompts: Sequence[FewShotPrompt],
    states: Sequence[AttentionStates | None],
    labels: Sequence[np.ndarray],
) -> Readings:
    empty = np.full((wrapped.n_layers, wrapped.d_model), np.nan)
    own = []
    for one, state in zip(prompts, states, strict=True):
        nothing = np.full((wrapped.n_layers, wrapped.n_heads, len(one.zero_shot.part("query"))), np.nan)
        own.append(nothing if state is None or state.scores is None else state.scores_of(["query"]))
    answers = [one.answer for one in prompts]
    known = [bool(np.isfinite(x).all()) for x in labels]
    return Readings(
        output=np.stack([empty if state is None else state.output for state in states]),
        own=None if any(state is not None and state.scores is None for state in states) else own,
        log_odds=np.array([float(x[a] - logsumexp(np.delete(x, a))) for x, a in zip(labels, answers, strict=True)]),
        loss=np.array([-float(x[a]) for x, a in zip(labels, answers, strict=True)]),
        right=np.array(
            [k and int(x.argmax()) == a for x, a, k in zip(labels, answers, known, strict=True)], dtype=bool
        ),
    )
