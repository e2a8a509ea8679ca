"""Cut seglearn's smartwatch recordings into windows: watch.npz, and watch-files/, one memory-mapped
.npy a client.

The recordings lie in the package itself, `pip install --no-deps seglearn`; nothing is read from
the network. Run it as: python make_data.py /path/to/seglearn/data/watch_dataset.npy [folder to
write to]
"""

import sys
from pathlib import Path

import numpy as np

STEPS, HOP, EVERY = 64, 32, 2  # 64 steps at 25 Hz are 2.56 s, about one repetition and a half


def windows(recording: np.ndarray) -> np.ndarray:
    """The windows of one recording [steps, 6] at 50 Hz, as [windows, 64, 6] at 25 Hz."""
    thin = (
        recording[: len(recording) // EVERY * EVERY]
        .reshape(-1, EVERY, recording.shape[1])
        .mean(axis=1)
    )
    return np.stack(
        [thin[start : start + STEPS] for start in range(0, len(thin) - STEPS + 1, HOP)]
    ).astype("float32")


def tested(person: int, arm: str, exercise: int) -> bool:
    """Whether a recording is kept for the test: 4 of the 14 of each person, two of each arm, never
    both arms of one exercise.
    """
    place = (exercise + person) % 7
    return (arm, place) in {("left", 0), ("right", 2), ("left", 4), ("right", 5)}


def main(source: str, folder: str = ".") -> None:
    """Write both forms into `folder`."""
    watch = np.load(source, allow_pickle=True).item()
    parts = {"x": [], "y": [], "client": [], "group": [], "split": []}
    for at, recording in enumerate(watch["X"]):
        cut = windows(recording)
        person, arm = (
            f"person-{int(watch['subject'][at]):02d}",
            ("left", "right")[int(watch["side"][at])],
        )
        name = watch["y_labels"][int(watch["y"][at])]
        parts["x"].append(cut)
        parts["y"] += [name] * len(cut)
        parts["client"] += [person] * len(cut)
        parts["split"] += [
            "test" if tested(int(watch["subject"][at]), arm, int(watch["y"][at])) else "train"
        ] * len(cut)
        parts["group"] += [f"{person}/{arm}/{name}"] * len(cut)
    data = {
        "x": np.concatenate(parts["x"]),
        **{key: np.array(parts[key]) for key in ("y", "client", "group", "split")},
    }
    out = Path(folder)
    np.savez(out / "watch.npz", **data)
    files = out / "watch-files"
    files.mkdir(exist_ok=True)
    for client in sorted(set(parts["client"])):
        np.save(
            files / f"{client}.npy",
            np.ascontiguousarray(data["x"][data["client"] == client].transpose(0, 2, 1)),
        )
    print(
        data["x"].shape,
        len(set(parts["group"])),
        "recordings,",
        len(set(parts["client"])),
        "clients",
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
