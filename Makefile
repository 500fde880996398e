# make demo: set up, train the low-data digits benchmark, write its table and page (two minutes after the install)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PICTURED := cutout_8px mixup cutmix fmix resizemix saliencymix puzzlemix comixup
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help setup demo demo-all test lint format tables bench-check clean distclean

help:
	@echo "make setup   create $(VENV) from requirements.lock"
	@echo "make demo    train, evaluate, tabulate: twelve runs on real digits, about two minutes on two CPU cores"
	@echo "make demo-all   the same with every method of the paper, FGSM too, and a sheet of mixed images: about ten minutes"
	@echo "make test    the whole test suite          make lint    ruff check and format check"
	@echo "make tables  tables and page from the committed records in results/records"
	@echo "make bench-check   short benchmarks against the committed ones in results/benchmarks: about five minutes"

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "RandoMix needs python >= 3.11: make PYTHON=/path/to/python3.11 setup" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/python train.py experiment=demo
	$(BIN)/python scripts/make_tables.py outputs/demo --out outputs/demo/report --title "RandoMix on 200 digits"

demo-all: $(STAMP)
	$(BIN)/python train.py experiment=demo_all
	$(BIN)/python scripts/make_tables.py outputs/demo_all --out outputs/demo_all/report --title "Every method on 200 digits"
	$(BIN)/python scripts/show_mixes.py --dataset digits --network outputs/demo_all --mixers $(PICTURED) --out outputs/demo_all/report/mixes.png

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

tables: $(STAMP)
	$(BIN)/python scripts/make_tables.py results/records --out results

bench-check: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python scripts/benchmark.py check

clean:  # trained runs, in outputs, stay
	rm -rf build *.egg-info .pytest_cache .ruff_cache

distclean: clean
	rm -rf $(VENV)
