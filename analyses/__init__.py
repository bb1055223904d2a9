"""Second floor: one file an analysis; each returns a result.

`measure_priming` scores a priming corpus with a model, `inverse_frequency_effect` tests the error-driven account over
its verbs, `localize_heads` finds the attention heads behind either, `measure_implicit_gradient` asks whether learning
in context goes like a gradient step (`finetune_on_primes` takes that step), `measure_kernel_account` whether few-shot
answers are kernel regression over the demonstrations, `compare_accounts` how much of a model's answers each account
explains, `compare` puts models side by side, `write_report` makes a page of it. Imported at first use: a table of
published scores is analysed without loading torch's models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mechicl.lazy import lazy_names

if TYPE_CHECKING:
    from mechicl.analyses.accounts import AccountTable, compare_accounts
    from mechicl.analyses.causality.replaced_attention import kernel_causality
    from mechicl.analyses.comparison import ComparisonResult, compare
    from mechicl.analyses.components.ablations import ablate_components
    from mechicl.analyses.components.account import measure_strategy_components
    from mechicl.analyses.components.patching import patch_checkpoints
    from mechicl.analyses.components.probes import probe_strategies
    from mechicl.analyses.components.training_kernels import kernels_in_training
    from mechicl.analyses.components.transplants import transplant_weights
    from mechicl.analyses.demonstrations.attention_maps import attention_map
    from mechicl.analyses.demonstrations.probes import key_value_probes
    from mechicl.analyses.finetuning import FinetunedPriming, finetune_on_primes
    from mechicl.analyses.functionals import Functional
    from mechicl.analyses.gradient.error_growth import error_driven
    from mechicl.analyses.gradient.item_match import match_items
    from mechicl.analyses.head_localization import localize_heads
    from mechicl.analyses.heads.map import HeadMap
    from mechicl.analyses.implicit_gradient import ImplicitGradient, measure_implicit_gradient
    from mechicl.analyses.inverse_frequency import IFEResult, inverse_frequency_effect
    from mechicl.analyses.kernel_account import KernelAccount, measure_kernel_account
    from mechicl.analyses.kernel_regression import KernelRegression, measure_kernel_regression
    from mechicl.analyses.kernels.theorem import kernel_theorem_errors
    from mechicl.analyses.phenomena.experiments import kernel_phenomena
    from mechicl.analyses.priming import PrimingResult, measure_priming
    from mechicl.analyses.recovery.recover import recover_accounts, shipped_recovery
    from mechicl.analyses.report import write_report
    from mechicl.analyses.resemblance.gradient_comparison import GradientComparison, compare_to_gradient
    from mechicl.analyses.strategies.account import StrategyAccount, measure_strategies
    from mechicl.analyses.strategies.readings import GridReadings, read_run
    from mechicl.analyses.strategies.shipped import shipped_strategies
    from mechicl.analyses.strategies.sizes import measure_sizes
    from mechicl.analyses.updates.dual_form import attention_dual
    from mechicl.analyses.updates.mlp_update import measure_mlp_updates

_HOME = {
    "AccountTable": "accounts",
    "compare_accounts": "accounts",
    "ComparisonResult": "comparison",
    "FinetunedPriming": "finetuning",
    "Functional": "functionals",
    "GridReadings": "strategies.readings",
    "StrategyAccount": "strategies.account",
    "ablate_components": "components.ablations",
    "kernels_in_training": "components.training_kernels",
    "measure_sizes": "strategies.sizes",
    "measure_strategies": "strategies.account",
    "measure_strategy_components": "components.account",
    "patch_checkpoints": "components.patching",
    "probe_strategies": "components.probes",
    "read_run": "strategies.readings",
    "recover_accounts": "recovery.recover",
    "shipped_recovery": "recovery.recover",
    "shipped_strategies": "strategies.shipped",
    "transplant_weights": "components.transplants",
    "GradientComparison": "resemblance.gradient_comparison",
    "HeadMap": "heads.map",
    "IFEResult": "inverse_frequency",
    "ImplicitGradient": "implicit_gradient",
    "KernelAccount": "kernel_account",
    "KernelRegression": "kernel_regression",
    "PrimingResult": "priming",
    "attention_dual": "updates.dual_form",
    "attention_map": "demonstrations.attention_maps",
    "compare": "comparison",
    "compare_to_gradient": "resemblance.gradient_comparison",
    "error_driven": "gradient.error_growth",
    "finetune_on_primes": "finetuning",
    "inverse_frequency_effect": "inverse_frequency",
    "kernel_causality": "causality.replaced_attention",
    "kernel_phenomena": "phenomena.experiments",
    "kernel_theorem_errors": "kernels.theorem",
    "key_value_probes": "demonstrations.probes",
    "localize_heads": "head_localization",
    "match_items": "gradient.item_match",
    "measure_implicit_gradient": "implicit_gradient",
    "measure_kernel_account": "kernel_account",
    "measure_kernel_regression": "kernel_regression",
    "measure_mlp_updates": "updates.mlp_update",
    "measure_priming": "priming",
    "write_report": "report",
}
__all__ = sorted(_HOME)
__getattr__, __dir__ = lazy_names(__name__, _HOME)
