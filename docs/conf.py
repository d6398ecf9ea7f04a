"""Configuration of Sphinx, which builds the documentation: `make docs`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

PACKAGE = Path(__file__).resolve().parent.parent / "airflow_provider_rayjobs"

#: The modules that the reference describes; AutoAPI does not read the others.
PUBLIC = {
    *("__init__.py", "decorators.py", "exceptions.py", "hooks.py", "jobs.py", "job.py", "links.py", "progress.py"),
    *("operators/__init__.py", "operators/prune.py", "operators/stop_delete.py", "operators/submit.py"),
    *("operators/serve.py", "retries.py", "sensors.py", "events.py", "serve.py", "triggers.py"),
    *("kubernetes/__init__.py", "kubernetes/cluster.py", "kuberay/__init__.py", "kuberay/shared.py"),
    *("testing/__init__.py", "testing/head.py"),
}

project = "airflow-provider-rayjobs"
copyright = "The authors of airflow-provider-rayjobs, Apache-2.0"  # noqa: A001 - Sphinx's name
release = re.findall(r'^__version__ = "(.+)"', (PACKAGE / "__init__.py").read_text(), re.MULTILINE)[0]

extensions = ["autoapi.extension", "myst_parser"]
exclude_patterns = ["README.md"]

# Pages are Markdown. A link to a missing page or heading is a warning, which `make docs` turns into an error.
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
smartquotes = False  # users search for error texts and code, which must be shown unchanged

# AutoAPI reads the source without importing it, so neither Airflow nor Ray is needed to build the reference.
autoapi_dirs = [str(PACKAGE)]
autoapi_generate_api_docs = False  # the pages in docs/api/ select what is public
autoapi_ignore = [str(path) for path in PACKAGE.rglob("*.py") if str(path.relative_to(PACKAGE)) not in PUBLIC]
suppress_warnings = ["autoapi.python_import_resolution"]  # about modules that are not read
autoapi_options = ["members", "show-inheritance"]
autodoc_typehints = "description"

# The pages must also work without access to other sites, so they load no fonts, scripts or images from them.
html_theme = "furo"
html_title = f"airflow-provider-rayjobs {release}"
html_copy_source = False
html_show_sphinx = False

#: Matches what a browser fetches from other sites when it shows a page.
_FETCHED = re.compile(r"""<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=["'](?:https?:)?//[^"']*["'][^>]*>""")


def _check_self_contained(app: Sphinx, error: Exception | None) -> None:
    """Exit with an error if a page fetches anything from another site."""
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
    """Register the check of the built pages."""
    app.connect("build-finished", _check_self_contained)
