"""Get back what an archive holds, and prove it."""
