"""What a report says of how the kernel account was measured, and of what it does not show."""

from __future__ import annotations

from typing import Any

AGGREGATES = {
    "label": "the tokens of its label",
    "sum": "all of its tokens",
    "max": "that of its tokens which gets most",
}
CAVEATS = [
    (
        "Agreement alone is no kernel regression",
        "Late in a model a head may look at the label that the model is about to give, or at one that earlier layers "
        "have settled on. Its votes then agree with the answer without having made it. What can count is that "
        "attention follows likeness of inputs, beyond nuisances, and that answers change when the kernel's weights "
        "take its place.",
    ),
    (
        "Salience is not likeness",
        "Some demonstrations draw attention from every query. What a kernel explains of that is not counted: R² beyond "
        "nuisances is of how this query is like this demonstration, against other queries.",
    ),
    (
        "Logarithms of attention",
        "Kernels are fitted to log attention, in which a demonstration that gets almost nothing weighs as much as one "
        "that gets almost everything. R² of the shares themselves stands beside it in the frames, and may be lower.",
    ),
    (
        "Kernels were searched",
        "Many kernels were tried for each head. Choice and fit are made on half of the queries and judged on the "
        "other; the name of the kernel that won says less than that one did, for neighbouring layers hold almost the "
        "same.",
    ),
    (
        "Faithful weights are no proof",
        "Whatever agrees with the kernel on these prompts would give the same answers back. And heads that were not "
        "replaced may make up for those that were.",
    ),
    (
        "What kernels do not explain",
        "A weighted vote over demonstrations sees no order, no format, and no label that is not shown; where the "
        "model's answers change with these, something else is at work. A model that answers well without "
        "demonstrations owes them less than its accuracy suggests.",
    ),
    (
        "One task, one template",
        "Prompts are written in one way from one set of texts. Queries are the sample; demonstrations recur among "
        "them.",
    ),
]


def method(found: Any) -> list[tuple[str, str]]:
    """Title and text of each paragraph."""
    regression = found.regression
    options = regression.provenance.options
    words = [
        (
            "Prompts",
            f"{options['n_prompts']} prompts of the task “{regression.task}”, each a query after {regression.n_demos} "
            f"demonstrations of its own, balanced over labels. The answer is the label with the highest probability. "
            f"{options['n_evaluated']} of them, with other queries than the rest, choose nothing: they judge.",
        ),
        (
            "Rebuilt answers",
            "Every demonstration votes for its label with the attention that one head pays it from the last token, or "
            "with a kernel between texts: cosines of words, of residual streams, of what the model predicts after the "
            "text alone. Agreement is with the model's answer; ties count in shares; chance is what the labels' "
            "frequencies alone give, p permutes answers over prompts. Head, way of taking tokens together and scale "
            "were chosen on the other prompts.",
        ),
        (
            "Kernels",
            f"Log attention to {AGGREGATES[regression.aggregate]} of each demonstration, less the prompt's mean, is "
            "regressed onto logarithms of kernels (Gaussian, cosine, dot product) between the residual streams of "
            "query and demonstration at every layer, beside its place, label, lengths, words in common, and what it "
            "draws from other queries. R² is held out; p is corrected over all heads and kernels by the largest "
            "correlation.",
        ),
    ]
    if found.causality is not None:
        words.append(
            (
                "Replaced attention",
                "What the named heads pay to the demonstrations is divided anew: by the kernel's weights, evenly, by "
                "weights of nuisances, or by the kernel's in another order. Faithfulness is 1 where the labels' "
                "log-probabilities are those of the clean run, and 0 where they are as far from it as with even "
                "weights.",
            )
        )
    if found.phenomena is not None:
        words.append(
            (
                "Experiments",
                f"The same {found.phenomena.provenance.options['n_queries']} queries are asked with demonstrations "
                "that are retrieved, mislabelled, misspelt, foreign or in another order. Differences are paired over "
                "queries; an account covers a condition if its accuracy changes as the model's does.",
            )
        )
    if found.probes is not None:
        words.append(
            (
                "Keys and values",
                "Ridge probes read labels and predictions from keys and values near the demonstrations' labels, held "
                "out by prompt and text; beside them probes of targets permuted within prompts.",
            )
        )
    return words
