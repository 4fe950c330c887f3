"""The catalog: three Delta tables under the prefix that ``ACTIVE.json`` names."""
