"""One gradient step on each of many primes of SmolLM2, targets scored after it: mechicl beside a copy a prime.

    python tests/benchmarks/gradient_steps.py                       # 64 primes x 20 targets, a few minutes
    python tests/benchmarks/gradient_steps.py --primes 8 --targets 6

The peer does what published fine-tuning code does: a deep copy of the transformers model for every prime, one step of
torch's SGD on the prime's mean loss, then one padded batch with all its targets. mechicl keeps the steps as outer
products and runs many primes' models at once (`score_after_steps`). Both score the same sentences, each alone, without
the prime in the context. Printed: seconds, ratio (also of the median of repeated chunks, since other work may disturb),
largest difference of a target's log-probability in nats, how far the steps moved them, and memory above the start.
"""

import copy
import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import torch
import tyro

import mechicl
from mechicl.hooks.prefix_tree import Continuation
from mechicl.hooks.steps.step_scoring import StepOptions, score_after_steps
from mechicl.packaged import default_cache
from mechicl.tasks.datives import dative_corpus


def with_copies(rate: float) -> Callable[[list[Continuation], list[Continuation]], np.ndarray]:
    """One deep copy and one optimiser step a prime."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(default_cache() / "smollm2").eval()

    def run(primes: list[Continuation], targets: list[Continuation]) -> np.ndarray:
        width = max(len(target.tokens) for target in targets)
        batch = torch.tensor([[*t.tokens, *[0] * (width - len(t.tokens))] for t in targets])
        real = torch.tensor(
            [[0] * t.start + [1] * (len(t.tokens) - t.start) + [0] * (width - len(t.tokens)) for t in targets]
        )
        found = []
        for prime in primes:
            own = copy.deepcopy(model)
            optimizer = torch.optim.SGD(own.parameters(), lr=rate)
            tokens = torch.tensor([prime.tokens])
            own(input_ids=tokens, labels=tokens).loss.backward()
            optimizer.step()
            with torch.no_grad():
                log_probs = own(input_ids=batch).logits[:, :-1].log_softmax(-1)
                chosen = log_probs.gather(2, batch[:, 1:, None])[..., 0]
                found.append((chosen * real[:, 1:]).sum(1).numpy())
        return np.stack(found)

    return run


def with_mechicl(model: Any, rate: float) -> Callable[[list[Continuation], list[Continuation]], np.ndarray]:
    """Many primes in a batch."""

    def run(primes: list[Continuation], targets: list[Continuation]) -> np.ndarray:
        options = StepOptions(learning_rate=rate)
        learners = [[prime] for prime in primes]
        return np.stack(score_after_steps(model, learners, [targets] * len(primes), options, progress=False).log_probs)

    return run


class PeakMemory:
    """Most memory of the process above that at the start, sampled every 10 ms; use as a context."""

    def __enter__(self) -> "PeakMemory":
        gc.collect()
        self.process, self.above, self.done = psutil.Process(), 0, threading.Event()
        self.start = self.process.memory_info().rss
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.done.wait(0.01):
            self.above = max(self.above, self.process.memory_info().rss - self.start)

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()


def main(primes: int = 64, targets: int = 20, learning_rate: float = 3e-4, chunks: int = 4, seed: int = 0) -> None:
    """Time both on the same sentences."""
    model = mechicl.load("smollm2", device="cpu")
    corpus = dative_corpus(targets_per_verb=4, seed=seed)
    draw = np.random.default_rng(seed)
    names = draw.choice(corpus.sentences["sentence"].to_numpy(), primes + (targets + 1) // 2, replace=False)

    def read(sentence: str, form: str) -> Continuation:
        ids = model.tokenizer(corpus.text(sentence, form).text, add_special_tokens=False)["input_ids"]
        return Continuation((model.tokenizer.bos_token_id, *ids), 1)

    learned = [read(name, corpus.forms[i % 2]) for i, name in enumerate(names[:primes])]
    asked = [read(name, form) for name in names[primes:] for form in corpus.forms][:targets]
    print(f"SmolLM2-135M, float32, {torch.get_num_threads()} threads, {primes} primes x {len(asked)} targets")
    runs = {"mechicl": with_mechicl(model, learning_rate), "a copy a prime": with_copies(learning_rate)}
    values, seconds = {}, {}
    for name, run in runs.items():
        with PeakMemory() as first:
            run(learned[:2], asked)  # warm up; mechicl tries here whether its way is exact for the model
        parts, times = [], []
        with PeakMemory() as memory:
            for part in np.array_split(np.arange(primes), chunks):
                began = time.perf_counter()
                parts.append(run([learned[i] for i in part], asked))
                times.append(time.perf_counter() - began)
        values[name], seconds[name] = np.concatenate(parts), np.array(times)
        print(
            f"  {name:<16} {sum(times):7.1f} s   memory above the start {memory.above / 2**20:6.0f} MB (first call "
            f"{first.above / 2**20:.0f} MB)"
        )
    fast, slow = seconds["mechicl"], seconds["a copy a prime"]
    gap = np.abs(values["mechicl"] - values["a copy a prime"]).max()
    moved = np.abs(values["mechicl"] - scores_before(model, asked))
    print(
        f"  ratio {slow.sum() / fast.sum():.2f} (chunks: median {np.median(slow / fast):.2f}, from "
        f"{(slow / fast).min():.2f} to {(slow / fast).max():.2f}); largest difference {gap:.1e} nats, where steps "
        f"moved log-probabilities by {np.median(moved):.2f} in the median and {moved.max():.2f} at most"
    )


def scores_before(model: Any, asked: list[Continuation]) -> np.ndarray:
    """The targets' log-probabilities without any step."""
    from mechicl.hooks.scoring import score

    tokens = [(list(c.tokens[: c.start]), list(c.tokens[c.start :])) for c in asked]
    return score(model, [a for a, _ in tokens], [b for _, b in tokens], prepend_bos=False, progress=False)


if __name__ == "__main__":
    tyro.cli(main)
