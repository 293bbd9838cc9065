"""TeX as MathML, which browsers draw themselves: no script, no network."""

from docutils import nodes
from latex2mathml.converter import convert


def setup(app):
    app.add_html_math_renderer(
        "mathml",
        inline_renderers=(render_inline, None),
        block_renderers=(render_block, None),
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def render_inline(translator, node):
    translator.body.append(convert(node.astext()))
    raise nodes.SkipNode


def render_block(translator, node):
    mathml = convert(node.astext(), display="block")
    translator.body.append(f'<div class="formula">{mathml}</div>')
    raise nodes.SkipNode
