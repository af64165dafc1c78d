"""The borg repository on the server: what stands before it, what it may not lose, what was done to it."""
