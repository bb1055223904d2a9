"""Values that go into a result come out of its two files bit for bit, or are refused."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mechicl.results import Result

NAN_WITH_PAYLOAD = np.array([0x7FF8000000000BAD], dtype=np.uint64).view(np.float64)


@dataclass(frozen=True)
class Sample(Result):
    value: Any


def round_trip(value: Any, folder: Path) -> Any:
    return Sample.load(Sample(value).save(folder)).value


def bits(array: np.ndarray) -> tuple[Any, ...]:
    return array.dtype, array.shape, array.tobytes()


ARRAYS = {
    "special floats": np.concatenate([[-0.0, 0.0, np.nan, np.inf, -np.inf, 5e-324, 0.1], NAN_WITH_PAYLOAD]),
    "no axes": np.array(3.5),
    "empty": np.zeros((0, 3), dtype=np.float32),
    "negative strides": np.arange(6).reshape(2, 3)[:, ::-1],
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "bool": np.array([True, False]),
    "half": np.array([1.5, -0.0], dtype=np.float16),
    "unsigned": np.array([2**64 - 1], dtype=np.uint64),
    "complex": np.array([1 + 2j], dtype=np.complex64),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_come_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    before = ARRAYS[name]
    after = round_trip(before, tmp_path)
    assert bits(np.ascontiguousarray(after)) == bits(np.ascontiguousarray(before)) and after.shape == before.shape
    after[...] = after  # writable, as a fresh array is


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.int64, torch.bool])
def test_tensors_come_back_bit_for_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    before = torch.tensor([[0.0, -0.0, 3.0], [1.0, 0.0, 2.0]]).to(dtype).T
    after = round_trip(before, tmp_path)
    assert after.dtype == dtype and after.shape == before.shape
    assert after.contiguous().view(torch.uint8).tolist() == before.contiguous().view(torch.uint8).tolist()


def test_plain_values_keep_value_and_type(tmp_path: Path) -> None:
    before = {
        "none": None,
        "bools": (True, False),
        "ints": [1, -(2**70)],
        "floats": (0.1, -0.0, float("inf"), float("-inf"), 1e-310),
        "text": "naïve \ud800 \x00 </script>",
        "nested": [(), [], {}, ((1,), [2], {"a": (3,)})],
        "keys": {1: "int", ("a", 2): "tuple", None: "none", "$tuple": "tagged"},
        "scalars": [np.float32(0.1), np.int8(-3), np.bool_(True)],
        "words": np.array([["ab", "c"]]),
    }
    after = round_trip(before, tmp_path)
    assert repr(after) == repr(before)  # repr tells -0.0 from 0.0, tuple from list, numpy scalar from number
    assert np.isnan(round_trip(float("nan"), tmp_path / "nan"))


def awkward_frame() -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "verb": ["give", "send", None],
            "share": [0.1, np.nan, -0.0],
            "n": np.array([1, 2, 3], dtype=np.int32),
            "same_verb": [True, False, True],
            "mixed": np.array(["a", None, 1.5], dtype=object),
            "count": pd.array([1, None, 3], dtype="Int64"),
            "flag": pd.array([True, None, False], dtype="boolean"),
            "text": pd.array(["x", None, "z"], dtype="string"),
            "narrow": np.array([0.1, 0.2, 0.3], dtype=np.float32),
        },
        index=pd.Index(["r2", "r0", "r1"], name="row"),
    )
    return frame[["n", "verb", "text", "share", "mixed", "flag", "same_verb", "narrow", "count"]]


def test_frames_come_back_with_dtypes_order_and_index(tmp_path: Path) -> None:
    before = awkward_frame()
    after = round_trip(before, tmp_path)
    pd.testing.assert_frame_equal(after, before, check_exact=True, check_column_type=True, check_index_type=True)
    assert after["share"].to_numpy().tobytes() == before["share"].to_numpy().tobytes()
    assert after["mixed"].tolist() == ["a", None, 1.5]


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame(),
        pd.DataFrame({"verb": [], "x": []}),
        pd.DataFrame({"x": [1.0, 2.0, 3.0]}).iloc[::-1],
        pd.DataFrame({"x": [1.0, 2.0]}, index=pd.RangeIndex(4, 0, -2, name="step")),
        pd.DataFrame([[1.0, 2.0]], columns=["twice", "twice"]),
        pd.DataFrame([[1.0, "a"]], columns=pd.Index([0, "b"], dtype=object, name="names")),
        pd.DataFrame({"object": pd.Series(["a", "b"], dtype=object)}),
        pd.DataFrame({"tuples": pd.Series([(1, 2), (3, 4)], dtype=object)}),
    ],
)
def test_frames_at_the_edges(frame: pd.DataFrame, tmp_path: Path) -> None:
    pd.testing.assert_frame_equal(round_trip(frame, tmp_path), frame, check_exact=True, check_column_type=True)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array([object()]), "dtype object"),
        (np.array(["2020-01-01"], dtype="datetime64[D]"), "dtype datetime64"),
        (np.array([1j]), "dtype complex128"),
        (torch.tensor([1j], dtype=torch.complex128), "complex128"),
        (torch.eye(2).to_sparse(), "sparse"),
        (pd.DataFrame({"x": pd.Categorical(["a"])}), "value.x has dtype category"),
        (pd.DataFrame({"x": [1]}, index=pd.MultiIndex.from_tuples([("a", 1)])), "2 levels"),
        (Path("somewhere"), "PosixPath"),
    ],
)
def test_what_a_result_cannot_hold(value: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        Sample(value).save(tmp_path)
    assert not list(tmp_path.iterdir())
