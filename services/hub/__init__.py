"""The Hub and the metadata store; the only room that knows huggingface_hub."""
