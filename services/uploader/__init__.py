"""Puts a model's metadata where every planner can read it."""
