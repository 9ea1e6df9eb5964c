# The course by make. Everything below is plain pip, jupyter, papermill and pytest; notebooks/book/running.md has it without make.

PROFILE = tiny
DATA = made
SEED = 0
FROM = 00
# The Pythons to take the first of that starts: a shim of a version manager may be there and not start.
PYENV := $(wildcard $(HOME)/.pyenv/versions/3.1[123]*/bin/python)
PYTHON = python3.13 python3.12 python3.11 python3 python $(PYENV)
started = $(shell for w in $(1); do for p in $(PYTHON); do \
  test "$$($$p -c 'import sys, venv; print("3.%d" % sys.version_info[1])' 2>/dev/null)" = $$w && echo $$p && exit; done; done)
# Which packages: reference (requirements.txt, Python 3.11 or 3.12), latest (requirements-latest.txt, 3.12 or 3.13) or
# gpu (requirements-gpu.txt). Unless told, what .venv was made with, and at first what fits the Python that is there.
STACK := $(or $(if $(findstring command,$(origin PYTHON)),,$(shell cat .venv/stack 2>/dev/null)),\
  $(if $(call started,3.12 3.11),reference,latest))
LATEST = $(if $(filter latest,$(STACK)),.venv,.venv-latest)

BIN := .venv/bin
export TF_CPP_MIN_LOG_LEVEL ?= 3
export PYTHONUNBUFFERED = 1

.PHONY: help setup tutorial book test-book study listen lab notebooks student browser lint test test-latest \
  test-oldest test-install test-browser bench clean

help:
	@echo "make setup      makes .venv: the reference stack on Python 3.11 or 3.12, the newest on 3.13; STACK=gpu has JAX with CUDA"
	@echo "make tutorial   executes notebooks 00 to 12, on a CPU two at a time; PROFILE=smoke|tiny|full DATA=made|FOLDER SEED=0 FROM=00 JOBS=1 TRAIN=1, and makes a page of each"
	@echo "make listen     opens notebook 00 in JupyterLab: Run All Cells, and the first separated sound is heard in a minute"
	@echo "make lab        opens JupyterLab; what was executed lies in artifacts/"
	@echo "make notebooks  generates notebooks/*.ipynb from notebooks/src/*.py"
	@echo "make student    notebooks without the solutions of their exercises, into artifacts/student/"
	@echo "make browser    builds the page that separates sounds in a browser, into artifacts/browser/html; fetches a package of npm"
	@echo "make lint       ruff, and whether the notebooks are up to date"
	@echo "make test       lint, unit tests, notebooks at the smoke profile, regressions at the tiny profile"
	@echo "make test-latest  unit tests on the newest Keras with TensorFlow, JAX and torch, in .venv-latest"
	@echo "make test-oldest  unit tests on the oldest packages that pyproject.toml allows, in .venv-oldest"
	@echo "make test-install  the wheel and the Colab cell, in environments of their own"
	@echo "make test-browser  the page in Debian's chromium, beside Keras, and notebook 00 in JupyterLab; installs playwright into .venv"
	@echo "make study      trains and evaluates what is missing of the study, hours on a CPU; DATA=made|FOLDER"
	@echo "make book       the course as a site in artifacts/book/html, from the notebooks that make tutorial executed"
	@echo "make test-book  builds it and opens each page in chromium, where there is one"
	@echo "make bench      speed and memory beside asteroid, into benchmarks/RESULTS.md"
	@echo "make clean      removes artifacts/"

setup: .venv/installed-$(STACK)

.venv/installed-reference: requirements.txt
.venv/installed-gpu: requirements-gpu.txt
.venv/installed-latest .venv-latest/installed-latest: requirements-latest.txt
.venv-oldest/installed-oldest: requirements-oldest.txt
.venv/installed-reference: PYTHONS = 3.12 3.11
.venv-oldest/installed-oldest: PYTHONS = 3.11
.venv/installed-gpu .venv/installed-latest .venv-latest/installed-latest: PYTHONS = 3.13 3.12

# An environment of another stack makes room. In that of the GPU every Python takes Keras' JAX backend, unless told.
.venv/installed-reference .venv/installed-gpu .venv/installed-latest .venv-latest/installed-latest .venv-oldest/installed-oldest: pyproject.toml
	@test ! -e $(@D)/stack || test "$(@F)" = "installed-$$(cat $(@D)/stack)" || rm -rf $(@D)
	@python="$(call started,$(PYTHONS))"; test -n "$$python" || { \
	  echo "make: expected Python $(subst $() , or ,$(PYTHONS)) for $(subst installed-,,$(@F)); PYTHON=path/to/python names one." >&2; exit 1; }; \
	  echo "Making $(@D) with $$($$python --version)"; $$python -m venv $(@D)
	@case $(@F) in installed-latest) echo "Without tensorflow-io, whose native operations do not load beside this TensorFlow: soundfile reads instead.";; esac
	$(@D)/bin/python -m pip install --disable-pip-version-check -r $(filter %.txt,$^)
	@case $(@F) in installed-gpu) echo "import os; os.environ.setdefault('KERAS_BACKEND', 'jax')" \
	  > $$($(@D)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/keras_backend.pth;; esac
	@echo $(@F) | sed s/installed-// > $(@D)/stack
	@touch $@

# With TRAIN=1 nothing is taken of what the library ships.
tutorial lab listen: export SEPCL_TRAIN = $(TRAIN)
tutorial: setup
	@$(BIN)/python notebooks/run.py --profile "$(PROFILE)" --data "$(DATA)" --seed "$(SEED)" --from "$(FROM)" \
	  $(if $(JOBS),--jobs "$(JOBS)")

study: setup
	$(BIN)/python -m sepcl_keras.course.study --data "$(DATA)"

# `listen` opens the first notebook, `lab` the list of them.
listen: NOTEBOOK = notebooks/00_listen_first.ipynb
listen lab: setup
	data="$(DATA)"; case "$$data" in made|/*) ;; "~"/*) data="$$HOME/$${data#*/}";; *) data="$$PWD/$$data";; esac; \
	  SEPCL_PROFILE="$(PROFILE)" SEPCL_DATA="$$data" SEPCL_SEED="$(SEED)" $(BIN)/jupyter lab --notebook-dir=. $(NOTEBOOK)

