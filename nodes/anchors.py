"""Nodes that turn pictures into a character: roles, sets, and putting a set on a conditioning."""

from dataclasses import replace

from torch import Tensor

from ..gloria_core.sampling.anchor_schedule import parse_anchor_schedule
from ..gloria_core.types import EXPRESSIONS, VIEWS, AnchorRole
from .host.api import io
from .host.guider import with_anchors, with_audio, without_audio
from .host.vae import encode_anchors
from .sockets import (
    AnchorPicture,
    Conditioning,
    EncodedAnchors,
    EncodedAudio,
    GloriaAnchor,
    GloriaAnchors,
    GloriaAudio,
)

_CATEGORY = "Gloria/anchors"
_CHAIN = GloriaAnchor.Input(
    "previous",
    display_name="previous",
    optional=True,
    tooltip="More anchors, from another anchor node: this way you chain as many as you like into one line.",
)


class ViewpointAnchor(io.ComfyNode):
    """One picture of the body from one side."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return io.Schema(
            node_id="GloriaViewpointAnchor",
            display_name="Gloria Viewpoint Anchor",
            category=_CATEGORY,
            description="Says which side of the character a picture shows. The model shows that side whenever the "
            "character turns.",
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="The whole body from one side, cropped close, best on a plain background. Costs a "
                    "little time in "
                    "every chunk, the more the larger it is.",
                ),
                io.Combo.Input(
                    "view",
                    options=list(VIEWS),
                    default="front",
                    tooltip="Where the character faces, as the camera sees it: 'left' means that it looks at the "
                    "left edge of "
                    "the picture.",
                ),
                _CHAIN,
            ],
            outputs=[GloriaAnchor.Output(display_name="anchor")],
        )

    @classmethod
    def execute(cls, image: Tensor, view: str, previous: tuple[AnchorPicture, ...] = ()) -> io.NodeOutput:
        """Add the picture to the chain."""
        return io.NodeOutput((*previous, AnchorPicture(AnchorRole.VIEW, view, image[:1])))


class ExpressionAnchor(io.ComfyNode):
    """One picture of the face with one expression."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return io.Schema(
            node_id="GloriaExpressionAnchor",
            display_name="Gloria Expression Anchor",
            category=_CATEGORY,
            description="Says which expression a picture of the head shows. The model uses it when the prompt asks "
            "for that mood.",
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="The head, cropped close, face towards the camera. Costs a little time in every chunk, "
                    "the more the "
                    "larger it is.",
                ),
                io.Combo.Input(
                    "expression",
                    options=list(EXPRESSIONS),
                    default="neutral",
                    tooltip="The mood that the picture shows. Use the same word in the prompt to call for it.",
                ),
                _CHAIN,
            ],
            outputs=[GloriaAnchor.Output(display_name="anchor")],
        )

    @classmethod
    def execute(cls, image: Tensor, expression: str, previous: tuple[AnchorPicture, ...] = ()) -> io.NodeOutput:
        """Add the picture to the chain."""
        return io.NodeOutput((*previous, AnchorPicture(AnchorRole.EXPRESSION, expression, image[:1])))


