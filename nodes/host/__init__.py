"""The only files that import the host (ComfyUI); everything else sees its objects through these."""
