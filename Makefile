# Thin names for scripts/dev.py, which also runs where there is no make: python scripts/dev.py race
# What follows is passed on through ARGS: make test ARGS="-k adam"
PYTHON ?= python3
ARGS ?=

.PHONY: race test test-integrations parity bench lint docs
race test test-integrations parity bench lint docs:
	@$(PYTHON) scripts/dev.py $@ $(ARGS)
