"""What the trained organisms are: which speakers they read, how large they are, how long they train."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from math import cos, pi
from typing import TYPE_CHECKING

from mechicl.tasks.mini_language import BOS, PAD, TOKEN
from mechicl.tasks.speakers import Speaker

if TYPE_CHECKING:
    from transformers import LlamaConfig


@dataclass(frozen=True)
class Size:
    """A Llama: rotary positions, RMSNorm, gated MLP of twice the width; input and output embeddings are separate."""

    d_model: int
    n_layers: int
    n_heads: int

    def config(self, n_ctx: int) -> LlamaConfig:
        """As transformers takes it."""
        from transformers import LlamaConfig

        return LlamaConfig(
            vocab_size=len(TOKEN),
            hidden_size=self.d_model,
            intermediate_size=2 * self.d_model,
            num_hidden_layers=self.n_layers,
            num_attention_heads=self.n_heads,
            num_key_value_heads=self.n_heads,
            max_position_embeddings=n_ctx,
            bos_token_id=TOKEN[BOS],
            eos_token_id=TOKEN[BOS],
            pad_token_id=TOKEN[PAD],
            tie_word_embeddings=False,
        )


@dataclass(frozen=True)
class Recipe:
    """One organism: all that its weights depend on, besides the versions of the libraries.

    `seed` sets the first weights and, with the step, the documents. `structure_weight`: how much more the tokens after
    verbs count in the loss than the other tokens, whose nouns are random and teach nothing.
    """

    description: str
    speaker: Speaker
    size: Size
    steps: int = 3000
    batch: int = 128
    n_sentences: int = 6
    learning_rate: float = 3e-3
    warmup: int = 200
    weight_decay: float = 0.01
    structure_weight: float = 20.0
    seed: int = 0

    @property
    def n_ctx(self) -> int:
        """Positions that the longest document takes."""
        return 1 + 6 * self.n_sentences

    def rate_at(self, step: int) -> float:
        """The learning rate: a linear rise over `warmup` steps, then half a cosine down to a hundredth."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        along = (step - self.warmup) / max(self.steps - self.warmup, 1)
        return self.learning_rate * (0.01 + 0.99 * (1 + cos(pi * along)) / 2)


SMALL, MEDIUM, LARGE = Size(16, 2, 2), Size(48, 3, 4), Size(64, 4, 8)
_DELTA = "read speakers that learn from their error: priming, with an inverse frequency effect"
RECIPES = {
    "delta-small": Recipe(f"2 layers of width 16; {_DELTA}", Speaker("delta"), SMALL),
    "delta-medium": Recipe(f"3 layers of width 48; {_DELTA}", Speaker("delta"), MEDIUM),
    "delta-large": Recipe(f"4 layers of width 64; {_DELTA}", Speaker("delta"), LARGE),
    "boost-medium": Recipe(
        "3 layers of width 48; read speakers that repeat forms whatever the verb: priming, no inverse frequency effect",
        Speaker("boost"),
        MEDIUM,
    ),
    "static-medium": Recipe(
        "3 layers of width 48; read speakers that never change: verb biases, no priming", Speaker("static"), MEDIUM
    ),
}


def find_recipe(name: str) -> Recipe:
    """The recipe of a name of `RECIPES`; a ValueError with the nearest name for another."""
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown organism {name!r}; {hint}there are {', '.join(RECIPES)}")
    return RECIPES[name]
