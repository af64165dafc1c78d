"""What was backed up, and whether a copy is complete."""
