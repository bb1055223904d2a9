"""What a report says about the gradient account: card, tables, captions, method and caveats."""

from __future__ import annotations

from mechicl.analyses.gradient.gradient_words import card, gradient_sentences
from mechicl.analyses.implicit_gradient import ImplicitGradient
from mechicl.analyses.pages.content import option_words
from mechicl.analyses.pages.section import Drawing, Section
from mechicl.wording import number, p_value, percent, with_interval

SLUG = "gradient"
OUTCOMES = {"icl": "Effect in context", "residual": "Residual update", "attention": "Attention's update"}
FRAMES = {
    "items": "effect of every pair in context and by gradient steps",
    "match": "their correlation at four levels",
    "finetuned_items": "log-odds after gradient steps",
    "training": "loss of every prime before and after its steps",
    "finetuned_slopes": "slopes on bias after gradient steps",
    "errors": "slopes of effect and update sizes on the prime's prediction error",
    "primes": "one row a prime: error, effect, sizes",
    "attention_updates": "one row a head: size of its update by the prime, and controls",
    "mlp_updates": "one row a layer and weight: size of the update, and controls",
}


def gradient_section(found: ImplicitGradient) -> Section:
    """The section of `mechicl.analyses.report`."""
    kind, verdict = card(found.match, found.errors)
    by_verb, by_pair, growth, steps = gradient_sentences(
        found.finetuned, found.finetuned_ife, found.match, found.errors
    )
    return Section(
        slug=SLUG,
        question="Does learning in context go like a gradient step?",
        kind=kind,
        verdict=verdict,
        brief=by_verb,
        sentence=f"{by_verb} {by_pair}",
        paragraphs=[growth, *_paragraphs(found, steps)],
        tables=[_match_table(found), _errors_table(found), _updates_table(found)],
        drawings=_drawings(found),
        method=_method(found),
        caveats=_caveats(found),
        frames={f"{SLUG}_{name}": (frame, FRAMES[name]) for name, frame in _frames(found).items()},
        results={"implicit_gradient": found},
        provenance=[("Gradient", option_words(found.finetuned.provenance.options | found.provenance.options))],
    )


def _paragraphs(found: ImplicitGradient, steps: str) -> list[str]:
    """The steps themselves, and the identities."""
    worse = found.finetuned.share_diverged
    training = found.finetuned.training[["loss_before", "loss_after"]].mean()
    words = [
        f"{steps} The steps lower the loss of their prime "
        f"from {number(training['loss_before'], 2)} to {number(training['loss_after'], 2)} nats a token on average; "
        f"they raise it for {percent(worse)} of the primes."
    ]
    if found.mlp is not None:
        checks = found.mlp.checks
        held = "holds" if found.mlp.verified else "could not be verified"
        words.append(
            f"Written as updates of the MLPs' weights, the prime can be left out: the identity {held}. Over all layers "
            f"and {found.mlp.updates['item'].nunique()} prompts the largest relative error is "
            f"{checks['layer_error'].max():.1e} (tolerance {found.mlp.tolerance:.0e}); a random update of the same "
            f"size is off by {checks['random_error'].min():.1e} or more. {found.mlp.caveat}"
        )
    return words


def _match_table(found: ImplicitGradient) -> dict[str, Any]:
    rows = []
    for _, row in found.match.matches.iterrows():
        rows.append(
            [
                f"{row['form']}, {row['level']}",
                with_interval(row["r"], row["low"], row["high"], 2),
                number(row["chance"], 2),
                p_value(row["p_holm"], name=False),
                number(row["context_sd"]),
                number(row["gradient_sd"]),
                f"{int(row['n_items']):,}",
            ]
        )
    caption = (
        "Effects of primes in context against effects of gradient steps on the same primes, from the "
        f"{'neutral' if found.match.baseline == 'neutral' else 'unprimed'} baseline: correlation over items as they "
        "are, with targets' means taken out, with verbs' and targets' means taken out, and over verbs' adjusted means. "
        "Chance: the mean correlation when the steps were taken on other verbs' primes. p: permutation of verbs, Holm "
        "over the table. Sd: of what is correlated, in nats."
    )
    heads = ["Primes, level", "r", "Chance", "p (Holm)", "Sd in context", "Sd by steps", "n"]
    return {"caption": caption, "heads": heads, "rows": rows}


def _errors_table(found: ImplicitGradient) -> dict[str, Any]:
    rows = []
    unit = "nat of surprisal" if found.errors.error == "surprisal" else "unit of 1 - P"
    for _, row in found.errors.estimates.query("forms == 'both'").iterrows():
        rows.append(
            [
                f"{OUTCOMES.get(row['outcome'], row['outcome'])}, {row['model']}",
                with_interval(row["estimate"], row["low"], row["high"]),
                p_value(row["p_holm"], name=False),
                number(row["relative"], 2),
            ]
        )
    caption = (
        f"Slopes on the prime's prediction error, per {unit}. The effect in context is in nats; sizes of updates are "
        "shares of the residual stream's norm. Relative: slope over mean. “After neutral primes” and “another verb's "
        "error” are controls."
    )
    return {"caption": caption, "heads": ["Outcome, regression", "Slope", "p (Holm)", "Relative"], "rows": rows}


