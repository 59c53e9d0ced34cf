# What there is to do here: `make` prints it. Every target but `clean` sets up first: a virtual environment in .venv with
# the versions of constraints.txt, the tools, warm caches. That takes seconds when it is up to date.
#
#   PYTHON    the interpreter that makes the environment     make setup PYTHON=python3.12
#   WORKERS   processes that run the tests                   make test WORKERS=8
#   SEED      which mutants are drawn, COUNT how many        make mutants SEED=7 COUNT=100
#   ARGS      more words for pytest, or for the benchmarks   make test ARGS='-k lerp'    make bench ARGS=layer
PYTHON ?= python3
WORKERS ?= 2
SEED ?= 1
COUNT ?= 20
ARGS ?=
BIN = .venv/bin
# A file's tests run in one process, so that it builds once what they share; files with slow tests begin first.
# One thread a process: the tests are many processes, and the benchmarks give figures for one thread.
ONE_THREAD = OMP_NUM_THREADS=1
# Compiled modules are kept, whatever the surroundings say: hundreds of tests start a Python of their own.
PYTEST = $(ONE_THREAD) PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=10 $(ARGS)

.PHONY: help setup demo test test-all test-sim mutants damage bench results lint wheel clean

help:  ## print this list
	@echo 'make TARGET, one of:'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s%s\n", $$1, $$2 }' Makefile

setup:  ## make .venv with everything that the other targets use
	@PYTHON="$(PYTHON)" bash tools/setup.sh

demo: setup  ## the main job: LERP-PSA on handwritten digits, from training to a placed FPGA design and its report
	$(BIN)/bittrue flow lerp-psa-digits

test: setup  ## run the tests but for those marked long, and name the ten that took longest
	$(PYTEST) -m "not long"

test-all: setup  ## run all tests, and name the ten that took longest
	$(PYTEST)

test-sim: setup  ## run the tests of the golden models alone
	$(PYTEST) sim

mutants: setup  ## put COUNT small faults into the code, drawn by SEED, and see which of them the tests notice
	$(BIN)/python -m tools.mutants --seed $(SEED) --count $(COUNT) --workers $(WORKERS) $(ARGS)

damage: setup  ## read 10,000 damaged files of every format that is read; minutes
	$(ONE_THREAD) $(BIN)/python -m tests.helpers.corpus $(ARGS)

bench: setup  ## measure speed against honest baselines
	$(ONE_THREAD) $(BIN)/python -m bench $(ARGS)

results: setup  ## write README's tables of results from what is stored in bench/results
	$(BIN)/python -m bench results write

lint: setup  ## check style and form of the Python sources
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

wheel: setup  ## build the wheel and the source distribution in dist/
	$(BIN)/python -m hatchling build

clean:  ## remove .venv, caches and everything that was built
	rm -rf .venv build dist out .cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
