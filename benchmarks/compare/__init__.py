"""Find what changed between reports beyond the noise."""
