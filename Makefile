# Thin names for scripts/dev.py, which also runs where there is no make: python scripts/dev.py race
# What follows is passed on through ARGS: make test ARGS="-k adam"
PYTHON ?= python3
ARGS ?=

.PHONY: race test parity lint docs
race test parity lint docs:
	@$(PYTHON) scripts/dev.py $@ $(ARGS)
