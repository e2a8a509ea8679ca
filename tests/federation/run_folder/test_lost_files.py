"""A file that a run adds lines to, and that is taken away meanwhile, ends the run: it is not begun
again without its first lines, as if it were whole.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from federation.folders import private_config
from federation.run_folder.test_one_run_a_folder import During
from helpers import StopAfter

from secure_fl import Dataset, Federation
from secure_fl.errors import FileError


@pytest.mark.parametrize("name", ["transcript.jsonl", "metrics.jsonl", "private-results.made"])
def test_a_file_that_is_taken_away_is_not_begun_again(
    name: str, tmp_path: Path, images: Dataset
) -> None:
    out, config = tmp_path / "run", private_config()
    taken = During(lambda: (out / name).unlink())
    with pytest.raises(FileError, match=rf"{name}: cannot be written: No such file"):
        Federation(config, data=images, callbacks=[taken]).run(out)
    assert taken.done
    assert not (out / name).exists()


def test_a_folder_in_the_place_of_a_transcript_is_named(tmp_path: Path, images: Dataset) -> None:
    out, config = tmp_path / "run", private_config(privacy={"unit": "none"})
    with pytest.raises(KeyboardInterrupt):
        Federation(config, data=images, callbacks=[StopAfter(1)]).run(out)
    (out / "transcript.jsonl").unlink()
    (out / "transcript.jsonl").mkdir()
    with pytest.raises(FileError, match=r"transcript\.jsonl: cannot be read: Is a directory"):
        Federation(config, data=images).run(out, resume=True)
