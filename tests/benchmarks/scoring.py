"""Scoring priming items on SmolLM2: mechicl beside minicons and a plain right-padded loop, in one process.

    python tests/benchmarks/scoring.py            # 2,000 sequences a design, a few minutes on two cores
    python tests/benchmarks/scoring.py --items 400

Two designs: "paired", the random prime-target pairs of arXiv 2406.18501, and "factorial", few primes over many
targets. All three score the same sequences (log-probability of the whole target after BOS, the prime and a space),
chunk by chunk in turn, so that a machine that slows down slows all three. Printed: sequences a second (median over
chunks), the ratio to mechicl chunk by chunk, and the largest difference between log-probabilities.
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import tyro
from transformers import AutoModelForCausalLM, AutoTokenizer

import mechicl
from mechicl.hooks.scoring import score
from mechicl.packaged import default_cache
from mechicl.tasks.corpus import PrimingCorpus
from mechicl.tasks.datives import dative_corpus

Texts = list[tuple[str, str]]
BATCH = {"minicons": 128, "plain loop": 16}  # for each the fastest of 16, 32, 64 and 128 on two cores


def sequences(corpus: PrimingCorpus, n: int) -> Texts:
    """Prime and target texts in the order in which a user would write them down: pair by pair, four combinations."""
    frame = corpus.to_frame()
    found = [
        (prime, " " + target)
        for row in frame.itertuples()
        for prime in (row.prime_PD, row.prime_DO)
        for target in (row.target_PD, row.target_DO)
    ]
    return found[:n]


def with_minicons(folder: Path) -> Callable[[Texts], np.ndarray]:
    """What its users write: `conditional_score` in batches."""
    from minicons.scorer import IncrementalLMScorer

    scorer = IncrementalLMScorer(str(folder), "cpu")

    def run(texts: Texts) -> np.ndarray:
        values: list[float] = []
        for start in range(0, len(texts), BATCH["minicons"]):
            primes, targets = zip(*texts[start : start + BATCH["minicons"]], strict=True)
            values += scorer.conditional_score(
                list(primes), [t.strip() for t in targets], reduction=lambda x: x.sum().item(), bos_token=True
            )
        return np.array(values)

    return run


def with_plain_loop(folder: Path) -> Callable[[Texts], np.ndarray]:
    """Right-padded batches in the order given, all positions unembedded: a loop that many papers release."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="right")

    def run(texts: Texts) -> np.ndarray:
        values: list[float] = []
        for start in range(0, len(texts), BATCH["plain loop"]):
            batch = texts[start : start + BATCH["plain loop"]]
            encoded = tokenizer(
                [tokenizer.bos_token + a + b for a, b in batch],
                return_tensors="pt",
                padding=True,
                add_special_tokens=False,
            )
            begins = [1 + len(tokenizer(a, add_special_tokens=False)["input_ids"]) for a, _ in batch]
            with torch.no_grad():
                found = model(**encoded).logits.log_softmax(-1)
            picked = found[:, :-1].gather(-1, encoded["input_ids"][:, 1:, None])[..., 0]
            lengths = encoded["attention_mask"].sum(1)
            values += [
                picked[i, s - 1 : n - 1].sum().item() for i, (s, n) in enumerate(zip(begins, lengths, strict=True))
            ]
        return np.array(values)

    return run


def main(items: int = 2_000, chunk: int = 400, seed: int = 0) -> None:
    """Time the three on `items` sequences a design, in chunks of `chunk`."""
    model = mechicl.load("smollm2", device="cpu")
    folder = default_cache() / "smollm2"
    print(f"SmolLM2-135M, float32, {torch.get_num_threads()} threads, {items} sequences a design in chunks of {chunk}")

    def with_mechicl(texts: Texts) -> np.ndarray:
        return score(model, [a for a, _ in texts], [b for _, b in texts], progress=False)

    ways = {"mechicl": with_mechicl, "minicons": with_minicons(folder), "plain loop": with_plain_loop(folder)}
    designs = {
        "paired": dative_corpus(design="paired", targets_per_verb=max(2, items // 1500), seed=seed),
        "factorial": dative_corpus(design="factorial", targets_per_verb=20, primes_per_verb=2, seed=seed),
    }
    for name, corpus in designs.items():
        texts = sequences(corpus, items)
        for run in ways.values():
            run(texts[:32])  # warm up
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        values: dict[str, list[np.ndarray]] = {way: [] for way in ways}
        for start in range(0, len(texts), chunk):
            for way, run in ways.items():
                began = time.perf_counter()
                values[way].append(run(texts[start : start + chunk]))
                seconds[way].append(time.perf_counter() - began)
        own = np.concatenate(values["mechicl"])
        print(f"\n{name}: {len(texts)} sequences")
        for way in ways:
            ratio = np.array(seconds[way]) / np.array(seconds["mechicl"])
            speed = chunk / np.median(seconds[way])
            gap = np.abs(np.concatenate(values[way]) - own).max()
            print(
                f"  {way:<11} {speed:7.1f} sequences/s   time / mechicl's: median {np.median(ratio):.2f} "
                f"({ratio.min():.2f} to {ratio.max():.2f})   largest difference {gap:.1e} nats"
            )


if __name__ == "__main__":
    tyro.cli(main)
