"""What heads write at a role: equal to the cache, tokens after the parting left out."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mechicl.hooks.patch_items import PatchItem
from mechicl.hooks.role_outputs import head_outputs
from mechicl.tasks.prompts import Prompt


def item(*tokens: int, ends: tuple[tuple[int, ...], ...] = ((20, 21), (30, 31, 32))) -> PatchItem:
    """Two endings of one beginning; the target is the last token before they part and all after it."""
    stem = len(tokens)
    return PatchItem(
        tuple(
            Prompt((*tokens, *end), {
                "prime": (1, 3), "target": (stem - 1, stem + len(end)), "rest": (stem, stem + len(end)),
                "scored": (stem, stem + len(end)),
            })
            for end in ends
        )
    )  # fmt: skip


@pytest.mark.core
@pytest.mark.parametrize("kind", ["gpt2", "llama", "hooked"])
def test_it_is_the_mean_of_z_over_tokens_that_the_prompts_share(kind: str, tiny_model: Callable[..., Any]) -> None:
    model = tiny_model(kind)
    items = [item(0, 5, 6, 7, 8), item(0, 9, 3, 4), item(0, 11, 12, 13, 14, 15)]
    found = head_outputs(model, items, roles=["prime", "target"])
    for own, z in zip(items, found, strict=True):
        prompt = own.prompts[0]
        tokens = torch.tensor([prompt.tokens])
        _, cache = model.run_with_cache(tokens)
        stem = prompt.roles["scored"][0]
        places = [1, 2, stem - 1]
        for layer in range(len(z)):
            apart = cache[f"blocks.{layer}.attn.hook_z"][0].reshape(len(prompt), 4, 8)
            torch.testing.assert_close(z[layer], apart[places].mean(0), atol=1e-5, rtol=0)


def test_many_items_keep_their_order(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("gpt2")
    items = [item(0, 5, 6 + i, 7, 8) for i in range(40)]  # more than run at once
    together = head_outputs(model, items, roles=["target"])
    assert together.shape == (40, 2, 4, 8) and together.dtype == torch.float32
    for i in (0, 31, 32, 39):
        torch.testing.assert_close(together[i], head_outputs(model, [items[i]], roles=["target"])[0], atol=1e-5, rtol=0)


def test_a_token_of_two_roles_counts_once(tiny_model: Callable[..., Any]) -> None:
    model, items = tiny_model("gpt2"), [item(0, 5, 6)]  # prime is tokens 1 and 2, and the target begins at 2
    both = head_outputs(model, items, roles=["prime", "target"])
    torch.testing.assert_close(both, head_outputs(model, items, roles=["prime"]), atol=1e-6, rtol=0)


def test_what_cannot_be_read_is_refused(tiny_model: Callable[..., Any]) -> None:
    model, items = tiny_model("gpt2"), [item(0, 5, 6, 7)]
    with pytest.raises(ValueError, match="the roles rest lie after the point where the item's prompts part"):
        head_outputs(model, items, roles=["rest"])
    with pytest.raises(ValueError, match="has no role 'subject'"):
        head_outputs(model, items, roles=["subject"])
    with pytest.raises(ValueError, match="got no items"):
        head_outputs(model, [], roles=["prime"])
