# The virtual environment is made on first use, and again when pyproject.toml changes.
# ARGS goes to the command that a target runs:  make train ARGS="--workers 4 --epochs 3"
# PYTHON names the interpreter to build .venv from; without it, a suitable one is looked for.

VENV := .venv
ARGS ?=
PYTHON ?=

.PHONY: help train test test-slow browser-test bench chaos protos clean again compose-test

help:
	@echo 'make train    set up, and train the reference model on MNIST   (ARGS="--workers 4": see downpour train --help)'
	@echo 'make test     set up, and run lint, types and the tests that take seconds each'
	@echo 'make test-slow   set up, and run the other tests: conformance, kills, launchers, whole scripts'
	@echo 'make browser-test   install Chromium where it is missing, and drive the dashboard in it'
	@echo 'make bench    set up, and run the quick benchmarks: reports in bench-results/   (ARGS="speedup": one in full)'
	@echo 'make compose-test   build the images, and train, scale and break with docker compose'
	@echo 'make chaos    set up, and kill processes of running jobs a hundred times: nothing may be lost'
	@echo 'make protos   write the stubs again from protos/parameter_server.proto'
	@echo 'make clean    remove .venv, caches and build products; runs/ stays'

# set -m: of the terminal's Ctrl-C only the command hears, which drains and exits 0; make itself would end with 130.
train: $(VENV)/worker.stamp
	@set -m 2>/dev/null; $(VENV)/bin/downpour train $(ARGS)

test: $(VENV)/dev.stamp
	$(VENV)/bin/ruff check --quiet .
	$(VENV)/bin/mypy --no-error-summary
	$(VENV)/bin/pytest -n 2 -m "not slow and not browser" $(ARGS)

# What takes minutes: every conformance row and its mutant, kills and restarts, whole scripts and launchers.
test-slow: $(VENV)/dev.stamp
	$(VENV)/bin/pytest -n 2 -m slow $(ARGS)

# The dashboard in a real browser: Debian's packages of Chromium and its driver, which are installed where they are missing.
browser-test: $(VENV)/browser.stamp
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || \
		{ apt-get update -qq && apt-get install -y -qq chromium chromium-driver; } || \
		{ echo "browser-test: install the packages chromium and chromium-driver, then run this again" >&2; exit 1; }
	$(VENV)/bin/pytest -m browser tests/deploy/dashboard $(ARGS)

# The quick set, a report of each in bench-results/; or one of them in full:  make bench ARGS="speedup --out DIR"
QUICK := kernels transport codecs gradient speedup staleness baselines
bench: $(VENV)/dev.stamp
ifneq ($(ARGS),)
	@$(VENV)/bin/downpour bench $(ARGS)
else
	@set -e; for name in $(QUICK); do \
		echo "== downpour bench $$name --quick"; \
		$(VENV)/bin/downpour bench $$name --quick --out bench-results/$$name; \
	done
endif

# Needs no .venv: the standard library, and an engine, which it starts if there is none.
compose-test:
	@$(or $(PYTHON),python3) -m downpour.deploy.compose_test $(ARGS)

chaos: $(VENV)/dev.stamp
	@$(VENV)/bin/downpour bench chaos --kills 50 --seed 1 --shards 1 $(ARGS)
	@$(VENV)/bin/downpour bench chaos --kills 50 --seed 2 --shards 2 $(ARGS)

# From the root with -I., so that the stubs import each other as `from downpour.protos import ...`.
protos: $(VENV)/dev.stamp
	$(VENV)/bin/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. \
		downpour/protos/parameter_server.proto
	$(VENV)/bin/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. downpour/protos/events.proto

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './runs/*' -prune -exec rm -rf {} +

$(VENV)/%.stamp: pyproject.toml deploy/setup.sh
	@PYTHON="$(PYTHON)" sh deploy/setup.sh $*

# The scripts in a virtual environment name its folder, so a moved or copied tree needs its own.
ifneq ($(shell cat $(VENV)/home 2>/dev/null),$(CURDIR))
$(VENV)/worker.stamp $(VENV)/dev.stamp: again
endif
