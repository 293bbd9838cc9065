"""Settings of the book: `sphinx-build -W docs docs/_build` builds it."""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import inspect

import sc2keras

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

# Autosummary takes what a package offers from its __all__; some say it by `X as X`.
for package in vars(sc2keras).values():
    if hasattr(package, "__path__") and not hasattr(package, "__all__"):
        package.__all__ = [
            name
            for name, member in vars(package).items()
            if getattr(member, "__module__", "").startswith("sc2keras.")
            and not name.startswith("_")
            and (inspect.isclass(member) or inspect.isfunction(member))
        ]

project = "sc2keras"
author = "the sc2keras contributors"
copyright = "the sc2keras contributors, Apache-2.0"
release = version = sc2keras.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "keras_docstrings",
    "mathml",
    "registry_table",
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]
nitpicky = True
nitpick_ignore_regex = [
    # Of packages whose documentation this book does not link to.
    ("py:.*", r"(?!sc2keras).*"),
    # Not public.
    ("py:obj", r"sc2keras\.(backend|io\.sources)\..*"),
]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autosummary_ignore_module_all = False
autodoc_typehints = "none"
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_default_options = {
    "members": True,
    # scikit-learn writes them, with links into its own book.
    "exclude-members": "set_fit_request, set_partial_fit_request",
}
napoleon_use_ivar = True
napoleon_custom_sections = [("Call arguments", "params_style"), "Reference"]

html_theme = "pydata_sphinx_theme"
html_title = "sc2keras"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_show_sourcelink = False
html_theme_options = {
    "header_links_before_dropdown": 7,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": [], "which_method": [], "glossary": [], "limits": []}

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

sphinx_gallery_conf = {
    "examples_dirs": "../applications",
    "gallery_dirs": "gallery",
    # The others run; this one is for a folder of the reader's own, and for Ray.
    "filename_pattern": r"(?<!encode_with_ray)\.py$",
    "within_subsection_order": "ExampleTitleSortKey",
    "reset_argv": "gallery.arguments",
    "abort_on_example_error": True,
    "show_memory": False,
    "show_signature": False,
    "download_all_examples": False,
    "min_reported_time": 1,
}
