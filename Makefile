# make install   a virtual environment in .venv with the package and everything it needs
# make demo      install, then draw everything the bundled model can do into out/demo
# make test      install, then the whole test suite
# make lint      install, then ruff and the type checker

PYTHON ?= python3
ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
else
BIN := .venv/bin
endif
STAMP := .venv/.installed

.PHONY: install demo test lint format clean

install: $(STAMP)

# The CPU build of torch serves everyone here; a GPU user installs the wheel of their choice first.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all,dev]"
	$(BIN)/python -c "open('$(STAMP)', 'w')"

demo: install
	$(BIN)/next3d demo --out out/demo

# One process per core, each with one thread, is quicker than one process with many.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

lint: install
	$(BIN)/ruff check src tests
	$(BIN)/ruff format --check src tests
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix src tests
	$(BIN)/ruff format src tests

clean:
	rm -rf .venv out build dist
