# Everything installs into the checkout (.venv, build/) or the cache folder named in CONTRIBUTING.md.
SHELL := /bin/bash
# Tests start programs hundreds of times; a third of each start would go into compiling their modules again.
unexport PYTHONDONTWRITEBYTECODE
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
REQUIREMENTS := requirements/run.txt requirements/build.txt
COOLDOWN ?= 7 days ago
# A lock is complete: the installer asks the index for no version, and builds nothing whose requirements are not locked.
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes
RUN := $(BIN)/pytest
# Three processes, each with a control plane of its own: while one waits, two cores have the others. A module's tests
# share what it starts, and stay in one.
PARALLEL := -n 3 --dist loadfile
FAST := tests/serve tests/property tests/cli tests/unit tests/tls tests/locks tests/docs
# Building Istio takes longer than everything else that `make test` needs.
INJECTOR := tests/apiserver/test_real_injector.py
# What Helm renders and installs; `make test` uses the newest, `make test-rest` the one before too.
CHARTED := tests/deploy tests/apiserver/test_chart.py
PARTS := kube-1.37 expressions-1.37 yamls-1.37 kubectl-1.37 helm-4
# What the slow tests need beside, and what the rest of `make test-rest` does.
SLOW := scheduler-1.37 filters-1.37 helm-3
REST := kube-1.33 scheduler-1.33 istio-1.31
# The longest modules first, so that all processes end at about the same time.
SUITES := tests/apiserver --ignore $(INJECTOR) tests/deploy tests/parts $(FAST)

.DEFAULT_GOAL := help
.PHONY: help install install-dev demo lint fmt test test-all test-slow test-rest test-fast coverage clean-coverage proof proof-clean chaos monitoring release release-test image-test browser-test dashboard bench gate fuzz manifests lock locks clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

install: $(VENV)/.installed ## create .venv with client-ip, from the hash-locked requirements
install-dev: $(VENV)/.installed-dev ## the same, with the packages for tests and linters

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or later is needed: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(REQUIREMENTS) pyproject.toml | $(VENV)/bin/python
	$(BIN)/python $(PIP_INSTALL) -r requirements/build.txt -r requirements/run.txt
	$(BIN)/python -m pip check
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-dev: requirements/dev.txt requirements/tracing.txt $(VENV)/.installed
	$(BIN)/python $(PIP_INSTALL) -r requirements/tracing.txt -r requirements/dev.txt
	$(BIN)/python -m pip check
	@touch $@

demo: install ## try the webhook on manifests, without a cluster
	$(BIN)/client-ip demo

test: install-dev ## the tests that need no root: unit, property, TLS, and a real API server (the first build takes minutes)
	$(BIN)/python -m tests.parts.build $(PARTS)
	$(RUN) $(PARALLEL) $(PYTEST) -m "not slow" $(SUITES)

test-all: test test-rest ## the same, with the slow tests, Istio's own injector and the oldest supported Kubernetes

test-slow: install-dev ## the tests that are marked slow
	$(BIN)/python -m tests.parts.build $(PARTS) $(SLOW)
	$(RUN) $(PARALLEL) $(PYTEST) -m slow $(SUITES)

test-rest: test-slow ## the tests that `make test-all` adds to `make test`
	$(BIN)/python -m tests.parts.build $(PARTS) $(SLOW) $(REST)
	$(BIN)/pytest $(PARALLEL) $(PYTEST) $(INJECTOR)
	$(BIN)/pytest $(PARALLEL) $(PYTEST) --helm 3 $(CHARTED)
	$(BIN)/pytest $(PARALLEL) $(PYTEST) --kubernetes 1.33 tests/apiserver --ignore $(INJECTOR)

test-fast: install-dev ## the tests that need no Go
	$(BIN)/pytest $(PYTEST) $(FAST)

# Every process that the tests start writes its own file there.
coverage: export COVERAGE_FILE := $(CURDIR)/build/coverage/lines
coverage: RUN := $(BIN)/coverage run -m pytest
coverage: COVERED := 95
coverage: clean-coverage test test-slow ## both with line coverage, including commands and servers; at least 95 %
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=$(COVERED)

