"""Attention divided anew among demonstrations: a plain forward pass as oracle, identities, knockout, and bad input."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from mechicl.hooks.demos.outputs import DemoOutputs, redistribute_attention
from mechicl.hooks.knockout import knock_out_attention
from mechicl.hooks.patch_items import PatchItem
from mechicl.hooks.wrapper import wrap
from mechicl.tasks.prompts import Prompt

DEMOS = ("demo[0]", "demo[1]", "demo[2]")
LABELS = ((70, 71, 72), (73, 70, 75), (71, 74, 72))
quiet = {"progress": False}


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    """BOS, three demonstrations of one to three tokens with a separator after each, and a query of two."""
    rng = np.random.default_rng(0)
    made = []
    for sizes in ((2, 1, 3), (1, 1, 2), (3, 2, 1)):
        tokens, roles = [0], {}
        for i, size in enumerate(sizes):
            roles[f"demo[{i}]"] = (len(tokens), len(tokens) + size)
            tokens += [*rng.integers(5, 60, size).tolist(), 4]
        tokens += rng.integers(5, 60, 2).tolist()
        made.append(Prompt(tuple(tokens), {**roles, "last": (len(tokens) - 1, len(tokens))}))
    return made


def plain(model: Any, prompt: Prompt, labels: Sequence[int], heads: Sequence[Any], shares: Any) -> np.ndarray:
    """Log-probabilities when z of the heads is their clean pattern, changed entry by entry, times their values.

    shares(head number, mass by demonstration) gives the new attention to each demonstration.
    """
    wrapped, seen = wrap(model), {}
    keep = lambda key: lambda x: seen.__setitem__(key, x.detach().clone())  # noqa: E731
    names = [(name, layer) for name in ("pattern", "v") for layer in range(wrapped.n_layers)]
    tokens = torch.tensor([prompt.tokens])
    with torch.no_grad(), wrapped.hooked([(*key, keep(key)) for key in names]):
        model(tokens)
    hooks = []
    for number, (layer, head) in enumerate(heads):
        pattern = seen["pattern", layer][0, head, -1]
        values = seen["v", layer].reshape(len(prompt), wrapped.n_kv_heads, wrapped.d_head)
        spans = [prompt.roles[role] for role in DEMOS]
        mass = [float(pattern[a:b].sum()) for a, b in spans]
        changed = pattern.clone()
        for (a, b), own, new in zip(spans, mass, shares(number, mass), strict=True):
            changed[a:b] *= new / own
        z = changed @ values[:, head // (wrapped.n_heads // wrapped.n_kv_heads)]

        def put(x: torch.Tensor, head: int = head, z: torch.Tensor = z) -> torch.Tensor:
            apart = x.reshape(1, len(prompt), wrapped.n_heads, wrapped.d_head).clone()
            apart[0, -1, head] = z
            return apart.view_as(x)

        hooks.append(("z", layer, put))
    with torch.no_grad(), wrapped.hooked(hooks):
        found = model(tokens)[0, -1].log_softmax(-1)
    return found[list(labels)].numpy()


@pytest.mark.parametrize("kind", ["llama", "gpt2", "native"])
@pytest.mark.parametrize("by_hooks", [False, True])
def test_equals_a_plain_pass_with_the_pattern_changed(
    kind: str, by_hooks: bool, known_model: Callable[..., Any], prompts: list[Prompt]
) -> None:
    model, heads = known_model(kind, double=True), [(0, 1), (0, 2), (1, 3)]
    weights = np.random.default_rng(1).random((3, 3, 3))
    sets = [heads, [(1, 3)], []]
    found = redistribute_attention(
        model, prompts, LABELS, {"given": weights, "own": "own"}, heads=heads, demos=DEMOS, sets=sets,
        by_hooks=by_hooks, **quiet,
    )  # fmt: skip
    for item, prompt in enumerate(prompts):
        for s, chosen in enumerate(sets):
            numbers = [heads.index(head) for head in chosen]

            def shares(n: int, mass: list[float], item: int = item, numbers: list[int] = numbers) -> np.ndarray:
                own = weights[item, numbers[n]]
                return own / own.sum() * sum(mass)

            expected = plain(model, prompt, LABELS[item], chosen, shares)
            np.testing.assert_allclose(found.log_probs[s, 0, item], expected, atol=1e-10)
        np.testing.assert_allclose(found.log_probs[:, 1, item], found.clean[None, item].repeat(3, 0), atol=1e-10)
    assert np.abs(found.log_probs[0, 0] - found.clean).max() > 0.01  # the replacement does something


def test_without_demonstrations_is_a_knockout(known_model: Callable[..., Any], prompts: list[Prompt]) -> None:
    model, heads = known_model("llama", double=True), [(1, 0), (2, 3)]
    found = redistribute_attention(
        model, prompts, LABELS, {"none": "knocked out"}, heads=heads, demos=DEMOS, sets=[heads[:1], heads[1:]], **quiet
    )
    items = [
        PatchItem(tuple(Prompt((*p.tokens, label), {**p.roles, "scored": (len(p), len(p) + 1)}) for label in own[:2]))
        for p, own in zip(prompts, LABELS, strict=True)
    ]
    other = knock_out_attention(
        model, items, edges=[("last", demo) for demo in DEMOS], sets=[heads[:1], heads[1:]], **quiet
    )
    odds = found.log_probs[:, 0, :, 0] - found.log_probs[:, 0, :, 1]
    np.testing.assert_allclose(odds, other.values, atol=1e-10)
    np.testing.assert_allclose(found.clean[:, 0] - found.clean[:, 1], other.clean, atol=1e-10)


def test_the_scale_of_weights_does_not_matter_and_the_model_is_left_alone(
    known_model: Callable[..., Any], prompts: list[Prompt]
) -> None:
    model, heads = known_model("llama"), [(0, 0), (2, 1)]
    before = wrap(model).checksum()
    weights = np.random.default_rng(2).random((3, 2, 3))
    found = redistribute_attention(
        model, prompts, LABELS, {"one": weights, "seven": 7 * weights, "own": "own"}, heads=heads, demos=DEMOS, **quiet
    )
    np.testing.assert_allclose(found.log_probs[0, 0], found.log_probs[0, 1], atol=1e-5)
    np.testing.assert_allclose(found.log_probs[0, 2], found.clean, atol=1e-5)
    assert wrap(model).checksum() == before and not wrap(model).has_hooks()


def test_what_a_head_cannot_see_gets_nothing() -> None:
    weights, mass = np.array([[2.0, 1.0, 1.0], [0.0, 0.0, 1.0]]), np.array([[0.0, 0.1, 0.2], [0.3, 0.1, 0.0]])
    np.testing.assert_allclose(DemoOutputs._shares(weights, mass), [[0, 0.5, 0.5], [0.75, 0.25, 0]])


def test_bad_input(known_model: Callable[..., Any], prompts: list[Prompt]) -> None:
    model = known_model("llama")
    good = np.ones((3, 1, 3))

    def run(weights: Any = good, labels: Any = LABELS, heads: Any = ((0, 0),), sets: Any = None, own: Any = prompts):
        return redistribute_attention(
            model, own, labels, {"given": weights}, heads=heads, demos=DEMOS, sets=sets, **quiet
        )

    wrong = {"shape": good[:, :, :2], "at least 0": -good, "not all 0": 0 * good, "numbers": np.nan * good}
    for words, weights in wrong.items():
        with pytest.raises(ValueError, match=words):
            run(weights)
    with pytest.raises(ValueError, match="no weights"):
        run(sets=[[(0, 1)]])
    with pytest.raises(ValueError, match="has no head"):
        run(heads=((9, 0),))
    with pytest.raises(ValueError, match="at least two"):
        run(labels=((1,), (2,), (3,)))
    with pytest.raises(ValueError, match="no prompts"):
        run(own=[])
    with pytest.raises(ValueError, match="does not end"):
        run(own=[Prompt(p.tokens, {"last": (0, 1)}) for p in prompts])
