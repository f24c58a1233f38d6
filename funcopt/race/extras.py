"""Packages that only a race needs, imported on use."""

from importlib import import_module
from types import ModuleType

__all__ = ["need"]


def need(module: str, package: str | None = None) -> ModuleType:
    """Imports a package of the extra `race`, or says how to get it.

    Args:
        module: what to import, such as "sklearn.datasets".
        package: its name for pip, if that is another.

    Raises:
        ImportError: it is not installed; names the command that installs it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        name = package or module.partition(".")[0]
        raise ImportError(f'race: needs {name}, which is not installed. pip install "funcopt[race]" brings it') from error
