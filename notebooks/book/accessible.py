"""What the pages need beyond Sphinx's HTML: formulas as MathML, which browsers draw without script or fonts to be
fetched, and tables without headings that say nothing."""

import re

from docutils import nodes
from latex2mathml.converter import convert

NO_HEAD = re.compile(r"<thead>\s*<tr[^>]*>\s*(<th[^>]*>(<p></p>)?</th>\s*)+</tr>\s*</thead>")
EMPTY = re.compile(r"<th[^>]*>(<p></p>)?</th>")


def inline(translator, node):
    translator.body.append(convert(node.astext()))
    raise nodes.SkipNode


def block(translator, node):
    formula = convert(node.astext(), display="block")
    translator.body.append(f'<div class="math" role="group" aria-label="formula" tabindex="0">{formula}</div>')
    raise nodes.SkipNode


def without_empty_headings(app, name, template, context, doctree):
    if "body" in context:
        context["body"] = EMPTY.sub("<td></td>", NO_HEAD.sub("", context["body"]))


def setup(app):
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    app.connect("html-page-context", without_empty_headings)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
