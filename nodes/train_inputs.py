"""The inputs of the training nodes. Their order is frozen: workflows that people have saved hold values by position."""

from .host.api import io
from .host.checkpoints import BUNDLED_WEIGHTS
from .host.paths import model_files, vae_files
from .host.training_config import BASES, CHECKPOINTING, KINDS, LAYERS, NO_VAE, OPTIMISERS, STAGES
from .sockets import GloriaDataset


def first_inputs() -> list[io.Input]:
    """Return what is trained on, and what is trained."""
    return [
        GloriaDataset.Input("dataset", tooltip="The footage, from Gloria Prepare Dataset with the model below."),
        io.Combo.Input(
            "weights",
            options=[BUNDLED_WEIGHTS, *model_files()],
            default=BUNDLED_WEIGHTS,
            tooltip="The model to start from; the file itself is not changed. Take the one that the footage was "
            "prepared with. The trainer opens it by itself, in its own process.",
        ),
    ]


def job_input(default: str) -> io.Input:
    """Return the job's name."""
    return io.String.Input(
        "job",
        default=default,
        tooltip="A name for this training: its folder is output/gloria_training/NAME. Queue the same name again to go "
        "on where it stands, with more steps if you like; take another name for another training.",
    )


def adapter_inputs(rate: float = 1e-4) -> list[io.Input]:
    """Return what kind of adapter is trained."""
    return [
        io.Combo.Input(
            "kind",
            options=list(KINDS),
            default=KINDS[0],
            tooltip="lora is right for nearly all. lokr makes the smallest files, loha is in between; both take a "
            "little longer to compute. The stock LoRA loader takes all three.",
        ),
        io.Combo.Input(
            "layers",
            options=list(LAYERS),
            default=LAYERS[0],
            tooltip="What is changed. character: all attention and feed-forward layers. identity: only where the "
            "anchors are heeded; smaller, and forgets less. performance: what is told and heard, with the ears "
            "trained whole, which makes a large file.",
        ),
        io.Int.Input(
            "rank",
            default=32,
            min=1,
            max=1024,
            tooltip="How much the adapter can hold. Raise it where details are missed: 64 or 128 follow more, take "
            "more memory and need more footage. 16 is often enough for one face.",
        ),
        *amount_inputs(1000, rate),
    ]


def amount_inputs(steps: int, rate: float) -> list[io.Input]:
    """Return how long and how strongly is trained, and what."""
    return [
        io.Int.Input(
            "steps",
            default=steps,
            min=1,
            max=10_000_000,
            tooltip="How many times the weights are corrected. Time grows with it. Watch the held-out loss: when it "
            "rises again, earlier would have been better. More steps can be added later.",
        ),
        io.Float.Input(
            "learning_rate",
            default=rate,
            min=1e-8,
            max=1.0,
            step=1e-6,
            round=False,
            tooltip="How large each correction is. Too high and the loss jumps or pictures fall apart: halve it. Too "
            "low and nothing is learned in the given steps: double it.",
        ),
        io.Combo.Input(
            "stage",
            options=list(STAGES),
            default="character",
            tooltip="What is taught. character: one person from a few clips, which is what a LoRA is mostly for. The "
            "stages are the paper's, on much footage: I speech (gives a model without ears new ones), II the scene and "
            "going on from clean pictures, III views and expressions. 'stages I to III' trains one after the other, "
            "each for the given steps, and views and expressions together for a quarter of them at the end.",
        ),
    ]


def size_inputs() -> list[io.Input]:
    """Return what a batch is."""
    return [
        io.Int.Input(
            "batch_size",
            default=1,
            min=1,
            max=1024,
            tooltip="Clips that are looked at for each correction. More is steadier, and takes so much more time and "
            "memory a step.",
        ),
        io.Int.Input(
            "frames",
            default=0,
            min=0,
            max=1025,
            tooltip="Length of the training clips, 4k+1 such as 33 or 81; 0 is the model's own, and shorter where the "
            "footage is. Half the frames take less than half the memory, but the model then sees less movement.",
        ),
        io.Combo.Input(
            "checkpointing",
            options=list(CHECKPOINTING),
            default="blocks",
            tooltip="blocks: computes parts twice instead of remembering them, a third slower and far less memory. "
            "offload: remembers the rest in the machine's memory too. off: fastest, for small models and large cards.",
        ),
    ]


