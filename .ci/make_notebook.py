"""Make a notebook from a percent script, and execute it. Run by make notebooks.

    python .ci/make_notebook.py examples/inverse_frequency.py examples/inverse_frequency.ipynb

Kept are text and pictures. Left out is what differs between two runs or two machines (times, random cell names, bars),
and interactive figures, each of which carries a script of more than a megabyte.
"""

import sys
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient

LARGEST = 300_000  # characters of one output; pictures are smaller


def main() -> None:
    """Read the script, execute it in its own folder, write the notebook."""
    script, target = Path(sys.argv[1]), Path(sys.argv[2])
    notebook = jupytext.read(script)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02d}"
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    where = {"metadata": {"path": str(script.parent)}}
    NotebookClient(notebook, timeout=3600, record_timing=False, coalesce_streams=True, resources=where).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell["outputs"] = [_kept(output) for output in cell["outputs"] if output.get("name") != "stderr"]
    notebook.metadata = {
        "jupytext": {"formats": "ipynb,py:percent"},
        "kernelspec": notebook.metadata["kernelspec"],
        "language_info": {"name": "python"},
    }
    nbformat.validate(notebook)
    nbformat.write(notebook, target)
    print(f"{target}: {len(notebook.cells)} cells, {target.stat().st_size // 1000} kB")


def _kept(output: Any) -> Any:
    """The output, or a line in place of one that is too large to be kept."""
    if all(len(str(content)) <= LARGEST for content in output.get("data", {}).values()):
        return output
    words = "An interactive figure: run this notebook to see it.\n"
    return nbformat.v4.new_output("stream", name="stdout", text=words)


if __name__ == "__main__":
    main()
