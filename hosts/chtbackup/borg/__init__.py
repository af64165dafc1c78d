"""borg, run and understood."""
