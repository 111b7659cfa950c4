"""The splitter: decides what each node's stage is made of, digests it, and cuts it where asked."""
