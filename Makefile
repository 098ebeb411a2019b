# Everything that a developer does, in few words: `make help`.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
export PYTHONPATH := cluster

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/.installed: requirements.lock pyproject.toml worker-sdk/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Tickwheel needs Python 3.11 or later; set PYTHON=...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e worker-sdk -e .
	@touch $@

.PHONY: dev
dev: .venv/.installed ## Run examples/quickstart here, without a cluster (Ctrl-C drains)
	$(BIN)/tickwheel dev examples/quickstart $(ARGS)

.PHONY: test
test: .venv/.installed lint cluster-binaries ## Install what is missing and run every test, those on a real cluster too
	@$(BIN)/python -m tickwheel_cluster packages || echo "the tests on a cluster with nodes will be skipped"
	$(BIN)/python -m tests.run $(ARGS)

.PHONY: test-fast
test-fast: .venv/.installed ## The tests that need no API server
	$(BIN)/pytest -q tests/unit tests/simulation $(ARGS)

.PHONY: soak
soak: .venv/.installed cluster-binaries ## Two minutes of load and kills on a real API server, then the audit
	$(BIN)/python -m tests.integration.soak $(ARGS)

.PHONY: bench
bench: .venv/.installed cluster-binaries ## Throughput beside asynq, Celery and taskiq; timers beside APScheduler
	$(BIN)/python benchmarks/throughput/run.py $(ARGS)
	$(BIN)/python benchmarks/timers/run.py --only wheel

.PHONY: bench-timers
bench-timers: .venv/.installed cluster-binaries ## A million timers beside APScheduler and Quartz; early leases; 100,000 objects (ARGS=--quick: 4 minutes)
	$(BIN)/python benchmarks/timers/run.py $(ARGS)

.PHONY: bench-cluster
bench-cluster: .venv/.installed cluster-binaries ## Start latency and runs/s beside CronJob and Job, on a real cluster
	$(BIN)/python benchmarks/cluster/run.py $(ARGS)

.PHONY: lint
lint: .venv/.installed ## Format, lint, types, layers, generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tickwheel_operator.api.generate --check
	$(BIN)/python -m tickwheel_operator.admission --check
	$(BIN)/python gitops/build.py --check
	$(BIN)/python charts/document.py --check
	$(BIN)/python -m tickwheel_operator.gateway.openapi --check
	$(BIN)/python -m tickwheel_operator.projection.metrics --check

.PHONY: generate
generate: .venv/.installed ## Write crds/, docs/openapi.json and docs/metrics.md from the code
	$(BIN)/python -m tickwheel_operator.api.generate
	$(BIN)/python -m tickwheel_operator.admission
	$(BIN)/python gitops/build.py
	$(BIN)/python -m tickwheel_operator.gateway.openapi
	$(BIN)/python -m tickwheel_operator.projection.metrics
	$(BIN)/python charts/document.py

.PHONY: cluster-binaries
cluster-binaries: .venv/.installed ## Build Kubernetes, etcd, Helm and so on as Go tools into the user's cache (once, 4 to 31 minutes)
	$(BIN)/python -m tickwheel_cluster binaries

.PHONY: cluster-packages
cluster-packages: .venv/.installed ## Install the Debian packages that the local cluster needs (as root)
	$(BIN)/python -m tickwheel_cluster packages

.PHONY: cluster-up
cluster-up: .venv/.installed ## Start a cluster with two nodes and leave it running: a given one, kind, or the local one
	$(BIN)/python -m tickwheel_cluster nodes-up

.PHONY: cluster-load
cluster-load: .venv/.installed ## Pack the operator's and worker's images and give them to its nodes
	$(BIN)/python -m images --pack
	$(BIN)/python -m tickwheel_cluster nodes-load dist/images/*.tar

.PHONY: cluster-down
cluster-down: .venv/.installed ## Remove it
	$(BIN)/python -m tickwheel_cluster nodes-down

.PHONY: image
image: .venv/.installed ## Build the operator's and worker's images: with Docker, or packed for containerd in dist/images
	$(BIN)/python -m images $(ARGS)

.PHONY: lock
lock: ## Resolve requirements.lock anew from the two pyproject files
	uv pip compile --universal --generate-hashes --extra dev --no-emit-package tickwheel --no-annotate \
	  --custom-compile-command "make lock" -q -o requirements.lock pyproject.toml worker-sdk/pyproject.toml
	uv pip compile --universal --generate-hashes -c requirements.lock --no-emit-package tickwheel --no-annotate \
	  --custom-compile-command "make lock" -q -o requirements-runtime.lock pyproject.toml
	uv pip compile --universal --generate-hashes -c requirements.lock --extra fast --no-annotate \
	  --custom-compile-command "make lock" -q -o requirements-worker.lock worker-sdk/pyproject.toml

.PHONY: clean
clean: ## Remove the environment and caches of this checkout
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis examples/*/.tickwheel
