"""Typed settings: defaults, then a file, then the environment; and how logs are written."""
