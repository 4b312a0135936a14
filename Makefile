# Every target sets itself up: a virtual environment (.venv, or $OTEL_TRADING_VENV), the dependencies, the C extension.
# Stamp files in the environment make the second call quick.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := $(or $(OTEL_TRADING_VENV),$(CURDIR)/.venv)
BIN := $(VENV)/bin
JOBS ?= 2
ARGS ?=
PYTEST ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

# An environment outside the checkout may be shared by several: its stamps say for which of them it was made.
STAMPS := $(VENV)/.stamps/$(subst /,_,$(CURDIR))
# The extension is built into the checkout, so its stamp is there too.
NATIVE := build/stamps/native-$(or $(OTEL_TRADING_BUILD),auto)$(subst /,_,$(VENV))
C_FILES := $(wildcard otel_trading/_native/*.c otel_trading/_native/*.h otel_trading/_native/*/*.c otel_trading/_native/*/*.h)
C_TESTS := $(wildcard tests/native/*.c tests/native/*.h)

# Whether the C extension is there: of the build's result, not of the compiler's presence.
HAS_NATIVE = $(BIN)/python -c 'from otel_trading._native import BACKEND' 2>/dev/null

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-10s %s\n", $$1, $$2}'

.PHONY: demo
demo: $(NATIVE) ## Trade on a paper exchange for a while and show what was traced (ARGS="--seconds 20 --rate 500")
	@$(BIN)/python -c 'import otel_trading as ot; print("backend:", ot.backend)'
	@$(BIN)/otel-trading demo $(ARGS)

.PHONY: test
test: $(STAMPS)/test $(NATIVE) ## Run the suite on both backends; branch coverage of at least 90 % (PYTEST="-k fork")
	@rm -rf build/coverage && mkdir -p build/coverage
	@backends="native pure"; \
	if ! $(HAS_NATIVE); then \
		echo "== no C extension here: only the pure backend is tested (make test needs a C compiler and Python's headers for both)"; \
		backends="pure"; \
	fi; \
	failed=0; \
	for backend in $$backends; do \
		echo "== $$backend backend"; \
		OTEL_TRADING_BACKEND=$$backend COVERAGE_FILE=$(CURDIR)/build/coverage/$$backend \
			$(BIN)/pytest -n $(JOBS) --cov --cov-report= $$([ $$backend = native ] || echo --cov-config=tests/pure.coveragerc) $(PYTEST) 2>&1 | tee build/test-$$backend.log || failed=1; \
	done; \
	$(MAKE) coverage || failed=1; \
	for backend in $$backends; do \
		echo "$$backend backend: $$(grep -E '^(=+ )?[0-9]+ (passed|failed|error|skipped).* in [0-9]' build/test-$$backend.log | tail -n 1)"; \
	done; \
	exit $$failed

.PHONY: chaos
chaos: $(STAMPS)/test $(NATIVE) ## Kill, starve, damage and outlast, in the long form: some five hours (PYTEST="-k kills", CHAOS_SHARE=0.03)
	@rm -f build/chaos.jsonl
	CHAOS=long $(BIN)/pytest -o faulthandler_timeout=14400 tests/chaos $(PYTEST)
	CHAOS=long $(MAKE) sanitize SANITIZE_TESTS=tests/chaos/test_damaged_segments.py
	$(BIN)/python tests/chaos/causes.py --runs 20 --json build/causes.json
	@grep -v '"each"' build/chaos.jsonl

.PHONY: coverage
coverage: $(STAMPS)/test ## Report what the last `make test` covered (build/coverage/html), fail under 90 %
	@test -n "$(wildcard build/coverage/native* build/coverage/pure*)" || { echo "no measurements: run make test first" >&2; exit 2; }
	@$(BIN)/coverage combine -q --keep --data-file=build/coverage/all $(wildcard build/coverage/native* build/coverage/pure*)
	@$(BIN)/coverage html -q --data-file=build/coverage/all -d build/coverage/html --fail-under=0
	@$(BIN)/coverage report --data-file=build/coverage/all --fail-under=90

.PHONY: lint
lint: $(STAMPS)/dev $(STAMPS)/app ## Check form and types: ruff, mypy --strict, clang-format, the layout's generated file, shellcheck
	@failed=0; run() { echo "== $${*#$(BIN)/}"; "$$@" || failed=1; }; \
	run $(BIN)/ruff format --check .; \
	run $(BIN)/ruff check .; \
	run $(BIN)/mypy --strict otel_trading $(if $(wildcard tests/typing/*.py),tests/typing); \
	run $(BIN)/clang-format --dry-run -Werror $(C_FILES) $(C_TESTS); \
	run $(BIN)/python tools/segment_layout.py --check; \
	run $(BIN)/shellcheck .ci/run; \
	exit $$failed

.PHONY: format
format: $(STAMPS)/dev ## Bring Python and C into form, and write the layout's generated file anew
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(C_FILES) $(C_TESTS)
	$(BIN)/python tools/segment_layout.py

.PHONY: bench
bench: $(NATIVE) ## Measure the cost of every form, the paced load and the peers, in about 20 minutes; leave the machine alone meanwhile
	@mkdir -p build
	$(BIN)/otel-trading bench --json build/bench.json $(ARGS)
	$(BIN)/otel-trading bench --paced --json build/bench-paced.json $(ARGS)
	$(BIN)/otel-trading bench --export --json build/bench-export.json $(ARGS)
	$(BIN)/python -m benchmarks.peers --json build/bench-peers.json $(ARGS)

.PHONY: contrib
contrib: $(NATIVE) ## Run the tests of OpenTelemetry's own instrumentations on our provider: what passes on the SDK's has to pass (ARGS="--only redis")
	timeout 1200 $(BIN)/python tools/contrib_suites.py $(ARGS)

# ---- the sanitizers: their own build of the package, in front of the installed one

SANITIZE := $(CURDIR)/build/sanitize
# "bounded" (continuous integration): what touches memory that somebody else may write.
BOUNDED = $(wildcard $(foreach name,reader segment ring names probe attribute instruments thread lifecycle allocation \
	block batch otlp_encoding order_table messages api_ keep verdict enforcer engine meter buffers takeover adopt host_word vitals \
	pulses beats endings,\
	tests/unit/test_*$(name)*.py tests/integration/test_*$(name)*.py)) tests/chaos/test_damaged_segments.py
SANITIZE_TESTS ?= $(if $(filter bounded,$(OTEL_TRADING_SANITIZE_TESTS)),$(sort $(BOUNDED)),tests)
# A child that is forked while another thread allocates inherits the sanitizer's allocator locked, and hangs: GCC 12's
# libasan, for one, does not take its locks around a fork, as malloc does. So the tests of forks do not run here.
SANITIZE_SKIP := --ignore=tests/unit/test_fork.py -k "not fork"
# Its own handlers of signals would change how a process ends, which is tested.
ASAN := detect_leaks=0:allow_user_segv_handler=1:handle_segv=0:handle_sigbus=0:handle_sigfpe=0:handle_sigill=0:handle_abort=0:use_sigaltstack=0
# PYTHONSAFEPATH keeps the checkout, with its ordinary build, out of the way of children that are started in it.
SANITIZE_ENV = env PYTHONPATH=$(SANITIZE) PYTHONSAFEPATH=1 PYTHONMALLOC=malloc OTEL_TRADING_BACKEND=native \
	LD_PRELOAD="$$($${CC:-cc} -print-file-name=libasan.so)" ASAN_OPTIONS=$(ASAN) \
	UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1

.PHONY: sanitize
sanitize: $(STAMPS)/test $(STAMPS)/app ## Run the native suite with address and undefined-behaviour sanitizers (SANITIZE_TESTS=tests/unit/test_x.py)
	@rm -rf $(SANITIZE)/lib
	@OTEL_TRADING_BUILD=yes OTEL_TRADING_SANITIZE=address,undefined \
		$(BIN)/python setup.py -q build --build-base $(SANITIZE) --build-lib $(SANITIZE)
	@$(SANITIZE_ENV) $(BIN)/python -c 'import otel_trading._native as n; assert n.__file__.startswith("$(SANITIZE)"), n.__file__'
	$(SANITIZE_ENV) $(BIN)/pytest -n $(JOBS) -p no:cacheprovider $(SANITIZE_SKIP) $(PYTEST) $(SANITIZE_TESTS)

.PHONY: clean
clean: ## Remove everything that was built, and the virtual environment in the checkout
	rm -rf build dist .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage* *.egg-info otel_trading/*.so otel_trading/otel-trading-watchdog
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- set-up

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "Python 3.10 or newer is needed; " + sys.executable + " is older (make PYTHON=python3.12 ...)")'
	@test -x $(BIN)/python || { echo "== virtual environment $(VENV)"; $(PYTHON) -m venv "$(VENV)"; }
	@$(BIN)/python -m pip install -q --upgrade 'pip>=25.1'
	@rm -rf "$(VENV)/.stamps"; mkdir -p $(STAMPS); touch $@

# The package, in place, with all that it can use at run time; the extension is built below.
$(STAMPS)/app: pyproject.toml setup.py | $(STAMPS)/venv
	@echo "== dependencies"
	@$(BIN)/python -m pip install -q --group build
	@OTEL_TRADING_BUILD=no PYTHONWARNINGS=ignore $(BIN)/python -m pip install -q --no-build-isolation -e '.[all]'
	@touch $@

$(NATIVE): $(C_FILES) setup.py $(STAMPS)/app
	@echo "== C extension"
	@$(BIN)/python setup.py -q build_ext --inplace
	@mkdir -p $(@D); \
	if $(HAS_NATIVE); then touch $@; \
	else echo "== the C extension was not built: the pure backend runs"; test "$(OTEL_TRADING_BUILD)" != yes; fi

# Together with the package: what the tests need may ask for other versions of OpenTelemetry, and all of it has to fit.
$(STAMPS)/test: pyproject.toml $(STAMPS)/app
	@OTEL_TRADING_BUILD=no PYTHONWARNINGS=ignore \
		$(BIN)/python -m pip install -q --no-build-isolation --group test -e '.[all]'
	@$(BIN)/python -m pip check >/dev/null || { $(BIN)/python -m pip check; exit 1; }
	@touch $@

$(STAMPS)/dev: pyproject.toml $(STAMPS)/test
	@$(BIN)/python -m pip install -q --group dev
	@touch $@