class AnchorSetBuilder(io.ComfyNode):
    """All pictures of one character, encoded."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        views = [
            io.Image.Input(
                view,
                optional=True,
                tooltip=f"The body, facing the {view if view in ('left', 'right') else view + ' side'} as the "
                "camera sees it. "
                "Leave it empty if you have no such picture: the model then invents that side.",
            )
            for view in VIEWS
        ]
        expressions = [
            io.Image.Input(
                expression,
                optional=True,
                tooltip=f"The head with the expression '{expression}'. Leave it empty if you have no such picture.",
            )
            for expression in EXPRESSIONS
        ]
        return io.Schema(
            node_id="GloriaAnchorSetBuilder",
            display_name="Gloria Anchor Set Builder",
            category=_CATEGORY,
            description="Collects the pictures of one character: one of the whole scene, up to four sides of the "
            "body and up "
            "to eight expressions. Every picture keeps its own size.",
            inputs=[
                io.Vae.Input("vae", tooltip="The VAE that belongs to the model. Every picture goes through it once."),
                io.Image.Input(
                    "global_image",
                    tooltip="One picture of the whole scene at the video's size; usually the start frame. It sets "
                    "the look of "
                    "the background, and the size of the video.",
                ),
                *views,
                *expressions,
                GloriaAnchor.Input(
                    "anchors",
                    optional=True,
                    tooltip="Anchors from anchor nodes, instead of or beside the pictures above. Each slot takes "
                    "one picture.",
                ),
            ],
            outputs=[
                GloriaAnchors.Output(
                    display_name="anchors", tooltip="The character, for Gloria Apply Anchors or the long sampler."
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        vae: object,
        global_image: Tensor,
        anchors: tuple[AnchorPicture, ...] = (),
        **pictures: Tensor | None,
    ) -> io.NodeOutput:
        """Encode the pictures; two for one slot raise AnchorError."""
        given = [AnchorPicture(AnchorRole.GLOBAL, "", global_image[:1])]
        for role, slots in ((AnchorRole.VIEW, VIEWS), (AnchorRole.EXPRESSION, EXPRESSIONS)):
            images = ((slot, pictures.get(slot)) for slot in slots)
            given += [AnchorPicture(role, slot, image[:1]) for slot, image in images if image is not None]
        chosen = (*given, *anchors)
        return io.NodeOutput(EncodedAnchors(chosen, encode_anchors(vae, chosen)))


class AnchorScheduleNode(io.ComfyNode):
    """Which of a character's pictures are heeded when."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return io.Schema(
            node_id="GloriaAnchorSchedule",
            display_name="Gloria Anchor Schedule",
            category=_CATEGORY,
            description="Says which pictures of the character a long video heeds from which moment, how strongly, and "
            "when one is hidden from the video. Without it all are heeded all the time.",
            inputs=[
                GloriaAnchors.Input("anchors", tooltip="The character, from the Anchor Set Builder."),
                io.String.Input(
                    "schedule",
                    multiline=True,
                    default="0:00 all",
                    tooltip="One entry a line: a time and what is heeded from then on, such as '0:12 global, views, "
                    "-back' or '0:20 all, happy*0.5' (1 is as trained, lower is weaker). '0:12-0:15 hide back' hides a "
                    "picture for a while. Names: all, views, expressions, none, global, front, back, left, right and "
                    "the eight expressions. Fewer anchors are a little faster; strengths and hiding a little slower.",
                ),
            ],
            outputs=[GloriaAnchors.Output(display_name="anchors", tooltip="The character with its schedule.")],
        )

    @classmethod
    def execute(cls, anchors: EncodedAnchors, schedule: str) -> io.NodeOutput:
        """Put the schedule onto the character."""
        return io.NodeOutput(replace(anchors, schedule=parse_anchor_schedule(schedule)))


class ApplyAnchors(io.ComfyNode):
    """Anchors and sound onto conditionings, for the stock samplers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return io.Schema(
            node_id="GloriaApplyAnchors",
            display_name="Gloria Apply Anchors",
            category=_CATEGORY,
            description="Puts a character, and a sound if you like, onto the prompts, so that the ordinary KSampler "
            "makes one "
            "clip of it.",
            inputs=[
                io.Conditioning.Input("positive", tooltip="What you want to see, from CLIP Text Encode."),
                io.Conditioning.Input(
                    "negative", tooltip="What you do not want, from CLIP Text Encode; an empty text will do."
                ),
                GloriaAnchors.Input(
                    "anchors", tooltip="The character. It goes onto both prompts: guidance is about the text."
                ),
                GloriaAudio.Input(
                    "audio",
                    optional=True,
                    tooltip="The sound to speak. It goes onto the positive prompt alone, so that a higher cfg also "
                    "makes the "
                    "mouth follow it harder. The clip begins where the sound begins.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative"),
            ],
        )

    @classmethod
    def execute(
        cls,
        positive: Conditioning,
        negative: Conditioning,
        anchors: EncodedAnchors,
        audio: EncodedAudio | None = None,
    ) -> io.NodeOutput:
        """Put the anchors on both conditionings and the sound on the positive one."""
        positive = with_anchors(positive, anchors.anchors)
        if audio is not None:
            positive = with_audio(positive, audio.features)
        return io.NodeOutput(positive, without_audio(with_anchors(negative, anchors.anchors)))
