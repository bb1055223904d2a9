"""Patching every head of SmolLM2 in priming pairs: mechicl beside TransformerLens' own loop and nnsight, one process.

    python tests/benchmarks/patching.py                 # 32 pairs, all 270 heads, about ten minutes on two cores
    python tests/benchmarks/patching.py --pairs 8 --loop-heads 6

The task is the same for all: prompts with a PD prime, z of one head at the positions of a role replaced by that after
the DO prime, and L, the log-odds of the target's two forms, read. Two roles: "target", all tokens of the target, and
"last", the one token before the two forms part (there L is the logit difference of the first tokens that differ).

One head costs the loops one forward pass whichever head it is, so they run every so many-th head and their time is
multiplied up to all; mechicl runs all heads. Their batch is all pairs in both forms, the fastest of the sizes tried.
Printed: seconds for all heads, ratio to mechicl, largest difference of any item's L, peak memory of the process.
"""

import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
import tyro

import mechicl
from mechicl.analyses.priming_prompts import priming_items
from mechicl.hooks.attribution import attribute_heads
from mechicl.hooks.patch_items import PatchItem
from mechicl.hooks.patching import Head, patch_heads
from mechicl.packaged import default_cache
from mechicl.tasks.datives import dative_corpus
from mechicl.tasks.prompts import Prompt

Run = Callable[[list[PatchItem], str, list[Head]], np.ndarray]  # L of every head and item


class Padded:
    """All prompts of all items as one right-padded batch, and what a loop needs to patch and read it."""

    def __init__(self, items: list[PatchItem], role: str) -> None:
        prompts = [p for item in items for p in item.prompts]
        donors = [p for item in items for p in item.donors or ()]
        self.tokens, self.donor_tokens = self._stack(prompts), self._stack(donors)
        where = [
            (row, here, there)
            for row, (own, other) in enumerate(zip(prompts, donors, strict=True))
            for here, there in zip(range(*own.roles[role]), range(*other.roles[role]), strict=True)
        ]
        self.row, self.here, self.there = torch.tensor(where).T
        reads = [
            (row, position - 1, own.tokens[position])
            for row, own in enumerate(prompts)
            for position in range(*own.roles["scored"])
        ]
        self.read_row, self.read_column, self.read_token = torch.tensor(reads).T

    @staticmethod
    def _stack(prompts: list[Prompt]) -> torch.Tensor:
        width = max(map(len, prompts))
        return torch.tensor([[*p.tokens, *[0] * (width - len(p))] for p in prompts])

    def span_log_probs(self, logits: torch.Tensor) -> torch.Tensor:
        """Log-probability of the scored tokens of every row, as one writes it: log-softmax, gather, sum."""
        found = logits.log_softmax(-1)[self.read_row, self.read_column, self.read_token]
        return torch.zeros(len(self.tokens)).index_add_(0, self.read_row, found)


def with_mechicl(model: Any) -> Run:
    """All heads at once."""

    def run(items: list[PatchItem], role: str, heads: list[Head]) -> np.ndarray:
        found = patch_heads(model, items, roles=[role], sets=[[head] for head in heads], progress=False)
        return found.effects + found.clean

    return run


def with_transformer_lens(model: Any) -> Run:
    """`generic_activation_patch`, one forward pass a head."""
    from transformer_lens.patching import generic_activation_patch

    def run(items: list[PatchItem], role: str, heads: list[Head]) -> np.ndarray:
        batch = Padded(items, role)
        names = {f"blocks.{layer}.attn.hook_z" for layer, _ in heads}
        with torch.no_grad():
            _, cache = model.run_with_cache(batch.donor_tokens, names_filter=lambda name: name in names)

            def put(z: torch.Tensor, index: Any, clean: Any) -> torch.Tensor:
                head = index[1]
                z[batch.row, batch.here, head] = clean[batch.row, batch.there, head]
                return z

            index = pd.DataFrame(heads, columns=["layer", "head"])
            found = generic_activation_patch(
                model, batch.tokens, cache, batch.span_log_probs, put, "z", index_df=index, reduce="none"
            )
        sums = np.asarray(found.values).reshape(len(heads), -1)
        return sums[:, 0::2] - sums[:, 1::2]

    return run


