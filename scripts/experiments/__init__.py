"""The experiments on the paper: methods, recipes, runs, and what is made of them."""

import logging
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# TensorFlow warns that it traces anew for every model, of which there are many.
logging.getLogger("tensorflow").setLevel(logging.ERROR)
