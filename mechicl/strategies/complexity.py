"""How long the description of a strategy is: bits of the compressed pool of tasks and of the predictor's code.

    K_M = bits(pool) + bits(code of M),      K_G = bits(code of G)

bits(pool): the shortest of several compressions of the pool's numbers, row after row. Each is tried on the numbers as
they are and with their bytes shuffled (all first bytes, then all second bytes), which brings equal signs and exponents
together. A compressor's headers count; so the bits of random pools grow in proportion to D, and are never far above
the raw size. Source: 2506.17859, with the compressors of the standard library.
"""

from __future__ import annotations

import ast
import bz2
import inspect
import lzma
import textwrap
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechicl.results import Result

_COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "lzma": lambda raw: lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME),
    "bz2": lambda raw: bz2.compress(raw, 9),
    "zlib": lambda raw: zlib.compress(raw, 9),
}


@dataclass(frozen=True)
class PoolBits(Result):
    """Bits of a pool.

    bits: the fewest. raw: without compression. by_compressor: the bits of every one, such as "lzma" and
    "lzma, shuffled".
    """

    bits: float
    raw: float
    by_compressor: dict[str, float]

    @property
    def best(self) -> str:
        """The compressor that took the fewest bits."""
        return min(self.by_compressor, key=lambda name: self.by_compressor[name])

    def to_frame(self) -> pd.DataFrame:
        """One row a compressor, the shortest first, and the raw size."""
        rows = self.by_compressor | {"raw": self.raw}
        frame = pd.DataFrame({"compressor": list(rows), "bits": list(rows.values())})
        return frame.sort_values("bits", ignore_index=True)


def pool_bits(pool: Float[np.ndarray, "*batch dim"]) -> PoolBits:
    """The bits of a pool's numbers in double precision, one row a task.

    Errors (ValueError): an empty pool, numbers that are not finite.

        pool_bits(UrnTask(diversity=64).pool).bits
    """
    if pool.size == 0 or not np.isfinite(pool).all():
        raise ValueError(f"got a pool of shape {pool.shape}; expected finite numbers, one row a task")
    numbers = np.ascontiguousarray(pool, dtype="<f8")  # one byte order everywhere, so that bits are the same
    plain = numbers.tobytes()
    shuffled = np.frombuffer(plain, np.uint8).reshape(-1, 8).T.tobytes()
    found = {}
    for name, compress in _COMPRESSORS.items():
        found[name] = 8.0 * len(compress(plain))
        found[f"{name}, shuffled"] = 8.0 * len(compress(shuffled))
    return PoolBits(bits=min(found.values()), raw=8.0 * len(plain), by_compressor=found)


def code_bits(predictor: Callable[..., Any]) -> float:
    """The bits of a predictor's compressed source: the fewest of several compressors.

    Counts what the function does itself, not what it calls; without comments, documentation and annotations.
    Errors (ValueError): a function without source.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(predictor)))
    except (OSError, TypeError, SyntaxError) as error:
        raise ValueError(f"the source of {predictor!r} is not at hand ({error}); give its bits yourself") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.FunctionDef):
            node.returns = None
            if ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
    raw = ast.unparse(tree).encode()
    return 8.0 * min(len(compress(raw)) for compress in _COMPRESSORS.values())


def strategy_bits(
    pool: Float[np.ndarray, "*batch dim"], memorising: Callable[..., Any], generalising: Callable[..., Any]
) -> tuple[float, float]:
    """K_M and K_G, bits: only the memorising predictor has to hold the pool."""
    return pool_bits(pool).bits + code_bits(memorising), code_bits(generalising)
