"""A look inside a model: one page that needs nothing but a browser."""

from sc2keras.explorer.files import view_file
from sc2keras.explorer.page import Page, explorer

__all__ = ["Page", "explorer", "view_file"]