def memory_inputs() -> list[io.Input]:
    """Return what else saves memory; only beside frozen weights."""
    return [
        io.Combo.Input(
            "base_precision",
            options=list(BASES),
            default=BASES[0],
            tooltip="How the frozen weights are kept. 'as is' is exact. bf16 halves them, fp8 quarters them for a "
            "little detail. Both need checkpointing.",
        ),
        io.Int.Input(
            "swap_blocks",
            default=0,
            min=0,
            max=1024,
            tooltip="Blocks of the model whose frozen weights wait in the machine's memory until it is their turn. "
            "Raise it until the training fits onto the card; each costs a little time. Needs checkpointing.",
        ),
    ]


def last_inputs() -> list[io.Input]:
    """Return how it is optimised, what is written, and all else."""
    return [*_optimiser_inputs(), *_written_inputs(), *_end_inputs()]


def _optimiser_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "optimiser",
            options=list(OPTIMISERS),
            default="AdamW",
            tooltip="AdamW is right for a LoRA. The 8-bit one needs the package torchao and saves memory where whole "
            "models are trained; Adafactor saves more, and may need another rate. Muon is for large batches.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=2**53,
            control_after_generate=False,  # another seed at each queue would be another training
            tooltip="Order of clips and noise. Another seed is another training of the same quality.",
        ),
    ]


def _written_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "sample_every",
            default=250,
            min=0,
            max=10_000_000,
            tooltip="Steps between samples: a sheet of true frames above what the model makes of them, and a film of "
            "both. 0 makes none. gloria-nano takes seconds for them; Wan weights need sample_vae, and take as long as "
            "two short videos.",
        ),
        io.Int.Input(
            "save_every",
            default=250,
            min=0,
            max=10_000_000,
            tooltip="Steps between checkpoints, and between measurements on the held-out clips; 0 saves only at the "
            "end and when stopped. After a crash, what came after the last checkpoint is lost. The last three stay.",
        ),
        io.Float.Input(
            "held_out",
            default=0.05,
            min=0.0,
            max=0.9,
            step=0.01,
            tooltip="Share of the clips that is never trained on, to measure on; one at least where there are four or "
            "more. 0 trains on all.",
        ),
        io.String.Input(
            "title",
            default="",
            tooltip="A name for people, written into the file and shown by LoRA managers. Empty takes the job's.",
        ),
    ]


def _end_inputs() -> list[io.Input]:
    return [
        io.Boolean.Input(
            "wait",
            default=True,
            tooltip="On: the node follows the training to its end, with progress, plot and samples; ComfyUI does "
            "nothing else meanwhile, and Interrupt makes a checkpoint and stops. Off: the node returns at once and the "
            "training goes on by itself; look at it with Gloria Watch Training.",
        ),
        more_settings(),
        io.Int.Input(
            "cards",
            default=1,
            min=1,
            max=64,
            optional=True,
            tooltip="Graphics cards that work together, each on clips of its own: two cards see twice the clips a "
            "step. Raise it only if this machine has so many.",
        ),
        io.Combo.Input(
            "sample_vae",
            options=[NO_VAE, *vae_files()],
            default=NO_VAE,
            optional=True,
            tooltip="The VAE that samples of Wan weights are shown with: wan_2.1_vae, or wan2.2_vae for the 5B. It is "
            "on the card only while samples are made, with some GB for the pictures themselves. gloria-nano needs "
            "none.",
        ),
    ]


def more_settings() -> io.Input:
    """Return the lines for all that has no widget."""
    return io.String.Input(
        "more_settings",
        default="",
        multiline=True,
        optional=True,
        tooltip="Every other setting of the trainer, a line each, such as optim.warmup_steps = 20 or "
        "task.options.face_weight = 2.0; they come last and win. config.toml in the job's folder lists them all with "
        "their values. Empty is right for most.",
    )
