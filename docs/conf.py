"""Configuration of Sphinx."""

import logging

import qapla_db

# it tells of its plugins when it is imported
logging.getLogger("alembic").setLevel(logging.WARNING)

project = "qapla_db"
author = "The qapla_db authors"
version = release = qapla_db.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "qapla_db"
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False