notebooks: setup
	$(BIN)/python notebooks/build.py

student: setup
	$(BIN)/python notebooks/build.py --student artifacts/student

browser: setup
	$(BIN)/python notebooks/browser/build.py

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python notebooks/build.py --check

# Two tests at a time, each with the threads of one core: torch's would wait for each other.
UNITS = OMP_NUM_THREADS=1 $(1)/bin/python -m pytest tests --ignore=tests/notebooks/test_tutorial.py --ignore=tests/install --ignore=tests/browser/test_page.py --ignore=tests/browser/test_lab.py -n 2 --dist worksteal

# What fails fast comes first. nbmake passes nothing but the environment to a notebook.
test: lint
	$(call UNITS,.venv)
	rm -rf artifacts/test
	SEPCL_PROFILE=smoke SEPCL_OUT="$(CURDIR)/artifacts/test" $(BIN)/python -m pytest -n 2 --dist worksteal \
	  --nbmake --nbmake-timeout=300 -W default notebooks
	$(BIN)/python -m pytest -s tests/notebooks/test_tutorial.py

# Tests marked `once` are left to `make test`, and so are whole folders that no package or backend touches. On JAX tests
# compile thousands of small programs and run each a few times: XLA need not optimise, and what one process or model
# compiled the next one takes from the environment's folder.
OTHERS = $(call UNITS,$(1)) -m "not once" --ignore=tests/notebooks --ignore=tests/browser
NO_BACKEND = data scenes views/test_hosts.py core/test_backend.py

test-latest: export JAX_COMPILATION_CACHE_DIR = $(CURDIR)/$(LATEST)/compiled
test-latest: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS = 0
test-latest: $(LATEST)/installed-latest
	KERAS_BACKEND=tensorflow $(call OTHERS,$(LATEST))
	KERAS_BACKEND=jax XLA_FLAGS=--xla_backend_optimization_level=0 $(call OTHERS,$(LATEST)) $(NO_BACKEND:%=--ignore=tests/%)
	KERAS_BACKEND=torch $(call OTHERS,$(LATEST)) $(NO_BACKEND:%=--ignore=tests/%)

# The lower bounds of pyproject.toml.
test-oldest: .venv-oldest/installed-oldest
	$(call OTHERS,.venv-oldest) --ignore=tests/data

# The wheel in an environment of its own, and the first cells of the notebooks in one like Colab's. It installs packages.
test-install: setup
	COLAB_PYTHON="$(call started,3.13)" $(BIN)/python -m pytest tests/install

# The site, by an environment of its own. It executes nothing: EXECUTED is where the tutorial left its notebooks.
EXECUTED = artifacts/$(PROFILE)/$(DATA)/seed$(SEED)/notebooks
BOOK = .venv-book/bin/python

.venv-book/installed: notebooks/book/requirements.txt
	@python="$(call started,3.13 3.12 3.11)"; set -- $$python; test -n "$$1" || { \
	  echo "make: expected Python 3.11, 3.12 or 3.13 for .venv-book; PYTHON=path/to/python names one." >&2; exit 1; }; \
	  $$1 -m venv .venv-book
	$(BOOK) -m pip install --disable-pip-version-check -q -r $<
	@touch $@

book: .venv-book/installed
	$(BOOK) notebooks/book/build.py "$(EXECUTED)"

# Without the conftest.py above, which imports Keras.
test-book: book
	mkdir -p artifacts/book/screenshots
	SEPCL_SHOTS="$(CURDIR)/artifacts/book/screenshots" $(BOOK) -m pytest -n 2 --dist worksteal --confcutdir=tests/book tests/book

test-browser: browser
	mkdir -p artifacts/browser/screenshots
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps -r tests/browser/requirements.txt
	SEPCL_SHOTS="$(CURDIR)/artifacts/browser/screenshots" $(BIN)/python -m pytest tests/browser

bench: $(LATEST)/installed-latest
	$(LATEST)/bin/python -m pip install --disable-pip-version-check --no-deps -r benchmarks/requirements.txt
	$(LATEST)/bin/python benchmarks/run.py

clean:
	rm -rf artifacts
