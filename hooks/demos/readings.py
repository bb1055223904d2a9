"""One pass over few-shot prompts: attention to every demonstration, and how like the query each demonstration is.

Everything is reduced to demonstrations while the forward pass runs: what is kept of a prompt is layers x heads x
demonstrations for attention and layers x demonstrations for each kernel, whatever its length in tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from tqdm.auto import tqdm

from mechicl.hooks.demos.alone import AloneRuns
from mechicl.hooks.demos.attention import AGGREGATES
from mechicl.hooks.demos.runs import PLACES, DemoRun, References
from mechicl.hooks.demos.similarity import KINDS
from mechicl.hooks.demos.spans import ELSEWHERE, check_fewshot
from mechicl.hooks.demos.store import ReadingStore
from mechicl.hooks.length_batches import batches_of_length
from mechicl.hooks.wrapper import WrappedModel, wrap
from mechicl.tasks.fewshot import FewShotPrompt


@dataclass(frozen=True)
class DemoReadings:
    """What the model does with each demonstration of each prompt (an item).

    attention: from the last token, by how tokens of a demonstration are taken together ("sum", "max", "label").
    elsewhere: attention to what belongs to none: before the first, separators, the query; with "sum" it makes 1.
    kernels: logarithms of kernels without their scale; `kernel_table` has a row each: kind ("rbf", "cosine", "dot",
        "prediction"), place and layer. Place: "ask", the token from which a label is predicted; "text", the mean over a
        text's tokens; "alone", the ask token of a text that is run alone. Layer 0 is the embedding, layer l comes after
        l layers; -1 for predictions.
    salience: the same for the queries of other prompts, on average: how like any query a demonstration is.
    label_log_probs: of each label that may be answered, nats, over all its tokens.
    """

    attention: dict[str, Float[np.ndarray, "item layer head demo"]]
    elsewhere: Float[np.ndarray, "item layer head place"]
    kernels: Float[np.ndarray, "item kernel demo"]
    salience: Float[np.ndarray, "item kernel demo"]
    kernel_table: pd.DataFrame
    label_log_probs: Float[np.ndarray, "item label"]

    @property
    def predicted(self) -> Int[np.ndarray, " item"]:
        """The number of the label that the model finds most probable."""
        return self.label_log_probs.argmax(-1)

    @property
    def kernel_names(self) -> list[str]:
        """Such as "rbf ask 12"."""
        return [kernel_name(*row) for row in self.kernel_table.itertuples(index=False)]


def kernel_name(kind: str, place: str, layer: int) -> str:
    """How a kernel is called: kind, place and layer."""
    return kind if kind == "prediction" else f"{kind} {place} {layer}"


def read_demonstrations(
    model: Any,
    prompts: Sequence[FewShotPrompt],
    *,
    places: Sequence[str] = PLACES,
    n_references: int = 64,
    memory_budget: int = 1 << 30,
    progress: bool = True,
    store: str | Path | None = None,
) -> DemoReadings:
    """Run the prompts, and each of their texts alone, and keep what concerns demonstrations.

    places: where residual streams are compared; "alone" also gives the similarity of predictions, and costs about as
    much time again as the prompts; none reads attention and answers only. n_references: of how many prompts the queries
    serve for `salience`, which are run twice; what too few miss of it passes for a kernel (8: unique R^2 up to .02).
    store: a folder for finished prompts, from which an interrupted reading goes on. The model is left as it was.

    Raises `ValueError`, before any forward pass, for no prompts, prompts with unequal numbers of demonstrations or
    labels, those longer than the context window, unknown places, and, where places are compared, prompts all with one
    query; and for a model that shows no attention pattern.
    """
    wrapped = wrap(model)
    n_demos = check_fewshot(wrapped, prompts)
    chosen = _checked_places(places)
    referred = [prompts[i] for i in _references(prompts, n_references)] if chosen else []
    table = _table(wrapped, chosen)
    heads = (len(prompts), wrapped.n_layers, wrapped.n_heads)
    attention = {how: np.zeros((*heads, n_demos)) for how in AGGREGATES}
    elsewhere = np.zeros((*heads, len(ELSEWHERE)))
    kernels = np.zeros((len(prompts), len(table), n_demos))
    salience = np.zeros_like(kernels)
    labels = np.zeros((len(prompts), len(prompts[0].labels)))
    arrays = [*attention.values(), elsewhere, kernels, salience, labels]
    kept = ReadingStore(wrapped, store, prompts, chosen, referred) if store is not None else None
    todo = kept.fill(arrays) if kept is not None else list(range(len(prompts)))
    bar = tqdm(
        total=len(prompts), initial=len(prompts) - len(todo), desc="reading", unit="prompt", disable=not progress
    )
    with wrapped.evaluating(), bar:
        alone = AloneRuns(wrapped, memory=memory_budget // 8, budget=memory_budget)
        references = References.of(wrapped, referred if todo else [], chosen, alone, memory_budget)
        for numbers in batches_of_length(wrapped, [len(prompts[i].prompt) for i in todo], memory_budget):
            items = [todo[number] for number in numbers]
            run = DemoRun(wrapped, [prompts[i] for i in items], chosen, references)
            labels[items] = run.read(wrapped, memory_budget)
            for how, found in run.attention.found.items():
                attention[how][items] = found.numpy()
            elsewhere[items] = run.attention.elsewhere.numpy()
            if chosen:
                kernels[items], salience[items] = run.kernels(alone)
            if kept is not None:
                kept.keep(items, arrays)
            bar.update(len(items))
    return DemoReadings(attention, elsewhere, kernels, salience, table, labels)


def _checked_places(places: Sequence[str]) -> tuple[str, ...]:
    """In their order of keeping."""
    if isinstance(places, str) or any(place not in PLACES for place in places):
        raise ValueError(f"got places={places!r}; expected a list of some of {', '.join(PLACES)}")
    return tuple(place for place in PLACES if place in places)


def _references(prompts: Sequence[FewShotPrompt], n: int) -> list[int]:
    """The first prompts with different queries."""
    first: dict[int, int] = {}
    for number, one in enumerate(prompts):
        first.setdefault(one.query, number)
    if len(first) < 2 or n < 2:
        raise ValueError(
            f"got prompts with {len(first)} different queries and n_references={n}; expected at least 2 of both, for a "
            "demonstration's likeness to a query is set against that to other queries"
        )
    return list(first.values())[:n]


def _table(wrapped: WrappedModel, places: Sequence[str]) -> pd.DataFrame:
    """A row a kernel, in the order in which they are kept."""
    rows = [(kind, place, layer) for place in places for layer in range(wrapped.n_layers + 1) for kind in KINDS]
    rows += [("prediction", "alone", -1)] if "alone" in places else []
    return pd.DataFrame(rows, columns=["kind", "place", "layer"])
