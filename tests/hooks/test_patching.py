"""Patching: the fast way equals the plain loop for every head; identities; nothing is left behind."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mechicl.hooks import patch_support
from mechicl.hooks.patch_items import PatchItem, log_odds, span_log_prob
from mechicl.hooks.patching import patch_heads
from mechicl.hooks.replacements import Interchange, MeanActivations, Zero, mean_activations
from mechicl.hooks.wrapper import wrap
from mechicl.tasks import RoleText, tokenize
from mechicl.tasks.prompts import Prompt

BRIDGED = ["gpt2", "llama", "gpt_neox", "qwen2", "gemma3_text", "native"]
PRIMES = {
    "PD": ("A doctor", "brought", "a file to a guest."),
    "DO": ("A doctor", "brought", "a guest a file."),
    "other": ("The king", "gave", "the ring to me."),
}


def _prompt(prime: str, ending: str, tokenizer: Any) -> Prompt:
    subject, verb, rest = PRIMES[prime]
    text = RoleText.of((subject, "subject"), " ", (verb, "verb"), " ", (rest, "rest")).under("prime")
    target = RoleText.of(("An actor", "subject"), " ", ("threw", "verb"), " ", (ending, "rest")).under("target")
    return tokenize(text + " " + target, tokenizer, prepend_bos=True)


def item_of(tokenizer: Any, prime: str = "PD", donor: str | None = "DO") -> PatchItem:
    """Two forms of a target after a prime, scored from where they part; the donor has another prime."""
    sides = []
    for own in (prime, donor):
        if own is None:
            continue
        pair = [_prompt(own, ending, tokenizer) for ending in ("the ball to me.", "me the ball.")]
        parted = next(i for i, (a, b) in enumerate(zip(pair[0].tokens, pair[1].tokens, strict=False)) if a != b)
        scored = [Prompt(p.tokens, {**p.roles, "scored": (parted, p.roles["target"][1])}) for p in pair]
        sides.append(tuple(scored))
    return PatchItem(sides[0], sides[1] if donor else None, label=prime)


@pytest.fixture(scope="module")
def items(tiny_tokenizer: Any) -> list[PatchItem]:
    """Items of different lengths, in both directions."""
    return [item_of(tiny_tokenizer, *pair) for pair in (("PD", "DO"), ("DO", "PD"), ("PD", "other"), ("other", "DO"))]


@pytest.mark.parametrize("kind", [*BRIDGED, pytest.param("hooked", marks=pytest.mark.core)])
@pytest.mark.parametrize("roles", [["target"], ["prime.verb"], ["last"], ["target.rest", "prime.subject"]])
def test_every_head_equals_the_loop(
    kind: str, roles: list[str], items: list[PatchItem], tiny_model: Callable[..., Any]
) -> None:
    model = tiny_model(kind, n_ctx=128)
    if wrap(model).window:  # a window shorter than the text goes the slow way, and there would be nothing to compare
        items = [_shortened(item) for item in items]
    if kind == "hooked":
        with pytest.warns(UserWarning, match="runs the whole model"):
            fast = patch_heads(model, items, roles=roles, progress=False)
    else:
        fast = patch_heads(model, items, roles=roles, progress=False)
    slow = patch_heads(model, items, roles=roles, by_hooks=True, progress=False)
    assert fast.values.shape == (wrap(model).n_layers * 4, len(items))
    np.testing.assert_allclose(fast.values, slow.values, atol=1e-5)
    np.testing.assert_allclose(fast.clean, slow.clean, atol=1e-5)
    assert np.abs(fast.effects).max() > 1e-3, "nothing was patched"


def _shortened(item: PatchItem) -> PatchItem:
    """The last tokens of each prompt, few enough for a window of 16."""

    def cut(prompt: Prompt) -> Prompt:
        drop = len(prompt) - 16
        spans = {r: (max(a - drop, 0), b - drop) for r, (a, b) in prompt.roles.items() if b - drop > 0}
        return Prompt(prompt.tokens[drop:], {"prime.verb": (0, 1), "prime.subject": (0, 1), **spans})

    start = max(p.roles["scored"][0] - len(p) + 16 for p in (*item.prompts, *(item.donors or ())))
    assert start > 0
    sides = [tuple(cut(p) for p in side) for side in (item.prompts, item.donors or ())]
    return PatchItem(*sides, label=item.label)


def test_sets_of_heads_equal_the_loop_and_no_head_changes_nothing(
    items: list[PatchItem], tiny_model: Callable[..., Any]
) -> None:
    model = tiny_model("llama", n_ctx=128)
    sets: list[list[tuple[int, int]]] = [[], [(0, 0), (2, 3)], [(1, 1)], [(0, 1), (1, 0), (1, 2), (2, 2)]]
    fast = patch_heads(model, items, roles=["target"], sets=sets, progress=False)
    slow = patch_heads(model, items, roles=["target"], sets=sets, by_hooks=True, progress=False)
    np.testing.assert_allclose(fast.values, slow.values, atol=1e-5)
    np.testing.assert_array_equal(fast.effects[0], 0)


def test_all_heads_at_the_target_give_the_donor_run(items: list[PatchItem], tiny_model: Callable[..., Any]) -> None:
    # The tokens are the same, so with all attention of the target the donor's, all of it is the donor's. In the first
    # item the donor's prime is as long as the prompt's own, so that positions are the same too.
    model = tiny_model("gpt2", n_ctx=128)
    base = Prompt((0, 5, 6, 7, 8, 9, 10), {"target": (3, 7), "scored": (5, 7)})
    donor = Prompt((0, 15, 16, 7, 8, 9, 10), {"target": (3, 7), "scored": (5, 7)})
    every = [(layer, head) for layer in range(2) for head in range(4)]
    found = patch_heads(
        model, [PatchItem((base,), (donor,)), PatchItem((donor,), (base,))], roles=["target"], sets=[every],
        metric=span_log_prob, progress=False,
    )  # fmt: skip
    np.testing.assert_allclose(found.values[0], found.clean[::-1], atol=1e-5)
    assert abs(found.clean[0] - found.clean[1]) > 1e-3


def test_a_donor_that_is_the_prompt_changes_nothing(tiny_tokenizer: Any, tiny_model: Callable[..., Any]) -> None:
    item = item_of(tiny_tokenizer, "PD", "PD")
    found = patch_heads(tiny_model("qwen2", n_ctx=128), [item], roles=["prime", "target"], progress=False)
    np.testing.assert_allclose(found.effects, 0, atol=1e-5)


def test_means_and_zeros_equal_the_loop(items: list[PatchItem], tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("gpt_neox", n_ctx=128)
    items = [replace(item, label="") for item in items]  # one mean over all primes
    means = mean_activations(model, items, roles=["target"], progress=False)
    for replacement in (means, Zero()):
        fast = patch_heads(model, items, roles=["target"], replacement=replacement, progress=False)
        slow = patch_heads(model, items, roles=["target"], replacement=replacement, by_hooks=True, progress=False)
        np.testing.assert_allclose(fast.values, slow.values, atol=1e-5)
        assert np.abs(fast.effects).max() > 1e-3


@pytest.mark.core
@pytest.mark.parametrize("kind", ["gpt2", "hooked"])
def test_means_are_means_of_z(kind: str, items: list[PatchItem], tiny_model: Callable[..., Any]) -> None:
    model = tiny_model(kind, n_ctx=128)
    chosen = [item for item in items if item.label == "PD"]  # the same prompts, twice
    means = mean_activations(model, chosen, roles=["target"], progress=False)
    prompt = chosen[0].prompts[1]
    tokens = torch.tensor([prompt.tokens])
    _, cache = model.run_with_cache(tokens, attention_mask=torch.ones_like(tokens))
    for layer in range(2):
        z = cache[f"blocks.{layer}.attn.hook_z"][0].view(len(prompt), 4, 8)
        start, stop = prompt.roles["target.rest"]
        own = means.means[means.keys["PD", 1, "target.rest", 1], layer]
        torch.testing.assert_close(own, z[start + 1], atol=1e-5, rtol=0)
        branch = [means.keys["PD", 1, "target.rest", k] for k in range(stop - start)]
        overall = means.means[means.keys["PD", 1, "target.rest", -1], layer]
        torch.testing.assert_close(overall, means.means[branch, layer].mean(0), atol=1e-5, rtol=0)


def test_an_offset_that_was_never_met_takes_the_mean_of_its_role(tiny_tokenizer: Any) -> None:
    item = item_of(tiny_tokenizer)
    shared = {("PD", -1, "prime.verb", -1): 0}
    position = item.prompts[0].roles["prime.verb"][0]
    means = MeanActivations(shared, torch.zeros(1, 1, 1, 1))
    assert means.source(item, 0, position, "prime.verb", 0) == 0
    with pytest.raises(ValueError, match=r"no mean was taken for the role 'prime\.subject'"):
        means.source(item, 0, 1, "prime.subject", 0)


def test_unequal_roles_receive_the_donors_mean(tiny_model: Callable[..., Any]) -> None:
    model = wrap(tiny_model("llama", n_ctx=128))
    prompt = Prompt((0, 5, 6, 7, 8), {"prime": (1, 3), "scored": (4, 5)})
    donor = Prompt((0, 5, 9, 11, 7, 8), {"prime": (1, 4), "scored": (5, 6)})
    sources = [Interchange().source(PatchItem((prompt,), (donor,)), 0, 1 + i, "prime", i) for i in range(2)]
    with model.evaluating():
        z = Interchange().values(model, [((*donor.tokens[: i + 1],),) for i in (1, 2, 3)])
        new = Interchange().values(model, sources)
    torch.testing.assert_close(new, z.mean(0, keepdim=True).expand(2, -1, -1, -1))


def test_log_odds_of_single_tokens_is_the_logit_difference(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("gpt2", n_ctx=128)
    context = (0, 5, 6, 7)
    prompts = tuple(Prompt((*context, token), {"scored": (4, 5)}) for token in (20, 30))
    found = patch_heads(model, [PatchItem(prompts)], roles=["last"], replacement=Zero(), sets=[[]], progress=False)
    with torch.no_grad():
        logits = model(torch.tensor([context]))[0, -1]
    np.testing.assert_allclose(found.clean, [(logits[20] - logits[30]).item()], atol=1e-5)


def test_batches_and_order_do_not_matter(items: list[PatchItem], tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("llama", n_ctx=128)
    whole = patch_heads(model, items, roles=["target"], progress=False)
    turned = patch_heads(model, items[::-1], roles=["target"], progress=False)
    tight = patch_heads(model, items, roles=["target"], memory_budget=400_000, progress=False)
    np.testing.assert_allclose(turned.values[:, ::-1], whole.values, atol=1e-5)
    np.testing.assert_allclose(tight.values, whole.values, atol=1e-5)


def test_bfloat16_is_near(items: list[PatchItem], tiny_model: Callable[..., Any]) -> None:
    exact = patch_heads(tiny_model("llama", n_ctx=128), items, roles=["target"], progress=False)
    rough = patch_heads(tiny_model("llama", n_ctx=128).to(torch.bfloat16), items, roles=["target"], progress=False)
    assert np.abs(rough.values - exact.values).mean() < 0.2
    assert np.corrcoef(rough.values.ravel(), exact.values.ravel())[0, 1] > 0.95


def test_a_sweep_goes_on_where_it_was(
    items: list[PatchItem], tiny_model: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama", n_ctx=128)
    whole = patch_heads(model, items, roles=["target"], progress=False)
    met = []

    def stop_after_two(log_probs: Any) -> torch.Tensor:
        met.append(1)
        if len(met) == 3:
            raise KeyboardInterrupt
        return log_odds(log_probs)

    with pytest.raises(KeyboardInterrupt):
        patch_heads(model, items, roles=["target"], metric=stop_after_two, progress=False, store=tmp_path)
    model.reset_hooks()
    kept = patch_heads(model, items[:1], roles=["target"], progress=False, store=tmp_path)
    again = patch_heads(model, items, roles=["target"], progress=False, store=tmp_path)
    np.testing.assert_allclose(kept.values, whole.values[:, :1], atol=1e-5)
    np.testing.assert_allclose(again.values, whole.values, atol=1e-5)
    # all is known now, so nothing is run
    monkeypatch.setattr(patch_support, "way_to_patch", lambda *_: pytest.fail("a forward pass was made"))
    third = patch_heads(model, items, roles=["target"], progress=False, store=tmp_path)
    np.testing.assert_array_equal(third.values, again.values)
    other = patch_heads(model, items, roles=["last"], progress=False, store=tmp_path)
    assert np.abs(other.values - again.values).max() > 1e-4, "another sweep got this one's numbers"


def test_the_model_is_left_as_it_was(items: list[PatchItem], tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("llama", n_ctx=128)
    model.train()
    wrapped = wrap(model)
    before = wrapped.checksum()

    def fails(_: Any) -> torch.Tensor:
        raise RuntimeError("in the metric")

    with pytest.raises(RuntimeError, match="in the metric"):
        patch_heads(model, items, roles=["target"], metric=fails, progress=False)
    assert not wrapped.has_hooks()
    assert model.training
    assert all("forward" not in block.__dict__ for block in model.blocks)
    assert not any(block._forward_hooks for block in model.blocks)
    assert wrapped.checksum() == before
    patch_heads(model, items[:1], roles=["target"], progress=False)
    assert not wrapped.has_hooks()
