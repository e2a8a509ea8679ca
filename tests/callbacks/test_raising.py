"""What a hook raises ends the run as it was raised, whatever it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from secure_fl import Callback, Dataset, Federation
from secure_fl.errors import ConfigError

TABLES = {
    "partition": {"kind": "iid", "clients": 4},
    "pretrain": {"rounds": 1, "local_epochs": 1},
    "pools": {"enabled": False},
    "evaluate": {"probe_epochs": 1},
}


@pytest.mark.parametrize("hook", ["on_phase", "on_reply", "on_client", "on_round", "on_end"])
@pytest.mark.parametrize(
    "raised",
    [
        ConfigError("refused", field="quota", value=1, remedy="ask for more"),
        ValueError("mine"),
        KeyboardInterrupt(),
    ],
)
def test_a_hook_is_heard(hook: str, raised: BaseException) -> None:
    calls = list[str]()

    class Stops(Callback):
        def _stop(self, *_: Any) -> None:
            calls.append(hook)
            raise raised

    setattr(Stops, hook, Stops._stop)
    data = Dataset.from_arrays(torch.rand(40, 1, 8, 8), torch.arange(40) % 2)
    with pytest.raises(type(raised)) as found:
        Federation(TABLES, data=data, callbacks=[Stops()]).run()
    assert found.value is raised
    assert calls == [hook]
