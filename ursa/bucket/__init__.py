"""A recording in the bucket: what lies under its prefix, and what is known about each object."""