clean-coverage:
	rm -rf build/coverage && mkdir -p build/coverage

proof: install-dev ## show with a real Istio and a real kernel that applications see their clients (root)
	$(BIN)/python -m tests.proof.preflight
	$(BIN)/python -m tests.parts.build kube-1.37 kubectl-1.37 scheduler-1.37 kube-node-1.37 istio-1.31
	$(BIN)/pytest $(PYTEST) -q --tb=short tests/proof

proof-clean: ## remove network namespaces and processes that a killed `make proof` left (root)
	$(BIN)/python -m tests.proof.leftover

chaos: install-dev ## cause faults under load on a real API server: rotations, restarts, crashes, clocks (root)
	$(BIN)/python -m tests.chaos $(PYTEST)

monitoring: install-dev ## test the chart's alerts and dashboard with promtool and real metrics
	$(BIN)/python -m tests.parts.build kube-1.37 kubectl-1.37 prometheus
	$(BIN)/pytest -q $(PYTEST) tests/monitoring

dashboard: install-dev ## draw docs/dashboard.png from the metrics of the last `make chaos`
	$(BIN)/python -m tests.monitoring.picture

image-test: install-dev ## build the image without Docker, and run it as the chart does (root, buildah, debootstrap)
	$(BIN)/pytest -q -s $(PYTEST) tests/image

browser-test: install-dev ## test the HTML report in Chromium: filter, sort, accessibility, attacks (needs chromium)
	$(BIN)/python $(PIP_INSTALL) -r requirements/browser.txt
	$(BIN)/pytest -q $(PYTEST) tests/browser

release: install-dev ## create wheel, sdist, chart, bill of materials, Krew plugin and checksums in dist/
	$(BIN)/python -m tests.parts.build helm-4
	$(BIN)/python -m release $(RELEASE)

release-test: install-dev ## create a release twice, compare the bytes, and use it
	$(BIN)/python -m tests.parts.build helm-4
	$(BIN)/pytest -q $(PYTEST) tests/release

manifests: install-dev ## generate deploy/install.yaml from the chart
	$(BIN)/python -m tests.deploy.manifests

bench: install-dev ## compare the server with alternatives (two idle cores, ten minutes)
	$(BIN)/python -m tests.bench $(BENCH)

fuzz: install-dev ## test mutated inputs for two minutes (an hour: make fuzz FUZZ="--seconds 3600 --seed 1")
	$(BIN)/python -m tests.fuzz $(FUZZ)

gate: install-dev ## compare instructions per review with their budgets (needs valgrind)
	$(BIN)/python -m tests.bench.gate

lint: install-dev ## ruff, formatting, mypy strict, import contracts, and statements in the documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m tests.docs

fmt: install-dev ## format, and fix automatically
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

# A lock already there keeps its versions where they still fit, but for those that UPGRADE names:
# `make lock UPGRADE=` adds what a .in file has new, `make lock UPGRADE='-P aiohttp'` renews one package.
LOCKS := run build tracing dev bench browser go envoy clients oldest-pip uv sbom plot
# What is unpacked and not imported needs nothing else.
ALONE := clients
UPGRADE ?= --upgrade
lock: build/lock/.installed ## resolve the requirements again, without releases younger than a week
	cd requirements && for name in $(LOCKS); do \
	  alone=$$(echo $(ALONE) | grep -qw $$name && echo --no-deps); \
	  ../build/lock/bin/uv pip compile --quiet $(UPGRADE) $$alone --universal --python-version 3.11 --generate-hashes \
	    --no-strip-extras --no-emit-index-url --no-emit-find-links --exclude-newer "$$(date -d '$(COOLDOWN)' +%F)" \
	    --custom-compile-command 'make lock' -o $$name.txt $$name.in || exit 1; done

build/lock/.installed: requirements/uv.txt
	$(PYTHON) -m venv --clear build/lock
	build/lock/bin/python $(PIP_INSTALL) -r requirements/uv.txt
	@touch $@

locks: install-dev ## install every lock with the oldest supported pip, and check that it is complete
	$(BIN)/python -m tests.locks

clean: ## remove generated files from the checkout
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
