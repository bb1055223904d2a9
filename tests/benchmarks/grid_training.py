"""Training many small models: mechicl's stacks beside a Hugging Face GPT-NeoX trained in a plain loop.

    python tests/benchmarks/grid_training.py                            # 4 models of balls and urns, about a minute
    python tests/benchmarks/grid_training.py --models 64 --device cuda  # on a GPU

Peers: `GPTNeoXForCausalLM` from a configuration, one model after another, data drawn in the loop, AdamW, clipped
gradients, a rate with warm-up, as published code trains such grids; the same with a process a core; and the same
models under `torch.func.stack_module_state` and `vmap`. Ours: one model after another; all in one stack; a stack in
each of as many processes as there are cores. Variants take turns, round by round, so that what else the machine does
hits all alike; printed are medians over the rounds and, in brackets, the least and the most.

Share of peak: floating-point operations of the matrix products, by their sizes (6 a weight and token, and causal
attention), over the rate of one large product on all cores, measured between the rounds. First of all both train from
the same weights on the same sequences: printed is how far losses and weights drift apart.
"""

import time
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
import tyro
from joblib import Parallel, delayed
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from mechicl.organisms.grid.neox import neox_config, neox_weights
from mechicl.organisms.grid.points import GridPoint
from mechicl.organisms.grid.stack import StackConfig
from mechicl.organisms.grid.training import StackTraining

Run = Callable[[int], None]  # so many steps of every model


class NeoxLoop:
    """One model as published code trains it."""

    def __init__(self, point: GridPoint, device: str, weights: dict[str, torch.Tensor] | None = None) -> None:
        from transformers import GPTNeoXForCausalLM

        torch.manual_seed(point.seed)
        self.point, self.device = point, device
        self.model = GPTNeoXForCausalLM(neox_config(point.config))
        if weights is not None:
            self.model.load_state_dict(neox_weights(weights, point.config))
        self.model.to(device).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=point.learning_rate, weight_decay=0.0)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: point.rate_at(step) / point.learning_rate
        )
        self.pool = torch.from_numpy(point.task.pool).float().to(device)

    def draw(self) -> torch.Tensor:
        """Sequences of balls, drawn in the loop."""
        point = self.point
        urns = self.pool[torch.randint(point.diversity, (point.batch,), device=self.device)]
        balls = torch.distributions.Categorical(urns).sample((point.context,)).T
        return torch.cat([balls.new_full((point.batch, 1), point.dim), balls], dim=1)

    def step(self, tokens: torch.Tensor | None = None) -> float:
        """One step; its loss."""
        tokens = self.draw() if tokens is None else tokens
        self.optimizer.zero_grad()
        loss = self.model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.point.clip)
        self.optimizer.step()
        self.schedule.step()
        return float(loss.detach())


class NeoxVmap:
    """The same models at once: one forward and backward pass under vmap over their stacked weights."""

    def __init__(self, points: Sequence[GridPoint], device: str) -> None:
        from transformers import GPTNeoXForCausalLM

        self.loops = [NeoxLoop(point, device) for point in points]
        self.parameters, self.buffers = stack_module_state([loop.model for loop in self.loops])
        config = neox_config(points[0].config)
        config._attn_implementation = "eager"  # vmap runs the fused kernel in a loop
        self.base, self.clip = GPTNeoXForCausalLM(config).to(device), points[0].clip
        own = [torch.nn.Parameter(weight.detach()) for weight in self.parameters.values()]
        self.parameters = dict(zip(self.parameters, own, strict=True))
        self.optimizer = torch.optim.AdamW(own, lr=points[0].learning_rate, weight_decay=0.0)
        self.both = vmap(grad_and_value(self._loss))

    def _loss(self, parameters: dict, buffers: dict, tokens: torch.Tensor) -> torch.Tensor:
        return functional_call(self.base, (parameters, buffers), (), {"input_ids": tokens, "labels": tokens}).loss

    def step(self) -> None:
        """One step of all."""
        tokens = torch.stack([loop.draw() for loop in self.loops])
        detached = {name: weight.detach() for name, weight in self.parameters.items()}
        gradients, _ = self.both(detached, self.buffers, tokens)
        norm = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients.values()]).sum(0).sqrt()
        share = (self.clip / (norm + 1e-6)).clamp(max=1.0)
        for name, gradient in gradients.items():
            self.parameters[name].grad = gradient * share.view(-1, *[1] * (gradient.ndim - 1))
        self.optimizer.step()


def one_after_another(trainings: Sequence[NeoxLoop | NeoxVmap | StackTraining]) -> Run:
    """All steps of one training, then of the next."""

    def run(steps: int) -> None:
        for training in trainings:
            for _ in range(steps):
                training.step()

    return run


def in_processes(points: Sequence[GridPoint], n_jobs: int, kind: str) -> Run:
    """A share of the models in each process, one thread each; the processes keep them from round to round."""
    shares = [list(points[start::n_jobs]) for start in range(min(n_jobs, len(points)))]
    parallel = Parallel(n_jobs=n_jobs)

    def run(steps: int) -> None:
        parallel(delayed(_train_share)(shares, own, steps, kind) for own in range(len(shares)))

    return run


