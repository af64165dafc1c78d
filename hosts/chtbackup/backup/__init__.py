"""Make a backup: find what belongs to a CHT, and have it stored."""
