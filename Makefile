# The virtual environment is created on first use and updated when pyproject.toml changes.
# ARGS is passed to the command of a target:  make train ARGS="--workers 4 --epochs 3"
# PYTHON is the interpreter for .venv; by default, a suitable one is searched for.

VENV := .venv
ARGS ?=
PYTHON ?=

.PHONY: help train test test-slow test-cases test-fidelity test-commands browser-test lessons slurm-test ray-test kube-test peers-test trackers-test tools-test docs compat dist bench chaos simulate protos clean again compose-test

help:
	@echo 'make train         train the reference model on MNIST      (ARGS="--workers 4"; see downpour train --help)'
	@echo 'make test          run the linter, the type checker and the fast tests'
	@echo 'make test-slow     run the slow tests: conformance, killed processes, launchers, whole scripts'
	@echo 'make test-cases    run each case of a script in every kind of cluster'
	@echo 'make test-fidelity compare every row of docs/fidelity.md with plain Keras'
	@echo 'make test-commands run every command that README, docs and --help show, in a fresh clone'
	@echo 'make browser-test  test the pages in Chromium, which is installed if it is missing'
	@echo 'make ray-test      run jobs on a Ray cluster of three nodes, in an environment of its own'
	@echo 'make kube-test     run the manifests of Kubernetes in pods of podman, which is installed if it is missing'
	@echo 'make peers-test    train with the parameter servers of Ray and PyTorch, in an environment of its own'
	@echo 'make trackers-test log to TensorBoard, Weights & Biases and MLflow, in an environment of its own'
	@echo 'make tools-test    run examples of KerasTuner, MLflow, Optuna, scikit-learn, in an environment of its own'
	@echo 'make docs          build the documentation as a site in site/, which needs no network'
	@echo 'make compat        run the tests of compatibility with each version of TensorFlow, Keras and Python'
	@echo 'make dist          build the wheel and the source distribution in dist/'
	@echo 'make slurm-test    run jobs on a Slurm cluster of three nodes, which it starts on this machine'
	@echo 'make lessons       execute the notebooks of docs/lessons'
	@echo 'make bench         run the quick benchmarks, with reports in bench-results/   (ARGS="speedup": one in full)'
	@echo 'make compose-test  build the images and test training, scaling and failures with docker compose'
	@echo 'make chaos         kill processes of jobs and of scripts two hundred times and check that no update is lost'
	@echo 'make simulate      run 20,000 whole jobs with faults in virtual time              (ARGS="--mode bsp")'
	@echo 'make protos        generate the stubs from protos/*.proto'
	@echo 'make clean         remove .venv, caches and build products, but not runs/'
	@echo 'Every target except clean and compose-test creates or updates .venv first.'

# With `set -m`, Ctrl-C reaches only the command, which drains and exits with 0; make itself would exit with 130.
train: $(VENV)/worker.stamp
	@set -m 2>/dev/null; $(VENV)/bin/downpour train $(ARGS)

test: $(VENV)/dev.stamp
	$(VENV)/bin/ruff check --quiet .
	$(VENV)/bin/mypy --no-error-summary
	$(VENV)/bin/pytest -n 2 -m "not slow and not browser and not slurm and not ray and not trackers and not commands and not kube and not peers" $(ARGS)

# These take minutes: every conformance row and its mutant, kills and restarts, whole scripts and launchers.
test-slow: $(VENV)/dev.stamp
	$(VENV)/bin/pytest -n 3 -m "slow and not cases and not fidelity" $(ARGS)

# Every script of tests/scripts/cases in every kind of cluster, about a quarter of an hour.
test-cases: $(VENV)/dev.stamp
	$(VENV)/bin/pytest -n 2 -m cases $(ARGS)

# Every row of docs/fidelity.md, in plain Keras and in three kinds of cluster.
test-fidelity: $(VENV)/dev.stamp
	$(VENV)/bin/pytest -m fidelity tests/keras/test_fidelity.py $(ARGS)

# Every command of README, docs and --help in a fresh clone with an environment of its own, about half an hour.
test-commands: $(VENV)/dev.stamp
	$(VENV)/bin/pytest -m commands tests/test_every_command.py $(ARGS)

# Tests the dashboard in a browser. Debian's packages of Chromium and its driver are installed if they are missing.
browser-test: $(VENV)/browser.stamp
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || \
		{ apt-get update -qq && apt-get install -y -qq chromium chromium-driver; } || \
		{ echo "browser-test: the packages chromium and chromium-driver must be installed" >&2; exit 1; }
	$(VENV)/bin/pytest -m browser tests/deploy/dashboard tests/deploy/playground $(ARGS)

# In an environment of its own, as Ray and TensorFlow together are large: three nodes of a Ray cluster on this machine.
ray-test: $(VENV)/dev.stamp
	@test -x $(VENV)-ray/bin/ray || { $(VENV)/bin/python -m venv $(VENV)-ray && \
		$(VENV)-ray/bin/pip install -q -e '.[ray]' 'ray[tune,default]' pytest pytest-timeout hypothesis pyyaml psutil; }
	$(VENV)-ray/bin/python -m pytest -m ray tests/deploy/ray $(ARGS)

