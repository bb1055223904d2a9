"""Values as standard JSON plus named tensors, and back, bit for bit: the format behind saved results.

Numbers in bulk (numpy arrays, torch tensors, numeric frame columns) become entries of a safetensors file that any tool
can open; everything else becomes JSON. What JSON has no word for is an object with one key that starts with `$`:
`{"$tuple": [...]}`, `{"$float": "nan"}`, `{"$array": "items.L_PD"}`. Reading it executes no stored code, and only makes
classes that the caller admits.
"""

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

Tensors = dict[str, Tensor]
FindClass = Callable[[str], type]
_MASKED = {"i": pd.arrays.IntegerArray, "u": pd.arrays.IntegerArray, "f": pd.arrays.FloatingArray}


class Record:
    """A frozen dataclass that may lie inside a saved result (Result and Provenance are such)."""


def class_name(kind: type) -> str:
    """The dotted name under which a record's class is written: module and qualified name."""
    return f"{kind.__module__}.{kind.__qualname__}"


def pack(value: Any, tensors: Tensors, path: str) -> Any:
    """The JSON form of a value; its tensors are added to `tensors` under names that start with `path`.

    Raises ValueError, naming the path, for a value that could not come back the same.
    """
    if isinstance(value, np.str_):
        return str(value)
    if isinstance(value, np.generic):
        return {"$scalar": _put(np.asarray(value), tensors, path)}
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"$float": str(value)}
    if type(value) is list:
        return [pack(item, tensors, f"{path}.{i}") for i, item in enumerate(value)]
    if type(value) is tuple:
        return {"$tuple": pack(list(value), tensors, path)}
    if type(value) is dict:
        return _pack_dict(value, tensors, path)
    if isinstance(value, Tensor):
        return {"$tensor": _put(value, tensors, path)}
    if isinstance(value, np.ndarray):
        return _pack_array(value, tensors, path)
    if isinstance(value, pd.DataFrame):
        return {"$frame": _pack_frame(value, tensors, path)}
    if isinstance(value, Record):
        return pack_record(value, tensors, path)
    raise ValueError(
        f"{path} is a {class_name(type(value))}, which a result cannot hold; it holds str, int, float, bool, None, "
        "tuples, lists, dicts, numpy arrays, torch tensors, pandas frames and other results: turn it into one of these"
    )


def pack_record(value: Record, tensors: Tensors, path: str = "") -> dict[str, Any]:
    """The JSON form of a dataclass: the name of its class and its fields."""
    stem = f"{path}." if path else ""
    names = [field.name for field in fields(value) if field.init]  # type: ignore[arg-type]
    content = {name: pack(getattr(value, name), tensors, stem + name) for name in names}
    return {"$record": class_name(type(value)), "fields": content}


def unpack(node: Any, tensors: Tensors, find_class: FindClass) -> Any:
    """The value that `pack` wrote; `find_class` gives the class of a record by its name, or refuses it."""
    if isinstance(node, list):
        return [unpack(item, tensors, find_class) for item in node]
    if not isinstance(node, dict):
        return node
    if "$record" in node:
        return _unpack_record(node, tensors, find_class)
    tag = next(iter(node), "")
    if not tag.startswith("$"):
        return {key: unpack(item, tensors, find_class) for key, item in node.items()}
    content = node[tag]
    if tag == "$float":
        return float(content)
    if tag == "$tuple":
        return tuple(unpack(content, tensors, find_class))
    if tag == "$dict":
        pairs = (unpack(pair, tensors, find_class) for pair in content)
        return {key: item for key, item in pairs}
    if tag == "$tensor":
        return tensors[content]
    if tag == "$array":
        return tensors[content].numpy()
    if tag == "$scalar":
        return tensors[content].numpy()[()]
    if tag == "$texts":
        return np.array(content["values"], dtype=content["dtype"]).reshape(content["shape"])
    if tag == "$frame":
        return _unpack_frame(content, tensors, find_class)
    raise ValueError(
        f"this file holds a {tag!r}, which this version of mechicl does not know: load it with a newer one"
    )


