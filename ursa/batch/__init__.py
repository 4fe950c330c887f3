"""A batch: every recording below some roots, each ingested, found registered, skipped or refused, in order."""
