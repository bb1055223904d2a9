"""Short random items, a model without norms or MLPs, and a model run one prompt at a time without the engine."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from mechicl.hooks.patch_items import PatchItem, log_odds
from mechicl.hooks.wrapper import Hook, wrap
from mechicl.tasks.prompts import Prompt

Hooks = list[tuple[str, int, Hook]]


class Plain:
    """The oracle: plain forward passes with hooks, a prompt at a time; no trees, no caches, no batches."""

    def __init__(self, model: Any) -> None:
        self.wrapped = wrap(model)
        self.known: dict[Any, dict[tuple[str, int], torch.Tensor]] = {}

    def log_probs(self, prompt: Prompt, hooks: Hooks) -> torch.Tensor:
        start, stop = prompt.roles["scored"]
        tokens = torch.tensor([prompt.tokens])
        with self.wrapped.hooked(hooks):
            logits = self.wrapped.model(tokens, return_type="logits", attention_mask=torch.ones_like(tokens))
        logits = logits if logits.dtype == torch.float64 else logits.float()
        at = torch.arange(start, stop)
        return logits[0].log_softmax(-1)[at - 1, tokens[0, at]]

    def metric(self, item: PatchItem, hooks: Callable[[int], Hooks] = lambda _: []) -> torch.Tensor:
        """Log odds of the item, with the hooks for each of its prompts."""
        return log_odds(tuple(self.log_probs(prompt, hooks(p)) for p, prompt in enumerate(item.prompts)))

    def record(self, prompt: Prompt, names: Sequence[str], hooks: Hooks = []) -> dict[tuple[str, int], torch.Tensor]:  # noqa: B006
        """Activations by name and layer, [pos ...], each before hooks put something else in its place."""
        found: dict[tuple[str, int], torch.Tensor] = {}
        if not hooks and (prompt.tokens, tuple(names)) in self.known:
            return self.known[prompt.tokens, tuple(names)]

        def keep(key: tuple[str, int]) -> Hook:
            return lambda x: found.__setitem__(key, x[0].detach().clone())

        keys = [(name, layer) for name in names for layer in range(self.wrapped.n_layers)]
        with torch.no_grad():
            self.log_probs(prompt, [*((*key, keep(key)) for key in keys), *hooks])
        if not hooks:
            self.known[prompt.tokens, tuple(names)] = found
        return found

    def donated(self, item: PatchItem, p: int, role: str, names: Sequence[str]) -> dict[tuple[str, int], torch.Tensor]:
        """What an interchange puts in at the role of prompt p: the donor's, or their mean where lengths differ."""
        own, other = item.span(p, role), item.span(p, role, of_donor=True)
        found = self.record(item.donors[p], names)
        same = len(own) == len(other)
        return {key: x[list(other)] if same else x[list(other)].mean(0).expand(len(own), *x.shape[1:])
                for key, x in found.items()}  # fmt: skip


@pytest.fixture(scope="session")
def plain() -> type[Plain]:
    return Plain


@pytest.fixture(scope="session")
def short_items() -> Callable[..., list[PatchItem]]:
    """Makes items of random tokens: two endings after a prime and a stem; donors have other primes, some longer.

    At most 12 tokens, so no text is longer than the window of any tiny model. `one_token`: each ending scores one
    token, and then the log odds are a difference of two logits.
    """

    def make(n: int = 3, seed: int = 0, one_token: bool = False) -> list[PatchItem]:
        rng = np.random.default_rng(seed)
        draw = lambda k: tuple(int(t) for t in rng.choice(np.arange(5, 60), size=k, replace=False))  # noqa: E731
        items = []
        for i in range(n):
            stem, ends = draw(2 + i % 2), [(t,) for t in draw(2)] if one_token else [draw(3), draw(2)]
            sides = []
            for prime in (draw(2 + i % 3), draw(2 + (i + 1) % 3)):
                a, b = 1 + len(prime), 1 + len(prime) + len(stem)
                sides.append(tuple(
                    Prompt((0, *prime, *stem, *end),
                           {"prime": (1, a), "stem": (a, b), "target": (a, b + len(end)), "scored": (b, b + len(end))})
                    for end in ends))  # fmt: skip
            items.append(PatchItem(sides[0], sides[1]))
        return items

    return make


@pytest.fixture(scope="session")
def known_model(tiny_model: Callable[..., Any]) -> Callable[..., Any]:
    """The tiny model of a kind, made once; for tests that leave it as it is."""
    made: dict[tuple[str, bool], Any] = {}

    def get(kind: str, double: bool = False) -> Any:
        if (kind, double) not in made:
            made[kind, double] = tiny_model(kind).double() if double else tiny_model(kind)
        return made[kind, double]

    return get


@pytest.fixture(scope="session")
def bare_model(tiny_tokenizer: Any) -> Any:
    """Two layers of attention alone, no norms, float64: logits are linear in the last layer's z."""
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    config = TransformerBridgeConfig(
        d_model=32, d_head=8, n_layers=2, n_ctx=64, n_heads=4, attn_only=True, normalization_type=None, seed=0,
        d_vocab=len(tiny_tokenizer), initializer_range=0.4,
    )  # fmt: skip
    return TransformerBridge.boot_native(config).double().eval()
