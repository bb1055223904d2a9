"""Interactive CircuitsVis pictures as one self-contained page that opens offline.

CircuitsVis inlines 1.3 MB of JavaScript with every figure when it is offline and fetches it from a network when it is
online. A page made here holds that script once, whatever the number of figures, and never asks the network.
"""

from __future__ import annotations

import hashlib
import html
import json
import math
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

MAX_HEADS = 16

# What CircuitsVis writes: an opening div, a script that starts with the library and ends with one call of it.
_LOCAL_SRC = re.compile(
    r"<script[^>]*>(?P<library>.*?)CircuitsVis\.render\(\s*\"[^\"]*\",\s*CircuitsVis\.(?P<element>\w+),"
    r"\s*(?P<properties>\{.*\})\s*\)\s*</script>\s*$",
    re.DOTALL,
)

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #111;
background: #fff }} section {{ margin: 0 0 2.5rem; overflow-x: auto }} h2 {{ font-size: 1.1rem }}</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


@dataclass(frozen=True)
class CircuitsFigure:
    """One CircuitsVis element with its data as plain Python values; shows itself in a notebook without any network."""

    element: str
    """Name of the element in the CircuitsVis library, such as ``AttentionHeads``."""
    properties: Mapping[str, Any]
    """What the element is given: strings, numbers, lists."""
    caption: str = ""
    """A heading above the figure; may be empty."""
    library: str = field(repr=False, compare=False, default="")
    """The JavaScript that draws the element."""

    @classmethod
    def of(cls, rendered: Any, caption: str = "") -> CircuitsFigure:
        """Take a figure that a CircuitsVis function returned.

        Raises ValueError where ``rendered`` holds no offline source of the known form.
        """
        source = getattr(rendered, "local_src", None)
        match = _LOCAL_SRC.search(source) if isinstance(source, str) else None
        if match is None:
            raise ValueError(
                f"Got a {type(rendered).__name__}, expected what a CircuitsVis function returns (an object whose "
                "`local_src` ends with one call of CircuitsVis.render); make it with circuitsvis 1.43."
            )
        return cls(match["element"], json.loads(match["properties"]), caption, match["library"].strip())

    def _repr_html_(self) -> str:
        # A random name, because a notebook may show the same figure twice in one document.
        return _fragment([self], name=f"circuits-{uuid.uuid4().hex[:12]}")

    def save_html(self, path: str | Path, *, title: str = "Attention and tokens") -> Path:
        """Write this figure as a page of its own; return the path."""
        return save_circuits([self], path, title=title)


def attention_figure(
    tokens: Sequence[str],
    pattern: Float[np.ndarray, "head pos pos"]
    | Float[np.ndarray, "pos pos"]
    | Float[Tensor, "head pos pos"]
    | Float[Tensor, "pos pos"],
    *,
    head_names: Sequence[str] | None = None,
    max_heads: int = MAX_HEADS,
    caption: str = "",
) -> CircuitsFigure:
    """Attention from every token (row) to every earlier token (column), for one head or several.

    Unit: share of a row's attention, in [0, 1]; a head that attends evenly has 1 / (number of tokens seen) everywhere.
    Raises ValueError where the shapes disagree, a weight is not finite, or there are more than ``max_heads`` heads (a
    browser slows down with head x pos x pos cells): choose heads first.
    """
    from circuitsvis.attention import attention_heads, attention_pattern

    weights = _as_array(pattern)
    names = [str(t) for t in tokens]
    if weights.shape[-1] != len(names):
        raise ValueError(
            f"Got {len(names)} tokens and a pattern of shape {weights.shape}; expected one row and one column a token."
        )
    if weights.ndim == 2:
        if head_names is not None:
            raise ValueError("Got head names with the pattern of a single head; name it with `caption` instead.")
        return CircuitsFigure.of(attention_pattern(tokens=names, attention=weights.tolist()), caption)
    if len(weights) > max_heads:
        raise ValueError(
            f"Got {len(weights)} heads, expected at most {max_heads} a figure: choose some (pattern[[3, 5]]), "
            "make several figures, or raise `max_heads`."
        )
    labels = [str(n) for n in head_names] if head_names is not None else [f"head {i}" for i in range(len(weights))]
    if len(labels) != len(weights):
        raise ValueError(f"Got {len(labels)} head names for {len(weights)} heads; expected one each.")
    rendered = attention_heads(attention=weights.tolist(), tokens=names, attention_head_names=labels)
    return CircuitsFigure.of(rendered, caption)


