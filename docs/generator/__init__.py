"""What `docs/make.py` writes, and what `mkdocs` needs to read the docstrings."""
