# Two commands do everything on a fresh machine: make demo, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PARTS := $(VENV)/.parts
OUTPUT ?= results
# Threads that wait, as the command line has them wait.
WAITING := OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=1000
# One process a core; threads that wait must not take the cores from those that work. What is compiled is kept, whatever
# the shell says: each worker, and each process that a test starts, would compile all of petlbench again.
PYTEST := OMP_WAIT_POLICY=PASSIVE OPENBLAS_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses auto --dist worksteal
DEMO := --dataset digits --backbone petlbench_micro --image-size 64 --epochs 3 --output $(OUTPUT)

.PHONY: help install install-parts demo test test-parts test-all mutants check format figures bench gpu-check pretrain build clean

help: ## Show this list.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $(STAMP)

install: $(STAMP) ## Make .venv and install petlbench with what its developers need.

install-parts: $(PARTS) ## Install what only some tests take, too: Ray, PostgreSQL's driver, MedMNIST's evaluator and corruptions, a mutation tool.

$(PARTS): $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[dev,corruptions,medmnist,mutants,postgres,ray]'
	touch $(PARTS)

demo: $(STAMP) ## Run full fine-tuning, then FPT, on the embedded digits with the backbone that travels with petlbench.
	$(BIN)/petlbench run --method full $(DEMO)
	$(BIN)/petlbench run --method fpt $(DEMO)

test: $(STAMP) ## Run the tests, but for those marked slow.
	$(PYTEST) -m 'not slow and not gpu and not network' $(ARGS)

test-parts: $(PARTS) ## Run the short form of the tests with Ray, PostgreSQL, Chromium, LaTeX and MLflow's server.
	$(BIN)/python -m pytest -m short $(ARGS)

test-all: $(PARTS) ## Run every test that this machine can run, in hours: the nightly list.
	$(PYTEST) -m 'not network' $(ARGS)

mutants: $(PARTS) ## Change the engine's code and name the changes that no test notices (ARGS='--sample 20 --only splits').
	$(BIN)/python tools/mutants.py $(ARGS)

check: $(STAMP) ## Lint, format, types and the direction of imports.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## Put the code in form.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

figures: $(STAMP) ## Draw docs/architecture.svg anew: rooms, imports, the way of a run.
	$(BIN)/python tools/architecture_figure.py

bench: $(STAMP) ## Measure petlbench's own parts, as ratios within one run.
	$(WAITING) $(BIN)/python -m tests.bench.bench

gpu-check: $(STAMP) ## On a machine with CUDA: measured peak memory against predicted (ARGS='--methods lora,fpt').
	$(BIN)/python tests/bench/gpu_check.py $(ARGS)

pretrain: $(STAMP) ## Make the weights of petlbench_micro anew, in up to three hours; stopped, it goes on.
	$(WAITING) $(BIN)/python -m tools.pretraining --folder $(OUTPUT)/pretraining \
		--output $(OUTPUT)/petlbench_micro.safetensors $(ARGS)

build: $(STAMP) ## Build the source distribution and the wheel.
	$(BIN)/python -m build

clean: ## Remove what was built, not the results.
	rm -rf $(VENV) build dist *.egg-info
