"""Rendering without a host: one JSON file is a whole video, and a folder takes it up again wherever it was stopped."""
