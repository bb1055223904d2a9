"""Train a grid of models: many at once, resumable after a kill at any moment, with the same weights in the end.

    train_grid(points, "runs/urns")                      one process
    train_grid(points, "runs/urns", n_jobs=2)            two processes; stacks of models go through joblib, so
    with joblib.parallel_config("dask"):                 a Dask or Ray cluster takes them unchanged
        train_grid(points, "runs/urns")

Points that are alike but for diversity and seed are trained in stacks (`mechicl.organisms.grid.stack`). On a CPU a
model's weights are the same, to the last bit, in whichever stack it is and however often the run was stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, delayed
from safetensors.torch import save

from mechicl.organisms.grid.points import GridPoint
from mechicl.organisms.grid.progress import watching
from mechicl.organisms.grid.settings import SETTINGS
from mechicl.organisms.grid.stack import Stack
from mechicl.organisms.grid.store import STATE, code_version, is_whole, open_run, write_bytes, write_checkpoint

BETAS, EPS = (0.9, 0.999), 1e-8


class StackTraining:
    """Models of one kin, their optimiser, and the number of steps done."""

    def __init__(self, points: Sequence[GridPoint], *, device: str | torch.device = "cpu") -> None:
        """First weights from each point's seed; torch's own random state is left as it was."""
        if len({point.kin for point in points}) != 1:
            raise ValueError("got points that differ in more than diversity and seed; they cannot share a stack")
        self.points, self.done = list(points), 0
        self.setting, self.tasks = SETTINGS[points[0].setting], [point.task for point in points]
        self.stack = Stack(points[0].config, len(points), device=device)
        self.stack.randomise([point.seed for point in points], spread=points[0].init)
        self.flat = torch.nn.Parameter(self.stack.weights)
        self.flat.grad = self.stack.gradient
        self.optimizer = torch.optim.AdamW([self.flat], lr=0.0, betas=BETAS, eps=EPS, weight_decay=0.0, fused=True)

    def step(self) -> list[float]:
        """One step of every model on fresh sequences of its own task; returns their losses before it."""
        point, losses = self.points[0], []
        self.stack.gradient.zero_()
        coded = [self.setting.encode(task.sample(point.batch, step=self.done)) for task in self.tasks]
        for part in self.stack.parts:
            inputs, targets = (torch.stack(both).to(self.stack.device) for both in zip(*coded[part.rows], strict=True))
            each = self.setting.losses(self.stack.run(part, inputs), targets)
            each.sum().backward()  # type: ignore[no-untyped-call]
            losses += each.tolist()
        self._clip(point.clip)
        self.optimizer.param_groups[0]["lr"] = point.rate_at(self.done)
        self.optimizer.step()
        self.done += 1
        return losses

    @torch.no_grad()
    def _clip(self, largest: float) -> None:
        """Every model's gradient to a norm of its own, as `clip_grad_norm_` does for one."""
        for part in self.stack.parts:  # a part at a time, for the order of a sum may depend on the array's shape
            slots = [slot[part.rows] for slot in self.stack.slots.values()]
            norms = torch.stack([slot.flatten(1).square().sum(1) for slot in slots]).sum(0).sqrt()
            share = (largest / (norms + 1e-6)).clamp(max=1.0)
            for slot in slots:
                slot.mul_(share.view(-1, *[1] * (slot.ndim - 1)))

    def save(self, file: Path) -> None:
        """Weights, moments and the step."""
        state = self.optimizer.state[self.flat]
        tensors = {"weights": self.flat.detach()} | {key: state[key] for key in ("exp_avg", "exp_avg_sq")}
        head = {"done": str(self.done), "points": self._names(), "code": code_version()}
        data = save({key: tensor.cpu().contiguous() for key, tensor in tensors.items()}, head)
        write_bytes(file, hashlib.sha256(data).digest() + data)

    def resume(self, file: Path) -> bool:
        """Go on from what `save` wrote; False, and nothing changed, where it is torn, of other code or other points."""
        data = file.read_bytes() if file.is_file() else b""
        if hashlib.sha256(data[32:]).digest() != data[:32]:
            return False
        head, tensors = _parse(data[32:])
        if head.get("points") != self._names() or head.get("code") != code_version():
            return False
        with torch.no_grad():
            self.flat.copy_(tensors["weights"])
        moments = {key: tensors[key].to(self.stack.device) for key in ("exp_avg", "exp_avg_sq")}
        self.done = int(head["done"])
        self.optimizer.state[self.flat] = {"step": torch.tensor(float(self.done), device=self.stack.device), **moments}
        return True

    def _names(self) -> str:
        return json.dumps([point.to_json() for point in self.points])


def train_grid(
    points: Sequence[GridPoint],
    folder: str | Path,
    *,
    stack: int = 9,
    n_jobs: int | None = None,
    device: str = "cpu",
    threads: int = 1,
    progress: bool = True,
) -> Path:
    """Train every point of a grid into a folder (its layout: `mechicl.organisms.grid.store`), or go on with it.

    stack: models at once, at most. n_jobs: processes, as joblib takes it. threads: of each process.
    Models that are whole are left as they are; torn ones, and those that other code trained, are trained again.

    Raises ValueError for a folder that holds another grid or other files, and for points with the same name.
    """
    if stack < 1 or threads < 1:
        raise ValueError(f"got stack={stack} and threads={threads}; expected 1 or more")
    folder = open_run(folder, points)
    whole = {point for point in points if is_whole(folder, point)}
    if progress and whole:
        print(f"{len(whole)} of {len(points)} models are there already")
    left = []
    for part in stacks(points, stack):
        goes_on = state_file(folder, part).exists()  # stopped, maybe while some of its models were whole already
        left += [kept for kept in [part if goes_on else [p for p in part if p not in whole]] if kept]
    with watching(folder, left, disable=not progress):
        Parallel(n_jobs=n_jobs)(delayed(train_stack)(part, folder, device=device, threads=threads) for part in left)
    return folder


def stacks(points: Sequence[GridPoint], size: int) -> list[list[GridPoint]]:
    """Points of one kin together, so many at most."""
    kin: dict[str, list[GridPoint]] = {}
    for point in points:
        kin.setdefault(point.kin, []).append(point)
    return [same[at : at + size] for same in kin.values() for at in range(0, len(same), size)]


def train_stack(points: Sequence[GridPoint], folder: Path, *, device: str = "cpu", threads: int = 1) -> None:
    """Train points of one kin side by side, keeping weights at each step of their schedule."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        training = StackTraining(points, device=device)
        training.resume(state_file(folder, points))
        for step in points[0].schedule:
            if step <= training.done:
                continue
            while training.done < step:
                training.step()
            for at, point in enumerate(points):
                write_checkpoint(folder / point.name, point, step, training.stack.model_weights(at))
            training.save(state_file(folder, points))  # after the weights, so that what it says is done is kept
        state_file(folder, points).unlink(missing_ok=True)
    finally:
        torch.set_num_threads(before)


def state_file(folder: Path, points: Sequence[GridPoint]) -> Path:
    """Where a stack keeps what it needs to go on."""
    names = "\n".join(point.to_json() for point in points)
    return folder / STATE / f"{hashlib.sha256(names.encode()).hexdigest()[:16]}.safetensors"


def _parse(data: bytes) -> tuple[dict[str, str], dict[str, Any]]:
    """Metadata and tensors of a safetensors file."""
    from safetensors.torch import load

    length = int.from_bytes(data[:8], "little")
    head: dict[str, str] = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    return head, load(data)
