"""Gloria for ComfyUI: consistent character video from content anchors.

The host imports this file from its path. Nothing of the host is imported before it asks for the nodes, so that tools
that import the package for other reasons (pytest among them) need no host.
"""

import logging
from typing import Any

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> Any:  # noqa: ANN401 - the type is the host's, which must not be imported here
    """Return the extension that lists the nodes, and add our addresses; called once by the host while it starts."""
    try:
        from .nodes.extension import GloriaExtension
        from .nodes.host import board_routes, run_routes, training_routes

        run_routes.register()
        board_routes.register()
        training_routes.register()
    except Exception:
        # The host shows one line and no traceback when an entry point fails.
        logging.getLogger(__name__).exception("Gloria's nodes could not be loaded.")
        raise
    return GloriaExtension()


__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
