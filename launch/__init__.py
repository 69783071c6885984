"""Set-up and command line of the project: the modules behind `run.py`.

Standard library only, because it runs before anything is installed. Nothing of it is part of the node pack: the host
never imports it, and it is left out of the published package. In reading order: `environment` (the .venv and the host),
`process` (child processes and their trees), `server` (the host with the pack in a private folder), `websocket` and
`client` (talking to it), `demo`, `gates` (the test command), `console` (one live line).
"""


class LaunchError(RuntimeError):
    """A failure a person can act on; its text is the whole message that is shown."""
