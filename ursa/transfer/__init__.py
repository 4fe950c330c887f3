"""The engine: files and parts of files between a disk and a store. Knows nothing of manifests or catalogs."""
