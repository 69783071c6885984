"""Nodes for whole characters: the board of their pictures."""

from torch import Tensor

from ..gloria_core.anchors.picture import AnchorPicture
from ..gloria_core.types import EXPRESSIONS, VIEWS, AnchorRole
from .host.api import io
from .host.characters import board_fingerprint, set_pictures
from .host.vae import encode_anchors
from .sockets import EncodedAnchors, GloriaAnchor, GloriaAnchors

_CATEGORY = "Gloria/anchors"


def board_input() -> io.Input:
    """Return the input that holds a board."""
    made = io.String.Input(
        "board",
        multiline=True,
        default="{}",
        optional=True,
        socketless=True,
        tooltip="The board as JSON: which picture of the input folder is in which slot. The page fills it in; without "
        "the page, write it by hand as docs/characters.md tells. Each picture costs a little time in every chunk.",
    )
    made.extra_dict = {"hidden": True}
    return made


def slot_inputs() -> list[io.Input]:
    """Return the sockets of views and expressions, which win over the board."""
    views = [
        io.Image.Input(
            view,
            optional=True,
            tooltip=f"The body, facing the {view if view in ('left', 'right') else view + ' side'} as the camera sees "
            "it, in place of the picture on the board. With neither, the model invents that side.",
        )
        for view in VIEWS
    ]
    expressions = [
        io.Image.Input(
            expression,
            optional=True,
            tooltip=f"The head with the expression '{expression}', in place of the picture on the board. It may stay "
            "empty in both.",
        )
        for expression in EXPRESSIONS
    ]
    return [*views, *expressions]


class AnchorSet(io.ComfyNode):
    """All pictures of one character, from a board or from sockets, encoded."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return io.Schema(
            node_id="GloriaAnchorSet",
            display_name="Gloria Anchor Set",
            category=_CATEGORY,
            description="One character on a board: a picture of the whole scene, up to four sides of the body and up "
            "to eight expressions. Drop pictures on it, or connect them; what is connected wins.",
            inputs=[
                io.Vae.Input("vae", tooltip="The VAE that belongs to the model. Every picture goes through it once."),
                io.Image.Input(
                    "global_image",
                    optional=True,
                    tooltip="One picture of the whole scene at the video's size, in place of the large one on the "
                    "board. It sets the look of the background, and the size of the video. One of the two is needed.",
                ),
                *slot_inputs(),
                GloriaAnchor.Input(
                    "anchors",
                    optional=True,
                    tooltip="Anchors from anchor nodes, in place of the pictures on the board. Each slot takes one "
                    "picture: a slot may not be connected twice.",
                ),
                board_input(),
            ],
            outputs=[
                GloriaAnchors.Output(
                    display_name="anchors", tooltip="The character, for Gloria Apply Anchors or the long sampler."
                ),
                io.Image.Output(
                    display_name="global_image",
                    tooltip="The picture of the whole scene as it is used; also a start image.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, board: str = "{}", **connected: object) -> str:
        """Return what changes when a picture on the board does."""
        return board_fingerprint(board or "{}")

    @classmethod
    def execute(
        cls,
        vae: object,
        global_image: Tensor | None = None,
        anchors: tuple[AnchorPicture, ...] = (),
        board: str = "{}",
        **pictures: Tensor | None,
    ) -> io.NodeOutput:
        """Read the board, add what is connected, and encode."""
        chosen = set_pictures(board, global_image, anchors, pictures)
        main = next(picture for picture in chosen if picture.role == AnchorRole.GLOBAL)
        return io.NodeOutput(EncodedAnchors(chosen, encode_anchors(vae, chosen)), main.image[..., :3])
