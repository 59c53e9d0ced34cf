# Every target sets up first: a virtual environment in .venv, tools, warm caches. Seconds when up to date.
# PYTHON chooses the interpreter that makes the environment, WORKERS the test processes.
PYTHON ?= python3
WORKERS ?= 2
PYTEST = OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n $(WORKERS) --dist loadscope

.PHONY: setup demo test test-sim bench lint clean

setup:
	@PYTHON="$(PYTHON)" bash flow/setup.sh

demo: setup
	.venv/bin/bittrue flow lerp-psa-digits

test: setup
	$(PYTEST)

test-sim: setup
	$(PYTEST) sim

bench: setup
	OMP_NUM_THREADS=1 .venv/bin/python -m bench

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

clean:
	rm -rf .venv build out .cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
