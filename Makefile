# Every target makes the environment it needs from nothing, in .venv.
PYTHON ?= python3.11
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
export PATH := $(BIN):$(PATH)

.PHONY: demo nightly test test-all ui serve lint bench ablations learn clean env

demo: env ## the whole street on the two demo hospitals
	$(BIN)/dagster job execute -m orchestration.definitions -j nightly_retraining

ui: env ## the Dagster UI with the schedule, on http://127.0.0.1:3000
	$(BIN)/dagster dev -w workspace.yaml -h 127.0.0.1 -p $(or $(PORT),3000)

serve: env ## an OpenAI-compatible server over the champion, on http://127.0.0.1:8000/v1 (docs/chat.md)
	$(BIN)/python -m ray_jobs.serve --port $(or $(PORT),8000)

test: env ## everything that a change must pass, under 15 minutes on two cores
	$(BIN)/python -m pytest -m "not night" -n 2 --dist loadfile --no-loadscope-reorder

test-all: env ## the tests and the full nights
	$(BIN)/python -m pytest

lint: env
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/sqlfluff lint dbt_project/models dbt_project/tests
	DAGSTER_HOME=$(CURDIR) WARDLINE_STATE=$(CURDIR)/.dagster $(BIN)/dg check yaml

bench: env ## every benchmark, after `make demo`; each prints its figures as one JSON object on its last line
	@for name in $$(ls tests/benchmarks/*.py | xargs -n1 basename | sed 's/\.py$$//' | grep -v __init__); do \
	  echo "== $$name"; $(BIN)/python -m tests.benchmarks.$$name || exit 1; done

ablations: env ## what each part of the model is worth, after `make demo`: about 11 minutes; writes docs/ablations.md
	$(BIN)/python -m ray_jobs.ablations --write docs/ablations.md

learn: env ## what a larger model learns of the demo, after `make demo`: recipe `small`, three seeds; writes docs/learning.md
	$(BIN)/python -m ray_jobs.learn --seeds $(or $(SEEDS),1 2 3) --write docs/learning.md

clean: ## the environment and every cache; `make clean DATA=1` also removes .wardline, with its champion
	rm -rf $(VENV) .dagster .env .pytest_cache .ruff_cache .hypothesis
	$(if $(DATA),rm -rf .wardline)

env: $(VENV)/.ready .env

# torch first and alone with plain pip; on a machine with a GPU, install the CUDA build of the same version instead.
# constraints.txt names every package of the environment, so nothing is left to resolve.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q torch==2.13.0
	$(BIN)/pip install -q --no-deps -r constraints.txt
	$(BIN)/pip install -q --no-deps -e .
	$(BIN)/pip check
	touch $@

.env:
	mkdir -p .dagster
	printf 'DAGSTER_HOME=%s\nWARDLINE_STATE=%s\nDAGSTER_DISABLE_TELEMETRY=1\n' '$(CURDIR)' '$(CURDIR)/.dagster' > .env
