"""What a run costs, told by the real server before it begins; its drift over GET; and old takes that go."""

from __future__ import annotations

import io
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from tests.host.workflows import Prompt, minute, run_of

if TYPE_CHECKING:
    from conftest import Host, HostStarter

pytestmark = pytest.mark.host

SECONDS, NUM_CHUNKS = 5.5, 4


def film(run: str, **inputs: Any) -> Prompt:
    return minute(**{"seconds": SECONDS, "run": run, "filename_prefix": f"forecast/{run}", **inputs})


def queued(host: Host, prompt: Prompt) -> tuple[dict[str, Any], dict[str, Any]]:
    """The history entry and the plan event."""
    plans = []

    def listen(event: str, data: Any) -> None:
        if event == "gloria.plan":
            plans.append(data)

    entry = host.client.run(prompt, listen, host.server.require_alive)
    [plan] = plans
    return entry, plan


def get(host: Host, path: str) -> tuple[int, dict[str, str], bytes]:
    try:
        with urllib.request.urlopen(host.url + path, timeout=30) as answer:
            return answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, {name.lower(): value for name, value in error.headers.items()}, error.read()


def takes(run: Path) -> list[str]:
    return sorted(path.name.removesuffix(".safetensors") for path in run.glob("chunks/*.safetensors"))


def test_the_plan_tells_disk_memory_and_then_time(host: Host) -> None:
    entry, plan = queued(host, film("cost-told"))
    run = run_of(entry, host.base / "output")
    cost = plan["forecast"]
    on_disk = sum(path.stat().st_size for path in (run / "chunks").glob("*.safetensors"))
    assert cost["disk"]["latents"] == pytest.approx(on_disk, rel=0.1)
    assert cost["disk"]["free"] > cost["disk"]["needed"] > cost["disk"]["latents"]
    [main] = cost["memory"]
    assert main["place"] == "main memory"
    assert main["needed"] > main["sampling"]["a forward pass"] > 0
    assert main["sampling"]["keys and values of anchors"] > 0, "nano is trained in the cached mode"
    assert any(line.startswith("Disk: ") for line in plan["lines"])
    assert any(line.startswith("Main memory: up to about ") for line in plan["lines"])
    assert json.loads((run / "run.json").read_text())["forecast"] == cost
    assert json.loads(get(host, "/gloria/runs/cost-told")[2])["forecast"] == cost
    assert "The first chunk took" in host.log()

    _, longer = queued(host, film("cost-told", seconds=7.5))
    assert longer["forecast"]["seconds"] > 0
    assert longer["forecast"]["by_chunks"] >= NUM_CHUNKS
    assert any("chunks like these on disk" in line for line in longer["lines"])
    _, beside = queued(host, film("cost-beside", seconds=3.0, seed=5))
    assert beside["forecast"]["seconds"] > 0, "by the run beside it"


def test_the_drift_of_a_run_over_get(host: Host) -> None:
    queued(host, film("cost-drawn"))
    status, headers, body = get(host, "/gloria/runs/cost-drawn/drift.png")
    assert (status, headers["content-type"], headers["cache-control"]) == (200, "image/png", "no-cache")
    assert Image.open(io.BytesIO(body)).size == (1200, 480)
    assert get(host, "/api/gloria/runs/cost-drawn/drift.png")[2] == body
    assert get(host, "/gloria/runs/nothing/drift.png")[0] == 404
    assert get(host, "/gloria/runs/%2e%2e/drift.png")[0] in (400, 404)
    view = json.loads(get(host, "/gloria/runs/cost-drawn")[2])
    assert view["meter"] == {"embedding": "gloria-colour-grid-v1", "threshold": 0.0}


def test_old_takes_are_told_and_go_when_that_is_wished(host: Host) -> None:
    run = run_of(queued(host, film("cost-rolled"))[0], host.base / "output")
    queued(host, film("cost-rolled", reroll="3"))
    assert len(takes(run)) == NUM_CHUNKS + 2
    assert "2 old takes and unused pieces of film hold" in host.log()
    entry, plan = queued(host, film("cost-rolled", reroll="3", old_takes="remove when finished"))
    assert plan["forecast"]["disk"]["latents"] == 0, "nothing is made"
    assert takes(run) == ["0000.take-1", "0001.take-1", "0002.take-2", "0003.take-2"]
    assert len(list((run / "segments").glob("*.mp4"))) == NUM_CHUNKS
    assert "were removed" in host.log()
    [video] = [shown["gloria_video"][0] for shown in entry["outputs"].values() if "gloria_video" in shown]
    assert (host.base / "output" / video["subfolder"] / video["filename"]).is_file()
    view = json.loads(get(host, "/gloria/runs/cost-rolled")[2])
    assert {number: [take["take"] for take in found] for number, found in view["takes"].items()} == {
        "1": [1], "2": [1], "3": [2], "4": [2],
    }  # fmt: skip


def test_a_run_json_that_names_a_file_outside_gives_nothing_out(host: Host) -> None:
    run = run_of(queued(host, film("cost-forged"))[0], host.base / "output")
    secret = host.base / "outside.mp4"
    secret.write_bytes(b"never to be shown")
    told = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**told, "video": str(secret)}))
    entry, plan = queued(host, film("cost-forged", old_takes="remove when finished"))
    assert plan["forecast"]["disk"]["latents"] == 0, "it is the very same film"
    [video] = [shown["gloria_video"][0] for shown in entry["outputs"].values() if "gloria_video" in shown]
    assert video["type"] == "output"
    assert (host.base / "output" / video["subfolder"] / video["filename"]).read_bytes()[4:8] == b"ftyp"


def test_another_output_folder(start_host: HostStarter, tmp_path: Path) -> None:
    """As --output-directory sets it; a link to another disk is usual."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "output").symlink_to(tmp_path / "disk", target_is_directory=True)
    with start_host(tmp_path, "--output-directory", str(tmp_path / "output")) as host:
        entry, plan = queued(host, film("cost-elsewhere", seconds=2.0))
        assert plan["forecast"]["disk"]["latents"] > 0
        [video] = [shown["gloria_video"][0] for shown in entry["outputs"].values() if "gloria_video" in shown]
        assert (tmp_path / "disk" / video["subfolder"] / video["filename"]).is_file()
        assert get(host, "/gloria/runs/cost-elsewhere/film")[0] == 200
        again = film("cost-elsewhere", seconds=2.0, old_takes="remove when finished")
        entry, _ = queued(host, again)
        [second] = [shown["gloria_video"][0] for shown in entry["outputs"].values() if "gloria_video" in shown]
        assert second == video, "the finished video is known again through the link"
