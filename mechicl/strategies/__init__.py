"""The Bayesian account of training: what two predictors and three numbers say of a transformer's predictions.

`fit_strategies` fits the model to predictions at many steps and task diversities, `transition_times` says when a
transformer turns to memorising, `ablate_strategies` which parts of the model it takes, `strategy_field` what pushes its
odds; `fit_three_strategies` and `compare_context_odds` are richer models. `strategy_data` prepares arrays once for all
of these. Pure functions of arrays: no model is run here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mechicl.lazy import lazy_names

if TYPE_CHECKING:
    from mechicl.strategies.ablations import StrategyAblations, ablate_strategies
    from mechicl.strategies.complexity import PoolBits, code_bits, pool_bits, strategy_bits
    from mechicl.strategies.context_odds import ContextOdds, compare_context_odds, context_evidence
    from mechicl.strategies.data import StrategyData, strategy_data
    from mechicl.strategies.fit import StrategyFit, fit_data, fit_strategies
    from mechicl.strategies.posterior_odds import OddsParameters, OddsTerms
    from mechicl.strategies.three_way import ThreeWayFit, fit_three_strategies
    from mechicl.strategies.transitions import Transitions, transition_times
    from mechicl.strategies.vector_field import StrategyField, strategy_field

_HOME = {
    "ContextOdds": "context_odds",
    "OddsParameters": "posterior_odds",
    "OddsTerms": "posterior_odds",
    "PoolBits": "complexity",
    "StrategyAblations": "ablations",
    "StrategyData": "data",
    "StrategyField": "vector_field",
    "StrategyFit": "fit",
    "ThreeWayFit": "three_way",
    "Transitions": "transitions",
    "ablate_strategies": "ablations",
    "code_bits": "complexity",
    "compare_context_odds": "context_odds",
    "context_evidence": "context_odds",
    "fit_data": "fit",
    "fit_strategies": "fit",
    "fit_three_strategies": "three_way",
    "pool_bits": "complexity",
    "strategy_bits": "complexity",
    "strategy_data": "data",
    "strategy_field": "vector_field",
    "transition_times": "transitions",
}
__all__ = sorted(_HOME)
__getattr__, __dir__ = lazy_names(__name__, _HOME)
