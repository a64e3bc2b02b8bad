# Everything runs in .venv, made from the constraints file; nothing else is needed but Python 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install demo test lint types layers unit coverage slow docs bench clean

help:            ## Show this help
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

# pip compiles modules one by one; on all cores, and without what is seldom imported, it takes a fifth of the time.
SELDOM := /tests?/|/(_inductor|babel|docutils|fontTools|mypy|networkx|onnx|pip|playwright|plotly|pygments|setuptools|sphinx|statsmodels|sympy)/
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("ldae needs Python 3.11 to 3.13, got " + sys.version.split()[0] + "; say make PYTHON=python3.11") if not (3, 11) <= sys.version_info[:2] <= (3, 13) else 0'
	@echo "Installing ldae with its test tools in $(VENV): 2 GB, some minutes"
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile -e ".[test]" -c constraints.txt
	$(BIN)/python -m compileall -qq -j 0 -x '$(SELDOM)' $(VENV)/lib || true
	touch $(STAMP)

# Browsers, packaging and documentation, which `make test` does not need.
$(STAMP)-dev: $(STAMP)
	$(BIN)/python -m pip install --quiet -e ".[dev]" -c constraints.txt
	touch $@

install: $(STAMP)  ## Make the environment

demo: $(STAMP)   ## The whole method on a phantom cohort, in minutes; prints where the report is
	$(BIN)/ldae demo --out runs/demo

lint: $(STAMP)   ## Style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## Strict types
	MYPY_NUM_WORKERS=2 $(BIN)/mypy

layers: $(STAMP) ## Imports point down
	$(BIN)/lint-imports

# One thread a worker: two workers with two threads each on two cores wait for one another.
unit: $(STAMP)   ## Tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Tracing lines doubles the time of the probes' tests, so it is not part of every run.
coverage: $(STAMP) ## The same tests; fails below 95 % of lines
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term

test: lint types layers unit  ## Lint, types, layers, and the tests that are not slow by nature

slow: $(STAMP)-dev  ## Killed processes, browsers, wheels, whole demos; properties with more examples
	OMP_NUM_THREADS=1 HYPOTHESIS_PROFILE=thorough $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "slow or hypothesis"

docs: $(STAMP)-dev  ## The documentation, warnings as errors
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

bench: $(STAMP)  ## Ratios measured side by side in one run; the first run trains what it measures
	$(BIN)/python benchmarks/precision.py --out benchmarks/results/precision.json
	$(BIN)/python benchmarks/throughput.py

clean:           ## Remove the environment and built files
	rm -rf $(VENV) build dist docs/_build docs/reference .coverage* *.egg-info
