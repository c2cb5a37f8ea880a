# One command each, on a machine with Python 3.11+ and make: `make demo`, `make test`, `make check`.
# The first run creates .venv and installs the versions pinned in constraints.txt; later runs install nothing, until
# pyproject.toml, constraints.txt or requirements/ change. PYTHON=/path/to/python picks the interpreter.

SHELL := /bin/sh
VENV := .venv
BENCH_VENV := .venv-bench
BIN := $(VENV)/bin

# The first interpreter that is new enough and can make a virtual environment.
FIND_PYTHON = for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	if $$p -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
		command -v $$p; break; fi; done
PYTHON ?= $(shell $(FIND_PYTHON))

# The outer guard against a hang: `timeout` where there is one (coreutils; gtimeout on macOS), else pytest's own alone.
# --foreground keeps Ctrl-C working.
TIMEOUT := $(shell for t in timeout gtimeout; do \
	if $$t --foreground -k 1 5 true >/dev/null 2>&1; then echo "$$t --foreground -k 15"; break; fi; done)
within = $(if $(TIMEOUT),$(TIMEOUT) $(1),)

PIP = $(call within,900) $(BIN)/python -m pip --disable-pip-version-check --no-input
INSTALL = $(PIP) install --quiet --constraint constraints.txt
BENCH_INSTALL = $(call within,900) $(BENCH_VENV)/bin/python -m pip --disable-pip-version-check --no-input install --quiet \
	--constraint constraints.txt

# pyright runs from its own wheel on node from a wheel; these keep it from asking an index or the machine for others.
PYRIGHT = env PYRIGHT_PYTHON_IGNORE_WARNINGS=1 PYRIGHT_PYTHON_GLOBAL_NODE=0 $(BIN)/pyright

ARGS ?=

.PHONY: help demo test check lint format-check types mypy pyright imports format coverage nightly bench bench-parts bench-check bench-peers bench-sdk bench-echo chaos fuzz interop kills kills-client clean
.DEFAULT_GOAL := help

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/.created:
	@if [ -z "$(PYTHON)" ]; then \
		echo "error: no Python 3.11 or newer with venv and ensurepip was found on PATH." >&2; \
		echo "Install one (Debian and Ubuntu: python3 and python3-venv), or name it: make PYTHON=/path/to/python3" >&2; \
		exit 1; fi
	@"$(PYTHON)" -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"error: {sys.executable} is Python {v[0]}.{v[1]}; 3.11 or newer is needed")'
	"$(PYTHON)" -m venv $(VENV)
	@touch $@

# What `make demo` needs: the package with its cli extra, and the tool that builds it.
$(VENV)/.package: $(VENV)/.created pyproject.toml constraints.txt requirements/build.txt
	$(INSTALL) -r requirements/build.txt
	$(INSTALL) --no-build-isolation --editable '.[cli]'
	$(PIP) check
	@touch $@

# What `make test` and `make check` need on top.
$(VENV)/.development: $(VENV)/.package requirements/dev.txt
	$(INSTALL) --no-build-isolation --editable '.[cli,fast]' -r requirements/dev.txt
	$(PIP) check
	@touch $@

demo: $(VENV)/.package ## the main job on an embedded node: messages, lost sockets, crashes, recovery
	$(call within,60) $(BIN)/layr8-actors demo $(ARGS)

test: $(VENV)/.development ## run the tests (ARGS="-k name" chooses)
	$(call within,600) $(BIN)/python -m pytest $(ARGS)

check: lint format-check types imports ## ruff, mypy strict, pyright, import-linter

lint: $(VENV)/.development
	$(BIN)/ruff check .

format-check: $(VENV)/.development
	$(BIN)/ruff format --check .

types: mypy pyright

mypy: $(VENV)/.development
	$(call within,300) $(BIN)/mypy

pyright: $(VENV)/.development
	$(call within,300) $(PYRIGHT)

imports: $(VENV)/.development
	$(call within,120) $(BIN)/lint-imports

format: $(VENV)/.development ## rewrite the sources as ruff formats them
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

coverage: $(VENV)/.development ## run the tests and report branch coverage; that of otp/ has to be whole
	$(call within,900) $(BIN)/coverage run -m pytest $(ARGS)
	$(BIN)/coverage report
	$(BIN)/coverage report --include='layr8_actors/otp/*' --fail-under=100 >/dev/null

nightly: $(VENV)/.development ## the state machines and property tests, with 2000 examples each
	LAYR8_HYPOTHESIS_PROFILE=nightly $(call within,3000) $(BIN)/python -m pytest -o timeout=1500 -o faulthandler_timeout=1600 \
		tests/channel/test_link_model.py tests/channel/test_channel_scripts.py tests/otp/test_supervisor_lives.py \
		tests/client/durable/test_queue_model.py tests/channel/test_topics_scripts.py $(ARGS)

