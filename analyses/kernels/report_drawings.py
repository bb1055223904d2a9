"""The pictures of the kernel account's report."""

from __future__ import annotations

from typing import Any

from mechicl.analyses.pages.section import Drawing

SLUG = "kernel"
HALF = (5.4, 4.2)


def kernel_drawings(found: Any) -> list[Drawing]:
    """All of them, in the page's order; matplotlib is imported when they are drawn."""
    drawings = _of_regression(found.regression)
    if found.attention is not None:
        drawings += _of_attention(found.attention)
    if found.causality is not None:
        sets = [name for name in dict.fromkeys(found.causality.frame["set"])]
        caption = (
            "How far the answers follow when the kernel's weights take the place of heads' attention to "
            "demonstrations, beside weights permuted over demonstrations, weights of nuisances, and the same in random "
            "heads."
        )
        size = (6.6, 2.0 + 1.2 * len(sets))
        drawings.append(Drawing(f"{SLUG}_causality", caption, size, lambda ax: found.causality.plot(ax=ax)))
    if found.phenomena is not None:
        caption = (
            "Accuracy by condition: the model (dots; filled where it differs from random demonstrations) and, below it "
            "in each row, kernel accounts on the same prompts. The dotted line is chance."
        )
        conditions = found.phenomena.frame["condition"].nunique()
        accounts = min(found.phenomena.frame["predictor"].nunique() - 1, 5)
        size = (6.8, 1.4 + 0.13 * conditions * (accounts + 2))
        drawings.append(Drawing(f"{SLUG}_phenomena", caption, size, lambda ax: found.phenomena.plot(ax=ax)))
    if found.probes is not None:
        for source, target, words in (
            ("value", "label", "values tell of the label shown"),
            ("key", "prediction", "keys tell of what the model predicts for the text alone"),
        ):
            if found.probes.frame.query("source == @source and target == @target")["r2"].isna().all():
                continue  # nothing varies that could be read
            draw = _probe_picture(found.probes, source, target)
            caption = f"What {words}: held-out R² over layers, a line an offset from the label's first token."
            drawings.append(Drawing(f"{SLUG}_{source}s", caption, HALF, draw, half=True))
    return drawings


def _of_regression(regression: Any) -> list[Drawing]:
    from mechicl.views import kernels as views

    layers = regression.r2.shape[0]
    tall = min(max(2.6 + 0.11 * layers, 3.4), 7.0)
    how = f"agreement_{regression.aggregate}"
    rebuilt = (
        "How often labels weighed by attention, by kernels or by rivals give the model's answer (dots) and the right "
        "one (triangles), with intervals; ticks are agreement by chance, the band is the accuracy of the model."
    )
    drawings = [
        Drawing(
            f"{SLUG}_rebuilt",
            rebuilt,
            (6.6, 1.5 + 0.34 * len(regression.rebuilt)),
            lambda ax: views.plot_rebuilt(regression, ax=ax),
        ),
        Drawing(
            f"{SLUG}_map",
            "What its kernel explains of a head's log attention beyond nuisances and salience, held out (below 0 as "
            "0). Squares: heads named for it; dots: heads named for their votes.",
            (5.4, tall),
            lambda ax: views.plot_kernel_map(regression, ax=ax),
            half=True,
        ),
        Drawing(
            f"{SLUG}_votes",
            "How often labels weighed by a head's attention give the model's answer: blue above chance, brown below.",
            (5.4, tall),
            lambda ax: views.plot_kernel_map(regression, how, ax=ax),
            half=True,
        ),
        Drawing(
            f"{SLUG}_kinds",
            "What every head's attention to demonstrations follows most.",
            (6.6, tall),
            lambda ax: views.plot_head_kinds(regression, ax=ax),
        ),
        Drawing(
            f"{SLUG}_layers",
            "What kernels of each kind add, over the layer of the residual streams that they compare: the largest "
            "value over heads, which is too high by chance.",
            (7.2, 4.2),
            lambda ax: views.plot_kernel_layers(regression, ax=ax),
        ),
    ]
    slopes = regression.heads.set_index(["layer", "head"])["slope"]
    if any(slopes[place] > 0 for place in zip(regression.curves["layer"], regression.curves["head"], strict=True)):
        caption = (
            "Log attention over the kernel that was chosen for a head, times its slope; nuisances are left in. On the "
            "dashed line attention is what the kernel says. Bands: two standard errors of a bin's mean."
        )
        draw = lambda ax: views.plot_kernel_curves(regression, ax=ax)  # noqa: E731
        drawings.append(Drawing(f"{SLUG}_curves", caption, (6.4, 4.4), draw))
    return drawings


def _of_attention(attention: Any) -> list[Drawing]:
    layers = len(attention.mass)
    return [
        Drawing(
            f"{SLUG}_attention",
            "Where the last token looks, layer by layer, averaged over heads and prompts: attention a token, over that "
            "of a head that looks everywhere alike. Bars on top mark labels.",
            (9.2, min(max(1.6 + 0.12 * layers, 3.0), 7.0)),
            lambda ax: attention.plot(ax=ax),
        ),
        Drawing(
            f"{SLUG}_shares",
            "The same by kind of token, over all layers, beside equal attention.",
            (6.4, 4.0),
            lambda ax: attention.plot_shares(ax=ax),
        ),
    ]


def _probe_picture(probes: Any, source: str, target: str) -> Any:
    return lambda ax: probes.plot(ax=ax, source=source, target=target)
