"""Rebuild: every row anew from the bucket into a new prefix, compared with the catalog that is live, then put in its
place in one step."""
