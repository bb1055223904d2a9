"""Attention of all heads regressed onto all kernels: mechicl beside loops of scikit-learn; and memory of the reading.

    python tests/benchmarks/kernel_fit.py                          # numbers of SmolLM2's size, about a minute
    python tests/benchmarks/kernel_fit.py --read 40 --demos 32     # also reads prompts with SmolLM2, and its memory

Two peers fit the same regressions with scikit-learn's LinearRegression, out of fold, with and without each kernel: one
fit a head, kernel and fold, as one would write it first, and one fit a kernel and fold with all heads as targets. Both
run on some of the kernels (the first on some of the heads as well), and their time is multiplied up. Printed: seconds,
ratios, and the largest difference of any R^2. The numbers are made up: only sizes matter here.
"""

import gc
import time
from collections.abc import Callable

import numpy as np
import psutil
import torch
import tyro
from sklearn.linear_model import LinearRegression

from mechicl.kernel_fit import fit_kernels

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def made_up(prompts: int, demos: int, heads: int, kernels: int, nuisances: int, seed: int) -> Arrays:
    """Attention that owes something to the nuisances, to salience, and to a kernel."""
    rng = np.random.default_rng(seed)
    kernel, salience = (rng.normal(size=(prompts, kernels, demos)) for _ in range(2))
    nuisance = rng.normal(size=(prompts, nuisances, demos))
    response = rng.normal(size=(prompts, heads, demos))
    response += kernel[:, rng.integers(kernels, size=heads)] + salience[:, rng.integers(kernels, size=heads)]
    response += nuisance[:, rng.integers(nuisances, size=heads)]
    return response, kernel, nuisance, salience


def rows(values: np.ndarray) -> np.ndarray:
    """Centred within prompts, one row a demonstration."""
    return (values - values.mean(-1, keepdims=True)).transpose(0, 2, 1).reshape(-1, values.shape[1])


def out_of_fold(design: np.ndarray, target: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """R^2 of errors on rows not fitted; one a column of the target."""
    errors = np.zeros(target.shape[1:])
    for number in np.unique(fold):
        model = LinearRegression(fit_intercept=False).fit(design[fold != number], target[fold != number])
        errors += ((target[fold == number] - model.predict(design[fold == number])) ** 2).sum(0)
    return np.asarray(1 - errors / (target**2).sum(0))


def with_loop(arrays: Arrays, fold: np.ndarray, heads: list[list[int]], kernels: list[int]) -> np.ndarray:
    """Unique R^2 [head kernel]; heads: those that are fitted together."""
    response, kernel, nuisance, salience = (rows(array) for array in arrays)
    found = np.full((response.shape[1], kernel.shape[1]), np.nan)
    for together in heads:
        for k in kernels:
            without = np.concatenate([nuisance, salience[:, [k]]], 1)
            target = response[:, together]
            joint = out_of_fold(np.concatenate([without, kernel[:, [k]]], 1), target, fold)
            found[together, k] = joint - out_of_fold(without, target, fold)
    return found


def timed(run: Callable[[], np.ndarray], repeats: int) -> tuple[np.ndarray, float]:
    """The result, and the median seconds."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        found = run()
        seconds.append(time.perf_counter() - began)
    return found, float(np.median(seconds))


def read_memory(prompts: int, demos: int) -> None:
    """Peak memory of reading, for an eighth of the prompts and for all: it is to grow with what is kept alone."""
    import pandas as pd

    import mechicl
    from mechicl.hooks.demos.readings import read_demonstrations
    from mechicl.tasks.fewshot import FewShotTask, fewshot_prompts

    rng = np.random.default_rng(0)
    words = ["film", "scene", "plot", "cast", "music", "ending", "story", "joke", "camera", "actor", "script", "pace"]
    texts = [f"The {' '.join(rng.choice(words, 10))}." for _ in range(prompts + 4 * demos)]
    frame = pd.DataFrame({"text": texts, "label": ["positive", "negative"] * (len(texts) // 2)})
    model = mechicl.load("smollm2", device="cpu")
    own = fewshot_prompts(FewShotTask("words", frame), demos, prompts, tokenizer=model.tokenizer, seed=0)
    print(f"SmolLM2-135M, {demos} demonstrations, {np.mean([len(one.prompt) for one in own]):.0f} tokens a prompt")
    for n in (prompts // 8, prompts):
        gc.collect()
        start, began = psutil.Process().memory_info().rss, time.perf_counter()
        peak = PeakMemory()
        with peak:
            found = read_demonstrations(model, own[:n], memory_budget=1 << 29, progress=False)
        kept = sum(array.nbytes for array in (*found.attention.values(), found.kernels, found.salience))
        print(f"  {n:4d} prompts: peak {(peak.most - start) / 2**20:6.0f} MB above the start, of which kept "
              f"{kept / 2**20:4.0f} MB; {time.perf_counter() - began:.0f} s")  # fmt: skip


class PeakMemory:
    """Most memory of the process, sampled every 10 ms; use as a context."""

    def __enter__(self) -> "PeakMemory":
        import threading

        self.most, self.done = 0, threading.Event()

        def watch() -> None:
            while not self.done.wait(0.01):
                self.most = max(self.most, psutil.Process().memory_info().rss)

        self.thread = threading.Thread(target=watch)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()


def main(
    prompts: int = 120,
    demos: int = 8,
    heads: int = 270,
    kernels: int = 280,
    nuisances: int = 13,
    folds: int = 5,
    some: int = 4,
    read: int = 0,
    seed: int = 0,
) -> None:
    """Time the regressions; with `read`, also a reading of so many prompts."""
    arrays = made_up(prompts, demos, heads, kernels, nuisances, seed)
    items = np.arange(prompts) % folds
    fold = np.repeat(items, demos)
    response, kernel, nuisance, salience = arrays
    print(f"{heads} heads x {kernels} kernels, {prompts} prompts of {demos}, {nuisances} nuisances, {folds} folds, "
          f"{torch.get_num_threads()} threads")  # fmt: skip
    few = [int(k) for k in np.linspace(0, kernels - 1, some)]
    ours, seconds = timed(
        lambda: fit_kernels(response, kernel, nuisance, folds=items, salience=salience, n_permutations=0).unique_r2, 5
    )
    print(f"  mechicl                    {seconds:8.2f} s")
    for name, together, share in (
        (
            "scikit-learn, head by head",
            [[int(h)] for h in np.linspace(0, heads - 1, some)],
            some * some / (heads * kernels),
        ),
        ("scikit-learn, all heads", [list(range(heads))], some / kernels),
    ):
        found, needed = timed(lambda together=together: with_loop(arrays, fold, together, few), 3)
        gap = np.nanmax(np.abs(found - ours))
        print(
            f"  {name:26} {needed / share:8.2f} s  ratio {needed / share / seconds:7.0f}; largest difference {gap:.1e}"
        )
    if read:
        read_memory(read, demos)


if __name__ == "__main__":
    tyro.cli(main)
