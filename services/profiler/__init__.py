"""What every tensor of a model costs to compute and to hold, from headers and configuration."""
