# `make` lists the commands. Every target sets up what it needs.
PYTHON ?= python3
RUN := .venv/bin/python
SOURCES := *.py api bench cache convert engine models scripts tests web

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev run test check fmt bench bench-peers screenshots models download-gguf convert demo-model clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

setup: ## install what running needs into .venv/ (once; quick afterwards)
	@$(PYTHON) scripts/setup.py

setup-dev:
	@$(PYTHON) scripts/setup.py --dev

run: setup ## start the server; options: make run ARGS="--port 9000"
	@exec $(RUN) server.py $(ARGS)

test: setup-dev ## run every test, in a real browser too; options: make test ARGS="-k stop"
	@$(RUN) -m pytest -n auto --dist worksteal $(ARGS)

check: setup-dev ## format, lint, types, import rules; changes nothing
	@$(RUN) -m ruff format --check $(SOURCES)
	@$(RUN) -m ruff check $(SOURCES)
	@$(RUN) -m mypy $(SOURCES)
	@$(RUN) -m pytest tests/test_house.py

fmt: setup-dev ## put the code into shape
	@$(RUN) -m ruff check --fix-only $(SOURCES)
	@$(RUN) -m ruff format $(SOURCES)

bench: setup ## what this machine gives, and how close that is to its limit; options: make bench MODEL=path-or-name ARGS=--quick
	@$(RUN) -m pip install -q --disable-pip-version-check -r convert/requirements.txt
	@$(RUN) -m bench $(MODEL) $(ARGS)

bench-peers: setup ## Linnet beside llama-server and others, which are built once; options: as bench, ARGS="--only llama-server"
	@$(RUN) -m pip install -q --disable-pip-version-check -r convert/requirements.txt
	@$(RUN) -m bench.peers $(MODEL) $(ARGS)

screenshots: setup-dev ## take the pictures of the page in docs/pictures/
	@$(RUN) -m scripts.screenshots

models: setup ## list the models: what is installed, what fits this machine and how fast it would be
	@$(RUN) -m models $(ARGS)

download-gguf: setup ## fetch a bigger model into models/; options: make download-gguf MODEL=name|repo:quant
	@$(RUN) -m models.download $(MODEL)

convert: setup ## make a GGUF of a checkpoint; options: make convert SRC=folder-or-repo QUANT=Q8_0
	@$(RUN) -m pip install -q -r convert/requirements.txt
	@$(RUN) -m convert $(SRC) $(if $(QUANT),--quant $(QUANT)) $(ARGS)

demo-model: setup ## train the built-in demo model again (an hour and a half on 2 cores)
	@$(PYTHON) -m venv build/demo/venv
	@build/demo/venv/bin/pip install -q -r models/demo/requirements.txt
	@build/demo/venv/bin/python -m models.demo.train
	@build/demo/venv/bin/python -m models.demo.export
	@$(RUN) -m models.demo.evaluate --write

clean: ## remove what was built (.venv, build); models stay
	rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
