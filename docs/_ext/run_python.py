"""The directive ``run-python``: code of a page, run while the site is built, with its output.

The blocks of one page share their names, as the cells of a notebook do. Below its code a block
shows what it prints, the value of its last line (frames as tables) and the figures it draws.

``:needs: dask>=2025.7`` shows the code alone where that package is not installed, ``:alt:`` is the
text that stands for the picture, and ``:picture:`` shows the figures without the code.
"""

from __future__ import annotations

import ast
import contextlib
import html
import io
import os
import tempfile
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from packaging.requirements import Requirement
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

PICTURES = "generated/pictures"  # below the sources, as the gallery keeps its own


class RunPython(SphinxDirective):
    """Show code and what comes of it."""

    has_content = True
    option_spec = {
        "needs": directives.unchanged_required,
        "alt": directives.unchanged_required,
        "picture": directives.flag,
    }

    def run(self) -> list[nodes.Node]:
        code = "\n".join(self.content)
        shown: list[nodes.Node] = []
        if "picture" not in self.options:
            shown.append(nodes.literal_block(code, code, language="python"))
        missing = self._missing()
        if missing:
            text = f"Shown without its output: the site was built without {missing}."
            return [*shown, nodes.paragraph(text, text, classes=["without-output"])]
        try:
            printed, value = run_block(code, self._names(), name=self.env.docname)
        except Exception as error:  # any: the page's author must see which page and line
            raise self.error(f"the code failed: {type(error).__name__}: {error}") from error
        return [*shown, *_texts(printed, value), *self._pictures()]

    def _missing(self) -> str | None:
        wanted = self.options.get("needs")
        return None if wanted is None or is_installed(wanted) else wanted

    def _names(self) -> dict[str, Any]:
        """Names that the page's blocks share; new each time that the page is read."""
        pages = self.env.temp_data  # emptied by Sphinx before each page
        return pages.setdefault("run_python", {"__name__": "__main__"})

    def _pictures(self) -> list[nodes.Node]:
        import matplotlib.pyplot as plt

        folder = Path(self.env.srcdir) / PICTURES
        folder.mkdir(parents=True, exist_ok=True)
        images: list[nodes.Node] = []
        for number in plt.get_fignums():
            name = f"{self.env.docname.replace('/', '-')}-{self.env.new_serialno('picture')}.png"
            plt.figure(number).savefig(folder / name, dpi=140, bbox_inches="tight")
            alt = self.options.get("alt", "")
            images.append(nodes.image(uri=f"/{PICTURES}/{name}", alt=alt, classes=["drawn"]))
        plt.close("all")
        return images


def is_installed(wanted: str) -> bool:
    """Whether a requirement such as ``dask>=2025.7`` is met.

    Parameters
    ----------
    wanted : str

    Returns
    -------
    bool
    """
    requirement = Requirement(wanted)
    try:
        return version(requirement.name) in requirement.specifier
    except PackageNotFoundError:
        return False


def run_block(code: str, names: dict[str, Any], *, name: str) -> tuple[str, Any]:
    """Run code in a folder of its own; a warning is an error.

    Parameters
    ----------
    code : str
    names : dict
        Names that the code finds and leaves.
    name : str
        For tracebacks.

    Returns
    -------
    printed : str
    value : object
        Of the last line, None where that is no expression.
    """
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    value, here = None, os.getcwd()
    names.setdefault("_folder", tempfile.TemporaryDirectory())
    os.chdir(names["_folder"].name)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()) as printed,
            warnings.catch_warnings(action="error"),
        ):
            exec(compile(tree, name, "exec"), names)
            if isinstance(last, ast.Expr):
                value = eval(compile(ast.Expression(last.value), name, "eval"), names)
    finally:
        os.chdir(here)
    return printed.getvalue(), value


def _texts(printed: str, value: Any) -> list[nodes.Node]:
    shown: list[nodes.Node] = []
    if printed.strip():
        shown.append(_output(printed.rstrip()))
    if hasattr(value, "to_html"):  # a frame
        table = f'<div class="output-table">{value.to_html(border=0, max_rows=8)}</div>'
        shown.append(nodes.raw("", table, format="html"))
    elif value is not None and not hasattr(value, "get_params") and not hasattr(value, "figure_"):
        shown.append(_output(repr(value)))
    return shown


def _output(text: str) -> nodes.Node:
    return nodes.raw("", f'<pre class="output">{html.escape(text)}</pre>', format="html")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("run-python", RunPython)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
