"""The experiments on the paper: methods, recipes, runs, and what is made of them."""
