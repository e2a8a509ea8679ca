"""What a caller passes to `Federation`, checked and brought into one form before a run begins.

Errors name the argument and the kind of what was found there. Of what a caller's own code raises in
a run only the class is told, since messages of torch's say how many examples a batch holds.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from secure_fl.callbacks.base import Callback
from secure_fl.config import FederationConfig
from secure_fl.config_file import config_of, load_config
from secure_fl.errors import ConfigError, ModelError, SecureFLError
from secure_fl.paths import path_of


def as_config(config: object, *, own_encoder: bool = False) -> FederationConfig:
    """The configuration: as it is, from a mapping of tables, or from the path of a TOML file; the
    default where None is given. `own_encoder`: as of `config_of`.

    Raises:
        ConfigError: something else, or a setting that is refused.
    """
    if config is None:
        return FederationConfig()
    if isinstance(config, FederationConfig):
        return config
    if isinstance(config, Mapping) and all(isinstance(name, str) for name in config):
        return config_of(config, own_encoder=own_encoder)
    if isinstance(config, str | os.PathLike):
        return load_config(path_of(config, "config"), own_encoder=own_encoder)
    remedy = "pass a FederationConfig, a dict of its tables, or the path of a TOML file"
    raise ConfigError.of_kind("is no configuration", "config", config, remedy)


def as_callbacks(callbacks: object) -> list[Callback]:
    """The callbacks as a list; a single one may come by itself.

    Raises:
        ConfigError: one is no `Callback`, or a class in place of its instance.
    """
    given = (
        [callbacks] if isinstance(callbacks, Callback) else () if callbacks is None else callbacks
    )
    if not isinstance(given, Iterable) or isinstance(given, str | bytes | Mapping):
        raise ConfigError.of_kind(
            "are no callbacks", "callbacks", given, "pass a list of secure_fl.Callback instances"
        )
    found = []
    for number, callback in enumerate(given):
        if not isinstance(callback, Callback):
            kind = type(callback).__name__
            if isinstance(callback, type):
                kind = f"the class {callback.__name__}"
            remedy = "pass an instance of a subclass of secure_fl.Callback"
            raise ConfigError(
                "is no callback", field=f"callbacks[{number}]", value=kind, remedy=remedy
            )
        found.append(callback)
    return found


def as_folder(out: object, *, resume: object) -> Path | None:
    """The folder of a run; None where nothing is written.

    Raises:
        ConfigError: no path, or a run without a folder that is to be resumed.
    """
    if not isinstance(resume, bool):
        raise ConfigError.of_kind(
            "is neither True nor False", "resume", resume, "pass run(folder, resume=True)"
        )
    if out is None and resume:
        remedy = "pass the folder of the run that was interrupted"
        raise ConfigError("there is no folder to resume", field="out", value=None, remedy=remedy)
    return None if out is None else path_of(out, "out")


@contextmanager
def encoder_named(own: bool) -> Iterator[None]:
    """Within it, what the caller's `own` encoder raises on some batch comes as an error that names
    the encoder, and says nothing of the batch.

    Raises:
        ModelError: in place of an exception that passed through a module, and through no callback.
    """
    try:
        yield
    except SecureFLError:
        raise
    except Exception as error:
        callers = [
            frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)
        ]
        modules = [caller for caller in callers if isinstance(caller, nn.Module)]
        if not own or not modules or any(isinstance(caller, Callback) for caller in callers):
            raise
        problem = f"raises {type(error).__name__} on a batch of examples"
        remedy = "mend it to take any number of examples in both modes; the run can be resumed"
        raise ModelError.of_kind(problem, "encoder", modules[-1], remedy) from None
