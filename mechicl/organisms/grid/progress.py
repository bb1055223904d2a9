"""A bar over a run that other processes, or other machines, may be doing: it reads what they keep."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from tqdm.auto import tqdm

from mechicl.organisms.grid.points import GridPoint
from mechicl.organisms.grid.store import CHECKPOINTS

SECONDS = 2.0


@contextmanager
def watching(folder: Path, stacks: Sequence[Sequence[GridPoint]], *, disable: bool) -> Iterator[None]:
    """While the block runs, a bar shows the steps of all models done, and the time left."""
    points = [point for stack in stacks for point in stack]
    if disable or not points:
        yield
        return
    stop = Event()
    with tqdm(total=sum(point.steps for point in points), desc=f"{len(points)} models", unit="step") as bar:

        def update() -> None:
            bar.update(sum(done(folder, point) for point in points) - bar.n)

        def watch() -> None:
            while not stop.wait(SECONDS):
                update()

        bar.update(sum(done(folder, point) for point in points))
        thread = Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            update()


def done(folder: Path, point: GridPoint) -> int:
    """The last step of a model that was kept."""
    file = folder / point.name / CHECKPOINTS
    if not file.is_file():
        return 0
    return max((int(step) for step in json.loads(file.read_text(encoding="utf-8"))), default=0)
