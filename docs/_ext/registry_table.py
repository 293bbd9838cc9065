"""`{methods}`: the table of all encoders of the package, from its registry."""

from docutils import nodes
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

from sc2keras.registry import entries

HEADER = ("builder", "layer", "what it is", "trained", "reference")


def setup(app):
    app.add_directive("methods", Methods)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class Methods(SphinxDirective):
    """One row an entry."""

    def run(self):
        table = nodes.table()
        group = nodes.tgroup(cols=len(HEADER))
        group += [nodes.colspec(colwidth=1) for _ in HEADER]
        head, body = nodes.thead(), nodes.tbody()
        head += row(nodes.Text(name) for name in HEADER)
        # An example of the book may have registered others.
        own = [e for e in entries() if e.layer.__module__.startswith("sc2keras.")]
        body += [row(self.cells(entry)) for entry in own]
        group += [head, body]
        table += group
        return [table]

    def cells(self, entry):
        layer = entry.layer.__name__
        yield nodes.literal(text=entry.name)
        yield link(layer, f"sc2keras.layers.{layer}")
        yield nodes.Text(entry.summary.replace("`", ""))
        yield nodes.Text("yes" if entry.is_trained else "no")
        yield nodes.Text(entry.reference)


def link(text, target):
    reference = addnodes.pending_xref(
        "", refdomain="py", reftype="class", reftarget=target, refexplicit=True
    )
    reference += nodes.literal(text=text)
    return reference


def row(cells):
    made = nodes.row()
    for cell in cells:
        entry, paragraph = nodes.entry(), nodes.paragraph()
        paragraph += cell
        entry += paragraph
        made += entry
    return made
