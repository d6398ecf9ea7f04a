"""Sphinx reads this to build the documentation: `make docs`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

PACKAGE = Path(__file__).resolve().parent.parent / "airflow_provider_rayjobs"

#: The modules of the top folder that the reference describes; the others need not be read.
PUBLIC = {"decorators", "exceptions", "hooks", "jobs", "links", "progress", "sensors", "triggers"}

project = "airflow-provider-rayjobs"
copyright = "The authors of airflow-provider-rayjobs, Apache-2.0"  # noqa: A001 - Sphinx's name
release = re.findall(r'^__version__ = "(.+)"', (PACKAGE / "__init__.py").read_text(), re.MULTILINE)[0]

extensions = ["autoapi.extension", "myst_parser"]
exclude_patterns = ["README.md"]

# Pages are Markdown. A link to a page or a heading that is not there is a warning, and `make docs` makes it an error.
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
smartquotes = False  # error texts and code are searched for as they are

# The reference is read from the source; nothing is imported, so neither Airflow nor Ray is needed to build it.
autoapi_dirs = [str(PACKAGE)]
autoapi_generate_api_docs = False  # the pages of docs/api/ say what is public
autoapi_ignore = [str(path) for path in PACKAGE.glob("*.py") if path.stem not in PUBLIC | {"__init__"}]
suppress_warnings = ["autoapi.python_import_resolution"]  # of modules that are not read
autoapi_options = ["members", "show-inheritance"]
autodoc_typehints = "description"

# The pages may be published anywhere, also where no other site is reached: no fonts, scripts or images from elsewhere.
html_theme = "furo"
html_title = f"airflow-provider-rayjobs {release}"
html_copy_source = False
html_show_sphinx = False

#: What a browser would fetch by itself when it shows a page.
_FETCHED = re.compile(r"""<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=["'](?:https?:)?//[^"']*["'][^>]*>""")


def _check_self_contained(app: Sphinx, error: Exception | None) -> None:
    """Fail when a page would fetch anything from another site."""
    if error is not None or app.builder.name != "html":
        return
    found = {
        f"{path.relative_to(app.outdir)}: {tag}"
        for path in Path(app.outdir).rglob("*.html")
        for tag in _FETCHED.findall(path.read_text())
    }
    if found:
        sys.exit("These pages fetch something from another site:\n" + "\n".join(sorted(found)))


def setup(app: Any) -> None:
    """Have the built pages checked."""
    app.connect("build-finished", _check_self_contained)
