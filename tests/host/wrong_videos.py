"""Small videos with one thing wrong each, as API JSON, and what must be said; see test_bad_video_input.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.host.workflows import Prompt, changed, minute

NAN, INF = float("nan"), float("inf")
SAMPLER, SCHEDULE, SPEECH = "GloriaChunkedLongSampler", "GloriaPromptSchedule", "GloriaLoadSpeech"
QUICK = {"seconds": 0.5, "steps": 1}


def sampler(**inputs: Any) -> Prompt:
    """The small video with other inputs of the sampler."""
    return minute(**inputs)


def prompts(schedule: str) -> Prompt:
    return changed(minute(), SCHEDULE, schedule=schedule)


def anchors(schedule: str) -> Prompt:
    """The small video under an anchor schedule."""
    made = minute(anchors=["40", 0])
    made["40"] = {"class_type": "GloriaAnchorSchedule", "inputs": {"anchors": ["3", 0], "schedule": schedule}}
    return made


def plain_picture(width: int, height: int) -> dict[str, Any]:
    return {"class_type": "EmptyImage", "inputs": {"width": width, "height": height, "batch_size": 1, "color": 8421504}}


def with_anchor(slot: str, width: int, height: int, **inputs: Any) -> Prompt:
    """The small video with a grey picture in one slot of the character."""
    made = changed(minute(**inputs), "GloriaAnchorSetBuilder", **{"anchors": None, slot: ["41", 0]})
    made["41"] = plain_picture(width, height)
    return made


def going_on(width: int, height: int, frames: int, **inputs: Any) -> Prompt:
    """The small video as the continuation of a grey one."""
    made = minute(start_image=None, continue_from=["43", 0], **inputs)
    made["42"] = plain_picture(width, height)
    made["42"]["inputs"]["batch_size"] = frames
    made["43"] = {"class_type": "CreateVideo", "inputs": {"images": ["42", 0], "fps": 16.0}}
    return made


def other_vae() -> Prompt:
    made = minute(vae=["44", 0])
    made["44"] = {"class_type": "VAELoader", "inputs": {"vae_name": "wan_2.1_vae.safetensors"}}
    return made


def own_levels(denoise: float) -> Prompt:
    made = minute(sigmas=["45", 0])
    made["45"] = {
        "class_type": "BasicScheduler",
        "inputs": {"model": ["1", 0], "scheduler": "simple", "steps": 4, "denoise": denoise},
    }
    return made


def ears(**inputs: Any) -> Prompt:
    return changed(minute(), "GloriaAudioEncoder", **inputs)


def speech(name: str) -> Prompt:
    return changed(minute(), SPEECH, audio=name)


def one_prompt_too_many() -> Prompt:
    return minute(positive=["5", 0])


def large_anchor() -> Prompt:
    return with_anchor("happy", 7680, 4320)


WRONG: dict[str, tuple[Callable[[], Prompt], str]] = {
    # length and rate
    "no length": (lambda: sampler(seconds=0.0), "The video's length is 0.0 s; it must be longer than 0 s"),
    "negative length": (lambda: sampler(seconds=-1.0), "Value -1.0 smaller than min of 0.0 (seconds)"),
    "endless": (lambda: sampler(seconds=INF), "Value inf bigger than max of 36000.0 (seconds)"),
    "no number of seconds": (lambda: sampler(seconds=NAN), "'seconds' is nan, which is no number to work with"),
    "eleven hours": (lambda: sampler(seconds=40000.0), "Value 40000.0 bigger than max of 36000.0 (seconds)"),
    "shorter than a picture": (lambda: sampler(seconds=0.01), "make it at least 0.0625 s long"),
    "negative rate": (lambda: sampler(fps=-1.0), "Value -1.0 smaller than min of 0.0 (fps)"),
    "no number as rate": (lambda: sampler(fps=NAN), "'fps' is nan"),
    "a billion pictures a second": (lambda: sampler(fps=1e9), "bigger than max of 120.0 (fps)"),
    "another rate than the sound's": (
        lambda: sampler(fps=24.0),
        "encoded for 16 frames a second, but the video is made at 24: set 'fps' to the same",
    ),
    "another rate of the sound": (
        lambda: ears(fps=23.976),
        "encoded for 23.976 frames a second, but the video is made at 16: set 'fps'",
    ),
    "no number as the sound's rate": (lambda: ears(fps=NAN), "'fps' is nan"),
    # size
    "width off the grid": (lambda: sampler(width=50), "The width is 50; it must be a multiple of 16: use 48 or 64"),
    "odd height": (lambda: sampler(height=63), "The height is 63; it must be a multiple of 16: use 48 or 64"),
    "no height to speak of": (
        lambda: sampler(height=8),
        "The height is 8; it must be a multiple of 16: use 16 or more",
    ),
    "negative width": (lambda: sampler(width=-16), "Value -16 smaller than min of 0 (width)"),
    "no size at all": (
        lambda: sampler(anchors=None, start_image=None),
        "There is no global anchor to take the size from; set width and height",
    ),
    "too large for the memory": (
        lambda: sampler(width=16384, height=16384, start_image=None),
        "9437184 tokens; the most is 1048576: make the picture smaller",
    ),
    # chunks
    "a chunk that is all prefix": (
        lambda: sampler(chunk_latents=4),
        "A chunk of 4 latent frames has no room beside its prefix of 4; use chunks of at least 5",
    ),
    "a chunk of one": (
        lambda: sampler(chunk_latents=1),
        "A chunk of 1 latent frames has no room beside its prefix of 4; use chunks of at least 5",
    ),
    "a negative chunk": (lambda: sampler(chunk_latents=-9), "Value -9 smaller than min of 0 (chunk_latents)"),
    "a chunk that meets anchor positions": (
        lambda: sampler(chunk_latents=400),
        "A chunk of 400 latent frames (1597 pictures) is too long",
    ),
    "no overlap": (lambda: sampler(overlap_latents=0), "Value 0 smaller than min of 1 (overlap_latents)"),
    "more overlap than chunk": (
        lambda: sampler(overlap_latents=9),
        "no room beside its prefix of 9; use chunks of at least 10",
    ),
    # anchors
    "an anchor of one pixel": (
        lambda: with_anchor("happy", 1, 1),
        "the happy expression anchor has the shape (1, 1, 1, 3); it must be a colour picture of at least 8 x 8",
    ),
    "a global anchor of one pixel": (
        lambda: with_anchor("global_image", 1, 1, start_image=None),
        "the global anchor has the shape (1, 1, 1, 3); it must be a colour picture of at least 8 x 8",
    ),
    "an anchor of 8k": (
        large_anchor,
        "the happy expression anchor is 7680 x 4320, 129600 tokens in every chunk; the most is 65536",
    ),
    "an anchor nobody knows": (
        lambda: anchors("0:00 left, sideways"),
        'line 1: "sideways" is no anchor (did you mean "views"?); the words are: all, views',
    ),
    "anchors out of order": (lambda: anchors("0:02 all\n0:01 views"), "line 2: 0:01 does not come after 0:02"),
    "a negative strength": (
        lambda: anchors("0:00 happy*-1"),
        '"happy*-1" has the strength "-1"; it must be a number of 0 or more',
    ),
    "no number as strength": (
        lambda: anchors("0:00 happy*nan"),
        'the strength "nan"; it must be a number of 0 or more, as in happy*0.5',
    ),
    "a strength without a number": (lambda: anchors("0:00 happy*"), '"happy*" is no anchor (did you mean "happy"?)'),
    "hidden backwards": (
        lambda: anchors("0:03-0:01 hide back"),
        "0:01 does not come after 0:03; put the earlier time first",
    ),
    "hidden for ever": (lambda: anchors("0:01 hide back"), 'write for example "0:01-0:04 hide back"'),
    "an impossible time of anchors": (
        lambda: anchors("0:00 all\n0:75 views"),
        'line 2: "0:75" is not a time; minutes and seconds behind a colon',
    ),
    # prompts
    "no prompt": (lambda: prompts(""), "The prompt schedule is empty; write for example"),
    "only blanks": (lambda: prompts(" \n\t\n"), "The prompt schedule is empty; write for example"),
    "prompts out of order": (
        lambda: prompts("0:00 happy\n0:10 sad\n0:05 angry"),
        "line 3: 0:05 does not come after 0:10; put the entries in order of time",
    ),
    "prompts at one time": (
        lambda: prompts("0:00 happy\n0:00 sad"),
        "line 2: 0:00 does not come after 0:00; put the entries in order of time",
    ),
    "prompts that start late": (
        lambda: prompts("0:05 happy"),
        "line 1: the first prompt begins at 0:05, so the video would begin without one; begin at 0:00",
    ),
    "an impossible time": (
        lambda: prompts("0:00 happy\n0:75 sad"),
        'line 2: "0:75" is not a time; minutes and seconds behind a colon have two digits and go up to 59',
    ),
    "no time": (
        lambda: prompts("0:00 happy\nsoon sad"),
        'line 2: "soon sad" does not begin with a time; write "12", "0:12" or',
    ),
    "a negative time": (lambda: prompts("0:00 happy\n-0:05 sad"), 'line 2: "-0:05 sad" does not begin with a time'),
    "a time without a prompt": (
        lambda: prompts("0:00 happy\n0:05"),
        'line 2: no prompt follows the time "0:05"; write one behind it',
    ),
    "guidance of nothing known": (
        lambda: prompts("0:00 [text 3, volume 2] happy"),
        '"volume 2" sets no guidance; write [text 3], [audio 2] or [text 3, audio 2]',
    ),
    "negative guidance": (lambda: prompts("0:00 [text -1] happy"), "the text guidance is -1; it must be 0 or more"),
    "guidance without its bracket": (
        lambda: prompts("0:00 [text 3 happy"),
        'the bracket of "[text 3 happy" is not closed; write for example "[text 3] happy"',
    ),
    "guidance without a negative prompt": (
        lambda: changed(prompts("0:00 [text 3] happy"), SAMPLER, negative=None),
        "The text guidance is 3, which needs a negative prompt: connect one to 'negative'",
    ),
    "both kinds of prompts": (
        one_prompt_too_many,
        "Connect either 'prompts' or 'positive' to the Chunked Long Sampler; both are connected",
    ),
    "neither kind of prompts": (
        lambda: sampler(prompts=None),
        "Connect either 'prompts' or 'positive' to the Chunked Long Sampler; neither is connected",
    ),
    # files
    "a file above the output folder": (
        lambda: sampler(filename_prefix="../../away"),
        "The file name '../../away' leads out of the output folder; use a name such as 'gloria/video'",
    ),
    "a file at an absolute place": (
        lambda: sampler(filename_prefix="/away/film"),
        "The file name '/away/film' leads out of the output folder",
    ),
    "no file name": (
        lambda: sampler(filename_prefix=""),
        "The file name '' names no file; use a name such as 'gloria/video'",
    ),
    "a folder as file name": (
        lambda: sampler(filename_prefix="gloria/"),
        "The file name 'gloria/' names no file; use a name such as",
    ),
    "a file name with NUL": (
        lambda: sampler(filename_prefix="gloria/a\0b"),
        "The file name 'gloria/a\\x00b' names no file",
    ),
    "a file name without end": (
        lambda: sampler(filename_prefix="a" * 300),
        "has 300 letters; use at most 1000, and 200 bytes between two slashes",
    ),
    "a path without end": (lambda: sampler(filename_prefix="a/" * 3000 + "b"), "has 6001 letters; use at most 1000"),
    # runs
    "a run above its folder": (
        lambda: sampler(run="../away"),
        "The run is called '../away'; use up to 100 letters, digits",
    ),
    "a run in a folder": (lambda: sampler(run="a/b"), "The run is called 'a/b'; use up to 100 letters, digits"),
    "a run in a Windows folder": (lambda: sampler(run="a\\b"), "use up to 100 letters, digits"),
    "a run called dot": (lambda: sampler(run="."), "The run is called '.'; use up to 100 letters, digits"),
    "a run called dot dot": (lambda: sampler(run=".."), "The run is called '..'; use up to 100 letters, digits"),
    "a run called as a device": (
        lambda: sampler(run="con.film"),
        "The run is called 'con.film', which Windows keeps for a device; use a name such as",
    ),
    "a run of 300 letters": (lambda: sampler(run="x" * 300), "use up to 100 letters, digits"),
    "a run with NUL": (lambda: sampler(run="a\0b"), "The run is called 'a\\x00b'; use up to 100 letters"),
    "a run with a sign like a slash": (lambda: sampler(run="a\u2215b"), "use up to 100 letters, digits"),
    "a run that is read backwards": (
        lambda: sampler(run="a\u202eb"),
        "The run is called 'a\\u202eb'; use up to 100 letters",
    ),
    # re-rolls
    "chunk 0": (lambda: sampler(reroll="0"), "Re-roll, line 1: there is no chunk 0; the video has 1 to 2"),
    "chunk 999": (lambda: sampler(reroll="999"), "Re-roll, line 1: there is no chunk 999; the video has 1 to 2"),
    "a moment behind the end": (
        lambda: sampler(reroll="9:00"),
        "Re-roll, line 1: there is no picture at 9:00; the video ends at 0:03",
    ),
    "an unknown word": (
        lambda: sampler(reroll="2 faster"),
        'Re-roll, line 1: "faster" cannot be read; write for example',
    ),
    "no chunk": (
        lambda: sampler(reroll="again"),
        'Re-roll, line 1: "again" does not begin with a chunk\'s number or a time',
    ),
    "one chunk twice": (
        lambda: sampler(reroll="2\n0:02.2 try 2"),
        "Re-roll, line 2: chunk 2 is named twice; give each chunk one line",
    ),
    "a seed in words": (
        lambda: sampler(reroll="2 seed lucky"),
        "\"lucky\" follows 'seed', which takes a whole number from 0",
    ),
    "no seed": (lambda: sampler(reroll="2 seed"), "\"\" follows 'seed', which takes a whole number from 0"),
    "two seeds": (lambda: sampler(reroll="2 seed 5 try 2"), "'try' and 'seed' both choose the seed; give one of them"),
    "a take that is not there": (
        lambda: sampler(reroll="2 take 7", run="new"),
        "There is no take 7 of chunk 2 on disk; there are: none",
    ),
    "anchors nobody knows, rolled again": (
        lambda: sampler(reroll="2 anchors sideways"),
        '"sideways" is no anchor (did you mean "views"?)',
    ),
    "no prompt, rolled again": (lambda: sampler(reroll="2 prompt"), "Re-roll, line 1: nothing follows 'prompt'"),
    # numbers
    "too much prefix noise": (lambda: sampler(prefix_noise=1.0), "Value 1.0 bigger than max of 0.95 (prefix_noise)"),
    "no number as prefix noise": (lambda: sampler(prefix_noise=NAN), "'prefix_noise' is nan"),
    "too much colour guard": (lambda: sampler(colour_guard=1.5), "Value 1.5 bigger than max of 1.0 (colour_guard)"),
    "no number as colour guard": (lambda: sampler(colour_guard=NAN), "'colour_guard' is nan"),
    "too high a threshold": (
        lambda: sampler(drift_threshold=1.1),
        "Value 1.1 bigger than max of 1.0 (drift_threshold)",
    ),
    "no number as threshold": (lambda: sampler(drift_threshold=NAN), "'drift_threshold' is nan"),
    "negative tries": (lambda: sampler(drift_tries=-1), "Value -1 smaller than min of 0 (drift_tries)"),
    "no number as guidance": (lambda: sampler(text_guidance=NAN), "'text_guidance' is nan"),
    "no number as sound guidance": (lambda: sampler(audio_guidance=NAN), "'audio_guidance' is nan"),
    "no number as boundary": (lambda: sampler(boundary=NAN), "'boundary' is nan"),
    "no steps": (lambda: sampler(steps=0), "Value 0 smaller than min of 1 (steps)"),
    "a negative seed": (lambda: sampler(seed=-1), "Value -1 smaller than min of 0 (seed)"),
    "half a seed": (lambda: sampler(seed="lucky"), "Failed to convert an input value to a INT value (seed, lucky"),
    "levels that do not begin with noise": (lambda: own_levels(0.5), "they must go from 1 to 0. Set denoise to 1"),
    "no levels": (
        lambda: own_levels(0.0),
        "The noise levels are none at all; each chunk is made from pure noise, so they must go from 1 to 0",
    ),
    # choices
    "another end of the sound": (lambda: sampler(sound_end="fade"), "'fade'; it must be one of: hold, stop, loop"),
    "another snap": (lambda: sampler(snap="soon"), "Cues cannot move 'soon'; use one of: nearest, early, late"),
    "another solver": (lambda: sampler(sampler_name="magic"), "There is no sampler called 'magic'; use one of: euler"),
    "another scheduler": (
        lambda: sampler(scheduler="magic"),
        "There is no scheduler called 'magic'; use one of: simple",
    ),
    "another layout": (
        lambda: sampler(layout="mosaic"),
        "There is no layout called 'mosaic'; use one of: plain, strip",
    ),
    "the VAE of another model": (
        other_vae,
        "The VAE makes latents of 16 channels; the model 'gloria-nano' works with 64: load the VAE that belongs",
    ),
    # pictures
    "a start image of another size": (
        lambda: {**sampler(start_image=["41", 0]), "41": plain_picture(96, 96)},
        "The start image is 96 x 96; the video is 48 x 64: scale or crop the picture",
    ),
    "an end image for a model without": (
        lambda: sampler(end_image=["2", 0]),
        "cannot be given an end image: it has no image channels. Disconnect 'end_image'",
    ),
    "a video to go on from of another size": (
        lambda: going_on(96, 96, 20),
        "The video to go on from is 96 x 96; this one is 48 x 64: scale it",
    ),
    "a video to go on from that is too short": (
        lambda: going_on(48, 64, 3),
        "The video to go on from has 3 pictures; going on takes at least 13",
    ),
    "two beginnings": (
        lambda: changed(going_on(48, 64, 20), SAMPLER, start_image=["2", 0]),
        "Both 'start_image' and 'continue_from' are connected",
    ),
    # sound
    "a sound that is not there": (
        lambda: speech("gone.wav"),
        "There is no file 'gone.wav' in the input folder; copy it there",
    ),
    "a sound outside": (
        lambda: speech("../output/gone.wav"),
        "There is no file '../output/gone.wav' in the input folder",
    ),
    "a letter as sound": (
        lambda: speech("letter.wav"),
        "letter.wav is not a sound or video file that can be read; give a file such as .wav",
    ),
    "a sound of no length": (
        lambda: speech("nothing.wav"),
        "nothing.wav has a sound track of 0 seconds; give a file with speech in it",
    ),
    "half a header": (
        lambda: speech("cut.wav"),
        "cut.wav is not a sound or video file that can be read; give a file such as",
    ),
    "an empty file": (lambda: speech("empty.mp3"), "empty.mp3 is empty (0 bytes); copy or export it again"),
    "a picture as sound": (lambda: speech("picture.mp4"), "picture.mp4 is not a sound or video file that can be read"),
    "an offset longer than the sound": (
        lambda: changed(speech("short.wav"), "GloriaAudioEncoder", sync_offset=-5.0),
        "longer than the sound",
    ),
    "no number as offset": (lambda: ears(sync_offset=NAN), "'sync_offset' is nan"),
}
