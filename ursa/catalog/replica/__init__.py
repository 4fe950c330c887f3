"""The replica: the catalog at hand. deltalake opens nothing else."""
