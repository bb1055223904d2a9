"""The gradient account of one model on one priming corpus: does learning in context go like a gradient step?

Four questions, from behaviour inwards, each with its control:

    match     item by item, does a prime in the context move a target as a real gradient step on that prime does?
              (`match_items`; beside it chance, from other verbs' primes)
    errors    do the effect and the size of the implicit update grow with the prime's prediction error?
              (`error_driven`; beside it neutral primes, and other verbs' errors)
    mlp       the context as rank-1 updates of all MLPs' weights: how large, how different from those of another
              context? (`measure_mlp_updates`; beside it a random update, which must fail)
    dual      attention's exact update by the prime, head by head (`attention_dual`; beside it BOS, and random spans)

The last two are identities that hold for any weights: they describe the update and prove no learning. The first two
can fail, and do in models that learn otherwise. Source of the test: Zhou, Frank & McCoy, arXiv 2406.18501, who compare
slopes; the item-by-item comparison and the update's size are added here.

Caveats:
- What is compared are steps of one length, with one optimiser, on chosen parameters. Disagreement is no proof against
  gradient descent of every kind, and agreement none that the model computes a gradient.
- Whether gradient steps show an inverse frequency effect is a fact about steps in this model; it says nothing of the
  context until the two are compared.
- Effects that hardly vary can correlate highly about next to nothing: the spreads stand beside every r.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mechicl.analyses.finetuning import FinetunedPriming, check_steps, finetune_on_primes
from mechicl.analyses.gradient.error_growth import ErrorDrivenResult, error_driven
from mechicl.analyses.gradient.first_order import check_plain, first_order_rate
from mechicl.analyses.gradient.gradient_words import gradient_sentences
from mechicl.analyses.gradient.item_match import ItemMatch, check_verbs, match_items
from mechicl.analyses.inverse_frequency import IFEResult, inverse_frequency_effect
from mechicl.analyses.priming import PrimingResult, check_design, measure_priming
from mechicl.analyses.priming_prompts import priming_items
from mechicl.analyses.updates.dual_form import AttentionDual, attention_dual
from mechicl.analyses.updates.mlp_update import MLPUpdates, measure_mlp_updates
from mechicl.hooks.mlps.mlp_trials import find_mlps
from mechicl.hooks.scoring import Text
from mechicl.hooks.steps.sites import Choice
from mechicl.hooks.steps.step_scoring import StepOptions
from mechicl.hooks.wrapper import WrappedModel, wrap
from mechicl.provenance import Provenance
from mechicl.results import Result
from mechicl.tasks.corpus import PrimingCorpus
from mechicl.tasks.prompts import Prompt


@dataclass(frozen=True)
class ImplicitGradient(Result):
    """Learning in context beside learning by gradient steps, in one model on one corpus.

    priming, ife: in context. finetuned, finetuned_ife: by gradient steps, from the same weights on the same primes.
    match, errors, mlp, dual: see the module; mlp is None for models without MLPs, or with unknown ones. verdict: in
    words.
    """

    priming: PrimingResult
    ife: IFEResult
    finetuned: FinetunedPriming
    finetuned_ife: IFEResult
    match: ItemMatch
    errors: ErrorDrivenResult
    mlp: MLPUpdates | None
    dual: AttentionDual
    verdict: str
    provenance: Provenance

    def to_frame(self) -> Any:
        """The item-by-item match."""
        return self.match.to_frame()

    def plot(self, ax: Any = None) -> Any:
        """Context effect against gradient effect of every item; returns matplotlib Axes."""
        return self.match.plot(ax=ax)


def measure_implicit_gradient(
    model: Any,
    corpus: PrimingCorpus,
    *,
    learning_rate: float | None = None,
    steps: int = 1,
    optimizer: str = "sgd",
    parameters: Choice = "all",
    fillers: Sequence[str] = (),
    primed: PrimingResult | None = None,
    n_pairs: int = 200,
    n_prompts: int = 24,
    prepend_bos: bool = True,
    n_boot: int = 2_000,
    level: float = 0.95,
    seed: int = 0,
    store: str | Path | None = None,
    memory_budget: int = 1 << 30,
    progress: bool = True,
) -> ImplicitGradient:
    """Measure all four, and say what came out.

    learning_rate: by default the longest step that still does what its gradient says (`first_order_rate`), for SGD.
    steps, optimizer, parameters, fillers: as of `finetune_on_primes`. primed: an already measured priming of the same
    corpus. n_pairs: pairs (about; whole targets) on which update sizes are measured; n_prompts: prompts for the two
    identities. store: folder for finished scores and steps, from which an interrupted run goes on. seed: that of
    samples, bootstraps and permutations.

        measure_implicit_gradient(load_organism("delta-medium"), speaker_corpus(seed=1)).verdict

    Raises `ValueError` for what its parts refuse, before the long ones begin.
    """
    wrapped = wrap(model)
    check_account(corpus, learning_rate=learning_rate, steps=steps, optimizer=optimizer, level=level)
    shared: dict[str, Any] = {"level": level, "seed": seed}
    running: dict[str, Any] = {"prepend_bos": prepend_bos, "memory_budget": memory_budget, "progress": progress}
    kept = None if store is None else Path(store)
    has_mlps = _has_mlps(wrapped)
    if learning_rate is None:
        how = StepOptions(learning_rate=1.0, optimizer=optimizer, parameters=parameters)
        learning_rate, _ = first_order_rate(wrapped, corpus, options=how, prepend_bos=prepend_bos, seed=seed)
    if primed is None:
        primed = measure_priming(wrapped, corpus, n_boot=n_boot, store=kept and kept / "scores", **shared, **running)
    finetuned = finetune_on_primes(
        wrapped, corpus, learning_rate=learning_rate, steps=steps, optimizer=optimizer, parameters=parameters,
        fillers=fillers, n_boot=n_boot, store=kept and kept / "steps", **shared, **running,
    )  # fmt: skip
    ife, finetuned_ife = (inverse_frequency_effect(p, **shared) for p in (primed, finetuned.priming))
    match = match_items(primed, finetuned, n_boot=n_boot, **shared)
    errors = error_driven(wrapped, corpus, primed=primed, n_pairs=n_pairs, n_boot=n_boot, **shared, **running)
    prompts, verbs = _prompts(wrapped, corpus, n_prompts, prepend_bos, seed)
    dual = attention_dual(
        wrapped, prompts, demos=["prime"], query="last", clusters=verbs, prepended_bos=prepend_bos, n_boot=n_boot,
        memory_budget=memory_budget, progress=progress, **shared,
    )  # fmt: skip
    mlp = None
    if has_mlps:
        mlp = _mlp(wrapped, prompts, verbs, n_boot=n_boot, prepend_bos=prepend_bos, **shared)
    return ImplicitGradient(
        priming=primed,
        ife=ife,
        finetuned=finetuned,
        finetuned_ife=finetuned_ife,
        match=match,
        errors=errors,
        mlp=mlp,
        dual=dual,
        verdict=" ".join(gradient_sentences(finetuned, finetuned_ife, match, errors)),
        provenance=Provenance.of(
            {**wrapped.facts(), "prepend_bos": prepend_bos},
            seeds={"implicit_gradient": seed} | ({} if corpus.seed is None else {"corpus": corpus.seed}),
            options={"n_pairs": n_pairs, "n_prompts": len(prompts), "n_boot": n_boot, "level": level},
        ),
    )


def check_account(
    corpus: PrimingCorpus,
    *,
    learning_rate: float | None = None,
    steps: int = 1,
    optimizer: str = "sgd",
    level: float = 0.95,
) -> None:
    """Raise what `measure_implicit_gradient` would refuse of a corpus and of steps: ask before hours of scoring."""
    check_design(corpus, level)
    check_verbs(int(corpus.to_frame()["prime_verb"].nunique()))
    if learning_rate is None:
        check_plain(optimizer)
    check_steps(1.0 if learning_rate is None else learning_rate, steps, optimizer)


def _prompts(
    wrapped: WrappedModel, corpus: PrimingCorpus, n: int, prepend_bos: bool, seed: int
) -> tuple[list[Prompt], np.ndarray]:
    """Primes with a target up to where its forms part; forms in turn, verbs as even as can be. And each one's verb."""
    frame = corpus.to_frame()
    order = np.random.default_rng(seed).permutation(len(frame))
    turn = frame["prime_verb"].iloc[order].groupby(frame["prime_verb"].iloc[order]).cumcount().to_numpy()
    rows = order[np.argsort(turn, kind="stable")][:n]
    prompts = []
    for i, row in enumerate(rows):
        (item,) = priming_items(corpus, wrapped.tokenizer, [int(row)], corpus.forms[i % 2], prepend_bos=prepend_bos)
        whole = item.prompts[0]
        end = whole.roles["last"][1]
        roles = {name: span for name, span in whole.roles.items() if span[1] <= end}
        prompts.append(Prompt(whole.tokens[:end], roles))
    return prompts, frame["prime_verb"].to_numpy()[rows]


def _has_mlps(wrapped: WrappedModel) -> bool:
    """Can the context be written as updates of MLPs? If not, one warning says why; all else goes on without."""
    try:
        find_mlps(wrapped)
    except ValueError as error:
        warnings.warn(f"MLP updates are left out: {error}", stacklevel=3)
        return False
    return True


def _mlp(
    wrapped: WrappedModel, prompts: Sequence[Prompt], verbs: np.ndarray, *, prepend_bos: bool, **options: Any
) -> MLPUpdates:
    """The prime as weight updates at the target's last shared token."""
    cuts = [(int(prepend_bos), prompt.roles["prime"][1], len(prompt)) for prompt in prompts]
    contexts: list[Text] = [prompt.tokens[a:b] for prompt, (a, b, _) in zip(prompts, cuts, strict=True)]
    queries: list[Text] = [prompt.tokens[b:c] for prompt, (_, b, c) in zip(prompts, cuts, strict=True)]
    return measure_mlp_updates(wrapped, contexts, queries, clusters=list(verbs), prepend_bos=prepend_bos, **options)
