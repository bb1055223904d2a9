"""What the parts of a dossier share: a model, a corpus, a few-shot task, and results that are measured once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mechicl.commands.accounts import compared
from mechicl.commands.options import PATCHED, PATHS, UPDATED, Report

FAILURES = (ValueError, RuntimeError, NotImplementedError)  # what a model cannot do, as analyses and torch say it


class Workbench:
    """One model's results by name, each measured when a part first asks for it, and kept; so is why one failed.

    asked: what `measure_kernel_account` is asked, with its task; None where no part needs texts with labels. folder:
    where finished work is kept, from which an interrupted run goes on.
    """

    def __init__(
        self, model: Any, options: Report, *, corpus: Any, asked: Mapping[str, Any] | None, folder: Path
    ) -> None:
        """Nothing is measured yet."""
        self.model, self.options, self.corpus, self.asked, self.folder = model, options, corpus, asked, folder
        self._found: dict[str, Any] = {}
        self._failed: dict[str, Exception] = {}

    def done(self, name: str) -> Any:
        """What was measured under a name; None where it was not, or not yet."""
        return self._found.get(name)

    def done_like(self, start: str) -> list[Any]:
        """All that was measured under names that begin so, in order."""
        return [found for name, found in self._found.items() if name.startswith(start)]

    @property
    def running(self) -> dict[str, Any]:
        """The options that every analysis takes."""
        return {"seed": self.options.seed, "progress": not self.options.quiet}

    def priming(self) -> Any:
        """The priming experiment."""
        from mechicl.analyses.priming import measure_priming

        store = self.folder / "scores"
        return self._once("priming", lambda: measure_priming(self.model, self.corpus, store=store, **self.running))

    def ife(self) -> Any:
        """The inverse frequency effect in it."""
        from mechicl.analyses.inverse_frequency import inverse_frequency_effect

        return self._once("ife", lambda: inverse_frequency_effect(self.priming(), seed=self.options.seed))

    def heads(self, effect: str) -> Any:
        """The map of heads behind one effect."""
        from mechicl.analyses.head_localization import localize_heads

        def measure() -> Any:
            how = PATCHED[self.options.size] | self.running
            return localize_heads(
                self.model, self.corpus, effect, primed=self.priming(), store=self.folder, **how
            )  # fmt: skip

        return self._once(f"heads {effect}", measure)

    def paths(self, effect: str) -> Any:
        """Paths between the heads of one effect."""
        from mechicl.analyses.heads.paths import paths_between_heads

        def measure() -> Any:
            how = {"n_items": PATHS[self.options.size], **self.running}
            return paths_between_heads(self.model, self.heads(effect), self.corpus, **how)

        return self._once(f"paths {effect}", measure)

    def implicit(self) -> Any:
        """The gradient account of priming."""
        from mechicl.analyses.implicit_gradient import measure_implicit_gradient

        def measure() -> Any:
            how = UPDATED[self.options.size] | self.running
            return measure_implicit_gradient(
                self.model, self.corpus, primed=self.priming(), store=self.folder, **how
            )  # fmt: skip

        return self._once("implicit", measure)

    def kernel(self) -> Any:
        """The kernel account of the few-shot task."""
        from mechicl.analyses.kernels.command import STORE, measured_account

        return self._once("kernel", lambda: measured_account(self.model, self._asked(), store=self.folder / STORE))

    def priming_accounts(self) -> Any:
        """Accounts of what one prime does, with the steps and measures that other parts have taken."""
        from mechicl.analyses.accounts import compare_accounts

        def measure() -> Any:
            implicit = self.done("implicit")
            reading = {"primed": self.priming()}
            if implicit is not None:
                reading["finetuned"] = implicit.finetuned
            beside = [own for own in (implicit, *self.done_like("heads ")) if own is not None]
            how = compared("priming", self.options.size) | self.running
            return compare_accounts(
                self.model, self.corpus, reading=reading, beside=beside, store=self.folder, **how
            )  # fmt: skip

        return self._once("accounts of priming", measure)

    def fewshot_accounts(self) -> Any:
        """Accounts of the few-shot task, with what the kernel account has found."""
        from mechicl.analyses.accounts import compare_accounts

        def measure() -> Any:
            asked = self._asked()
            beside = [own for own in (self.done("kernel"),) if own is not None]
            reading = {"n_candidates": asked["n_candidates"]} if asked["n_candidates"] is not None else {}
            how = compared("few-shot", self.options.size, asked["task"]) | self.running
            how["lengths"] = (*(n for n in (2, 4, 8, 16) if n < asked["n_demos"]), asked["n_demos"])
            return compare_accounts(
                self.model, asked["task"], beside=beside, reading=reading, store=self.folder / "accounts", **how
            )  # fmt: skip

        return self._once("accounts of few-shot", measure)

    def _asked(self) -> dict[str, Any]:
        if self.asked is None:
            raise ValueError("no few-shot task was named; name one with --task")
        return dict(self.asked)

    def _once(self, name: str, measure: Callable[[], Any]) -> Any:
        """What was found, or the same failure again."""
        if name in self._failed:
            raise self._failed[name]
        if name not in self._found:
            try:
                self._found[name] = measure()
            except FAILURES as error:
                self._failed[name] = error
                raise
        return self._found[name]
