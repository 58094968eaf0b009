# The commands of the house. `make demo` and `make test` need only python3 (3.11 or newer), pip and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Two workers; one file stays in one worker, so that torch and trl are imported once (training tests: tests/trainers).
WORKERS ?= 2
ARGS ?=

export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
export HF_HUB_OFFLINE ?= 1
export HF_DATASETS_OFFLINE ?= 1
# A machine may switch byte code off; every process would then compile the house again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test coverage check format bench page links clean install

help:
	@echo "make demo    the whole story offline: an agent learns in words, then in weights"
	@echo "make test    every test (ARGS='-k name' narrows)"
	@echo "make coverage   the same with coverage, which takes half as long again"
	@echo "make check   ruff format --check, ruff check, mypy"
	@echo "make format  ruff format and ruff check --fix"
	@echo "make bench   every measurement in bench/ (figures land in bench/results)"
	@echo "make page    the page of the web app from its sources (needs Node.js; the built one is in the checkout)"
	@echo "make links   an optional, git-ignored link folder, so that editors resolve tests too"
	@echo "make clean   caches, builds, links and the virtual environment"

demo: $(VENV)/.installed
	$(BIN)/verbal demo $(ARGS)

test: $(VENV)/.installed
	$(BIN)/python -m pytest -rs -n $(WORKERS) --dist loadfile $(ARGS)

coverage: $(VENV)/.installed
	rm -f .coverage .coverage.*
	$(BIN)/python -m pytest -rs -n $(WORKERS) --dist loadfile --cov --cov-report=term --cov-report=json $(ARGS)

check: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed
	set -e; for script in bench/*.py; do echo "== $$script"; $(BIN)/python $$script $(ARGS); done

page:
	cd apps/web/source && npm ci --no-audit --no-fund && npm run build

links:
	for room in memory critics trainers apps prompts; do ln -sfn ../$$room verbal/$$room; done

clean:
	for room in memory critics trainers apps prompts; do if [ -L verbal/$$room ]; then rm verbal/$$room; fi; done
	rm -rf apps/web/source/node_modules $(VENV) build dist *.egg-info .coverage .coverage.* coverage.json .mypy_cache .ruff_cache .hypothesis
	find verbal memory critics trainers apps prompts tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

install: $(VENV)/.installed

# Two stamps: the environment itself, and what is installed in it (again when pyproject.toml or the constraints change).
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "verbal needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || \
		{ echo "$(PYTHON) cannot make virtual environments; install its venv package (python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# One command for everything: packages installed in stages pull each other out of the range the others need.
$(VENV)/.installed: pyproject.toml constraints.txt $(VENV)/.made
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,dev]'
	@touch $@
