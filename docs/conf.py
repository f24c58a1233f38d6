"""Sphinx: pages are markdown; code cells run when the documentation is built, and one that fails stops the build."""

from importlib.metadata import version as installed_version

project = "funcopt"
author = "The funcopt authors"
copyright = author
version = release = installed_version("funcopt")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.intersphinx"]
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", None),
    "torch": ("https://docs.pytorch.org/docs/stable", None),
}
intersphinx_timeout = 10  # seconds; without a network the links stay plain text

exclude_patterns = ["_build", "jupyter_execute", ".jupyter_cache"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 120  # seconds

html_theme = "furo"
html_title = "funcopt"
autodoc_typehints = "signature"
