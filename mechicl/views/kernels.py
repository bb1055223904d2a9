"""Pictures of the kernel account: which heads follow a kernel, which kernel, how, and whose votes give the answers.

Draw on ``ax`` (or on a new figure), return the Axes, never call ``show()`` and leave matplotlib's settings as they are.
Maps of heads are in `mechicl.views.kernel_maps`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mechicl.views import BLUE, GREEN, GREY, INK, MARKS, PALE, VERMILION, _axes, _legend_on_top, _require
from mechicl.views.kernel_maps import plot_head_kinds, plot_kernel_map
from mechicl.wording import number, with_interval

__all__ = [
    "plot_demo_attention",
    "plot_head_kinds",
    "plot_kernel_curves",
    "plot_kernel_layers",
    "plot_kernel_map",
    "plot_rebuilt",
]
KIND_COLOURS = {"rbf": BLUE, "cosine": VERMILION, "dot": GREEN}
PLACES = {"ask": "token before the label", "text": "mean over the text", "alone": "text run alone"}
WORDS = {"unique_r2": "R² that the kernel adds", "r2": "R² of the kernel alone"}
OTHERS = ((INK, "D"), (INK, "x"), (GREY, "s"))  # colours and markers of shares to compare attention with
_PREDICTIONS = "predictions for texts run alone"


def plot_kernel_layers(
    result: Any, head: tuple[int, int] | None = None, *, value: str = "unique_r2", ax: Axes | None = None
) -> Axes:
    """Draw how well each kind of kernel explains attention, over the layer of the residual streams that it compares.

    ``head``: (layer, head), whose own layer is a grey line: what it reads stands at or left of it. Without, the largest
    value over all heads is drawn, too high by chance. ``value``: "unique_r2", what the kernel adds, or "r2", alone;
    cross-validated over all prompts, and drawn as 0 where it is below. Layer 0 is the embedding.
    """
    if value not in ("unique_r2", "r2"):
        raise ValueError(f"Got the value {value!r}, expected 'unique_r2' or 'r2'.")
    _require(result.kernels, ["kind", "place", "layer"], "kernels")
    cells = getattr(result, value)
    if head is not None and not (0 <= head[0] < cells.shape[0] and 0 <= head[1] < cells.shape[1]):
        raise ValueError(f"Got the head {head}; the model has {cells.shape[0]} x {cells.shape[1]}.")
    known = np.where(np.isfinite(cells), cells, -np.inf)
    best = np.clip(known[head] if head is not None else known.max((0, 1)), 0, None)
    table = result.kernels.assign(value=best)
    places = list(dict.fromkeys(table["place"]))
    with _axes(ax, (6.8, 4.2)) as ax:
        for (kind, place), rows in table.groupby(["kind", "place"], sort=False):
            if kind == "prediction":
                ax.axhline(float(rows["value"].iloc[0]), color=GREY, linestyle=":", linewidth=1.3, label=_PREDICTIONS)
                continue
            colour = KIND_COLOURS[str(kind)]
            _, marker, filled, style = MARKS[places.index(place) % len(MARKS)]
            ax.plot(
                rows["layer"], rows["value"], marker=marker, color=colour, linestyle=style, markersize=4, linewidth=1.4,
                markerfacecolor=colour if filled else "white", label=f"{kind}, {PLACES.get(str(place), place)}",
            )  # fmt: skip
        if head is not None:
            ax.axvline(head[0], color=PALE, linewidth=4, zorder=0, label=f"input of L{head[0]}H{head[1]}")
        ax.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True))
        ax.set_xlabel("Residual stream after so many layers")
        whose = "largest over heads" if head is None else f"L{head[0]}H{head[1]}"
        ax.set_ylabel(f"{WORDS[value]}\n({whose})")
        ax.set_ylim(-0.02, min(1.02, 1.1 * max(float(best.max()), 0.05)))
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return ax


def plot_kernel_curves(result: Any, head: tuple[int, int] | None = None, *, ax: Axes | None = None) -> Axes:
    """Draw log attention over the kernel, both less their prompt's mean; bands: two standard errors of a bin's mean.

    With ``head`` (layer, head) the kernel is as it was measured and the line has the head's slope. Without, up to six
    named heads stand side by side over slope x kernel, in nats: on the dashed line attention is what the kernel says.
    """
    _require(result.curves, ["layer", "head", "kernel", "log_kernel", "log_attention", "se"], "curves")
    slopes = result.heads.set_index(["layer", "head"])["slope"]
    present = [place for place in dict.fromkeys(zip(result.curves["layer"], result.curves["head"], strict=True))]
    if head is not None and head not in present:
        raise ValueError(f"Got the head {head}, expected one with a curve: {present}.")
    ranked = sorted((p for p in present if slopes[p] > 0), key=lambda p: p not in result.named.get("kernel", ()))
    chosen = ranked[: len(MARKS)] if head is None else [head]
    if not chosen:
        raise ValueError("Got a result in which no named head follows a kernel; there is no curve to draw.")
    with _axes(ax, (6.4, 4.4)) as ax:
        for place, mark in zip(chosen, MARKS, strict=False):
            rows = result.curves[(result.curves["layer"] == place[0]) & (result.curves["head"] == place[1])]
            scale = 1.0 if head is not None else float(slopes[place])
            _curve(ax, rows.assign(log_kernel=rows["log_kernel"] * scale), mark, _head_words(result, place))
        lowest, highest = ax.dataLim.intervalx
        rise = float(slopes[chosen[0]]) if head is not None else 1.0
        words = f"slope {number(rise, 2)}" if head is not None else "attention = kernel"
        ax.plot([lowest, highest], [rise * lowest, rise * highest], color=INK, linestyle="--", linewidth=1, label=words)
        own = (result.curves["layer"] == chosen[0][0]) & (result.curves["head"] == chosen[0][1])
        kernel = result.curves.loc[own, "kernel"].iloc[0]
        ax.set_xlabel(f"log kernel, {kernel}" if head is not None else "Slope x log kernel (nats)")
        ax.set_ylabel("Log attention (nats, less the prompt's mean)")
        _legend_on_top(ax, bounds=None)
    return ax


def plot_rebuilt(result: Any, *, ax: Axes | None = None) -> Axes:
    """Draw how often each way to rebuild answers gives the model's (dots) and the right ones (triangles).

    Bars are intervals over queries; a grey tick is the agreement expected by chance. The band is the model's accuracy.

    To read it: a way to rebuild answers counts where its dot lies right of its grey tick, and right of the dots of
    labels by place and of the last label. A dot near 1 beside triangles near chance is a model that repeats labels
    without knowing the task.
    """
    frame = result.rebuilt
    _require(
        frame, ["name", "agreement", "low", "high", "chance", "accuracy", "accuracy_low", "accuracy_high"], "rebuilt"
    )
    y = np.arange(len(frame))
    model = result.accuracy
    words = with_interval(model["estimate"], model["low"], model["high"], 2)
    with _axes(ax, (6.6, 1.5 + 0.34 * len(frame))) as ax:
        ax.axvspan(model["low"], model["high"], color=PALE, alpha=0.55, linewidth=0, zorder=0)
        ax.axvline(model["estimate"], color=GREY, linewidth=1, zorder=1, label=f"accuracy of the model: {words}")
        ax.vlines(frame["chance"], y - 0.3, y + 0.3, color=GREY, linewidth=2.2, zorder=2, label="agreement by chance")
        for column, low, high, shift, words, (colour, marker, filled, _) in (
            ("agreement", "low", "high", -0.13, "agreement with the model", MARKS[0]),
            ("accuracy", "accuracy_low", "accuracy_high", 0.13, "accuracy", MARKS[1]),
        ):
            ax.hlines(y + shift, frame[low], frame[high], color=colour, linewidth=1.5, zorder=3, label="_intervals")
            face = colour if filled else "white"
            ax.plot(
                frame[column], y + shift, marker, color=colour, markerfacecolor=face, markersize=5.5, zorder=4,
                linestyle="none", label=words,
            )  # fmt: skip
        ax.set_yticks(y, [_rebuilt_words(row["name"], row["chosen"]) for _, row in frame.iterrows()])
        ax.set_ylim(len(frame) - 0.45, -0.55)
        ax.set_xlim(-0.02, 1.02)
        ax.set_xlabel(f"Share of the prompts ({result.task}, {result.n_demos} demonstrations)")
        ax.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
    return ax


def plot_demo_attention(
    shares: Mapping[str, Float[np.ndarray, " demo"]],
    labels: Sequence[str],
    *,
    texts: Sequence[str] | None = None,
    query: str = "",
    answer: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw the shares that one prompt's demonstrations get: a row a demonstration, the first on top.

    ``shares``: name -> shares that sum to 1: first those of a head's attention (bars, coloured by the label shown),
    then others to compare it with (marks), such as those of its kernel and of nuisances. The grey line is chance, equal
    shares. ``labels`` and ``texts``: of the demonstrations; ``query`` and the model's ``answer`` stand in the title.
    """
    n = len(labels)
    for name, values in shares.items():
        if values.shape != (n,) or not np.isclose(values.sum(), 1, atol=1e-3):
            raise ValueError(f"Got {name!r} of shape {values.shape} and sum {values.sum():.3g}; expected {n} shares.")
    if not 1 <= len(shares) <= 1 + len(OTHERS) or (texts is not None and len(texts) != n):
        raise ValueError(f"Got {len(shares)} kinds of shares and {texts and len(texts)} texts for {n} demonstrations.")
    (first, bars), *others = shares.items()
    colours = {label: MARKS[i % len(MARKS)][0] for i, label in enumerate(dict.fromkeys(labels))}
    y = np.arange(n)
    with _axes(ax, (7.4, 1.9 + 0.36 * n)) as ax:
        ax.axvline(1 / n, color=GREY, linewidth=1, linestyle=":", zorder=1, label="equal shares (chance)")
        for label, colour in colours.items():
            own = np.array([shown == label for shown in labels])
            words = f"{first}: {label}" if len(colours) <= len(MARKS) else "_label"
            ax.barh(y[own], bars[own], height=0.6, color=colour, alpha=0.55, zorder=2, label=words)
        for (name, values), (colour, marker) in zip(others, OTHERS, strict=False):
            ax.plot(values, y, marker, color=colour, markersize=5, zorder=4, linestyle="none", label=name)
        names = (
            labels
            if texts is None
            else [f"{_short(text)}  \N{RIGHTWARDS ARROW} {label}" for text, label in zip(texts, labels, strict=True)]
        )
        ax.set_yticks(y, names, fontsize=8)
        ax.set_ylim(n - 0.4, -0.6)
        ax.set_xlim(0, 1.05 * max(float(values.max()) for values in shares.values()))
        ax.set_xlabel("Share among the demonstrations")
        if query or answer:
            ax.set_title(f"{_short(query, 70)}  \N{RIGHTWARDS ARROW} {answer}", fontsize=9, loc="right")
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return ax


def _curve(ax: Axes, rows: Any, mark: tuple[Any, ...], words: str) -> None:
    colour, marker, filled, style = mark
    rows = rows.sort_values("log_kernel")
    x, y, error = (rows[name].to_numpy(float) for name in ("log_kernel", "log_attention", "se"))
    ax.fill_between(x, y - 2 * error, y + 2 * error, color=colour, alpha=0.15, linewidth=0, zorder=1)
    ax.plot(
        x, y, marker=marker, color=colour, markerfacecolor=colour if filled else "white", markersize=4.5,
        linestyle=style, linewidth=1.3, zorder=3, label=words,
    )  # fmt: skip


def _head_words(result: Any, place: tuple[int, int]) -> str:
    row = result.heads[(result.heads["layer"] == place[0]) & (result.heads["head"] == place[1])].iloc[0]
    return f"L{place[0]}H{place[1]}, {row['kernel']} (unique R² {number(row['unique_r2'], 2)})"


def _rebuilt_words(name: str, chosen: str) -> str:
    return f"{name} ({chosen})" if name.startswith("best head") else name


def _short(text: str, longest: int = 44) -> str:
    words = " ".join(text.split())
    return words if len(words) <= longest else words[: longest - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"