kills: $(VENV)/.development ## SIGKILL a durable handler 200 times, and account for each message (ARGS="--redis --seed 7")
	$(call within,900) $(BIN)/python -m tests.client.durable.kills $(ARGS)

kills-client: $(VENV)/.development ## the same to a whole durable client
	$(call within,900) $(BIN)/python -m tests.client.durable_client_kills $(ARGS)

chaos: $(VENV)/.development ## everything that can fail, at once, for a minute (ARGS="--minutes 20 --seed 7")
	$(BIN)/python -m tests.chaos $(ARGS)

bench: bench-parts bench-sdk ## all benchmarks: the parts, then side by side with the official SDK, phoenix.js and raw floors

bench-parts: $(VENV)/.development ## run every benchmark of bench/; fails where one is over its limit, after all have run
	@failed=; for file in $(filter-out bench/node.py bench/check.py bench/echo.py,$(wildcard bench/*.py)); do \
		echo "== $$file"; $(call within,600) $(BIN)/python "$$file" || failed=1; done; [ -z "$$failed" ]

# atheris has wheels for Linux and CPython 3.11 to 3.13 only, so nothing but this target installs it.
$(VENV)/.fuzzing: $(VENV)/.development requirements/fuzz.txt
	$(INSTALL) -r requirements/fuzz.txt
	@touch $@

FUZZ_SECONDS ?= 60

fuzz: $(VENV)/.fuzzing ## fuzz what reads a peer's bytes (FUZZ_SECONDS=60 for each target; ARGS="router" chooses)
	@for target in $(or $(ARGS),decode encode topic router upgrade frames); do echo "== $$target"; \
		$(BIN)/python -m fuzz.run $$target -max_total_time=$(FUZZ_SECONDS) -timeout=20 -verbosity=0 \
			-print_final_stats=1 || exit 1; done

tests/interop/node_modules: tests/interop/package.json tests/interop/package-lock.json
	cd tests/interop && $(call within,300) npm ci --ignore-scripts --no-audit --no-fund --omit=optional
	@touch $@

interop: $(VENV)/.development tests/interop/node_modules ## phoenix.js against CloudNode (needs Node.js 20+ and npm)
	$(call within,300) $(BIN)/python -m pytest tests/interop

bench-check: $(VENV)/.development ## fail where a hot path has become 30 % dearer against raw floors (needs g++ for sockets)
	$(call within,150) $(BIN)/python bench/check.py $(ARGS)

bench-sdk: $(VENV)/.development ## compare with the official SDK, phoenix.js and raw floors (g++; ARGS="--turns 1 --quick")
	$(call within,3600) $(BIN)/python bench/peers/compare.py $(ARGS)

bench-echo: $(VENV)/.development ## echo between two agents, ours against the official SDK (g++; ARGS="--turns 1 --quick")
	$(call within,900) $(BIN)/python bench/echo.py $(ARGS)

# The peers of bench/otp_peers.py, in an environment of their own: triotp needs a newer Python than the package does.
BENCH_PYTHON ?= $(shell for p in python3.13 python3.14 python3; do \
	if $$p -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 13))' >/dev/null 2>&1; then \
		command -v $$p; break; fi; done)

$(BENCH_VENV)/.peers: bench/requirements.txt requirements/build.txt pyproject.toml constraints.txt
	@if [ -z "$(BENCH_PYTHON)" ]; then \
		echo "error: triotp needs Python 3.13 or newer: make bench-peers BENCH_PYTHON=/path/to/python3.13" >&2; exit 1; fi
	"$(BENCH_PYTHON)" -m venv $(BENCH_VENV)
	$(BENCH_INSTALL) -r requirements/build.txt
	$(BENCH_INSTALL) --no-build-isolation --editable . -r bench/requirements.txt
	@touch $@

bench-peers: $(BENCH_VENV)/.peers ## install triotp and pykka in .venv-bench and compare with them
	$(call within,600) $(BENCH_VENV)/bin/python bench/otp_peers.py $(ARGS)

clean: ## remove .venv and everything generated
	rm -rf $(VENV) $(BENCH_VENV) .venv-sdk bench/peers/.build build dist htmlcov .coverage .coverage.* .hypothesis .fuzz tests/interop/node_modules
	rm -rf .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find layr8_actors tests bench examples fuzz -type d -name __pycache__ -prune -exec rm -rf {} +
