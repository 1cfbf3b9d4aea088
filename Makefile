# SPDX-License-Identifier: GPL-3.0-or-later
#
#   make demo        a private LXD, three containers on one base, an upgrade of the base
#   make demo-update an upgrade of services under traffic, what still runs old code, its restart
#   make test        unit, kernel, daemon, fault and snap tests: LXD on dir, Incus on btrfs
#   make test-all    the same on every daemon, storage driver and id regime
#   make soak        the faults of tests/faults at length, half an hour or more
#   make lint        ruff with all rules, mypy strict
#   make bench       the figures of README, but for an update's (python -m bench.converge)
#   make install     pycor-hooks on this host (make uninstall takes it away)
#   make clean       what the targets above left in the clone
#
# On a bare Debian 12 all but install put in place what is missing. Root is needed for that, and for
# containers: run them as root, or have sudo. TESTS= and ARGS= go to pytest (make test
# TESTS=tests/unit ARGS=-x), or ARGS= to pycor-hooks install (make install ARGS="--base debian"), and
# to pycor-hooks uninstall.

export PATH := $(PATH):/usr/sbin:/sbin

TESTS ?= tests
ARGS ?=
COMMAND_DIR ?= /opt/pycor-hooks

ifneq ($(shell id -u),0)
SUDO := $(shell command -v sudo)
# Root must leave nothing in the clone that its owner cannot delete.
AS_ROOT := $(SUDO) env PYTHONDONTWRITEBYTECODE=1
PYTEST_AS_ROOT := -p no:cacheprovider
endif
CAN_BE_ROOT := $(or $(filter 0,$(shell id -u)),$(SUDO))

CODE := $(wildcard pycor_hooks lab tests bench)
NEED_ROOT = $(if $(CAN_BE_ROOT),:,echo "make $@ needs root: run it as root, or install sudo" >&2; exit 1)

.PHONY: demo demo-update test test-all soak lint bench install uninstall clean prepare

demo demo-update:
	@$(NEED_ROOT)
	@$(MAKE) --no-print-directory prepare
	@$(AS_ROOT) .venv/bin/python -m lab.$(subst -,_,$@)

ifdef CAN_BE_ROOT
test test-all: prepare
	$(AS_ROOT) .venv/bin/pytest $(PYTEST_AS_ROOT) $(if $(filter test-all,$@),--all-pairs) $(ARGS) $(TESTS)
else
test: prepare
	.venv/bin/pytest $(ARGS) tests/unit
	@echo
	@echo "Without root, tests/kernel runs in a user namespace, without what needs more (skipped below)."
	@echo "Left out entirely: tests/daemon, tests/faults, tests/snap. Run as root, or install sudo, for all."
	@echo
	unshare --user --map-root-user --mount .venv/bin/pytest -p no:cacheprovider --basetemp=build/kernel-tests $(ARGS) tests/kernel

test-all:
	@$(NEED_ROOT)
endif

soak:
	@$(NEED_ROOT)
	@$(MAKE) --no-print-directory prepare
	$(AS_ROOT) .venv/bin/pytest $(PYTEST_AS_ROOT) --soak $(ARGS) tests/faults

lint: prepare
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy $(CODE)

bench:
	@$(NEED_ROOT)
	@$(MAKE) --no-print-directory prepare
	$(AS_ROOT) .venv/bin/python -m bench

# The command and the watcher get a Python environment of their own; the hooks need none.
install:
	@$(NEED_ROOT)
	@/usr/bin/python3 -c 'import ensurepip, venv' || { echo "install python3-venv first" >&2; exit 1; }
	$(SUDO) /usr/bin/python3 -m venv $(COMMAND_DIR)
	$(SUDO) $(COMMAND_DIR)/bin/python -m pip install --quiet --upgrade .
	$(SUDO) ln -sfn $(COMMAND_DIR)/bin/pycor-hooks /usr/local/bin/pycor-hooks
	$(SUDO) $(COMMAND_DIR)/bin/pycor-hooks install $(ARGS)

uninstall:
	@$(NEED_ROOT)
	$(SUDO) $(COMMAND_DIR)/bin/pycor-hooks uninstall $(ARGS)
	$(SUDO) rm -rf --one-file-system $(COMMAND_DIR) /usr/local/bin/pycor-hooks

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(CODE) -name __pycache__ -exec rm -rf {} +

# build/ is made by its owner, so that images which root puts there can be deleted by him.
prepare:
	@mkdir -p build/images
	@$(if $(CAN_BE_ROOT),$(SUDO) lab/bootstrap.sh packages)
	@lab/bootstrap.sh venv
