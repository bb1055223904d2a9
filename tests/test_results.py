import json
import os
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy

from mechicl import results
from mechicl.results import Provenance, Result


@dataclass(frozen=True)
class Sample(Result):
    value: Any
    provenance: Provenance = field(default_factory=Provenance.of)


@dataclass(frozen=True)
class OtherSample(Result):
    value: Any


def install(monkeypatch: pytest.MonkeyPatch, *kinds: type) -> None:
    """Make the classes look as if a module of the package defined them."""
    module = types.ModuleType("mechicl.sample_results")
    for kind in kinds:
        monkeypatch.setattr(kind, "__module__", module.__name__)
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, module.__name__, module)


def small_frame() -> pd.DataFrame:
    return pd.DataFrame({"verb": ["give", None], "share": [np.nan, -0.0]}, index=pd.Index(["r1", "r0"], name="row"))


def test_nested_results_and_provenance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Sample, OtherSample)
    facts = {"model": "tiny", "n_params": 7, "dtype": "float32", "prepend_bos": True}
    provenance = Provenance.of(facts, seeds={"boot": 3}, options={"corpus": "mine", "file": Path("a/b"), "k": (1, 2)})
    before = Sample({"parts": [OtherSample(np.arange(3)), OtherSample(small_frame())]}, provenance)
    after = results.load(before.save(tmp_path))
    assert type(after) is Sample and after == before
    assert after.provenance == provenance and after.provenance.options["file"] == str(Path("a/b"))
    assert OtherSample(np.arange(3)) == after.value["parts"][0] != OtherSample(np.arange(3.0))


def test_equality_sees_one_bit_and_survives_nan() -> None:
    provenance = Provenance.of()
    assert Sample(np.array([np.nan, 0.0]), provenance) == Sample(np.array([np.nan, 0.0]), provenance)
    assert Sample(np.array([0.0]), provenance) != Sample(np.array([-0.0]), provenance)
    assert Sample((1,), provenance) != Sample([1], provenance)
    assert Sample(1, provenance) != OtherSample(1)


