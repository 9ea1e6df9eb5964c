# The course by make. Everything below is plain pip, jupyter, papermill and pytest; the README spells it out without make.

PROFILE = tiny
DATA = made
SEED = 0
FROM = 00
# Which packages: reference (requirements.txt) or gpu (requirements-gpu.txt); what .venv was made with, unless told.
STACK = $(or $(shell cat .venv/stack 2>/dev/null),reference)

BIN := .venv/bin
export TF_CPP_MIN_LOG_LEVEL ?= 3
export PYTHONUNBUFFERED = 1

.PHONY: help setup tutorial study lab notebooks lint test test-latest bench clean

help:
	@echo "make setup      makes .venv and installs requirements.txt; STACK=gpu takes requirements-gpu.txt: JAX with CUDA"
	@echo "make tutorial   executes notebooks 00 to 11, on a CPU two at a time; PROFILE=smoke|tiny|full DATA=made|FOLDER SEED=0 FROM=00 JOBS=1"
	@echo "make lab        opens the notebooks in JupyterLab"
	@echo "make notebooks  generates notebooks/*.ipynb from notebooks/src/*.py"
	@echo "make lint       ruff, and whether the notebooks are up to date"
	@echo "make test       lint, unit tests, notebooks at the smoke profile, regressions at the tiny profile"
	@echo "make test-latest  unit tests on the newest Keras with TensorFlow, JAX and torch, in .venv-latest"
	@echo "make study      trains and evaluates what data/results/ lacks of the study, hours on a CPU; DATA=made|FOLDER"
	@echo "make bench      speed and memory beside asteroid, into benchmarks/RESULTS.md"
	@echo "make clean      removes artifacts/"

setup: .venv/installed-$(STACK)

.venv/installed-reference: requirements.txt
.venv/installed-gpu: requirements-gpu.txt
.venv-latest/installed: requirements-latest.txt

# The first Python of these that starts and is 3.11 or 3.12 (a shim of a version manager may be there and not start).
# An environment of another stack makes room. In that of the GPU every Python takes Keras' JAX backend, unless told.
.venv/installed-reference .venv/installed-gpu .venv-latest/installed: pyproject.toml
	@test ! -e $(@D)/stack || test "$(@F)" = "installed-$$(cat $(@D)/stack)" || rm -rf $(@D)
	@set -e; for python in python3.12 python3.11 python3 python; do \
	  if $$python -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then \
	    echo "Making $(@D) with $$($$python --version)"; $$python -m venv $(@D); break; fi; done; \
	  test -x $(@D)/bin/python || { echo "make: expected Python 3.11 or 3.12 on the PATH." >&2; exit 1; }
	$(@D)/bin/python -m pip install --disable-pip-version-check -r $(filter %.txt,$^)
	@case $(@F) in installed-gpu) echo "import os; os.environ.setdefault('KERAS_BACKEND', 'jax')" \
	  > $$($(@D)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/keras_backend.pth;; esac
	@case $(@F) in installed-*) echo $(@F) | sed s/installed-// > $(@D)/stack;; esac
	@touch $@

tutorial: setup
	@$(BIN)/python notebooks/run.py --profile "$(PROFILE)" --data "$(DATA)" --seed "$(SEED)" --from "$(FROM)" \
	  $(if $(JOBS),--jobs "$(JOBS)")

study: setup
	$(BIN)/python -m sepcl_keras.course.study --data "$(DATA)"

lab: setup
	SEPCL_PROFILE="$(PROFILE)" SEPCL_DATA="$(if $(filter made,$(DATA)),made,$(abspath $(DATA)))" SEPCL_SEED="$(SEED)" $(BIN)/jupyter lab --notebook-dir=notebooks

notebooks: setup
	$(BIN)/python notebooks/build.py

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python notebooks/build.py --check

# Two tests at a time, each with the threads of one core: torch's would wait for each other.
UNITS = OMP_NUM_THREADS=1 $(1)/bin/python -m pytest tests --ignore=tests/notebooks/test_tutorial.py -n 2 --dist worksteal

# What fails fast comes first. nbmake passes nothing but the environment to a notebook.
test: lint
	$(call UNITS,.venv)
	rm -rf artifacts/test
	SEPCL_PROFILE=smoke SEPCL_OUT=$(CURDIR)/artifacts/test $(BIN)/python -m pytest -n 2 --dist worksteal \
	  --nbmake --nbmake-timeout=300 -W default notebooks
	$(BIN)/python -m pytest -s tests/notebooks/test_tutorial.py

# What no backend touches is tested once. On JAX the tests compile thousands of small programs and run each a few times:
# XLA need not optimise, and what one process or model compiled the next one takes from .venv-latest/compiled.
LATEST = $(call UNITS,.venv-latest)
ONCE = scenes notebooks core/test_backend.py core/test_files.py course/test_artifacts.py course/test_profiles.py

test-latest: export JAX_COMPILATION_CACHE_DIR = $(CURDIR)/.venv-latest/compiled
test-latest: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS = 0
test-latest: .venv-latest/installed
	KERAS_BACKEND=tensorflow $(LATEST)
	KERAS_BACKEND=jax XLA_FLAGS=--xla_backend_optimization_level=0 $(LATEST) $(ONCE:%=--ignore=tests/%)
	KERAS_BACKEND=torch $(LATEST) $(ONCE:%=--ignore=tests/%)

bench: .venv-latest/installed
	.venv-latest/bin/python -m pip install --disable-pip-version-check --no-deps -r benchmarks/requirements.txt
	.venv-latest/bin/python benchmarks/run.py

clean:
	rm -rf artifacts
