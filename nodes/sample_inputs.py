"""The inputs of the Chunked Long Sampler, in the order in which saved workflows hold them: only ever add at the end."""

from typing import get_args

from ..gloria_core.media import SoundFit
from ..gloria_core.media.layout import LAYOUTS
from ..gloria_core.runs.old_takes import KEEP, REMOVE
from ..gloria_core.runs.reroll import BRIDGE, ONWARD
from ..gloria_core.sampling.prompts import Snap
from .host.api import io
from .host.guider import SAMPLERS, SCHEDULERS
from .sockets import GloriaAnchors, GloriaAudio, GloriaPrompts


def long_sampler_inputs() -> list[io.Input]:
    """Return all inputs."""
    return [
        *_sockets(),
        *_video_widgets(),
        *_sampling_widgets(),
        *_solver_widgets(),
        *_chunk_widgets(),
        *_file_widgets(),
        *_expert_sockets(),
        *_wan_inputs(),
        *_run_inputs(),
    ]


def _sockets() -> list[io.Input]:
    return [
        io.Model.Input(
            "model",
            tooltip="A model from Load Gloria DiT or Gloria Nano; of a pair (Wan 2.2 A14B) the high-noise one. LoRAs "
            "and ModelSamplingSD3 (the shift) work on it as usual.",
        ),
        io.Vae.Input("vae", tooltip="The VAE that belongs to the model."),
        GloriaAnchors.Input(
            "anchors",
            optional=True,
            tooltip="The character, from the Anchor Set Builder. Leave it out for weights that were not trained with "
            "anchors, such as plain Wan; set width and height then.",
        ),
        GloriaPrompts.Input(
            "prompts", optional=True, tooltip="What happens when, from the Prompt Schedule. Connect this or 'positive'."
        ),
        io.Conditioning.Input(
            "positive", optional=True, tooltip="One prompt for the whole video. Connect this or 'prompts'."
        ),
        io.Conditioning.Input(
            "negative",
            optional=True,
            tooltip="What you do not want; an empty text will do. Needed only where text guidance is not 1.",
        ),
        GloriaAudio.Input(
            "audio",
            optional=True,
            tooltip="The sound to speak, from the Audio Encoder. It also becomes the file's sound.",
        ),
        io.Image.Input(
            "start_image",
            optional=True,
            tooltip="The first picture of the video, at the video's size. Without one the model begins from the "
            "global anchor as it likes; Wan's image-to-video models need one.",
        ),
    ]


def _video_widgets() -> list[io.Input]:
    return [
        io.Float.Input(
            "seconds",
            default=10.0,
            min=0.0,
            max=36000.0,
            step=0.01,
            tooltip="Length of the video. Time grows with it, memory does not.",
        ),
        io.Float.Input(
            "fps",
            default=0.0,
            min=0.0,
            max=120.0,
            step=0.01,
            tooltip="Frames a second; the same number as in the Audio Encoder. 0 takes the rate that the model was "
            "trained at, "
            "which gives the best motion.",
        ),
        io.Int.Input(
            "width",
            default=0,
            min=0,
            max=16384,
            step=8,
            tooltip="Width of the video in pixels. 0 takes the global anchor's. Larger costs time and memory.",
        ),
        io.Int.Input(
            "height",
            default=0,
            min=0,
            max=16384,
            step=8,
            tooltip="Height of the video in pixels. 0 takes the global anchor's. Larger costs time and memory.",
        ),
    ]


def _sampling_widgets() -> list[io.Input]:
    return [
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=0xFFFFFFFFFFFFFFFF,
            control_after_generate=True,
            tooltip="Another number gives another take. Each chunk's noise is derived from it.",
        ),
        io.Int.Input(
            "steps",
            default=8,
            min=1,
            max=1000,
            tooltip="Solver steps of each chunk. More are slower and cleaner: gloria-nano is good from 8 on, large "
            "models need "
            "20 to 50.",
        ),
        io.Float.Input(
            "text_guidance",
            default=1.0,
            min=0.0,
            max=30.0,
            step=0.05,
            tooltip="How hard the prompt is followed. 1 is as trained and fastest; raise it if commands are "
            "ignored. Anything "
            "but 1 needs a negative prompt and one more pass a step.",
        ),
        io.Float.Input(
            "audio_guidance",
            default=1.0,
            min=0.0,
            max=30.0,
            step=0.05,
            tooltip="How hard the mouth follows the sound. 1 is as trained; raise it if the mouth moves too little. "
            "Anything "
            "but the text guidance's value costs one more pass a step.",
        ),
    ]


