"""Cut three textures that come with scikit-image into a folder of pictures, client/label/file:
twelve yards whose cameras differ.

    python make_data.py surfaces            # 3,072 grey pictures of 16 x 16 pixels, 12 yards
    python make_data.py surfaces --colour   # the same in colour: the light has a tint
    python make_data.py newcomer --newcomer # one more yard, label/file, whose camera is mounted
                                            # like those of the second four

Every tile goes to one yard only, and tiles do not overlap. The newcomer's come from shifted places
of the pictures and overlap with others' tiles.
"""

import argparse
import importlib.util
from pathlib import Path

import numpy as np
from PIL import Image

YARDS = [
    "Århus",
    "Bath",
    "Cádiz",
    "Delft",
    "Essen",
    "Faro",
    "Gent",
    "Hull",
    "Izola",
    "Jena",
    "Košice",
    "Lund",
]
SURFACES = ["brick", "grass", "gravel"]
SIDE = 16
TINTS = [(1.0, 0.95, 0.8), (0.85, 0.95, 1.0), (1.0, 0.8, 0.85)]


def texture(name: str) -> np.ndarray:
    """The picture `name` of scikit-image, grey, [512, 512] in 0..1, without importing
    the package.
    """
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        raise SystemExit("scikit-image is missing: pip install scikit-image")
    picture = Image.open(Path(package.origin).parent / "data" / f"{name}.png").convert("L")
    return np.asarray(picture, dtype=np.float64) / 255


def tiles(picture: np.ndarray, shift: int = 0) -> np.ndarray:
    """Non-overlapping tiles [T, SIDE, SIDE], the first of them `shift` pixels from the upper
    left corner.
    """
    rows = (picture.shape[0] - shift) // SIDE
    cut = picture[shift : shift + rows * SIDE, shift : shift + rows * SIDE]
    return cut.reshape(rows, SIDE, rows, SIDE).swapaxes(1, 2).reshape(-1, SIDE, SIDE)


def photograph(tile: np.ndarray, camera: int) -> np.ndarray:
    """How camera 0 (lamp on the left), 1 (mounted on its side, lamp above) or 2 (a negative, as
    infrared turns leaves bright) sees a tile.
    """
    shade = np.linspace(1.0, 0.35, SIDE)
    if camera == 0:
        return tile * shade[None, :]
    if camera == 1:
        return np.rot90(tile) * shade[:, None]
    return 1.0 - tile


def save(seen: np.ndarray, path: Path, tint: tuple[float, float, float] | None) -> None:
    """Write one picture, grey without a tint and else in colour."""
    values = seen if tint is None else seen[:, :, None] * np.array(tint)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((values.clip(0, 1) * 255).round().astype(np.uint8)).save(path)


def main() -> None:
    """Read the arguments and write the folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--colour", action="store_true", help="pictures in colour")
    parser.add_argument(
        "--newcomer", action="store_true", help="one more yard instead of the twelve"
    )
    asked = parser.parse_args()
    draw = np.random.default_rng(7)
    written = 0
    for surface in SURFACES:
        cut = tiles(texture(surface), shift=SIDE // 2 if asked.newcomer else 0)
        for place, index in enumerate(draw.permutation(len(cut))[: 60 if asked.newcomer else None]):
            yard = place % len(YARDS)
            camera = 1 if asked.newcomer else yard // 4
            inside = asked.folder if asked.newcomer else asked.folder / YARDS[yard]
            save(
                photograph(cut[index], camera),
                inside / surface / f"{place:04d}.png",
                TINTS[camera] if asked.colour else None,
            )
            written += 1
    print(f"{written} pictures below {asked.folder}")


if __name__ == "__main__":
    main()
