# The only tools that must be there: make, git, Python 3.11 or later and, for the tests, a C compiler called cc.
# Everything else comes from the locks.
PYTHON ?= python3
BIN := .venv/bin

SETUP := .venv/.stamp
RUN := build/run
# What the tests read besides the installed package. The sources are left out, so that nothing can be imported from them.
TEST_FILES := tests examples docs bench deploy proto README.md CHANGELOG.md Makefile Dockerfile .dockerignore .env.example \
	pyproject.toml LICENSE requirements.lock requirements-build.lock requirements-dev.lock

PROTOC = $(BIN)/python -m grpc_tools.protoc -Iwalbatch/pb=proto \
	--python_out=$(1) --pyi_out=$(1) --grpc_python_out=$(1) --mypy_grpc_out=$(1) proto/analytics/v1/service.proto
# Universal: one lock for every system and every Python from 3.11 on.
COMPILE = $(BIN)/uv pip compile --quiet --universal --generate-hashes --custom-compile-command "make lock" $(LOCK_FLAGS)

.DELETE_ON_ERROR:
.PHONY: help setup demo test browser screenshot examples faults deploy-check installed compiler lint lint-python lint-proto \
	lint-image bench profile proto docs lock wheel clean soak durability

help:
	@echo 'make setup   install everything into .venv'
	@echo 'make demo    see it work: send real events, deliver them, replay some'
	@echo 'make test    lint, build the wheel, test that wheel'
	@echo 'make browser test the dashboard in a browser; as root it installs one'
	@echo 'make screenshot   take the picture of the dashboard again, after 14 minutes of events'
	@echo 'make examples   run the clients in Node and Go, as root: installs both'
	@echo 'make faults  the whole fault matrix, as root: kills, power cuts, failing disks'
	@echo 'make durability   the same, and its figures into docs/durability.md'
	@echo 'make deploy-check   systemd and Prometheus judge what is in deploy/, as root'
	@echo 'make lint    every check that runs nothing'
	@echo 'make soak    random faults for MINUTES=60, as root'
	@echo 'make bench   measure on this machine, beside what bench/tools.sh installs; ONLY=drain a part, QUICK=1 a try'
	@echo 'make profile where the time of CASE=unary goes; or ten, batch, stream, drain'
	@echo 'make proto   generate walbatch/pb from proto/, and .env.example from the settings'
	@echo 'make docs    generate what is generated of docs/'
	@echo 'make lock    resolve the locks again; LOCK_FLAGS=--upgrade takes newer versions'
	@echo 'make clean   remove what the others made'

setup: $(SETUP)