def _updates_table(found: ImplicitGradient) -> dict[str, Any]:
    """The five heads whose output the prime changes most, with the controls."""
    heads = found.dual.heads
    own = heads[heads["context"] == "context"].nlargest(5, "written")
    rows = []
    for _, row in own.iterrows():
        beside = heads.query(f"layer == {row['layer']} and head == {row['head']}").set_index("context")
        controls = [number(beside["written"].get(name, float("nan")), 2) for name in ("bos", "random")]
        rows.append(
            [
                f"L{int(row['layer'])}H{int(row['head'])}",
                with_interval(row["written"], row["written_low"], row["written_high"], 2),
                *controls,
                with_interval(row["alpha"], row["alpha_low"], row["alpha_high"], 2),
            ]
        )
    caption = (
        "The heads that write the largest updates by the prime into the residual stream, at the last token that both "
        "forms of the target share. Size: the norm of what the head writes more because of the prime; beside it the "
        "same with BOS, and with a random span of equal length, in the prime's place. Chosen and shown on the same "
        f"{found.dual.n_items} prompts. {found.dual.caveat}"
    )
    return {"caption": caption, "heads": ["Head", "Size", "BOS", "Random span", "Attention to the prime"], "rows": rows}


def _drawings(found: ImplicitGradient) -> list[Drawing]:
    level = percent(found.match.level)
    drawings = [
        Drawing(
            f"{SLUG}_items",
            "Effect of every prime in context against the effect of a gradient step on it, in nats towards the prime's "
            "form. Small marks are pairs, large ones verbs' means.",
            (6.4, 4.8),
            lambda ax: found.match.plot(ax=ax),
        ),
        Drawing(
            f"{SLUG}_error",
            f"Effect in context over the prime's prediction error. Slope with its {level} interval.",
            (5.4, 4.0),
            lambda ax: found.errors.plot(ax=ax),
            half=True,
        ),
        Drawing(
            f"{SLUG}_attention",
            "What each head writes more into the residual stream because of the prime, relative to what it writes "
            "without.",
            (5.4, 4.0),
            lambda ax: found.dual.plot(ax=ax),
            half=True,
        ),
    ]
    if found.mlp is not None:
        mlp = found.mlp
        caption = (
            "The prime as an update of the MLPs' weights: its size relative to the weight, over layers, and after "
            "another prime."
        )
        drawings.append(Drawing(f"{SLUG}_mlp", caption, (6.4, 4.0), lambda ax: mlp.plot(ax=ax)))
    return drawings


def _method(found: ImplicitGradient) -> list[tuple[str, str]]:
    tuned = found.finetuned
    fillers = f", with a penalty on the loss of {tuned.fillers} filler texts" if tuned.fillers else ""
    return [
        (
            "Gradient steps",
            f"For every prime the model's own weights ({tuned.parameters} of them) take {tuned.steps} step"
            f"{'s' * (tuned.steps > 1)} of {tuned.optimizer.upper()} on the mean loss of the prime's tokens, learning "
            f"rate {tuned.learning_rate:g}{fillers}; then its targets are scored alone, and all is put back. Effects "
            "are those of primes in context, with “after the prime” read as “after the step”.",
        ),
        (
            "Prediction error",
            "The error of a prime is the surprisal of its form, given its verb, among the two forms. Slopes are within "
            "form and target, intervals resample verbs, p permutes errors over verbs.",
        ),
        (
            "Updates",
            "Attention's output at a token splits exactly into what the prime's tokens and all others contribute, at "
            "fixed queries, keys and values. An MLP's input changes with the prime; a rank-1 change of its weights "
            "gives the same output without the prime.",
        ),
    ]


def _caveats(found: ImplicitGradient) -> list[tuple[str, str]]:
    return [
        (
            "Identities are no evidence",
            "The updates of attention and MLPs exist for any weights, trained or not. What can count for a gradient "
            "step are agreement with real steps, item by item, and growth with the error.",
        ),
        (
            "One kind of step",
            "Real steps depend on the rate, the optimiser and the parameters that they move; agreement or its absence "
            "is about these. Other learners (activation, Bayesian updating) can agree with gradient steps as well.",
        ),
    ]


def _frames(found: ImplicitGradient) -> dict[str, Any]:
    frames = {
        "items": found.match.items,
        "match": found.match.matches,
        "finetuned_items": found.finetuned.priming.items,
        "training": found.finetuned.training,
        "finetuned_slopes": found.finetuned_ife.estimates,
        "errors": found.errors.estimates,
        "primes": found.errors.primes,
        "attention_updates": found.dual.heads,
    }
    return frames if found.mlp is None else frames | {"mlp_updates": found.mlp.layers}
