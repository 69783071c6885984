"""One command for everything: `python run.py demo`, `python run.py test`, `python run.py comfyui`.

Needs Python 3.11 or newer and nothing else: it makes the environment in `.venv` and brings ComfyUI to `.host`.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - the one line that older versions must understand
    sys.exit(
        "Gloria needs Python 3.11 or newer; this is Python %d.%d (%s). Start run.py with a newer one."  # noqa: UP031
        % (sys.version_info[0], sys.version_info[1], sys.executable)
    )

import argparse
from collections.abc import Sequence
from pathlib import Path

from launch import LaunchError, demo, environment, gates, server
from launch.console import Waiting
from launch.preflight import ask
from launch.process import INTERRUPTED, catch_signals, ignore_signals

PAGE_PORT = 8188


def parser() -> argparse.ArgumentParser:
    """Return the command line's description."""
    top = argparse.ArgumentParser(prog="run.py", description=__doc__.splitlines()[0])
    commands = top.add_subparsers(dest="command", required=True, metavar="demo|test|comfyui")

    film = commands.add_parser("demo", help="make a film of a talking, turning character in the real ComfyUI")
    film.add_argument("--audio", type=Path, metavar="FILE", help="speech to use (default: the bundled one)")
    film.add_argument("--seconds", type=float, default=60.0, metavar="N", help="length of the film (default: 60)")
    film.add_argument("--seed", type=int, metavar="S", help="seed of the noise")
    film.add_argument("--character", metavar="K", help="name or number of a bundled character")
    film.add_argument("--plain", action="store_true", help="leave out the strip of anchors beside the picture")
    film.add_argument("--out", type=Path, default=demo.OUTPUT, metavar="FILE", help="default: output/gloria-demo.mp4")
    film.add_argument("--port", type=int, metavar="P", help="port of the server (default: a free one)")

    tests = commands.add_parser("test", help="run the linter, the type checker and all tests but those for a GPU")
    tests.add_argument("pytest", nargs="*", metavar="ARG", help="further arguments for pytest, after --")

    page = commands.add_parser("comfyui", help="start ComfyUI with Gloria and its page")
    page.add_argument("--port", type=int, default=PAGE_PORT, metavar="P", help=f"default: {PAGE_PORT}")

    for command in (film, tests, page):
        command.add_argument(
            "--comfyui", type=Path, metavar="DIR", help="use this ComfyUI (0.3.75 or newer); nothing in it is changed"
        )
    return top


def show_page(port: int, own_host: Path | None) -> None:
    """Serve ComfyUI's page until the person stops it.

    Raises:
        LaunchError: the port is taken, the set-up failed, or the server ended by itself.
    """
    server.choose_port(port)
    ready = environment.prepare(own_host=own_host)
    cpu = not ask(ready.python, environment.ROOT).accelerator
    settings = server.Settings(
        base=environment.PRIVATE / "comfyui", log=environment.PRIVATE / "logs" / "comfyui.log", cpu=cpu, port=port,
        output=environment.ROOT / "output", only_gloria=False,
    )  # fmt: skip
    with server.running(ready, settings) as running:
        with Waiting("Starting ComfyUI") as waiting:
            server.wait_until_ready(running, waiting.tick)
        print(f"ComfyUI with Gloria: {running.url}\nResults go to {settings.output}. Ctrl-C stops it.", flush=True)
        running.process.wait()
        running.require_alive()


def main(arguments: Sequence[str]) -> int:
    """Carry out one command line; returns the exit code."""
    options = parser().parse_args(arguments)
    catch_signals()
    try:
        if options.command == "comfyui":
            show_page(options.port, options.comfyui)
            return 0
        if options.command == "test":
            ready = environment.prepare(test=True, own_host=options.comfyui)
            return gates.run_all(ready, options.pytest)
        wanted = {name: value for name, value in vars(options).items() if name != "command"}
        print(f"The film is ready: {demo.run(demo.Options(**wanted))}", flush=True)
    except LaunchError as problem:
        print(f"\n{problem}", file=sys.stderr)
        return 1
    except OSError as problem:  # the disk is full, a folder may not be written
        print(f"\nThe system refused: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        ignore_signals()
        print("\nStopped; nothing is left running.", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    sys.exit(main(sys.argv[1:]))
