"""Disks: whose change times count, what identifies a file that was read before, and the cache of files that were."""
