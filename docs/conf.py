"""Sphinx configuration. Everything is built from this repository, without the network."""

import os
import re
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent / "_ext"))

import sklearn_din

HERE = Path(__file__).resolve().parent
HOUSE = HERE.parent

# The MovieLens example is built with its picture where a copy of the data lies.
DATA = HOUSE.parent / "shared" / "data"
if DATA.is_dir():
    os.environ.setdefault("SKLEARN_DIN_DATA", str(DATA))

project = "sklearn_din"
author = "The sklearn_din developers"
copyright = author
version = release = sklearn_din.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "mathml",
    "run_python",
]
templates_path = ["_templates"]
source_suffix = {".rst": "restructuredtext"}  # Markdown is included, no page is written in it
exclude_patterns = ["_build", "_templates", "_ext", "auto_examples/*.ipynb"]
html_math_renderer = "mathml"

autosummary_generate = True
autodoc_typehints = "none"
toc_object_entries_show_parents = "hide"  # "fit()", not "DINClassifier.fit()", in the side list
numpydoc_show_class_members = False

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/plot_",
    "capture_repr": ("_repr_html_",),
    "remove_config_comments": True,
    "download_all_examples": False,
    "show_memory": False,
    "parallel": True,
    "write_computation_times": False,
    "show_signature": False,
    "within_subsection_order": "ExampleTitleSortKey",
    "thumbnail_size": (400, 280),
    "default_thumb_file": str(HERE / "_static" / "one_row.svg"),
}

html_theme = "pydata_sphinx_theme"
html_title = f"sklearn_din {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_context = {"default_mode": "light"}
html_theme_options = {
    "logo": {"text": f"sklearn_din {version}"},
    "show_prev_next": True,
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "header_links_before_dropdown": 7,
    "secondary_sidebar_items": {"**": ["page-toc"], "index": []},
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_toc_level": 2,
}
html_sidebars = {
    name: [] for name in ("index", "chinese", "coming_from", "faq", "glossary", "changelog")
}


def _escape_defaults(app, what, name, obj, options, lines):
    """Keep docutils from reading a default that ends in an underscore as the name of a link."""
    lines[:] = [re.sub(r'(default="\w*)_"', r'\1\\_"', line) for line in lines]


def setup(app):
    """Run after numpydoc, whose output it edits."""
    app.connect("autodoc-process-docstring", _escape_defaults, priority=900)