KEPT: dict[str, list[list]] = {}  # of a worker process: any share may come to it


def _train_share(shares: list[list[GridPoint]], own: int, steps: int, kind: str) -> None:
    torch.set_num_threads(1)
    if kind not in KEPT:
        KEPT[kind] = [
            [StackTraining(share)] if kind == "stack" else [NeoxLoop(point, "cpu") for point in share]
            for share in shares
        ]
    one_after_another(KEPT[kind][own])(steps)


def operations(cfg: StackConfig, batch: int) -> float:
    """Of the matrix products of one training step of one model: forward, and twice that backward."""
    d, tokens = cfg.d_model, batch * cfg.n_ctx
    weights = cfg.n_layers * (4 * d * d + 2 * d * cfg.d_mlp) + d * cfg.d_out
    attention = cfg.n_layers * 2 * d * (cfg.n_ctx + 1) / 2  # scores and values, over half of the pairs
    return 6.0 * tokens * (weights + attention)


def peak(device: str, size: int = 2048) -> float:
    """Operations a second of one large matrix product in float32."""
    a, b = (torch.randn(size, size, device=device) for _ in range(2))
    a @ b
    synchronise(device)
    began, n = time.perf_counter(), 0
    while time.perf_counter() - began < 0.3:
        a @ b
        synchronise(device)
        n += 1
    return 2 * size**3 * n / (time.perf_counter() - began)


def synchronise(device: str) -> None:
    """Wait for a GPU."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def compare(point: GridPoint, steps: int, device: str) -> None:
    """Both from the same weights on the same sequences: how far apart are losses and weights afterwards?"""
    ours = StackTraining([point], device=device)
    loop = NeoxLoop(point, device, ours.stack.model_weights(0))
    start = neox_weights(ours.stack.model_weights(0), point.config)
    gaps = []
    for step in range(steps):
        tokens = torch.from_numpy(point.task.sample(point.batch, step=step).tokens).to(device)
        gaps.append(abs(loop.step(tokens) - ours.step()[0]))
    theirs, own = loop.model.state_dict(), neox_weights(ours.stack.model_weights(0), point.config)
    apart = max(float((theirs[name] - weight).abs().max()) for name, weight in own.items())
    moved = max(float((start[name] - weight).abs().max()) for name, weight in own.items())
    print(f"same weights, same sequences, {steps} steps: losses differ by {max(gaps):.1e} nats at most, "
          f"weights by {apart:.1e}, which moved by {moved:.1e}")  # fmt: skip


def main(
    models: int = 4,
    steps: int = 10,
    rounds: int = 7,
    context: int = 64,
    dim: int = 8,
    d_mlp: int = 256,
    batch: int = 64,
    device: str = "cpu",
    threads: int | None = None,
    jobs: int | None = None,
) -> None:
    """Time all variants on a grid of balls and urns; threads, and jobs (processes), are one a core by default."""
    torch.set_num_threads(threads or torch.get_num_threads())
    cores = torch.get_num_threads()
    jobs = jobs or cores
    points = [
        GridPoint("balls_and_urns", 2 ** (2 + i % 11), context, dim, d_mlp, batch=batch, warmup=10, seed=i // 11)
        for i in range(models)
    ]
    compare(points[0], 20, device)
    stack = StackTraining(points, device=device)
    variants: dict[str, Run] = {
        "GPT-NeoX, one by one": one_after_another([NeoxLoop(point, device) for point in points]),
        "GPT-NeoX, vmap": one_after_another([NeoxVmap(points, device)]),
        "mechicl, one by one": one_after_another([StackTraining([point], device=device) for point in points]),
        "mechicl, stacked": one_after_another([stack]),
    }
    if device == "cpu":
        variants[f"GPT-NeoX, {jobs} processes"] = in_processes(points, jobs, "loop")
        variants[f"mechicl, {jobs} processes"] = in_processes(points, jobs, "stack")
    speeds: dict[str, list[float]] = {name: [] for name in variants}
    peaks = []
    for number in range(rounds + 1):
        peaks.append(peak(device))
        for name, run in variants.items():
            began = time.perf_counter()
            run(steps if number else 2)  # the round that warms up is not counted
            synchronise(device)
            if number:
                speeds[name].append(models * steps / (time.perf_counter() - began))
    most = float(np.median(peaks))
    work = operations(points[0].config, batch)
    print(f"{models} models, context {context}, MLP {d_mlp}, batch {batch}; {cores} threads on {device}; "
          f"{work / 1e9:.2f} GFLOP a step; peak {most / 1e9:.0f} GFLOP/s [{min(peaks) / 1e9:.0f}, "
          f"{max(peaks) / 1e9:.0f}]")  # fmt: skip
    base = np.array(speeds["GPT-NeoX, one by one"])
    for name, values in speeds.items():
        ratio = np.array(values) / base
        print(f"  {name:24} {np.median(values):7.1f} models x steps a second [{min(values):.1f}, {max(values):.1f}]; "
              f"{np.median(ratio):5.2f} times [{ratio.min():.2f}, {ratio.max():.2f}]; "
              f"{100 * np.median(values) * work / most:3.0f} % of peak")  # fmt: skip


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="There is a performance drop")
    tyro.cli(main)
