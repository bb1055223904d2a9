"""Numbers as a reader wants them: signs, intervals, p-values, shares; missing ones are said to be missing."""

from __future__ import annotations

import math

MINUS = "\N{MINUS SIGN}"
MISSING = "n/a"


def number(value: float, digits: int = 3) -> str:
    """Return ``value`` with a fixed number of decimals, a real minus sign and no negative zero; "n/a" for NaN.

    >>> number(-0.1739, 2), number(-0.0001), number(float("nan"))
    ('−0.17', '0.000', 'n/a')
    """
    if not math.isfinite(value):
        return MISSING if math.isnan(value) else f"{MINUS if value < 0 else ''}∞"
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", MINUS)


def with_interval(estimate: float, low: float, high: float, digits: int = 3) -> str:
    """Return "estimate [low, high]"; the estimate alone where there is no interval.

    >>> with_interval(-0.17, -0.25, -0.09, 2)
    '−0.17 [−0.25, −0.09]'
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        return number(estimate, digits)
    return f"{number(estimate, digits)} [{number(low, digits)}, {number(high, digits)}]"


def p_value(p: float, *, name: bool = True) -> str:
    """Return a p-value to three decimals: "p = .034", "p < .001"; with ``name=False`` without the "p =".

    >>> p_value(0.034), p_value(2e-8), p_value(1.0, name=False)
    ('p = .034', 'p < .001', '> .999')
    """
    if math.isnan(p):
        return "p not available" if name else MISSING
    if p < 0.001 or p > 0.999:
        bound = "< .001" if p < 0.001 else "> .999"
        return f"p {bound}" if name else bound
    text = f"{p:.3f}".lstrip("0")
    return f"p = {text}" if name else text


def percent(share: float, digits: int = 0) -> str:
    """Return a share in [0, 1] as a percentage.

    >>> percent(0.7512), percent(0.7512, 1)
    ('75%', '75.1%')
    """
    return MISSING if math.isnan(share) else f"{number(100 * share, digits)}%"