def _put(value: np.ndarray | Tensor, tensors: Tensors, path: str) -> str:
    """Copies an array to the CPU under a free name and returns that name."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biufc" or not value.dtype.isnative or value.dtype.itemsize > 8:
            raise ValueError(
                f"{path} has dtype {value.dtype}, which safetensors cannot hold; convert it, e.g. to float64 or int64"
            )
        # A fresh copy: torch neither takes negative strides nor read-only memory.
        value = torch.from_numpy(value.copy(order="C"))
    if value.layout is not torch.strided or value.is_quantized or value.dtype in (torch.complex128, torch.complex32):
        raise ValueError(
            f"{path} is a {value.layout} tensor of {value.dtype}, which safetensors cannot hold; convert it"
        )
    name = path
    while name in tensors:
        name += "'"
    tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
    return name


def _pack_array(value: np.ndarray, tensors: Tensors, path: str) -> dict[str, Any]:
    if value.dtype.kind == "U":
        return {"$texts": {"values": value.ravel().tolist(), "dtype": value.dtype.str, "shape": list(value.shape)}}
    return {"$array": _put(value, tensors, path)}


def _pack_dict(value: dict, tensors: Tensors, path: str) -> dict[str, Any]:
    packed = {key: pack(item, tensors, f"{path}.{key}") for key, item in value.items()}
    if all(type(key) is str and not key.startswith("$") for key in value):
        return packed
    return {"$dict": [[pack(key, tensors, f"{path} (a key)"), item] for key, item in packed.items()]}


def _unpack_record(node: dict, tensors: Tensors, find_class: FindClass) -> Any:
    kind = find_class(node["$record"])
    expected = {field.name for field in fields(kind) if field.init}
    if expected != set(node["fields"]):
        raise ValueError(
            f"{node['$record']} was saved with the fields {sorted(node['fields'])}, not {sorted(expected)}; "
            "load it with the version of mechicl that wrote it, or compute it again"
        )
    return kind(**{name: unpack(item, tensors, find_class) for name, item in node["fields"].items()})


def _pack_frame(frame: pd.DataFrame, tensors: Tensors, path: str) -> dict[str, Any]:
    return {
        "index": _pack_index(frame.index, tensors, f"{path}.index"),
        "columns": _pack_index(frame.columns, tensors, f"{path}.columns"),
        "data": [_pack_column(frame.iloc[:, i], tensors, f"{path}.{label}") for i, label in enumerate(frame.columns)],
    }


def _unpack_frame(node: dict, tensors: Tensors, find_class: FindClass) -> pd.DataFrame:
    index = _unpack_index(node["index"], tensors, find_class)
    columns = [_unpack_column(column, tensors, find_class) for column in node["data"]]
    # By number, then named: labels may be repeated. Series with a dtype: pandas would otherwise infer one.
    frame = pd.DataFrame({i: pd.Series(c, index=index, dtype=c.dtype) for i, c in enumerate(columns)}, index=index)
    frame.columns = _unpack_index(node["columns"], tensors, find_class)
    return frame


def _pack_index(index: pd.Index, tensors: Tensors, path: str) -> dict[str, Any]:
    if isinstance(index, pd.MultiIndex):
        raise ValueError(f"{path} has {index.nlevels} levels, expected one; use reset_index() or join the labels")
    name = pack(index.name, tensors, f"{path}.name")
    if isinstance(index, pd.RangeIndex):
        return {"range": [index.start, index.stop, index.step], "name": name}
    return {"values": _pack_column(index, tensors, path), "name": name}


def _unpack_index(node: dict, tensors: Tensors, find_class: FindClass) -> pd.Index:
    name = unpack(node["name"], tensors, find_class)
    if "range" in node:
        start, stop, step = node["range"]
        return pd.RangeIndex(start, stop, step, name=name)
    values = _unpack_column(node["values"], tensors, find_class)
    return pd.Index(values, dtype=values.dtype, name=name)


def _pack_column(column: pd.Series | pd.Index, tensors: Tensors, path: str) -> dict[str, Any]:
    """A column (a pandas array) by its dtype: texts, nullable numbers, cells that `pack` takes, or plain numbers."""
    dtype: Any = column.dtype
    if isinstance(dtype, pd.StringDtype):
        texts = [None if pd.isna(text) else text for text in column]
        return {"texts": texts, "storage": dtype.storage, "missing": "NA" if dtype.na_value is pd.NA else "nan"}
    if isinstance(column.array, (pd.arrays.IntegerArray, pd.arrays.FloatingArray, pd.arrays.BooleanArray)):
        missing = np.asarray(column.isna())
        numbers = column.array.to_numpy(dtype=dtype.numpy_dtype, na_value=0)
        return {"numbers": _put(numbers, tensors, path), "missing": _put(missing, tensors, f"{path}.missing")}
    if isinstance(dtype, np.dtype) and dtype.kind == "O":
        return {"cells": [pack(cell, tensors, f"{path}.{i}") for i, cell in enumerate(column)]}
    if isinstance(dtype, np.dtype):
        return {"numbers": _put(column.to_numpy(), tensors, path)}
    raise ValueError(
        f"the frame column {path} has dtype {dtype}; results hold numbers, bools and texts: convert it with .astype"
    )


def _unpack_column(node: dict, tensors: Tensors, find_class: FindClass) -> Any:
    if "texts" in node:
        missing = pd.NA if node["missing"] == "NA" else np.nan
        try:
            dtype = pd.StringDtype(node["storage"], na_value=missing)
        except ImportError:  # written where pyarrow was installed; the values are the same without it
            dtype = pd.StringDtype("python", na_value=missing)
        return pd.array(node["texts"], dtype=dtype)
    if "cells" in node:
        cells = np.empty(len(node["cells"]), dtype=object)
        for i, cell in enumerate(node["cells"]):  # one by one: numpy would take tuples of equal length for an axis
            cells[i] = unpack(cell, tensors, find_class)
        return cells
    numbers = tensors[node["numbers"]].numpy()
    if "missing" not in node:
        return numbers
    return _MASKED.get(numbers.dtype.kind, pd.arrays.BooleanArray)(numbers, tensors[node["missing"]].numpy())
