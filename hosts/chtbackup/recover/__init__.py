"""Bring a CHT back with nothing but a recovery kit on paper."""
