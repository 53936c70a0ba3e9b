"""Stands in for the deploy program."""