def _solver_widgets() -> list[io.Input]:
    return [
        io.Combo.Input(
            "sampler_name", options=list(SAMPLERS), default="euler", tooltip="The solver. Euler is a safe choice."
        ),
        io.Combo.Input(
            "scheduler",
            options=list(SCHEDULERS),
            default="simple",
            tooltip="How the steps are spread over the noise levels. 'simple' with ModelSamplingSD3's shift is a "
            "safe choice.",
        ),
    ]


def _chunk_widgets() -> list[io.Input]:
    return [
        io.Int.Input(
            "chunk_latents",
            default=0,
            min=0,
            max=1024,
            tooltip="Length of a chunk in latent frames (4 pictures each), overlap included. 0 takes the length "
            "that the model "
            "was trained with, which is best; shorter saves memory and costs time.",
        ),
        io.Int.Input(
            "overlap_latents",
            default=4,
            min=1,
            max=64,
            tooltip="Latent frames that each chunk takes over from the one before. 4 is as trained; more is "
            "smoother and slower.",
        ),
    ]


def _file_widgets() -> list[io.Input]:
    return [
        io.Combo.Input(
            "layout",
            options=list(LAYOUTS),
            default="plain",
            tooltip="'plain' is the video alone; 'strip' puts the anchors, the prompt and the current direction "
            "beside it. "
            "Costs almost nothing.",
        ),
        io.Int.Input(
            "enlarge_to",
            default=0,
            min=0,
            max=4096,
            step=8,
            tooltip="Enlarge the file's pictures by a whole number until the smaller side has this many pixels; 0 "
            "leaves them. "
            "Good for tiny models; adds no detail.",
        ),
        io.String.Input(
            "filename_prefix",
            default="gloria/video",
            tooltip="Folder and name below the output folder; a number is added.",
        ),
        io.Boolean.Input(
            "keep_latents",
            default=True,
            tooltip="Keep the run's folder (latents and pieces of every chunk) when the video is finished. Then a "
            "changed prompt or a re-roll makes only what depends on it. Costs disk space.",
        ),
    ]


def _expert_sockets() -> list[io.Input]:
    return [
        io.Sampler.Input("sampler", optional=True, tooltip="A SAMPLER to use instead of sampler_name."),
        io.Sigmas.Input(
            "sigmas",
            optional=True,
            tooltip="Noise levels to use instead of scheduler and steps; from the highest to 0.",
        ),
    ]


def _wan_inputs() -> list[io.Input]:
    return [
        io.Model.Input(
            "model_low_noise",
            optional=True,
            tooltip="The low-noise model of a pair (Wan 2.2 A14B); it finishes what 'model' begins. Give each its own "
            "LoRAs. The card holds one of them at a time; swapping them twice a chunk costs some seconds.",
        ),
        io.Float.Input(
            "boundary",
            optional=True,
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.005,
            tooltip="Noise level at which 'model_low_noise' takes over. 0 takes the model's own: 0.9 for Wan 2.2 "
            "I2V-A14B, 0.875 for T2V-A14B. Raise it to give the low-noise model more of the steps. Costs nothing.",
        ),
        io.ClipVisionOutput.Input(
            "clip_vision_output",
            optional=True,
            tooltip="What CLIP Vision Encode (crop: none) sees in the start image. Wan 2.1's image-to-video models "
            "keep the likeness better with it; other models ignore it. Costs almost nothing.",
        ),
        io.Image.Input(
            "end_image",
            optional=True,
            tooltip="The last picture of the video, at the video's size, for Wan 2.1 FLF2V, Fun-InP and Wan 2.2 "
            "I2V-A14B. The video becomes up to 3 frames longer to end with it exactly. Costs no time.",
        ),
        io.ClipVisionOutput.Input(
            "clip_vision_end_image",
            optional=True,
            tooltip="What CLIP Vision Encode (crop: none) sees in the end image; only for Wan 2.1 FLF2V.",
        ),
    ]


