"""Which papers the analyses of a page come from, and how to cite them and this software."""

from __future__ import annotations

import re
from collections.abc import Sequence
from unicodedata import normalize

from mechicl import __version__
from mechicl.analyses.pages.section import Section

# key: title, authors, year, arXiv number
PAPERS: dict[str, tuple[str, str, int, str]] = {
    "zhou2024error": (
        "Is In-Context Learning a Type of Error-Driven Learning? Evidence from the Inverse Frequency Effect in "
        "Structural Priming",
        "Zhou, Zhenghao and Frank, Robert and McCoy, R. Thomas",
        2024,
        "2406.18501",
    ),
    "dai2022gpt": (
        "Why Can GPT Learn In-Context? Language Models Implicitly Perform Gradient Descent as Meta-Optimizers",
        "Dai, Damai and Sun, Yutao and Dong, Li and Hao, Yaru and Ma, Shuming and Sui, Zhifang and Wei, Furu",
        2022,
        "2212.10559",
    ),
    "irie2022dual": (
        "The Dual Form of Neural Networks Revisited: Connecting Test Time Predictions to Training Patterns via "
        "Spotlights of Attention",
        "Irie, Kazuki and Csord{\\'a}s, R{\\'o}bert and Schmidhuber, J{\\\"u}rgen",
        2022,
        "2202.05798",
    ),
    "oswald2022gradient": (
        "Transformers Learn In-Context by Gradient Descent",
        "von Oswald, Johannes and Niklasson, Eyvind and Randazzo, Ettore and Sacramento, Jo{\\~a}o and Mordvintsev, "
        "Alexander and Zhmoginov, Andrey and Vladymyrov, Max",
        2022,
        "2212.07677",
    ),
    "dherin2025without": (
        "Learning without Training: The Implicit Dynamics of In-Context Learning",
        "Dherin, Benoit and Munn, Michael and Mazzawi, Hanna and Wunder, Michael and Gonzalvo, Javier",
        2025,
        "2507.16003",
    ),
    "wang2022ioi": (
        "Interpretability in the Wild: a Circuit for Indirect Object Identification in GPT-2 small",
        "Wang, Kevin and Variengien, Alexandre and Conmy, Arthur and Shlegeris, Buck and Steinhardt, Jacob",
        2022,
        "2211.00593",
    ),
    "kramar2024atp": (
        "AtP*: An Efficient and Scalable Method for Localizing LLM Behaviour to Components",
        "Kram{\\'a}r, J{\\'a}nos and Lieberum, Tom and Shah, Rohin and Nanda, Neel",
        2024,
        "2403.00745",
    ),
    "han2023kernel": (
        "Explaining Emergent In-Context Learning as Kernel Regression",
        "Han, Chi and Wang, Ziqi and Zhao, Han and Ji, Heng",
        2023,
        "2305.12766",
    ),
    "wurgaft2025strategies": (
        "In-Context Learning Strategies Emerge Rationally",
        "Wurgaft, Daniel and Lubana, Ekdeep Singh and Park, Core Francisco and Tanaka, Hidenori and Reddy, Gautam and "
        "Goodman, Noah D.",
        2025,
        "2506.17859",
    ),
}
ACCENTS = {"'": "\N{COMBINING ACUTE ACCENT}", '"': "\N{COMBINING DIAERESIS}", "~": "\N{COMBINING TILDE}"}
# The first word of a section's slug: the papers whose analysis it is.
BEHIND: dict[str, tuple[str, ...]] = {
    "priming": ("zhou2024error",),
    "ife": ("zhou2024error",),
    "heads": ("zhou2024error", "wang2022ioi", "kramar2024atp"),
    "gradient": ("zhou2024error", "dai2022gpt", "irie2022dual", "dherin2025without"),
    "kernel": ("han2023kernel",),
    "strategies": ("wurgaft2025strategies",),
    "components": ("wurgaft2025strategies",),
}


def papers_behind(sections: Sequence[Section]) -> list[str]:
    """The keys of all papers whose analyses these sections show, each once."""
    found = [key for section in sections for key in (*_by_slug(section), *section.sources)]
    return list(dict.fromkeys(found))


def citations(sections: Sequence[Section]) -> list[tuple[str, str]]:
    """(what, reference) pairs to read: papers first, in the page's order."""
    return [(_authors(PAPERS[key][1]), _reference(key)) for key in papers_behind(sections)]


def bibtex(sections: Sequence[Section]) -> str:
    """BibTeX of the software and of the papers behind the sections."""
    software = (
        f"@software{{mechicl,\n  title = {{mechicl: gradient steps, kernel regression and Bayesian strategies in the "
        f"same model}},\n  version = {{{__version__}}}\n}}"
    )
    return "\n\n".join([software, *(_entry(key) for key in papers_behind(sections))])


def _by_slug(section: Section) -> tuple[str, ...]:
    return BEHIND.get(re.split(r"[_-]", section.slug)[0], ())


def _entry(key: str) -> str:
    title, authors, year, number = PAPERS[key]
    return (
        f"@misc{{{key},\n  title = {{{title}}},\n  author = {{{authors}}},\n  year = {{{year}}},\n"
        f"  eprint = {{{number}}},\n  archivePrefix = {{arXiv}}\n}}"
    )


def _authors(names: str) -> str:
    """Family names, as a sentence has them."""
    plain = re.sub(r"\{\\(['\"~])(\w)\}", lambda m: normalize("NFC", m[2] + ACCENTS[m[1]]), names)
    families = [name.partition(",")[0] for name in plain.split(" and ")]
    return families[0] if len(families) == 1 else f"{families[0]} et al."


def _reference(key: str) -> str:
    title, _, year, number = PAPERS[key]
    return f"({year}). {title}. arXiv:{number}."
