# `make demo`, `make test`, `make bench`. Nothing but Python >= 3.11 and make is needed.
PYTHON ?= python3
VENV ?= .venv
BENCH ?= .venv-bench
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-lab bench install check docs format clean

demo: install
	$(BIN)/pullback compare --config examples/demo.toml --out demo
	@echo
	@echo "The table is demo/table.md, the plot is demo/compare.png."

# Two processes for two cores: BLAS's own threads would only wait for each other.
test: $(VENV)/.tests
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

# Only what looks at the lab in Debian's chromium.
test-lab: $(VENV)/.tests
	$(BIN)/python -m pytest tests/lab -m browser

# More options: make bench OPTIONS="--quick --data-dir DIR"
bench: $(BENCH)/.peers
	$(BENCH)/bin/python -m benchmarks.peers $(OPTIONS)

install: $(VENV)/.package

check: $(VENV)/.tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(MAKE) docs

# The documents and the reference as a site that needs no network, from site/index.html on.
docs: $(VENV)/.tests
	rm -rf docs/api
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env -c docs . site

format: $(VENV)/.tests
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(BENCH) demo docs/api site

$(VENV)/.package: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pullback needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	@touch $@

$(VENV)/.tests: $(VENV)/.package
	$(PIP) --editable '.[test,docs]'
	@touch $@

$(BENCH)/.peers: benchmarks/peers/requirements.txt pyproject.toml constraints.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	$(BENCH)/bin/python -m benchmarks.peers.install
	@touch $@
