"""Keeps Redis hashes equal to MySQL rows."""
