"""Brings a requested model to the origin's disk: from the Hub, or a directory in place."""
