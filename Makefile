# Two commands do everything on a fresh machine: make demo, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
USED := $(VENV)/.usable
STAMP := $(VENV)/.installed
PARTS := $(VENV)/.parts
# torch for machines without a GPU: the usual build brings gigabytes of CUDA along.
CPU_INDEX ?= https://download.pytorch.org/whl/cpu
DOCS := $(VENV)/.docs
RELEASE := $(VENV)/.release
XRAYS ?= data/covid_xray
OUTPUT ?= results
# Threads that wait, as the command line has them wait.
WAITING := OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=1000
# One process a core; threads that wait must not take the cores from those that work. What is compiled is kept, whatever
# the shell says: each worker, and each process that a test starts, would compile all of petlbench again.
PYTEST := OMP_WAIT_POLICY=PASSIVE OPENBLAS_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses auto --dist worksteal
DEMO := --study demo --output $(OUTPUT)
# pip shows what setuptools says of every editable install; all else that goes wrong is still said.
PIP := $(BIN)/python -W 'ignore:Editable installation' -m pip install --quiet

.PHONY: help install install-parts demo test test-parts test-all mutants check format figures pictures bench bench-scale bench-steps gpu-check pretrain docs gallery build release-check clean

help: ## Show this list.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

# Without a GPU, torch's CPU build where its index answers within seconds; else what pip gives.
$(USED): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	@command -v nvidia-smi >/dev/null || [ "$$(uname)" != Linux ] \
		|| ! $(BIN)/python -c "from urllib.request import urlopen as open; open('$(CPU_INDEX)/torch/', timeout=5)" 2>/dev/null \
		|| $(PIP) 'torch>=2.6' 'torchvision>=0.21' --index-url $(CPU_INDEX) \
		|| echo "torch's CPU build cannot be had; the usual one is installed" >&2
	$(PIP) --editable .
	touch $(USED)

$(STAMP): $(USED)
	$(PIP) --editable '.[dev]'
	touch $(STAMP)

install: $(STAMP) ## Make .venv and install petlbench with what its developers need.

install-parts: $(PARTS) ## Install what only some tests take, too: Ray, PostgreSQL's driver, MedMNIST's evaluator and corruptions, a mutation tool.

$(PARTS): $(STAMP)
	$(PIP) --editable '.[dev,corruptions,medmnist,mutants,postgres,ray]'
	touch $(PARTS)

demo: $(USED) ## Compare five methods on digits and drawn X-rays, in two minutes: a table, and the page results/demo.html.
	$(BIN)/petlbench bench --report demo --workers 2 --tracking-uri none $(DEMO)
	$(BIN)/petlbench report demo --results $(OUTPUT) --study demo --format html --output $(OUTPUT)/demo.html >/dev/null
	$(BIN)/petlbench report demo --results $(OUTPUT) --study demo
	@echo "the page: $(OUTPUT)/demo.html"

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

pictures: demo $(STAMP) ## Draw the pictures of the README anew, of the demo's results.
	$(BIN)/python tools/readme_pictures.py --results $(OUTPUT)

bench: $(STAMP) ## Measure petlbench's own parts, as ratios within one run.
	$(WAITING) $(BIN)/python -m tests.bench.bench

bench-scale: $(STAMP) ## Measure what petlbench costs against images, sizes, methods, seeds, workers and stored runs (ARGS=--quick).
	$(WAITING) $(BIN)/python -m tests.bench.scale --output $(OUTPUT)/scale $(ARGS)

bench-steps: $(STAMP) ## A training step of every compared method over the same by hand (ARGS='--size 96 --clock cpu').
	$(BIN)/python -m tests.bench.steps $(ARGS)

gpu-check: $(STAMP) ## On a machine with CUDA: golden data, times of steps, peak memory (ARGS='--methods lora,fpt').
	$(BIN)/python -m tests.bench.gpu_check $(ARGS)

pretrain: $(STAMP) ## Make the weights of petlbench_micro anew, in up to three hours; stopped, it goes on.
	$(WAITING) $(BIN)/python -m tools.pretraining --folder $(OUTPUT)/pretraining \
		--output $(OUTPUT)/petlbench_micro.safetensors $(ARGS)

$(DOCS): $(STAMP)
	$(PIP) --editable '.[dev,docs]'
	touch $(DOCS)

docs: $(DOCS) ## Build the site in build/site, with every link checked; it needs no server and no network.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --config-file tools/site/mkdocs.yml

gallery: $(STAMP) ## Make docs/gallery of a study on X-rays in hours (XRAYS=FOLDER, ARGS='--workers 2').
	$(WAITING) $(BIN)/python -m tools.gallery --data $(XRAYS) $(ARGS)

build: $(STAMP) ## Build the source distribution and the wheel.
	$(BIN)/python -m build

$(RELEASE): $(STAMP)
	$(PIP) --editable '.[dev,release]'
	touch $(RELEASE)

release-check: $(RELEASE) ## Build wheel and source distribution anew, and check metadata, README, versions and what is in them.
	rm -rf dist && $(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python -m tools.release_check dist

clean: ## Remove what was built, not the results.
	rm -rf $(VENV) build dist *.egg-info
