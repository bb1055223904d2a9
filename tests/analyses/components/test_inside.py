"""The parts of one model together: the checkpoints that are chosen, words, report and pictures."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection

from mechicl import results
from mechicl.analyses.components.account import StrategyComponents, d_rel_curve, measure_strategy_components
from mechicl.analyses.components.held_out import HeldOut
from mechicl.analyses.components.report import components_section, kernels_section
from mechicl.analyses.components.training_kernels import KernelsInTraining
from mechicl.analyses.components.words import card, components_verdict, transplants_sentence
from mechicl.analyses.pages.sections import write_sections
from mechicl.organisms.grid.points import GridPoint
from mechicl.organisms.grid.store import read_checkpoint
from mechicl.provenance import Provenance
from mechicl.views import strategy_components as views

mpl.use("Agg")
Run = tuple[Path, GridPoint]
OPTIONS: dict[str, Any] = {"n_sequences": 24, "n_boot": 100, "n_checkpoints": 4, "n_probed": 2, "progress": False}


@pytest.fixture(scope="module")
def found(tiny_run: Run) -> StrategyComponents:
    folder, point = tiny_run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mechicl.analyses.components.account.PROBED", 60)
        return measure_strategy_components(folder / point.name, **OPTIONS)


def test_the_curve_is_that_of_the_checkpoints(tiny_run: Run, found: StrategyComponents) -> None:
    folder, point = tiny_run
    assert found.curve["step"].tolist() == list(point.schedule)
    held = HeldOut.of(point, 24)
    alone = held.distances([held.predictions(read_checkpoint(folder / point.name))])
    row = found.curve.iloc[-1]
    assert row["d_rel"] == pytest.approx(alone.d_rel()[0, 0]) and row["loss"] == pytest.approx(alone.loss.mean())
    assert row["residual"] == pytest.approx(min(row["to_generalising"], row["to_memorising"]))
    assert (found.curve["low"] <= found.curve["d_rel"]).all() and (found.curve["d_rel"] <= found.curve["high"]).all()


def test_the_nearest_checkpoints_are_compared(found: StrategyComponents) -> None:
    curve = found.curve.set_index("step")
    assert found.before == curve["to_generalising"].iloc[:-1].idxmin()
    assert found.after == curve.loc[curve.index > found.before, "to_memorising"].idxmin()
    assert [own.clean_d_rel for own in found.ablations] != [0.0, 0.0] and len(found.ablations) == 2
    assert found.transplants is not None and found.patches is not None and found.probes is not None
    ends = found.transplants.sets["d_rel"].iloc[[0, -1]].to_numpy(float)
    np.testing.assert_allclose(ends, curve.loc[[found.before, found.after], "d_rel"].to_numpy(float))
    assert "another seed" in " ".join(found.notes)


def test_it_is_saved_and_loaded(found: StrategyComponents, tmp_path: Path) -> None:
    found.save(tmp_path / "kept")
    assert results.load(tmp_path / "kept") == found


def test_parts_and_steps_can_be_chosen(tiny_run: Run) -> None:
    folder, point = tiny_run
    own = folder / point.name
    some = measure_strategy_components(own, before=point.schedule[1], parts=["ablations"], unrelated=own, **OPTIONS)
    assert some.before == point.schedule[1] and some.transplants is None and some.probes is None
    assert not any("another seed" in note for note in some.notes)
    with pytest.raises(ValueError, match="parts='patches'"):
        measure_strategy_components(own, parts="patches")
    with pytest.raises(ValueError, match="an earlier and a later"):
        measure_strategy_components(own, before=point.schedule[2], after=point.schedule[1], **OPTIONS)
    with pytest.raises(ValueError, match="no checkpoint is after step 120"):
        measure_strategy_components(own, before=120, **OPTIONS)
    with pytest.raises(ValueError, match="no checkpoint after 7 steps"):
        measure_strategy_components(own, before=7, **OPTIONS)
    with pytest.raises(ValueError):
        d_rel_curve(own, HeldOut.of(point, 4), [])


def test_the_report_has_it_all(found: StrategyComponents, tmp_path: Path) -> None:
    section = components_section(found)
    assert section.sentence == found.verdict and section.kind in ("yes", "none")
    assert len(section.tables[0]["rows"]) == 9
    for table in section.tables:
        assert {len(row) for row in table["rows"]} == {len(table["heads"])}
        assert all(isinstance(cell, str) for row in table["rows"] for cell in row)
    page = write_sections(tmp_path / "report", [section], title="Parts", subtitle=found.point)
    assert "MLP in" in page.read_text(encoding="utf-8")
    assert results.load(tmp_path / "report" / "results" / "strategy_components") == found


def test_words_hold_for_null_results(found: StrategyComponents) -> None:
    assert found.transplants is not None
    frame = found.transplants.frame
    nothing = replace(found.transplants, frame=frame.assign(share=np.nan, low=np.nan, high=np.nan))
    assert card(replace(found, transplants=nothing))[0] == "none"
    assert "do not differ" in transplants_sentence(nothing)
    assert card(replace(found, transplants=None)) == ("none", "Not measured")
    words = components_verdict(found.curve, found.before, found.after, None, None, [], None)
    assert words.startswith("The relative distance") and words.count(".") > 1
    clear = frame.copy()
    mine = (clear["part"] == "MLP out") & (clear["direction"] == "all orders")
    clear.loc[clear["donor"] == "change shuffled", "share"] = 0.1
    clear.loc[clear["direction"] == "all orders", ["share", "low", "high"]] = [0.01, 0.0, 0.02]
    clear.loc[mine, ["share", "low", "high"]] = [0.7, 0.6, 0.8]
    assert card(replace(found, transplants=replace(found.transplants, frame=clear))) == (
        "yes",
        "Mostly one part: MLP out",
    )


def test_pictures_show_the_numbers(found: StrategyComponents) -> None:
    assert found.transplants is not None and found.patches is not None and found.probes is not None
    ax = found.transplants.plot()
    own = found.transplants.frame.query("direction == 'after into before' and donor == 'other checkpoint'")
    drawn = {round(float(x), 6) for line in ax.lines for x in np.atleast_1d(line.get_xdata()) if np.isfinite(x)}
    shares = own[~own["part"].isin(["sum of parts", "interaction"])]["share"].clip(-views.WIDEST, views.WIDEST)
    assert {round(float(share), 6) for share in shares} <= drawn
    assert found.patches.plot(where="last").get_yticklabels()[0].get_text() == "embedding"
    weak = found.ablations[1].frame.query("strength == 0.2")
    marks = [one for one in found.ablations[1].plot().collections if isinstance(one, PathCollection)]
    moved = np.concatenate([np.asarray(one.get_offsets())[:, 0] for one in marks])
    np.testing.assert_allclose(sorted(moved), sorted(weak["moved"]))
    line = found.probes.plot(measure="r2").lines[0]
    first = found.probes.frame.query("place == 'stream after block' and target == 'prediction' and step == 1")["r2"]
    assert line.get_ydata()[0] == first.iloc[0]
    assert found.plot().lines[0].get_ydata().tolist() == found.curve["d_rel"].tolist()
    for call, words in (
        (lambda: found.patches and found.patches.plot(where="first"), "where='first'"),
        (lambda: found.probes and found.probes.plot(place="here"), "place 'here'"),
        (lambda: found.probes and found.probes.plot(measure="p"), "measure 'p'"),
        (lambda: views.plot_ablations(found.ablations[0], strength=3.0), "strength=3.0"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_kernels_have_a_section(tmp_path: Path) -> None:
    names = [
        f"{name}{end}"
        for name in ("d_rel", "residual", "r2", "unique_r2", "control", "bandwidth")
        for end in ("", "_low", "_high")
    ]
    rows = [
        {"diversity": diversity, "seed": seed, "step": step, "head": 0, "known": 0.3}
        | dict.fromkeys(names, 0.1 * step + 0.01 * seed)
        for diversity in (8, 16)
        for seed in (0, 1)
        for step in (1, 2, 3)
    ]
    one = {"seed": 0, "head": 0, "n_checkpoints": 3, "low": 0.5, "high": 0.95, "kernel_peak": 3, "generalising_peak": 1,
           "unique_r2_peak": 0.9, "unique_r2_last": 0.8}  # fmt: skip
    together = pd.DataFrame([one | {"diversity": diversity, "rho": rho} for diversity, rho in ((8, 0.9), (16, 0.7))])
    across = {"rho": 0.5, "low": 0.1, "high": 0.8, "n_models": 4.0}
    kernels = KernelsInTraining(9, 2, 0.95, pd.DataFrame(rows), together, across, Provenance.of())
    section = kernels_section(kernels)
    assert section.kind == "yes" and section.verdict == "With d_rel in 2 of 2 models"
    assert kernels_section(replace(kernels, together=together.assign(low=-0.1))).kind == "none"
    write_sections(tmp_path / "report", [section], title="Kernels", subtitle="over training")
    ax = kernels.plot()
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.105, 0.205, 0.305])  # the mean over seeds
    assert kernels.plot(measure="bandwidth").lines[-1].get_ydata()[0] == 0.3
