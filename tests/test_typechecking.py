"""Annotations are checked while the tests run, in nested functions too, whose checks are made once."""

from collections.abc import Callable
from typing import Any

import cached_beartype
import numpy as np
import pytest
from jaxtyping import Float, TypeCheckError, jaxtyped

from mechicl.resampling import cluster_sums


@pytest.fixture
def decorated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Nothing made before; the functions that beartype is given from here on."""
    names: list[str] = []
    plain = cached_beartype.beartype

    def told(function: Any) -> Any:
        names.append(function.__qualname__)
        return plain(function)

    monkeypatch.setattr(cached_beartype, "_MADE", {})
    monkeypatch.setattr(cached_beartype, "beartype", told)
    return names


def scaled(factor: float) -> Callable[..., Any]:
    @jaxtyped(typechecker=cached_beartype.check)
    def scale(x: Float[np.ndarray, "a b"], y: Float[np.ndarray, " a"]) -> Float[np.ndarray, " b"]:
        return factor * (y @ x) if factor < 10 else y

    return scale


def test_the_library_is_checked() -> None:
    with pytest.raises(TypeCheckError):
        cluster_sums(np.ones((2, 2)), ["a", "b"])


def test_every_nested_function_is_checked_and_keeps_its_own_body(decorated: list[str]) -> None:
    x, y = np.ones((2, 3)), np.ones(2)
    for factor in (1.0, 2.0, 3.0):
        scale = scaled(factor)
        np.testing.assert_array_equal(scale(x, y), np.full(3, 2 * factor))
        with pytest.raises(TypeCheckError, match=r"parameters of .*scale"):
            scale(x, np.ones(3))  # another a
        with pytest.raises(TypeCheckError, match=r"parameters of .*scale"):
            scale(x, y.astype(int))
    with pytest.raises(TypeCheckError, match=r"return value of .*scale"):
        scaled(10.0)(x, y)
    assert len([name for name in decorated if name.endswith("scaled.<locals>.scale")]) == 2, "arguments, and result"


def test_other_hints_and_defaults_are_checked_anew(decorated: list[str]) -> None:
    def of(hint: Any) -> Callable[..., Any]:
        @jaxtyped(typechecker=cached_beartype.check)
        def inner(x: hint) -> None: ...

        return inner

    def with_default(value: Any) -> Callable[..., Any]:
        @jaxtyped(typechecker=cached_beartype.check)
        def inner(x: int = value) -> None: ...

        return inner

    three, four = Float[np.ndarray, "3"], Float[np.ndarray, "4"]
    for hint, right, wrong in ((int, 1, "a"), (str, "a", 1), (three, np.ones(3), np.ones(4))):
        of(hint)(right)
        with pytest.raises(TypeCheckError):
            of(hint)(wrong)
    del decorated[:]
    of(int), of(str), of(Float[np.ndarray, "3"])
    assert decorated == []
    of(four)
    assert len(decorated) == 2
    with_default(1), with_default(1)
    assert len(decorated) == 6
