"""The distributor, one on every node: announces it, receives its stage, checks it, serves it on."""
