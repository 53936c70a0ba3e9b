"""Stands in for the server program."""
