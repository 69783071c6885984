"""Footage for training: manifests and folders of clips, what was encoded of them, and the batches made of that."""
