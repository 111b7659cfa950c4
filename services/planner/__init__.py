"""Chooses nodes, cuts the model by compute within memory, and says how good the plan is."""
