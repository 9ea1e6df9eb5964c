"""Sphinx's settings of the site; `build.py` lays what it reads beside a copy of this file."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # accessible

project = "sepcl-keras"
author = "the authors of sepcl-keras"
project_copyright = "the authors of sepcl-keras, Apache 2.0"
language = "en"
repository = "https://github.com/sepcl-keras/sepcl-keras"

extensions = ["myst_nb", "sphinx_exercise", "sphinxcontrib.bibtex", "accessible"]
exclude_patterns = ["README.md"]
html_math_renderer = "mathml"
bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"

nb_execution_mode = "off"  # they were executed
nb_render_markdown_format = "myst"  # tables that a notebook prints
nb_ipywidgets_js = {}  # would be fetched
myst_enable_extensions = ["dollarmath", "deflist", "colon_fence"]
myst_heading_anchors = 3

html_theme = "sphinx_book_theme"
html_title = "sepcl-keras"
html_favicon = "style/icon.svg"
html_static_path = ["style"]
html_css_files = ["book.css"]
html_extra_path = ["extra"]  # sounds, figures, slides
templates_path = ["templates"]
html_sidebars = {"**": ["home.html", "search-button-field.html", "sbt-sidebar-nav.html"]}
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
html_use_index = html_domain_indices = False
html_copy_source = html_show_sourcelink = False
html_theme_options = {
    "repository_url": repository,
    "repository_branch": "main",
    "path_to_docs": "notebooks",
    "use_repository_button": True,
    "use_download_button": False,
    "launch_buttons": {"colab_url": "https://colab.research.google.com"},
    "home_page_in_toc": True,
    "navbar_persistent": [],
    "collapse_navbar": True,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
