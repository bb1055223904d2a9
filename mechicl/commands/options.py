"""The options of the command line's commands, and what its sizes mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mechicl.commands.train import SettingName

Dtype = Literal["float32", "bfloat16", "float16", "float64"]
Size = Literal["small", "default", "paper"]
Part = Literal["priming", "heads", "gradient", "kernel", "accounts", "strategies"]
PARTS: tuple[Part, ...] = ("priming", "heads", "gradient", "kernel", "accounts", "strategies")

# What `--size` means: of a generated corpus, how many pairs are drawn from a PrimeLM file (None: all), and on how many
# pairs of either half heads are replaced.
# Every target meets all other verbs, and targets a verb are even in number: so every verb primes equally many targets
# with "a" and with "the", of every other verb. A verb's outcome then rests on dozens of different primes.
FEW = ("give", "send", "show", "throw", "promise", "find", "get", "make", "save", "buy", "draw")
GENERATED: dict[str, dict[str, Any]] = {
    "small": {"targets_per_verb": 2, "verbs": FEW},
    "default": {"targets_per_verb": 4},
    "paper": {"targets_per_verb": 50},
}
# Heads are confirmed on one half of the verbs, which must be six or more: with fewer no p can fall below .05.
GENERATED_FOR_HEADS = GENERATED | {"small": {"targets_per_verb": 2, "verbs": (*FEW, "bring", "sell", "keep")}}
DRAWN: dict[str, int | None] = {"small": 200, "default": 3_000, "paper": None}
PATCHED: dict[str, dict[str, int]] = {
    "small": {"n_items": 24, "n_random": 40},
    "default": {"n_items": 96, "n_random": 100},
    "paper": {"n_items": 400, "n_random": 1_000},
}
# On how many pairs sizes of updates are measured, and on how many prompts the two identities are shown.
UPDATED: dict[str, dict[str, int]] = {
    "small": {"n_pairs": 60, "n_prompts": 12},
    "default": {"n_pairs": 200, "n_prompts": 24},
    "paper": {"n_pairs": 1_000, "n_prompts": 96},
}
# Prompts of the kernel account, queries of its experiments, and its parts besides the regression: replacing attention
# and experiments run every prompt many times.
ACCOUNTED: dict[str, dict[str, Any]] = {
    "small": {"n_prompts": 40, "n_phenomena": 20, "parts": ("attention", "causality")},
    "default": {"n_prompts": 120, "n_phenomena": 60, "parts": ("attention", "probes", "causality", "phenomena")},
    "paper": {"n_prompts": 400, "n_phenomena": 200, "parts": ("attention", "probes", "causality", "phenomena")},
}
PATHS = {"small": 12, "default": 24, "paper": 96}  # pairs on which paths between confirmed heads are told apart


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """What is scored, and how: the options that several commands share."""

    model: str | None = None
    """A known name (see `mechicl models`), a folder with model and tokenizer, or a Hugging Face id."""
    corpus: Path | None = None
    """A PrimeLM file (.csv) or the folder of a saved corpus; by default dative sentences are generated."""
    pronoun: bool = False
    """Generate sentences whose recipient is a pronoun."""
    size: Size = "default"
    """Of the generated corpus, or of the sample that is drawn from a PrimeLM file."""
    device: str | None = None
    """cpu, cuda, cuda:1, mps; by default CUDA where there is one."""
    dtype: Dtype = "float32"
    """Precision of the model."""
    seed: int = 0
    """For the corpus, the bootstrap and the permutations."""
    quiet: bool = False
    """No bars and messages."""


@dataclass(frozen=True, kw_only=True)
class Reporting(Scoring):
    """What commands share that write a report."""

    model: str = field()  # here it must be given
    """A known name (see `mechicl models`), a folder with model and tokenizer, or a Hugging Face id."""
    out: Path | None = None
    """Folder of the report; by default in report/, named after the model. Finished work is kept there and reused."""
    overwrite: bool = False
    """Replace a report that the folder already holds."""


@dataclass(frozen=True, kw_only=True)
class Report(Reporting):
    """By what mechanism does a model learn from its context? A dossier of all analyses, as one page."""

    parts: tuple[Part, ...] | None = None
    """Which analyses; by default all. Priming alone is done in minutes, heads and gradient take many times as long."""
    task: str | None = None
    """Of kernel and accounts: the few-shot task (see `mechicl kernel --help`); by default sentiment."""
    demos: int = 8
    """Of kernel and accounts: demonstrations in a prompt; by default 8. Fewer fit into short context windows."""
    setting: SettingName | None = None
    """Of strategies: which mixture of tasks the shipped results are of; by default balls_and_urns."""


@dataclass(frozen=True, kw_only=True)
class Heads(Reporting):
    """Find the attention heads that drive priming or the IFE, and write a report with them."""

    effect: tuple[str, ...] = ("priming",)
    """One or more of: priming, ife, ife_FORM (the IFE after primes of one form, such as ife_DO)."""
    scale: Literal["nats", "probability"] = "nats"
    """On which an effect is measured: log-odds, or shares."""
    roles: tuple[str, ...] = ("target",)
    """Where heads' outputs are replaced: target, prime, last, or smaller parts such as prime.verb."""
    ablation: Literal["interchange", "mean", "resample", "zero"] | None = None
    """By what they are replaced; by default interchange for priming, mean for the others."""
    items: int | None = None
    """Pairs in either half, one to select heads and one to confirm them; by default as --size says."""
    candidates: int = 10
    """How many heads go on to be confirmed."""
    json: bool = False
    """Print JSON instead of sentences."""


