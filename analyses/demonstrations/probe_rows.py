"""The rows of the key and value probes: where they stand, what they are to predict, and who is held out with whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from mechicl.hooks.demos.alone import texts_alone
from mechicl.hooks.label_scores import label_log_probs
from mechicl.hooks.wrapper import WrappedModel
from mechicl.tasks.fewshot import FewShotPrompt
from mechicl.tasks.prompts import Prompt

TARGETS = ("prediction", "label")


@dataclass(frozen=True)
class ProbeRows:
    """One row a prompt, demonstration and offset that lies in the prompt.

    item, group, block: the prompt, the offset's number and the held-out block of each row. places: (prompt, position).
    targets: by target ("prediction", "label"), draw (0: the target itself, then the controls) and component, flattened.
    """

    item: Int[np.ndarray, " row"]
    group: Int[np.ndarray, " row"]
    block: Int[np.ndarray, " row"]
    places: list[tuple[int, int]]
    targets: Float[np.ndarray, "row target"]

    @classmethod
    def of(
        cls,
        prompts: Sequence[FewShotPrompt],
        offsets: Sequence[int],
        blocks: Int[np.ndarray, "item demo"],
        targets: Float[np.ndarray, "item demo target"],
    ) -> ProbeRows:
        """Offsets count from the first token of the label; those outside the prompt are left out."""
        found = []
        for i, one in enumerate(prompts):
            for demo in range(len(one.demos)):
                start = one.prompt.roles[f"demo[{demo}].label"][0]
                found += [(i, demo, group, start + offset) for group, offset in enumerate(offsets)
                          if 0 <= start + offset < len(one.prompt)]  # fmt: skip
        item, demo, group, position = np.array(found).T
        places = [(int(i), int(at)) for i, at in zip(item, position, strict=True)]
        return cls(item, group, blocks[item, demo], places, targets[item, demo])


def probe_targets(
    wrapped: WrappedModel,
    prompts: Sequence[FewShotPrompt],
    *,
    prediction: str,
    n_controls: int,
    rng: np.random.Generator,
    memory_budget: int,
) -> Float[np.ndarray, "item demo target draw component"]:
    """What the model says of each text alone, and the label shown; then both permuted within each prompt.

    Components are labels; of two labels one component says all. prediction: "probability" of each label among the
    labels, or "argmax", 1 for the most probable one.
    """
    labels = _all_labels(prompts)
    texts = [texts_alone(one)[:-1] for one in prompts]
    distinct = list(dict.fromkeys(text for own in texts for text in own))
    alone = [Prompt(text, {"last": (len(text) - 1, len(text))}) for text in distinct]
    candidates = [list(labels.values())] * len(alone)
    scores = np.stack(label_log_probs(wrapped, alone, candidates, memory_budget=memory_budget))
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    if prediction == "argmax":
        shares = np.eye(len(labels))[shares.argmax(-1)]
    number = {text: i for i, text in enumerate(distinct)}
    said = np.array([[shares[number[text]] for text in own] for own in texts])
    names = list(labels)
    shown = np.eye(len(labels))[[[names.index(label) for label in one.demo_labels] for one in prompts]]
    both = np.stack([said, shown], axis=2)[..., 1 if len(labels) == 2 else 0 :]
    draws = [both]
    for _ in range(n_controls):
        order = rng.permuted(np.tile(np.arange(both.shape[1]), (len(both), 1)), axis=1)
        draws.append(np.take_along_axis(both, order[:, :, None, None], axis=1))
    return np.stack(draws, axis=3)


def read_from_labels(
    rows: ProbeRows, shape: Sequence[int], train: Bool[np.ndarray, "block block"], n_groups: int
) -> Float[np.ndarray, " group"]:
    """Held-out r2 of the predictions from the labels shown alone: means of the training rows of each label.

    What a probe reads of the predictions beyond it is not the label. NaN where predictions do not vary.
    """
    targets = rows.targets.reshape(-1, *shape)[:, :, 0]
    said, shown = targets[:, TARGETS.index("prediction")], targets[:, TARGETS.index("label")]
    label = np.unique(shown, axis=0, return_inverse=True)[1].ravel()
    found = np.full(n_groups, np.nan)
    for group in range(n_groups):
        errors = totals = 0.0
        for block in range(len(train)):
            test = (rows.group == group) & (rows.block == block)
            fit = (rows.group == group) & train[block][rows.block]
            mean = said[fit].mean(0) if fit.any() else np.nan
            for own in np.unique(label[test]):
                alike = fit & (label == own)
                guess = said[alike].mean(0) if alike.any() else mean
                errors += ((said[test & (label == own)] - guess) ** 2).sum()
            totals += ((said[test] - mean) ** 2).sum()
        found[group] = 1 - errors / totals if totals > 1e-12 else np.nan
    return found


def held_out_blocks(
    prompts: Sequence[FewShotPrompt], n_folds: int, rng: np.random.Generator
) -> tuple[Int[np.ndarray, "item demo"], Bool[np.ndarray, "block block"]]:
    """The block of each demonstration, and which blocks may train for which.

    Queries fall into n_folds folds, and so do the demonstrations' texts; a block is a pair of folds. It is predicted
    from rows that share neither fold with it: no prompt and no text stands on both sides.
    """
    queries = np.array([one.query for one in prompts])
    texts = [[example.tokens[: example.roles["label"][0]] for example in one.examples] for one in prompts]
    by_query = _folds(list(dict.fromkeys(queries.tolist())), n_folds, rng, "queries")
    by_text = _folds(list(dict.fromkeys(text for own in texts for text in own)), n_folds, rng, "texts")
    blocks = np.array(
        [[by_query[int(query)] * n_folds + by_text[text] for text in own]
         for query, own in zip(queries, texts, strict=True)]
    )  # fmt: skip
    query_fold, text_fold = np.divmod(np.arange(n_folds**2), n_folds)
    return blocks, (query_fold[:, None] != query_fold) & (text_fold[:, None] != text_fold)


def _folds(names: list, n_folds: int, rng: np.random.Generator, what: str) -> dict:
    if len(names) < n_folds:
        raise ValueError(f"got {len(names)} different {what} for n_folds={n_folds}; give more prompts or fewer folds")
    return dict(zip([names[i] for i in rng.permutation(len(names))], np.arange(len(names)) % n_folds, strict=True))


def _all_labels(prompts: Sequence[FewShotPrompt]) -> dict[str, tuple[int, ...]]:
    """Every label that may be answered anywhere, with its tokens."""
    found: dict[str, tuple[int, ...]] = {}
    for one in prompts:
        for label, tokens in zip(one.labels, one.label_tokens, strict=True):
            if found.setdefault(label, tokens) != tokens:
                raise ValueError(f"the label {label!r} is written in different tokens; give prompts of one task")
    for number, one in enumerate(prompts):
        if lacking := [label for label in one.demo_labels if label not in found]:
            raise ValueError(f"prompt {number} shows the label {lacking[0]!r}, which no prompt may answer; make "
                             "prompts with n_candidates=None")  # fmt: skip
    return found