$(SETUP): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("walbatch needs Python 3.11 or later: make PYTHON=python3.x" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(SETUP)
	$(BIN)/python examples/demo.py

# All of it goes into the page: make bench. A part of it, or small sizes, only to the screen: make bench ONLY=drain,
# make bench QUICK=1. What it compares with is installed by bench/tools.sh, as root; what is missing is named.
bench: $(SETUP)
	$(BIN)/python bench/run.py $(if $(ONLY),--only $(ONLY)) $(if $(QUICK),--quick) \
	  $(if $(ONLY)$(QUICK),,--page docs/performance.md)

# Where the time goes: make profile CASE=unary (or ten, batch, stream, drain)
CASE ?= unary
profile: $(SETUP)
	$(BIN)/python bench/profiled.py $(CASE) $(PROFILE_FLAGS)

lint: lint-python lint-proto lint-image

lint-python: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/packaging/package_list.py

# The generated code is committed, so that an install needs no compiler; here it is made again and compared.
lint-proto: $(SETUP)
	$(BIN)/buf lint proto
	$(BIN)/buf format --diff --exit-code proto
	rm -rf build/proto && mkdir -p build/proto
	PATH="$(CURDIR)/$(BIN):$$PATH" $(call PROTOC,build/proto)
	diff -r -u --exclude=__init__.py --exclude=__pycache__ build/proto/walbatch/pb walbatch/pb

lint-image: $(SETUP)
	$(BIN)/hadolint Dockerfile

proto: $(SETUP)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(call PROTOC,.)
	$(BIN)/python -c 'from walbatch.setting_texts import env_example; print(env_example(), end="")' >.env.example

# The pages that are made from the code, or parts of which are; tests compare them.
docs: $(SETUP)
	$(BIN)/python tests/support/generated_pages.py
	$(BIN)/python -c 'from walbatch.setting_texts import configuration_page; print(configuration_page(), end="")' >docs/configuration.md
	$(BIN)/python -m walbatch.cli.reference >docs/commands.md

lock: $(SETUP)
	$(COMPILE) pyproject.toml --output-file requirements.lock
	$(COMPILE) pyproject.toml --group dev --constraint requirements.lock --output-file requirements-dev.lock
	$(COMPILE) --group build --constraint requirements-dev.lock --output-file requirements-build.lock

# From the sdist, as a packager would: a file that the sdist lacks is missing here too.
wheel: $(SETUP)
	rm -rf build/dist
	$(BIN)/python -m build --quiet --no-isolation --outdir build/dist .

build/venv/.stamp: requirements-dev.lock
	rm -rf build/venv
	$(PYTHON) -m venv build/venv
	build/venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

# The wheel is what people install, so the wheel is what is tested, in an environment that never saw the sources.
# TESTED_WHEEL has no WALBATCH_ before it: a variable that is no setting would be refused as a misspelt one.
installed: wheel build/venv/.stamp
	build/venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall build/dist/*.whl
	build/venv/bin/python -m pip check
	rm -rf $(RUN) && mkdir -p $(RUN)
	cp -R $(TEST_FILES) $(RUN)/

IN_RUN = cd $(RUN) && PATH="$(CURDIR)/build/venv/bin:$$PATH" TESTED_WHEEL="$$(ls $(CURDIR)/build/dist/*.whl)"

# The crash tests break the calls of the running program with a library of their own (tests/support/faultshim.c).
compiler:
	@command -v cc >/dev/null || { echo 'the tests need a C compiler called cc; Debian: apt-get install gcc libc6-dev' >&2; exit 1; }

# One process more than cores: many tests wait for a disk or a process most of the time.
test: compiler lint installed
	$(IN_RUN) ../venv/bin/pytest -n 3 --dist worksteal $(addprefix --ignore=tests/,privileged deploy browser examples) \
	  $(TEST_FLAGS)

# The dashboard, opened, read and clicked in Debian's Chromium.
browser: installed
	tests/browser/tools.sh
	$(IN_RUN) ../venv/bin/pytest -n 2 tests/browser $(TEST_FLAGS)

screenshot: $(SETUP)
	tests/browser/tools.sh
	$(BIN)/python tests/browser/screenshot.py docs/dashboard.png

# The clients in other languages; those in Python are run by `make test`.
examples: installed
	tests/examples/tools.sh
	$(IN_RUN) NODE_PATH="$(CURDIR)/build/examples/node_modules" ../venv/bin/pytest tests/examples $(TEST_FLAGS)

# Tests of `make test` with many more injections, and those that need root.
faults: compiler installed
	tests/privileged/tools.sh
	$(IN_RUN) FAULTS=full ../venv/bin/pytest -n 2 --dist worksteal tests/crash tests/privileged \
	  tests/e2e/test_delivery.py $(TEST_FLAGS)

# The same, and its figures into the page that publishes them.
durability: faults
	$(BIN)/python tests/support/durability_page.py $(RUN)/faults.json docs/durability.md

# What is in deploy/, judged by the programs that it is for; the tests that need none of them are in `make test`.
deploy-check: installed
	tests/deploy/tools.sh
	$(IN_RUN) ../venv/bin/pytest -n 2 tests/deploy $(TEST_FLAGS)

# Random faults for as long as you like, as root: make soak MINUTES=60 SEED=20261123
MINUTES ?= 60
soak: $(SETUP)
	tests/privileged/tools.sh
	$(BIN)/python tests/privileged/soak.py --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
