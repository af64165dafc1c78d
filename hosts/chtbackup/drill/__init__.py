"""Prove that the newest archive restores."""
