collect_ignore = ["examples"]  # for type checkers, and mistakes among them; test_typing.py runs them
