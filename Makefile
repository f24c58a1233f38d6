# Thin names for scripts/dev.py, which also runs where there is no make: python scripts/dev.py race
# What follows is passed on through ARGS: make test ARGS="-k adam"
PYTHON ?= python3
ARGS ?=

.PHONY: race evidence test test-versions test-integrations parity bench lint docs wheel
race evidence test test-versions test-integrations parity bench lint docs wheel:
	@$(PYTHON) scripts/dev.py $@ $(ARGS)
