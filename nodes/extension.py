"""Every node of the pack, in the order in which a workflow uses them."""

from .anchors import AnchorScheduleNode, AnchorSetBuilder, ApplyAnchors, ExpressionAnchor, ViewpointAnchor
from .audio import AudioEncoder, LoadAudioBranch, LoadSpeech
from .characters import AnchorSet, FillAnchors, LoadCharacter, SaveCharacter
from .host.api import ComfyExtension, io
from .load import LoadDiT, Nano, NanoCharacter
from .lora import GloriaLoRA
from .sample import ChunkedLongSampler, PreviewVideo, PromptSchedule
from .save import SaveModel
from .train import EstimateTraining, TrainFull, TrainLoRA
from .train_data import CheckDataset, PrepareDataset
from .train_jobs import ResumeTraining, StopTraining, WatchTraining

NODES: tuple[type[io.ComfyNode], ...] = (
    LoadDiT,
    Nano,
    NanoCharacter,
    LoadAudioBranch,
    GloriaLoRA,
    ViewpointAnchor,
    ExpressionAnchor,
    AnchorSetBuilder,
    AnchorSet,
    FillAnchors,
    LoadCharacter,
    SaveCharacter,
    AnchorScheduleNode,
    ApplyAnchors,
    LoadSpeech,
    AudioEncoder,
    PromptSchedule,
    ChunkedLongSampler,
    PreviewVideo,
    SaveModel,
    CheckDataset,
    PrepareDataset,
    EstimateTraining,
    TrainLoRA,
    TrainFull,
    WatchTraining,
    StopTraining,
    ResumeTraining,
)


class GloriaExtension(ComfyExtension):
    """What the host asks for the list of nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Return the nodes."""
        return list(NODES)