def _run_inputs() -> list[io.Input]:
    return [*_take_inputs(), *_stability_inputs(), *_time_inputs(), *_upkeep_inputs()]


def _stability_inputs() -> list[io.Input]:
    return [
        io.Float.Input(
            "prefix_noise",
            optional=True,
            default=0.0,
            min=0.0,
            max=0.95,
            step=0.01,
            tooltip="Noise on the latents that a chunk goes on from, as the model sees them. A little (0.05 to 0.2) "
            "keeps small faults from growing from chunk to chunk; too much loosens the joint. Costs nothing. For "
            "models that hold their prefix.",
        ),
        io.Float.Input(
            "colour_guard",
            optional=True,
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.05,
            tooltip="Pulls a slow walk of colours and contrast back to the first chunk's. Raise it (0.5) where a long "
            "video grows redder, darker or harder. 0 is off. Costs nothing.",
        ),
        io.Float.Input(
            "drift_threshold",
            optional=True,
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="A chunk that looks less like the character and the first chunk than this is sampled again by "
            "itself. 0 only measures. 0.7 catches another person, blur and noise; see the drift plot first. Costs "
            "another sampling of each such chunk.",
        ),
        io.Int.Input(
            "drift_tries",
            optional=True,
            default=2,
            min=0,
            max=20,
            tooltip="How often a drifting chunk is sampled again at most; the best is kept. Each try costs a chunk.",
        ),
    ]


def _time_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "snap",
            optional=True,
            options=list(Snap),
            default=Snap.NEAREST,
            tooltip="Prompts and anchors change only where a chunk begins. 'nearest': at the start that is nearest to "
            "the time you wrote; 'early': never later than that; 'late': never before it. Costs nothing.",
        ),
        io.Combo.Input(
            "sound_end",
            optional=True,
            options=list(get_args(SoundFit)),
            default="hold",
            tooltip="Where the sound is shorter than the video: 'hold' goes on in silence with a resting mouth, 'stop' "
            "ends the video with the sound, 'loop' plays it again and again. Costs nothing.",
        ),
        io.Video.Input(
            "continue_from",
            optional=True,
            tooltip="A video of the same size that this one goes on from: its last pictures become the beginning, "
            "and are not shown again. Times, prompts and sound count from the new part's start. Costs a moment.",
        ),
    ]


def _upkeep_inputs() -> list[io.Input]:
    return [
        io.ClipVision.Input(
            "clip_vision",
            optional=True,
            tooltip="A model from Load CLIP Vision (ViT-H, ViT-L, DINOv2) that compares the video with the character "
            "in place of the bundled comparison of colours and shapes. Connect it for photographed people. Costs a "
            "moment a chunk and about 1.3 GB of the card's memory (ViT-H).",
        ),
        io.Combo.Input(
            "old_takes",
            optional=True,
            options=[KEEP, REMOVE],
            default=KEEP,
            tooltip="What happens to takes that the finished video does not need. 'keep' lets you go back to them and "
            "costs disk; 'remove when finished' deletes them, and pieces of other layouts, once the video is done. "
            "What you take back later is then made again.",
        ),
    ]


def _take_inputs() -> list[io.Input]:
    return [
        io.String.Input(
            "run",
            optional=True,
            default="",
            tooltip="Name of the run, a folder in output/gloria_runs where everything that is finished stays. Queue "
            "the same name again, after a crash too, and it goes on. Empty takes the file name. Give each video its "
            "own. Costs nothing.",
        ),
        io.String.Input(
            "reroll",
            optional=True,
            multiline=True,
            default="",
            tooltip="Chunks to make again, one a line: '7' (another seed), '0:24 try 2', '7 seed 99', '7 prompt turns "
            "left, angry', '7 take 1' (back to the first). Take a line away and its chunk is as before. Costs the "
            "chunk and, unless you bridge, all later ones.",
        ),
        io.Combo.Input(
            "after_reroll",
            optional=True,
            options=[ONWARD, BRIDGE],
            default=ONWARD,
            tooltip="What happens behind a re-rolled chunk. Anew: the later chunks follow from it, seamlessly. Bridge: "
            "its end is blended back into the later chunks, which stay as they are; fast, good for small repairs.",
        ),
    ]
