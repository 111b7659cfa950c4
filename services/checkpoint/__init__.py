"""What a checkpoint on disk is: safetensors headers, index, stage directories."""
