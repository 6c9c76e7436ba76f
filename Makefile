# Two commands are all: `make demo` and `make test`. Each does its own set-up in .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
DEMO   ?= demo
# Test files run side by side in so many processes, each with one thread.
JOBS   ?= 2

.PHONY: help demo test test-all lint format browser screenshots notebooks wheel-smoke clean

help:
	@echo "make demo         find a planted shortcut and open-able report in $(DEMO)/report.html"
	@echo "make test         the tests (about eight minutes on two cores)"
	@echo "make test-all     the slow ones, too"
	@echo "make lint         ruff, mypy (strict), import-linter"
	@echo "make format       let ruff lay out the code"
	@echo "make screenshots  pictures of the report for README and docs"
	@echo "make notebooks    run the notebooks and keep their pictures"
	@echo "make wheel-smoke  build the wheel and try it in another folder"

demo: $(VENV)/.installed
	$(BIN)/spray demo --out $(DEMO)

test: $(VENV)/.installed-test browser
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test-all: $(VENV)/.installed-test browser
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "not gpu"

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

screenshots: $(VENV)/.installed-test browser demo
	$(BIN)/python tests/screenshots.py $(DEMO)/report.html docs/images

notebooks: $(VENV)/.installed-test browser
	$(BIN)/python tests/render_notebooks.py

# The wheel in an environment without the checkout on its path; torch and the rest come from .venv.
wheel-smoke: $(VENV)/.installed-test
	rm -rf build/wheel && mkdir -p build/wheel
	$(BIN)/pip wheel -q --no-deps --wheel-dir build/wheel .
	$(BIN)/python tests/wheel_smoke.py build/wheel/*.whl

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install -q -e .
	touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install -q -e '.[test,lint]'
	touch $@ $(VENV)/.installed

# The report is tested in a real browser. Debian and Ubuntu machines where we are root get it; others are told.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy chromium; \
	else \
		echo "The report's tests need Chromium: install it (Debian: sudo apt install chromium) and call make test again."; exit 1; \
	fi

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
