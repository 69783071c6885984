"""The training loop: batch, loss, gradients, step, and what is written on the way."""

import hashlib
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..config import ModelConfig
from ..errors import CheckpointError, ConfigError, GloriaError, NothingHeldOutError
from ..events import EventLog
from ..protocols import TrainingTask
from ..types import TrainBatch
from ..whole import written_whole
from . import objective, optim, start
from . import state as states
from .config import TrainConfig, changed_settings, load_config
from .objective import NUM_BINS
from .process import Prefetcher, StopSignal, World, joined_world, keep_freed_memory, peak_memory_mb
from .shard import ShardedGradients, check_alike
from .state import TrainState

_log = logging.getLogger(__name__)
_NUM_EXTRA = 2 + 2 * NUM_BINS + 2  # loss, clips, bin sums, bin counts, CPU seconds, wish to stop


class TrainingError(GloriaError):
    """The run cannot go on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """How a leg of a run ended."""

    step: int
    """Optimiser steps done in all legs."""
    finished: bool
    """Whether the run reached ``run.total_steps``; otherwise resume it for more."""
    checkpoint: Path
    """The last checkpoint."""
    reason: str
    """``finished``, ``time``, ``stop`` (the file) or the name of a signal."""


@dataclass(slots=True)
class _Tally:
    """Sums since the last line of the log."""

    steps: int = 0
    extra: torch.Tensor = field(default_factory=lambda: torch.zeros(_NUM_EXTRA, dtype=torch.float64))
    grad_norm: float = 0.0
    metrics: dict[str, list[float]] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)


@dataclass(slots=True, eq=False)
class _Leg:
    """The fixed things around the state while one process runs."""

    config: TrainConfig
    task: TrainingTask
    world: World
    folder: Path
    events: EventLog
    gradients: optim.Gradients | ShardedGradients
    batches: Prefetcher
    started: float
    """Clock at which the run would have started had it never paused."""
    stop_at: float
    stop: StopSignal
    tally: _Tally = field(default_factory=_Tally)
    seen: list[tuple[tuple[str, ...], torch.Tensor]] = field(default_factory=list)
    """Clips and loss of each batch of the last step."""
    cpu_mark: float = 0.0


def train(
    config: TrainConfig, *, resume: bool = False, stop_after_s: float = math.inf, stop_file: Path | None = None
) -> TrainResult:
    """Train until ``run.total_steps``, a time limit or a signal, and leave a checkpoint.

    Args:
        config: the run; ``run.out`` names its folder.
        resume: go on from the folder's last checkpoint; otherwise the folder must hold no run.
        stop_after_s: seconds from this call after which a checkpoint is made and the leg ends.
        stop_file: a file whose being there has the same effect.

    Raises:
        ConfigError: a setting is wrong, or the folder already holds a run.
        CheckpointError: a checkpoint is missing, does not fit, or cannot be written.
        TrainingError: the loss is no number any more; the last checkpoint stays.
    """
    begun = time.perf_counter()
    torch.set_num_threads(config.run.threads)
    _log.info("freed memory is %s", "kept" if keep_freed_memory() else "handed back")
    sharded = config.run.parallel == "shard"
    with joined_world(config.run.device, always=sharded) as world, StopSignal(stop_file).watching() as stop:
        folder = _folder(config, resume)
        task = start.load_task(config.task.target, config.task.options)
        state = start.new_state(task, config, world)
        events = EventLog(folder / "events.jsonl" if world.is_main else None)
        if resume:
            states.restore(state, folder)
        world.barrier()  # nobody writes before all have read
        if world.is_main:
            _write_config(config, folder, events, resume)
            start.write_start(state, folder)
        first = state.step * config.optim.accumulation
        leg = _Leg(
            config=config,
            task=task,
            world=world,
            folder=folder,
            events=events,
            gradients=(ShardedGradients if sharded else optim.Gradients)(state.trained.values(), _NUM_EXTRA),
            batches=Prefetcher(lambda index: task.batch(index, world.rank, world.size), first, config.run.prefetch),
            started=begun - state.elapsed_s,
            stop_at=begun + stop_after_s,
            stop=stop,
            cpu_mark=time.process_time(),
        )
        events.write("resume" if resume else "start", **_facts(state, leg))
        try:
            return _run(state, leg)
        finally:
            leg.batches.close()


def _run(state: TrainState, leg: _Leg) -> TrainResult:
    log, total, sharded = leg.config.log, leg.config.run.total_steps, leg.config.run.parallel == "shard"
    reason, checkpoint = "finished", None
    while state.step < total:
        stopped = train_step(state, leg)
        if stopped:
            reason = leg.stop.name or "time"
        last = stopped or state.step == total
        if _due(state.step, log.log_every) or last:
            _report(state, leg)
        if _due(state.step, log.held_out_every) or (state.step == total and log.held_out_every):
            held_out(state, leg)
        checkpoint = None
        if _due(state.step, log.checkpoint_every) or last:
            checkpoint = _save(state, leg)
        if _due(state.step, log.sample_every) and (leg.world.is_main or sharded):
            _sample(state, leg)
        if stopped:
            break
    leg.events.write("end", step=state.step, reason=reason, elapsed_s=_elapsed(leg))
    return TrainResult(
        step=state.step,
        finished=state.step >= total,
        checkpoint=checkpoint or states.latest_checkpoint(leg.folder),
        reason=reason,
    )


def train_step(state: TrainState, leg: _Leg) -> bool:
    """Make one optimiser step out of ``optim.accumulation`` batches of every process; tell whether to stop."""
    config, world, gradients = leg.config, leg.world, leg.gradients
    gradients.zero()
    leg.seen.clear()
    for micro in range(config.optim.accumulation):
        index = state.step * config.optim.accumulation + micro
        batch = leg.batches.take()
        found = backward(state, batch, config, world, index)
        gradients.extra[: 2 + 2 * NUM_BINS] += found
        leg.seen.append((batch.names, found[0]))
        for name, value in batch.metrics.items():
            leg.tally.metrics.setdefault(name, []).append(value)
    cpu = time.process_time()
    gradients.extra[-2], leg.cpu_mark = cpu - leg.cpu_mark, cpu
    gradients.extra[-1] = float(bool(leg.stop.name) or time.perf_counter() >= leg.stop_at)
    gradients.average(world, config.optim.accumulation)
    norm = gradients.clip(config.optim.grad_clip)
    extra = gradients.extra.to("cpu", torch.float64)
    if not math.isfinite(norm) or not math.isfinite(float(extra[0])):
        raise TrainingError(_nan_sentence(state, leg))
    optim.set_lr(state.optimizers, optim.lr_factor(state.step, config.run.total_steps, config.optim), config.optim)
    for optimizer in state.optimizers:
        optimizer.step()
    state.ema.update(state.step)
    state.step += 1
    state.samples += round(float(extra[1]))
    state.cpu_s += float(extra[-2])
    leg.tally.steps += 1
    leg.tally.extra += extra
    leg.tally.grad_norm += norm
    return bool(extra[-1] > 0)


def backward(state: TrainState, batch: TrainBatch, config: TrainConfig, world: World, index: int) -> torch.Tensor:
    """Add one batch's gradients to the parameters' and return (loss, clips, 4 bin sums, 4 bin counts)."""
    seed = stream_seed(config.run.seed, "train", index * world.size + world.rank)
    torch.manual_seed(seed)  # for layers that draw by themselves, such as nn.Dropout
    batch = batch.on(world.device)
    if config.run.parallel == "shard":
        check_alike(batch, world, passes_apart=_runs_apart(state))
    drawn = objective.draw(batch, config.objective, torch.Generator(world.device).manual_seed(seed))
    with _precision(config, world):
        losses = objective.clip_losses(state.modules, batch, drawn, config.objective.padding_id)
    loss = losses.mean()
    loss.backward()
    head = torch.stack((loss.detach(), torch.tensor(float(len(losses)), device=loss.device)))
    return torch.cat((head, objective.loss_bins(losses, drawn.sigma).flatten()))


def held_out(state: TrainState, leg: _Leg) -> None:
    """Log the loss of the averaged weights on the held-out batches, with the same noise every time."""
    sums = torch.zeros(2, NUM_BINS, dtype=torch.float32, device=leg.world.device)
    with torch.no_grad(), averaged_for_use(state), _precision(leg.config, leg.world):
        for index in _own_share(leg):
            try:
                batch = leg.task.held_out(index).on(leg.world.device)
            except NothingHeldOutError:
                _log.warning("step %d: all held-out clips are damaged; the training goes on without them", state.step)
                break
            generator = torch.Generator(leg.world.device).manual_seed(stream_seed(0, "held-out", index))
            drawn = objective.held_out_draw(batch, generator)
            losses = objective.clip_losses(state.modules, batch, drawn, leg.config.objective.padding_id)
            sums += objective.loss_bins(losses, drawn.sigma)
    leg.world.sum_(sums)
    if sums[1].sum() > 0:
        loss = float(sums[0].sum() / sums[1].sum())
        leg.events.write("held_out", loss=loss, loss_bins=_bin_means(sums), **_facts(state, leg))
        _log.info("step %d: held-out loss %.5f", state.step, loss)


def _own_share(leg: _Leg) -> range:
    """Return the held-out batches of a process: its share, or all of them where the network is in shards."""
    sharded = leg.config.run.parallel == "shard"
    return range(0 if sharded else leg.world.rank, leg.task.num_held_out, 1 if sharded else leg.world.size)


def _runs_apart(state: TrainState) -> bool:
    model = getattr(state.modules["dit"], "config", None)
    return isinstance(model, ModelConfig) and model.anchors.mode == "cached"


@contextmanager
def averaged_for_use(state: TrainState) -> Iterator[None]:
    """Put averaged weights and evaluation mode on the networks for the length of a ``with`` block."""
    for module in state.modules.values():
        module.eval()
    try:
        with optim.resting(state.optimizers), state.ema.applied():
            yield
    finally:
        for module in state.modules.values():
            module.train()


def stream_seed(seed: int, stream: str, index: int) -> int:
    """Return a seed of 63 bits for one draw of one stream, so that no draw depends on how many came before it."""
    digest = hashlib.blake2b(f"{seed}/{stream}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _folder(config: TrainConfig, resume: bool) -> Path:
    if not config.run.out:
        raise ConfigError("run.out is empty; name the run's folder there or with --out.")
    folder = Path(config.run.out)
    if not resume and states.has_state(folder):
        raise ConfigError(f"{folder} already holds a run; go on with it by --resume, or choose another folder.")
    if resume and not states.has_state(folder):
        raise CheckpointError(f"{folder} holds no run to resume; start it without --resume.")
    try:
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        (folder / "samples").mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"The run's folder {folder} cannot be made ({error.strerror}); choose another in run.out."
        ) from error
    return folder


def _write_config(config: TrainConfig, folder: Path, events: EventLog, resume: bool) -> None:
    path = folder / "config.toml"
    if resume and path.exists():
        changed = changed_settings(load_config(path), config)
        if changed:
            events.write("config_changed", settings={key: [repr(v) for v in pair] for key, pair in changed.items()})
            _log.warning("settings changed since the last leg: %s", ", ".join(changed))
    with written_whole(path, advice="free some space; the run is as it was") as partial:
        partial.write_text(config.to_toml(), encoding="utf-8")


def _save(state: TrainState, leg: _Leg) -> Path:
    state.elapsed_s = _elapsed(leg)
    path = leg.folder / "checkpoints" / f"step-{state.step:08d}.safetensors"
    if leg.world.is_main or leg.config.run.parallel == "shard":
        path = states.save(state, leg.folder, leg.config, leg.world)
    if leg.world.is_main:
        leg.events.write("checkpoint", path=path.relative_to(leg.folder).as_posix(), **_facts(state, leg))
    return path


def _sample(state: TrainState, leg: _Leg) -> None:
    """Write samples; the other processes of a sharded run help, and what they write is thrown away.

    Samples that fail (the card or a disk is full) are told and end no training, unless other processes wait in them.
    """
    try:
        _write_samples(state, leg)
    except (GloriaError, OSError, torch.OutOfMemoryError) as error:
        if leg.config.run.parallel == "shard":
            raise
        _log.warning("no samples of step %d: %s", state.step, error)
        leg.events.write("sample_failed", sentence=str(error), **_facts(state, leg))


def _write_samples(state: TrainState, leg: _Leg) -> None:
    path = leg.folder / "samples" / f"step-{state.step:08d}.png"
    own = path if leg.world.is_main else path.with_name(f"process-{leg.world.rank}.png")
    with torch.no_grad(), averaged_for_use(state), _precision(leg.config, leg.world):
        leg.task.sample_sheet(state.modules, state.step, own)
    if not leg.world.is_main:
        for written in (own, own.with_suffix(".mp4")):
            written.unlink(missing_ok=True)
    elif path.exists():
        leg.events.write("sample", path=path.relative_to(leg.folder).as_posix(), **_facts(state, leg))


def _report(state: TrainState, leg: _Leg) -> None:
    tally, batches = leg.tally, leg.tally.steps * leg.config.optim.accumulation * leg.world.size
    if not tally.steps:
        return
    seconds = time.perf_counter() - tally.started
    loss = float(tally.extra[0]) / batches
    speed = float(tally.extra[1]) / seconds
    leg.events.write(
        "train",
        loss=loss,
        loss_bins=_bin_means(tally.extra[2 : 2 + 2 * NUM_BINS].view(2, NUM_BINS)),
        lr=float(state.optimizers[0].param_groups[0]["lr"]),
        grad_norm=tally.grad_norm / tally.steps,
        samples_per_s=speed,
        eta_s=seconds / tally.steps * (leg.config.run.total_steps - state.step),
        memory_mb=peak_memory_mb(leg.world.device),
        metrics={name: sum(values) / len(values) for name, values in tally.metrics.items()},
        **_facts(state, leg),
    )
    _log.info("step %d of %d: loss %.5f, %.1f clips/s", state.step, leg.config.run.total_steps, loss, speed)
    leg.tally = _Tally()


def _facts(state: TrainState, leg: _Leg) -> dict[str, float]:
    return {"step": state.step, "samples": state.samples, "cpu_s": state.cpu_s, "elapsed_s": _elapsed(leg)}


def _bin_means(sums: torch.Tensor) -> list[float | None]:
    return [float(total / count) if count else None for total, count in sums.T]


def _elapsed(leg: _Leg) -> float:
    return time.perf_counter() - leg.started


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _nan_sentence(state: TrainState, leg: _Leg) -> str:
    kept = "no checkpoint was made yet"
    if states.has_state(leg.folder):
        kept = f"the last checkpoint is {states.latest_checkpoint(leg.folder)}"
    first = state.step * leg.config.optim.accumulation
    broken = [index for index, (_, loss) in enumerate(leg.seen) if not math.isfinite(float(loss))]
    batches = broken or range(len(leg.seen))  # all of them where only a gradient is, or another process's loss
    clips = dict.fromkeys(name for index in batches for name in leg.seen[index][0])
    where = ", ".join([f"batch {first + batches[0]}", *(["clips " + ", ".join(clips)] if clips else [])])
    return (
        f"The loss or its gradient is no number any more in step {state.step + 1} ({where}); {kept}. Lower optim.lr or "
        "optim.grad_clip and resume from it."
    )


@contextmanager
def _precision(config: TrainConfig, world: World) -> Iterator[None]:
    bf16 = start.computing(config.run, world.device) == torch.bfloat16
    with torch.autocast(world.device.type, dtype=torch.bfloat16, enabled=bf16):
        yield
