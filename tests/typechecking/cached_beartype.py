"""beartype for the tests: the check of a nested function is made once, not whenever the function around it runs.

jaxtyping decorates nested functions too. For each it makes two functions out of the signature alone, which check
arguments and result, and gives them to a type checker. Where hooks are defined in a loop, beartype then wrote the same
code thousands of times, in a third of the time that the tests took. What is checked stays the same.

`--jaxtyping-packages=mechicl,cached_beartype.check` (setup.cfg) names it; `pythonpath` there makes it importable.
"""

import inspect
from collections.abc import Callable, Hashable
from typing import Any, get_args, get_origin

from beartype import beartype
from jaxtyping import AbstractArray

_MADE: dict[Hashable, Callable[..., Any]] = {}


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """`beartype(function)`, or what it gave for the same signature of the same nested function before."""
    key = _key(function)
    if key is None:
        return beartype(function)
    if key not in _MADE:
        _MADE[key] = beartype(function)
    return _MADE[key]


def _key(function: Callable[..., Any]) -> Hashable | None:
    """What its check depends on; None where it is made anew: at the top level, with defaults (they are checked too)."""
    generated = function.__code__.co_filename == "<string>"  # by jaxtyping: it has no body to speak of, and no closure
    if not generated or "<locals>" not in function.__qualname__:
        return None
    signature = inspect.signature(function)
    parameters = signature.parameters.values()
    if any(p.default is not p.empty for p in parameters):
        return None
    hints = tuple((p.name, p.kind, _told(p.annotation)) for p in parameters)
    key = (function.__module__, function.__qualname__, hints, _told(signature.return_annotation))
    try:
        hash(key)
    except TypeError:
        return None
    return key


def _told(hint: Any) -> Hashable:
    """A hint by what it says: each `Float[...]` is a class of its own, though it says the same."""
    if inspect.isclass(hint) and issubclass(hint, AbstractArray):
        return (hint.dtype, hint.array_type, hint.dim_str)
    parts = hint if isinstance(hint, list) else get_args(hint)  # a list: arguments of a Callable
    return (get_origin(hint), *map(_told, parts)) if parts else hint
