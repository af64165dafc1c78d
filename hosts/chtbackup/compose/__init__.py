"""Docker Compose's own files, read without starting anything."""
