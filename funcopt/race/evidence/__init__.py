"""The evidence: what is compared and by which rule (`protocol.py`, `methods.py`), the runs, the verdicts, the page made of them."""