# Builds both images and runs the plain form of deploy/kubernetes in pods, as root.
kube-test: $(VENV)/dev.stamp
	@command -v podman >/dev/null && command -v debootstrap >/dev/null && test -x /usr/lib/podman/netavark || \
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends \
			podman netavark aardvark-dns catatonit runc debootstrap; } || \
		{ echo "kube-test: the packages podman, netavark, catatonit, runc and debootstrap must be installed" >&2; exit 1; }
	$(VENV)/bin/pytest -m kube tests/deploy/kubernetes $(ARGS)

# In an environment of its own, as PyTorch is large: the competitors of `downpour bench baselines --peers`.
peers-test: $(VENV)/dev.stamp
	@test -x $(VENV)-peers/bin/ray || { $(VENV)/bin/python -m venv $(VENV)-peers && \
		$(VENV)-peers/bin/pip install -q -e '.[peers]' pytest pytest-timeout hypothesis pyyaml psutil; }
	$(VENV)-peers/bin/python -m pytest -m peers tests/bench/peers $(ARGS)

# In an environment of its own: TensorBoard, Weights & Biases (offline) and MLflow log one run each.
trackers-test: $(VENV)/dev.stamp
	@test -x $(VENV)-trackers/bin/wandb || { $(VENV)/bin/python -m venv $(VENV)-trackers && \
		$(VENV)-trackers/bin/pip install -q -e '.[trackers]' pytest pytest-timeout hypothesis pyyaml psutil; }
	$(VENV)-trackers/bin/python -m pytest -m trackers tests/keras/test_trackers.py $(ARGS)

# In an environment of its own: the public examples that use other packages besides Keras, each with two workers.
tools-test: $(VENV)/dev.stamp
	@test -x $(VENV)-tools/bin/optuna || { $(VENV)/bin/python -m venv $(VENV)-tools && \
		$(VENV)-tools/bin/pip install -q -e '.[tools]' pytest pytest-timeout hypothesis psutil pyyaml; }
	$(VENV)-tools/bin/python -m pytest -k tool_ tests/keras/test_public.py $(ARGS)

# Builds the documentation as a site in site/, in an environment of its own, and fails on a broken link.
docs:
	@test -x $(VENV)-docs/bin/mkdocs || { $(or $(PYTHON),python3) -m venv $(VENV)-docs && \
		$(VENV)-docs/bin/pip install -q -e '.[docs]'; }
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs build --strict --quiet
	@echo 'site/index.html opens in a browser, without a network'

# Each version of TensorFlow and Keras that is supported, with each Python of this machine; ARGS names single rows.
compat: $(VENV)/dev.stamp
	$(VENV)/bin/python -m tests.support.compat $(ARGS)

# Builds the wheel and the source distribution in dist/.
dist: $(VENV)/dev.stamp
	$(VENV)/bin/python -m pip wheel -q --no-deps --no-build-isolation -w dist .
	$(VENV)/bin/python -c "from setuptools.build_meta import build_sdist; build_sdist('dist')" >/dev/null

# Starts munged, slurmctld and three slurmd on this machine, as root, and runs jobs on them.
slurm-test: $(VENV)/dev.stamp
	@command -v sbatch >/dev/null && command -v munged >/dev/null || \
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends slurm-wlm munge; } || \
		{ echo "slurm-test: the packages slurm-wlm and munge must be installed" >&2; exit 1; }
	$(VENV)/bin/pytest -m slurm tests/deploy/engines $(ARGS)

# Executes every lesson, in both languages, without a notebook server.
lessons: $(VENV)/dev.stamp
	$(VENV)/bin/python -P -m downpour.bench.lessons docs/lessons/en docs/lessons/es

# Runs the quick set with reports in bench-results/, or one benchmark in full:  make bench ARGS="speedup --out DIR"
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

# Needs only the standard library and a container engine, which it starts if there is none.
compose-test:
	@$(or $(PYTHON),python3) -m downpour.deploy.compose_test $(ARGS)

chaos: $(VENV)/dev.stamp
	@$(VENV)/bin/downpour bench chaos --kills 50 --seed 1 --shards 1 $(ARGS)
	@$(VENV)/bin/downpour bench chaos --kills 50 --seed 2 --shards 2 $(ARGS)
	@$(VENV)/bin/downpour bench chaos --script --kills 50 --seed 3 --shards 1 --samples 4096 --pause-ms 30 $(ARGS)
	@$(VENV)/bin/downpour bench chaos --script --kills 50 --seed 4 --shards 2 --samples 4096 --pause-ms 30 $(ARGS)

simulate: $(VENV)/dev.stamp
	@$(VENV)/bin/downpour simulate-job --seeds 1..20000 $(ARGS)

# Runs at the root with -I., so that the stubs import each other as `from downpour.protos import ...`.
protos: $(VENV)/dev.stamp
	$(VENV)/bin/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. \
		downpour/protos/parameter_server.proto
	$(VENV)/bin/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. downpour/protos/events.proto

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './runs/*' -prune -exec rm -rf {} +

$(VENV)/%.stamp: pyproject.toml deploy/setup.sh
	@PYTHON="$(PYTHON)" sh deploy/setup.sh $*

# The scripts of a virtual environment contain its path, so a moved or copied tree needs a new one.
ifneq ($(shell cat $(VENV)/home 2>/dev/null),$(CURDIR))
$(VENV)/worker.stamp $(VENV)/dev.stamp: again
endif
