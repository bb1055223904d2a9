"""Does the comparison of accounts find what is there? Organisms whose account is known, and what it says of them.

Every organism (`organisms`, `urns`, `priming` of this folder) is asked about fresh contexts, every account
is fitted to its answers on one half and judged on the other, as `compare_accounts` does, and what is named is held
against what was built. Nothing in the comparison is chosen by the outcome: margin, ranges and thresholds are those
that any user has by default.

An organism may be beyond recovery for two reasons that are no error: two accounts may say the same on these contexts
(then the true one should be among those "not told apart"), and a trained model may not have become what it was trained
to be (`d_rel`, `residual`).

    python -m mechicl.analyses.recovery.recover            trains what is lacking in runs/recovery, and makes results/
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from joblib import Parallel, delayed
from tqdm.auto import tqdm

from mechicl.accounts.judging import MARGIN
from mechicl.analyses.recovery.kinds import KINDS, NOISY, TRAINED
from mechicl.analyses.recovery.rows import LEVEL, Asking, organism_row
from mechicl.analyses.recovery.study import COLUMNS, RecoveryStudy
from mechicl.provenance import Provenance

__all__ = ["KINDS", "RecoveryStudy", "recover_accounts", "shipped_recovery"]
RESULTS = Path(__file__).parent / "results" / "study"
LEVELS = (0.0, 0.1, 0.3, 1.0, 3.0)


def recover_accounts(
    n_draws: int = 20,
    kinds: Sequence[str] | None = None,
    *,
    noise_levels: Sequence[float] = LEVELS,
    n_noise_draws: int = 4,
    n_contexts: int = 200,
    n_orders: int = 4,
    n_boot: int = 500,
    seed: int = 0,
    runs: str | Path = "runs/recovery",
    store: str | Path | None = None,
    n_jobs: int | None = None,
    progress: bool = True,
) -> RecoveryStudy:
    """Attribute organisms of known account, `n_draws` a kind, and count how often the account is found.

    kinds: some of `KINDS`; by default all. noise_levels, n_noise_draws: of the kinds in `NOISY` so many organisms a
    level also answer with noise, of so many standard deviations of their answers. n_contexts, n_orders: of each length,
    as `compare_accounts` takes them (priming: at most 200 pairs, 4 primes). n_boot: for intervals. runs: the folder of
    the trained transformers, which are trained there if any is asked for and lacking. store: a folder of finished rows,
    from which an interrupted study goes on. n_jobs: processes, as joblib takes it.

    Raises ValueError for unknown kinds, sizes below 1, noise below 0, and a folder that holds another grid.

        recover_accounts(3, ["regression: gradient descent", "regression: null"], n_noise_draws=0).confusion
    """
    chosen = list(KINDS if kinds is None else dict.fromkeys(kinds))
    _check(chosen, n_draws, noise_levels, n_noise_draws)
    if any(kind in TRAINED for kind in chosen):
        _train_lacking(runs, n_draws, seed, n_jobs)
    asking = Asking(seed, n_contexts, n_orders, n_boot, str(runs))
    plan: list[tuple[str, int, float | None]] = [(kind, draw, None) for kind in chosen for draw in range(n_draws)]
    plan += [
        (kind, draw, float(level))
        for kind in chosen
        if kind in NOISY
        for level in noise_levels
        for draw in range(n_noise_draws)
    ]
    running = Parallel(n_jobs=n_jobs, return_as="generator")(delayed(organism_row)(one, asking, store) for one in plan)
    rows = list(tqdm(running, total=len(plan), desc="organisms", unit="organism", disable=not progress))
    return RecoveryStudy(
        pd.DataFrame([row for row, one in zip(rows, plan, strict=True) if one[2] is None], columns=list(COLUMNS)),
        pd.DataFrame(
            [{**row, "noise": one[2]} for row, one in zip(rows, plan, strict=True) if one[2] is not None],
            columns=[*COLUMNS, "noise"],
        ),
        LEVEL,
        Provenance.of(
            seeds={"organisms, contexts, halves and bootstrap": seed},
            options={
                "n_draws": n_draws, "n_contexts": n_contexts, "n_orders": n_orders, "n_boot": n_boot, "margin": MARGIN,
                "n_noise_draws": n_noise_draws, "noise_levels": [float(level) for level in noise_levels],
            },
        ),
    )  # fmt: skip


def shipped_recovery() -> RecoveryStudy:
    """The study that comes with the package, 20 draws a kind: `print(shipped_recovery().verdict)`.

    Raises ValueError where its files are missing or damaged.
    """
    return RecoveryStudy.load(RESULTS)


def _train_lacking(runs: str | Path, n_draws: int, seed: int, n_jobs: int | None) -> None:
    from mechicl.analyses.recovery.urns import train_urns, urn_points
    from mechicl.organisms.grid.store import is_whole

    if not all(is_whole(Path(runs), point) for point in urn_points(n_draws, seed=seed)):
        train_urns(runs, n_draws=n_draws, seed=seed, n_jobs=n_jobs)


def _check(kinds: Sequence[str], n_draws: int, noise_levels: Sequence[float], n_noise_draws: int) -> None:
    if unknown := [kind for kind in kinds if kind not in KINDS] or ([] if kinds else ["nothing"]):
        raise ValueError(f"got the kinds {unknown}; expected some of {', '.join(KINDS)}")
    if n_draws < 1 or n_noise_draws < 0:
        raise ValueError(f"got n_draws={n_draws}, n_noise_draws={n_noise_draws}; expected 1 or more, and 0 or more")
    if any(not 0 <= level < float("inf") for level in noise_levels):
        raise ValueError(f"got noise_levels={list(noise_levels)}; expected finite numbers, 0 or more")


def main(out: Path = RESULTS, runs: Path = Path("runs/recovery"), n_draws: int = 20, jobs: int = 2) -> None:
    """Make the study that comes with the package anew.

    out: folder of the result. runs: of the trained transformers. n_draws: organisms a kind. jobs: processes.
    """
    study = recover_accounts(n_draws, runs=runs, store=runs.with_name(f"{runs.name}-rows"), n_jobs=jobs)
    print(study.confusion.to_string(), study.verdict, study.save(out, overwrite=True), sep="\n\n")


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
