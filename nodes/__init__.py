"""The nodes: a schema and a few lines of execute each; algorithms live in ``gloria_core``, the host in ``host``."""