def with_nnsight() -> Run:
    """One trace a head, on the transformers model."""
    from nnsight import LanguageModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = default_cache() / "smollm2"
    inner = AutoModelForCausalLM.from_pretrained(folder).eval()
    model = LanguageModel(inner, tokenizer=AutoTokenizer.from_pretrained(folder))
    size = inner.config.hidden_size // inner.config.num_attention_heads

    def run(items: list[PatchItem], role: str, heads: list[Head]) -> np.ndarray:
        batch = Padded(items, role)
        mask, donor_mask = torch.ones_like(batch.tokens), torch.ones_like(batch.donor_tokens)
        clean = {}
        found = []
        with torch.no_grad():
            for layer in sorted({layer for layer, _ in heads}):
                with model.trace({"input_ids": batch.donor_tokens, "attention_mask": donor_mask}):
                    kept = model.model.layers[layer].self_attn.o_proj.input.save()
                clean[layer] = kept
            for layer, head in heads:
                part = slice(head * size, (head + 1) * size)
                new = clean[layer][batch.row, batch.there, part]
                with model.trace({"input_ids": batch.tokens, "attention_mask": mask}):
                    model.model.layers[layer].self_attn.o_proj.input[batch.row, batch.here, part] = new
                    logits = model.lm_head.output.save()
                sums = batch.span_log_probs(logits).numpy()
                found.append(sums[0::2] - sums[1::2])
        return np.stack(found)

    return run


def first_token_only(item: PatchItem) -> PatchItem:
    """The same item, scored at the first tokens that differ, so that L is their logit difference."""

    def cut(prompt: Prompt) -> Prompt:
        start = prompt.roles["scored"][0]
        roles = {r: (a, min(b, start + 1)) for r, (a, b) in prompt.roles.items() if a <= start}
        return Prompt(prompt.tokens[: start + 1], {**roles, "scored": (start, start + 1)})

    return PatchItem(tuple(map(cut, item.prompts)), tuple(map(cut, item.donors or ())), item.label)


def main(pairs: int = 32, loop_heads: int = 27, nnsight: bool = True, seed: int = 0) -> None:
    """Time all on `pairs` priming pairs; the loops on `loop_heads` of the heads."""
    model = mechicl.load("smollm2", device="cpu")
    corpus = dative_corpus(targets_per_verb=4, seed=seed)
    rows = np.random.default_rng(seed).choice(len(corpus), pairs, replace=False)
    items = priming_items(corpus, model.tokenizer, rows, "PD", donor_context="DO")
    every = [(layer, head) for layer in range(30) for head in range(9)]
    some = [every[i] for i in np.linspace(0, len(every) - 1, loop_heads).round().astype(int)]
    loops: dict[str, Run] = {"TransformerLens": with_transformer_lens(model)}
    if nnsight:
        loops["nnsight"] = with_nnsight()
    print(f"SmolLM2-135M, float32, {torch.get_num_threads()} threads, {pairs} pairs, 270 heads; loops on {loop_heads}")
    for role, chosen in (("target", items), ("last", [first_token_only(item) for item in items])):
        fast = with_mechicl(model)
        fast(chosen[:1], role, every[:2])  # warm up
        began = time.perf_counter()
        own = fast(chosen, role, every)
        seconds = time.perf_counter() - began
        print(f"\n{role}: mechicl {seconds:.1f} s, exact, all heads; peak memory so far {_peak():.0f} MB")
        values = dict(zip(every, own, strict=True))
        for name, run in loops.items():
            run(chosen, role, some[:1])
            began = time.perf_counter()
            found = run(chosen, role, some)
            whole = (time.perf_counter() - began) * len(every) / len(some)
            gap = np.abs(found - np.stack([values[head] for head in some])).max()
            print(
                f"  {name:<16} {whole:8.1f} s for all heads   {whole / seconds:5.1f} times mechicl's   largest "
                f"difference {gap:.1e} nats   peak memory so far {_peak():.0f} MB"
            )
            if name == "TransformerLens":
                loop_seconds = whole
        began = time.perf_counter()
        screen = attribute_heads(model, chosen, roles=[role], progress=False).effects.reshape(len(every), -1)
        seconds = time.perf_counter() - began
        clean = patch_heads(model, chosen, roles=[role], sets=[[]], progress=False).clean
        rank = pd.Series(screen.mean(1)).corr(pd.Series((own - clean).mean(1)), method="spearman")
        print(
            f"  attribution screen {seconds:.1f} s, 1/{loop_seconds / seconds:.0f} of TransformerLens' loop; rank "
            f"correlation of its mean effects with exact patching {rank:.3f}"
        )


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    tyro.cli(main)