@dataclass(frozen=True, kw_only=True)
class Gradient(Reporting):
    """Does learning in context go like a gradient step? Real steps on every prime, and a report that compares them."""

    learning_rate: float | None = None
    """Of the steps; by default the longest that still does what its gradient says (SGD only)."""
    steps: int = 1
    """Steps on every prime."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """Plain SGD runs many primes at once; Adam moves the weights, one prime after another, and takes much longer."""
    parameters: Literal["all", "key_value", "attention", "mlp"] = "all"
    """Which weights are stepped."""
    json: bool = False
    """Print JSON instead of sentences."""


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """Does a model answer by a kernel regression over its demonstrations? A report on one few-shot task."""

    model: str
    """A known name (see `mechicl models`), a folder with model and tokenizer, or a Hugging Face id."""
    task: str = "sentiment"
    """sentiment, capitals, rule, "rule order", a .csv or .tsv file, or the name of a Hugging Face dataset."""
    text: str = "text"
    """Column of the texts, in a file or dataset."""
    label: str = "label"
    """Column of the labels."""
    score: str | None = None
    """Column of numbers instead of labels: above 0 is positive, below 0 negative."""
    split: str = "train"
    """Of a dataset; "train[:2000]" is its first 2,000 rows."""
    subset: str | None = None
    """Of a dataset that has several."""
    demos: int = 8
    """Demonstrations in a prompt."""
    candidates: int | None = None
    """Of many labels, so many may be answered; by default all, or of more than 10 those shown and the right one."""
    size: Size = "default"
    """How many prompts, and which parts: small leaves out probes and experiments."""
    parts: tuple[Literal["attention", "probes", "causality", "phenomena"], ...] | None = None
    """What is measured besides the regression; by default as --size says."""
    aggregate: Literal["label", "sum", "max"] = "label"
    """Attention to a demonstration: to its label, the sum over its tokens, or their largest."""
    places: tuple[Literal["ask", "text", "alone"], ...] = ("ask", "text", "alone")
    """Where residual streams are compared: before the label, over the text, in the text run alone (twice as long)."""
    out: Path | None = None
    """Folder of the report; by default in report/, named after the model. Finished work is kept there and reused."""
    overwrite: bool = False
    """Replace a report that the folder already holds."""
    json: bool = False
    """Print JSON instead of sentences."""
    device: str | None = None
    """cpu, cuda, cuda:1, mps; by default CUDA where there is one."""
    dtype: Dtype = "float32"
    """Precision of the model."""
    seed: int = 0
    """For the prompts, the splits, the bootstrap and the permutations."""
    quiet: bool = False
    """No bars and messages."""


@dataclass(frozen=True, kw_only=True)
class Ife(Scoring):
    """Test for the inverse frequency effect alone: with a model, or without one from a table of scores."""

    scores: Path | None = None
    """CSV file with one row a verb: verb, bias and the share of the first form after primes of each form."""
    norms: Path | None = None
    """CSV file of verb and bias that replaces the model's own bias."""
    forms: tuple[str, str] = ("PD", "DO")
    """With --scores: the two forms; bias and outcomes are shares of the first."""
    outcomes: tuple[str, str] | None = None
    """With --scores: the columns of the outcomes after primes of the first and the second form."""
    keep: Path | None = None
    """Folder for finished scores, from which an interrupted run goes on."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class Models:
    """List the models that have a name here, whether each is ready, and what makes it ready."""


def read_corpus(options: Scoring) -> Any:
    """The corpus that was asked for: read, loaded or generated."""
    path = options.corpus
    if path is None:
        from mechicl.tasks.datives import dative_corpus

        localised = isinstance(options, Heads) or (isinstance(options, Report) and "heads" in (options.parts or PARTS))
        wanted = (GENERATED_FOR_HEADS if localised else GENERATED)[options.size]
        return dative_corpus(pronoun=options.pronoun, seed=options.seed, **wanted)
    if options.pronoun:
        raise ValueError("--pronoun is about generated sentences; it does not go with --corpus")
    if path.is_dir():
        from mechicl.tasks.corpus import load_corpus

        return load_corpus(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file or folder {path}; --corpus takes a PrimeLM file or a saved corpus")
    from mechicl.tasks.primelm import read_primelm

    return read_primelm(path, max_pairs=DRAWN[options.size], seed=options.seed)


def read_table(path: Path | None) -> Any:
    """The frame in a CSV file; None where no file was named."""
    if path is None:
        return None
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; expected a CSV file")
    import pandas as pd

    return pd.read_csv(path)