def test_files_are_standard_json_and_named_tensors(tmp_path: Path) -> None:
    Sample({"frame": small_frame(), "bad": float("nan")}).save(tmp_path)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not standard JSON")

    json.loads((tmp_path / "result.json").read_text(), parse_constant=refuse)
    tensors = safetensors.numpy.load_file(tmp_path / "result.safetensors")
    np.testing.assert_array_equal(tensors["value.frame.share"], [np.nan, 0.0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result.json", "result.safetensors"]


def test_another_result_is_not_overwritten_unasked(tmp_path: Path) -> None:
    Sample(1).save(tmp_path)
    (tmp_path / "index.html").write_text("kept")
    with pytest.raises(ValueError, match=r"already holds a result.*overwrite=True"):
        Sample(2).save(tmp_path)
    assert Sample.load(tmp_path).value == 1
    Sample(2).save(tmp_path, overwrite=True)
    assert Sample.load(tmp_path).value == 2 and (tmp_path / "index.html").read_text() == "kept"
    with pytest.raises(ValueError, match="is a file"):
        Sample(1).save(tmp_path / "index.html")


@pytest.mark.parametrize("replaced", [0, 1])
def test_an_interrupted_save_is_no_result(replaced: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C before the first or before the second file takes its place, over an older result."""
    Sample(1).save(tmp_path)
    done: list[str] = []

    def interrupted(source: Any, target: Any) -> None:
        if len(done) == replaced:
            raise KeyboardInterrupt
        done.append(str(target))
        os.rename(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Sample(2).save(tmp_path, overwrite=True)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="no finished result"):
        Sample.load(tmp_path)
    assert not list(tmp_path.glob(".saving-*"))
    Sample(3).save(tmp_path)  # what the interruption left is no other result
    assert Sample.load(tmp_path).value == 3


def test_a_result_that_cannot_be_kept_leaves_the_older_one(tmp_path: Path) -> None:
    Sample(1).save(tmp_path)
    with pytest.raises(ValueError, match=r"value\.a is a builtins\.set.*turn it into"):
        Sample({"a": {1}}).save(tmp_path, overwrite=True)
    assert Sample.load(tmp_path).value == 1


def test_load_refuses_classes_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Sample(1).save(tmp_path / "foreign")
    with pytest.raises(ValueError, match="expected one of the package mechicl"):
        results.load(tmp_path / "foreign")
    assert Sample.load(tmp_path / "foreign").value == 1  # the caller vouches for the class
    with pytest.raises(ValueError, match="expected one of the package mechicl"):
        OtherSample.load(tmp_path / "foreign")
    install(monkeypatch, Sample, OtherSample)
    Sample(1).save(tmp_path / "own")
    with pytest.raises(ValueError, match="holds a Sample, expected a OtherSample"):
        OtherSample.load(tmp_path / "own")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mechicl.results.Unheard", "no mechicl.results.Unheard"),
        ("mechicl.unheard.Thing", "no mechicl.unheard.Thing"),
        ("mechicl.results.json", "not a result"),
        ("mechicl.results.Record", "not a result"),
        ("mechicl.results.Path", "not a result"),
        ("mechiclevil.Thing", "expected one of the package"),
        ("os.system", "expected one of the package"),
    ],
)
def test_load_refuses_unknown_classes(name: str, message: str, tmp_path: Path) -> None:
    Sample(1).save(tmp_path)
    content = json.loads((tmp_path / "result.json").read_text())
    content["result"]["$record"] = name
    (tmp_path / "result.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        results.load(tmp_path)


def test_damaged_and_absent_results(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no finished result"):
        results.load(tmp_path / "nowhere")
    for name, damage, message in [
        ("result.safetensors", b"other bytes", "not the file that result.json describes"),
        ("result.json", b"{cut off", "not the file of a result"),
        ("result.json", b'{"format": 99, "tensors_sha256": "", "result": {}}', "format 99, expected 1"),
    ]:
        Sample(np.arange(3)).save(tmp_path / message[:9], overwrite=True)
        (tmp_path / message[:9] / name).write_bytes(damage)
        with pytest.raises(ValueError, match=message):
            Sample.load(tmp_path / message[:9])


def test_fields_that_changed_between_versions(tmp_path: Path) -> None:
    Sample(1).save(tmp_path)
    content = json.loads((tmp_path / "result.json").read_text())
    content["result"]["fields"]["gone"] = content["result"]["fields"].pop("value")
    (tmp_path / "result.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"gone.*not.*value"):
        Sample.load(tmp_path)


def test_repr_is_short() -> None:
    text = repr(Sample({"frame": small_frame(), "x": np.zeros((10, 10))}))
    assert text.startswith("Sample(value=<dict of 2>, provenance=Provenance(created=") and len(text) < 120
    assert "value=<2 rows x 2 columns>" in repr(Sample(small_frame()))
    assert "<float64 (10, 10)>" in repr(Sample(np.zeros((10, 10))))


def test_provenance_knows_versions_and_refuses_the_unknown() -> None:
    provenance = Provenance.of({"model": "tiny"}, seeds={"boot": 1})
    assert {"python", "mechicl", "torch", "numpy", "pandas"} <= set(provenance.versions)
    assert provenance.created.endswith("Z") and provenance.family is None
    assert Provenance.of(provenance.model_facts()).model == "tiny"
    with pytest.raises(ValueError, match=r"\['colour'\], expected some of"):
        Provenance.of({"colour": "red"})
    with pytest.raises(ValueError, match=r"options\.f is a builtins\.function"):
        Provenance.of(options={"f": install})


def test_a_result_must_be_a_dataclass(tmp_path: Path) -> None:
    class Bare(Result):
        pass

    with pytest.raises(ValueError, match="not a dataclass"):
        Bare().save(tmp_path)
