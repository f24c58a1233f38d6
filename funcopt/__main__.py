"""`python -m funcopt COMMAND`: a table of commands.

A command is a module with `add_arguments(parser)` and `main(arguments) -> exit
code`; it is imported when it is called for.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

__all__ = ["main"]

COMMANDS = {
    "list": ("funcopt.catalog.listing", "all public names: family, whether each vmaps, traces and runs flat, source"),
    "describe": ("funcopt.catalog.describe", "one name: file, recurrence, settings with ranges, words heard and said"),
    "coverage": ("funcopt.catalog.coverage", "where each name of optax is here: covered, called otherwise, or refused and why"),
    "race": ("funcopt.race.command", "train several optimizers from many seeds on a real task; table, picture and numbers"),
    "race levels": (
        "funcopt.race.levels.command",
        "which optimizer solves which of small problems with one weakness each, beside torch.optim",
    ),
    "race evidence": (
        "funcopt.race.evidence.command",
        "what the rate that finds itself reaches against tuned optimizers: tasks, seeds, verdicts",
    ),
    "race sources": (
        "funcopt.race.sources.command",
        "the runs of PILOT's, OptiRoulette's and PulseOpt's own pages, on image data that are yours",
    ),
}
INTERRUPTED = 130  # what a shell gives for Ctrl-C


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; a caller's mistake is one sentence on stderr and exit code 2."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if " ".join(argv[:2]) in COMMANDS:
        argv[:2] = [" ".join(argv[:2])]
    parser = argparse.ArgumentParser(
        prog="python -m funcopt", description="funcopt: gradient transforms for PyTorch, chained like sentences"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if argv[:1] == [name]:
            import_module(module).add_arguments(command)
    arguments = parser.parse_args(argv)
    try:
        code = import_module(COMMANDS[arguments.command][0]).main(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever reads has seen enough: `python -m funcopt list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:  # what has finished is on disk
        return INTERRUPTED
    except (ValueError, TypeError, KeyError, ImportError) as error:
        # A KeyError shows its argument quoted; the sentence itself is wanted.
        print(f"{parser.prog}: {error.args[0] if error.args else error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
