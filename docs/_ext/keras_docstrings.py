"""Docstrings in the style of Keras, as reStructuredText.

Names and values stand in single backticks, formulas in indented lines.
"""

import inspect
import re

# Before napoleon, which reads the sections.
_PRIORITY = 400
_SECTION = re.compile(r"[A-Z][\w ]*:$")
_CODE = re.compile(r"(?<![:`\w])`([^`]+)`(?![`_])")
# What means something else in reStructuredText: |x|, **kwargs, n_features_in_.
_MARKUP = re.compile(r"\||\*\*(?=\w)|(?<=\w)_(?=[,)])")
_NAME = re.compile(r"[A-Za-z_][\w.]*")


def setup(app):
    app.connect("autodoc-process-docstring", convert_docstring, priority=_PRIORITY)
    app.connect("autodoc-process-signature", find_signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def convert_docstring(app, what, name, obj, options, lines):
    lines[:] = mark_formulas(lines)
    lines[:] = [line if ">>>" in line else convert_line(line) for line in lines]


def find_signature(app, what, name, obj, options, signature, returns):
    """That of __init__, which Keras hides behind a __new__ of its own."""
    if what != "class" or "__init__" not in vars(obj):
        return None
    parameters = list(inspect.signature(obj.__init__).parameters.values())[1:]
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
    return str(inspect.Signature(bare)), None


def convert_line(line):
    """Backticks as literals, or as links where they hold a name."""
    parts = _CODE.split(line)
    for i, part in enumerate(parts):
        if i % 2 == 0:
            parts[i] = _MARKUP.sub(r"\\\g<0>", part)
        elif _NAME.fullmatch(part):
            parts[i] = f":py:obj:`{part}`"
        else:
            parts[i] = f"``{part}``"
    return "".join(parts)


def mark_formulas(lines):
    """An indented paragraph that belongs to no section, as a literal block."""
    marked, is_open, in_section = [], False, False
    for i, line in enumerate(lines):
        is_indented = line.startswith("    ")
        if line and not is_indented:
            in_section = bool(_SECTION.match(line)) or (
                i + 1 < len(lines) and lines[i + 1].startswith("---")
            )
        if is_indented and not in_section and not is_open and not lines[i - 1]:
            marked += ["::", ""]
        is_open = (is_open or bool(is_indented)) and (is_indented or not line)
        marked.append(line)
    return marked