def token_scores_figure(
    tokens: Sequence[str], values: Float[np.ndarray, " pos"] | Float[Tensor, " pos"], *, caption: str = ""
) -> CircuitsFigure:
    """A text whose tokens are coloured by one number each: red below zero, blue above; the shade grows with its size.

    Raises ValueError where there is not one finite value a token.
    """
    from circuitsvis.tokens import colored_tokens

    scores = _as_array(values)
    if len(scores) != len(tokens):
        raise ValueError(f"Got {len(tokens)} tokens and {len(scores)} values; expected one value a token.")
    return CircuitsFigure.of(colored_tokens(tokens=[str(t) for t in tokens], values=scores.tolist()), caption)


def circuits_html(figures: Sequence[Any], *, title: str = "Attention and tokens") -> str:
    """Return one page with all ``figures`` (of this module, or straight from CircuitsVis) and one copy of the script.

    The same figures give the same page, character for character. Raises ValueError where there is no figure.
    """
    drawn = [f if isinstance(f, CircuitsFigure) else CircuitsFigure.of(f) for f in figures]
    if not drawn:
        raise ValueError("Got no figures, expected at least one to make a page.")
    data = json.dumps([[f.element, _plain(f.properties)] for f in drawn])
    name = f"circuits-{hashlib.sha256(data.encode()).hexdigest()[:12]}"
    return _PAGE.format(title=html.escape(title), body=_fragment(drawn, name=name))


def save_circuits(figures: Sequence[Any], path: str | Path, *, title: str = "Attention and tokens") -> Path:
    """Write the page of :func:`circuits_html` to ``path`` (its folder is made) and return the path."""
    target = Path(path)
    page = circuits_html(figures, title=title)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page, encoding="utf-8")
    return target


def _fragment(figures: Sequence[CircuitsFigure], *, name: str) -> str:
    # A classic script, not a module: its `var CircuitsVis` must be seen by the calls that follow.
    parts = [f"<script>{figures[0].library}\n</script>"]
    for i, figure in enumerate(figures):
        heading = f"<h2>{html.escape(figure.caption)}</h2>" if figure.caption else ""
        # No "<" can then close the script or open a comment, and JavaScript reads \u003c as the same character.
        data = json.dumps(_shown(figure), allow_nan=False).replace("<", "\\u003c")
        parts.append(
            f'<section>{heading}<div id="{name}-{i}"></div></section>\n'
            f'<script>CircuitsVis.render("{name}-{i}", CircuitsVis.{figure.element}, {data});</script>'
        )
    return "\n".join(parts)


def _shown(figure: CircuitsFigure) -> dict[str, Any]:
    """The properties, with tokens escaped for those elements that insert them as HTML (all but attention)."""
    plain = _plain(figure.properties)
    if figure.element.startswith("Attention"):
        return plain
    return {k: _escaped(v) if "token" in k.lower() or k == "prompt" else v for k, v in plain.items()}


def _escaped(value: Any) -> Any:
    if isinstance(value, list):
        return [_escaped(v) for v in value]
    return html.escape(value, quote=False) if isinstance(value, str) else value


def _as_array(values: Any) -> np.ndarray:
    numbers = values.detach().cpu().double().numpy() if isinstance(values, Tensor) else np.asarray(values, dtype=float)
    if not np.isfinite(numbers).all():
        raise ValueError(f"Got {int((~np.isfinite(numbers)).sum())} values that are NaN or infinite; expected numbers.")
    return numbers


def _plain(value: Any) -> Any:
    """Turn numpy and torch values, however deep they lie, into what JSON knows; NaN becomes None."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic | np.ndarray | Tensor):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
