"""Three clinics' data: seglearn's smartwatch recordings, each patient's at the clinic that treats
them.

The recordings lie in a wheel on PyPI, which pip fetches once and which is checked by its sha256;
nothing else comes from a network.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np

PACKAGE = "seglearn==1.2.5"
WHEEL = "seglearn-1.2.5-py3-none-any.whl"
SHA256 = "ec6b952c85c9627050102854b372d85951563d3b990df677d7c55547e87413dd"
RECORDINGS = "seglearn/data/watch_dataset.npy"

CLINICS = {"clinic-a": (1, 2, 3, 4), "clinic-b": (5, 6, 7), "clinic-c": (8, 9, 10)}
ARMS = ("left", "right")
CLASSES = ("ABD", "ER", "FEL", "IR", "PEN", "ROW", "TRAP")
STEPS, HOP, EVERY = 64, 32, 2  # 64 steps at 25 Hz are 2.56 s, about one repetition and a half
TRAINED = 0.7
"""The first part of each recording is trained on, the rest is for testing."""


def fetch(folder: Path) -> Path:
    """The wheel, from the registry if it is not there yet. Raises SystemExit: another file."""
    path = folder / WHEEL
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        wanted = folder / "requirements.txt"
        wanted.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q"]
        more = ["--no-deps", "--only-binary=:all:", "--require-hashes", "-r", str(wanted)]
        subprocess.run([*pip, *more, "-d", str(folder)], check=True)
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise SystemExit(f"{path} is not the file that is wanted: delete it and run this again")
    return path


def clinics(wheel: Path) -> dict[str, dict[str, np.ndarray]]:
    """Each clinic's arrays: `x` [windows, steps, channels], `y` the exercise, `client` a patient's
    arm, `split` train or test.
    """
    with zipfile.ZipFile(wheel) as archive:
        stored = io.BytesIO(archive.read(RECORDINGS))
    # numpy keeps a dictionary as a pickle; this one's bytes are those of the sha256 above
    watch = np.load(stored, allow_pickle=True).item()
    people = np.asarray(watch["subject"], dtype=int)
    return {
        name: _arrays(watch, [at for at in range(len(people)) if people[at] in patients])
        for name, patients in CLINICS.items()
    }


def _arrays(watch: dict, recordings: list[int]) -> dict[str, np.ndarray]:
    """The windows of some recordings, with what is known of each."""
    parts: dict[str, list] = {"x": [], "y": [], "client": [], "split": []}
    for at in recordings:
        person, arm = int(watch["subject"][at]), ARMS[int(watch["side"][at])]
        thin = _thinned(np.asarray(watch["X"][at]))
        end = int(TRAINED * len(thin))
        for split, part in (("train", thin[:end]), ("test", thin[end:])):
            cut = [part[start : start + STEPS] for start in range(0, len(part) - STEPS + 1, HOP)]
            parts["x"] += cut
            parts["y"] += [watch["y_labels"][int(watch["y"][at])]] * len(cut)
            parts["client"] += [f"patient-{person:02d}-{arm}"] * len(cut)
            parts["split"] += [split] * len(cut)
    names = {key: np.array(found) for key, found in parts.items() if key != "x"}
    return {"x": np.stack(parts["x"]).astype("float32"), **names}


def _thinned(recording: np.ndarray) -> np.ndarray:
    """A recording [steps, 6] at 50 Hz, averaged in pairs to 25 Hz."""
    whole = recording[: len(recording) // EVERY * EVERY]
    return whole.reshape(-1, EVERY, recording.shape[1]).mean(axis=1)
