"""Making a site's folder, and keys anew: what `secure-fl site init` and `renew` do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_private_key

from secure_fl.config import FederationConfig
from secure_fl.crypto.identities import Identity
from secure_fl.crypto.secret_files import read_secret, write_secret
from secure_fl.data.dataset import Dataset
from secure_fl.data.scaling import check_columns
from secure_fl.deployment.certificates import new_request, read_certificate
from secure_fl.deployment.key_card import KeyCard
from secure_fl.deployment.site.data import own_examples, shape_of
from secure_fl.deployment.site.folder import SiteFolder
from secure_fl.deployment.site.settings import SiteSettings
from secure_fl.engines.flower.control import new_node_key
from secure_fl.errors import DeploymentError, FileError, RunFolderError
from secure_fl.federation.policy.policy import default_policy
from secure_fl.files import (
    PUBLIC,
    held,
    is_bare,
    is_file,
    make_folder,
    read_bytes,
    remove,
    write_atomically,
)

PATIENCE = 10.0
"""Seconds to wait for another process that changes keys and certificates."""


@dataclass(frozen=True)
class Made:
    """A site that was made, and what goes to the coordinator.

    Attributes:
        folder: of the site.
        card: what is sent, in `folder.key_card`.
        notes: how examples were read, in words; for this site.
    """

    folder: SiteFolder
    card: KeyCard
    notes: tuple[str, ...] = ()


def make_site(
    path: Path,
    settings: SiteSettings,
    config: FederationConfig | None = None,
    *,
    tell_examples: bool = False,
) -> Made:
    """Make a site's folder: settings, policy, keys, and the key card.

    Args:
        path: an empty folder, or none yet.
        settings: of the site; they are written as `site.toml`.
        config: of the federation, where it is known already: how classes and columns are declared.
        tell_examples: whether the card says how many examples each client has, which a plan needs
            that weights averages by them.

    Raises:
        RunFolderError: the folder holds something.
        DataError, DeploymentError: the examples cannot be read, tell no clients, or have other
            columns than the federation's means.
        FileError, SecureSumError: a file cannot be written.
    """
    if path.exists() and not is_bare(path):
        remedy = (
            "name an empty folder, or remove what a `site init` that did not end left; `secure-fl "
            "site renew` makes keys of a site anew"
        )
        raise RunFolderError("already holds something", "site folder", str(path), remedy)
    own = dict[str, Dataset]()
    if settings.role == "data":
        own = own_examples(settings, path, config or FederationConfig())
    shape, classes = shape_of(own) if own else ((), 0)
    if config is not None and own:
        check_columns(config, shape)
    folder = _write(path, settings, list(own))
    counts = {name: len(data) for name, data in own.items()} if tell_examples else {}
    card = _write_card(folder, settings.name, shape, classes, counts)
    write_atomically(folder.settings_file, settings.text())  # by which it is a site's folder
    notes = dict.fromkeys(note for data in own.values() for note in data.notes)
    return Made(folder, card, tuple(notes))


def _write(path: Path, settings: SiteSettings, clients: Sequence[str]) -> SiteFolder:
    """Keys and policy."""
    make_folder(path, tighten=True)
    folder = SiteFolder(path)
    role = "client" if clients else "authority"
    for name in clients or [settings.name]:
        Identity.generate(name, role).save(folder.identity_file(name))
    request, key = new_request(settings.name)
    write_secret(folder.tls.key, key)
    write_atomically(folder.request, request, mode=PUBLIC)
    _write_node_key(folder)
    write_atomically(folder.policy_file, default_policy())
    return folder


def renew(folder: SiteFolder) -> KeyCard:
    """A new key for this machine's certificate, and the key card that asks for one. The key in use
    stays until a certificate for the new one is joined.

    Raises:
        FileError: a file cannot be read or written.
        RefusedError: the card that was sent is damaged.
        DeploymentError: it has other parties.
    """
    request, key = new_request(folder.name)
    with held(folder.tls.key.parent, wait=PATIENCE):
        _finish(folder)  # else the key that is under way would be lost
        before = KeyCard.open(read_bytes(folder.key_card))
        if gone := sorted(set(before.parties) ^ set(folder.identities)):
            remedy = "put back the identities as `secure-fl site init` made them"
            problem = "other parties than on the key card"
            raise DeploymentError(problem, "identities", gone, remedy)
        write_secret(folder.next_key, key, overwrite=True)
        write_atomically(folder.request, request, mode=PUBLIC)
        return _write_card(folder, folder.name, before.shape, before.classes, before.examples)


def install(folder: SiteFolder, certificate: bytes, authority: bytes) -> None:
    """Put a certificate in its place, and the key that it is of, if that is new. Who dials between
    the two fails once, and dials again. Whoever calls it holds the folder of these files.

    Raises:
        DeploymentError: it is of none of this site's keys.
        FileError: a file cannot be written.
    """
    own = read_certificate(certificate).public_key()
    new = is_file(folder.next_key) and _public(folder.next_key) == own
    if not new and _public(folder.tls.key) != own:
        problem = "the certificate is of another key"
        remedy = "send the key card as it is now, and join what comes back for it"
        raise DeploymentError(problem, "certificate", folder.name, remedy)
    write_atomically(folder.tls.authority, authority, mode=PUBLIC)
    if new:
        write_atomically(folder.next_certificate, certificate, mode=PUBLIC)
        _finish(folder)
    else:
        write_atomically(folder.tls.certificate, certificate, mode=PUBLIC)


def finish_install(folder: SiteFolder) -> None:
    """Go on where a new key and its certificate were about to be put in place. Raises FileError: a
    file cannot be read or written; RunFolderError: somebody else does.
    """
    if is_file(folder.next_certificate):
        with held(folder.tls.key.parent, wait=PATIENCE):
            _finish(folder)


def _finish(folder: SiteFolder) -> None:
    if not is_file(folder.next_certificate):
        return
    if is_file(folder.next_key):
        write_secret(folder.tls.key, read_secret(folder.next_key), overwrite=True)
    write_atomically(folder.tls.certificate, read_bytes(folder.next_certificate), mode=PUBLIC)
    remove(folder.next_key)
    remove(folder.next_certificate)


def _public(path: Path) -> object:
    try:
        return load_pem_private_key(read_secret(path), None).public_key()
    except (ValueError, TypeError):
        remedy = "`secure-fl site renew`, send the new key card, and join what comes back for it"
        raise FileError.of_file("holds no private key", path, remedy) from None


def _write_node_key(folder: SiteFolder) -> None:
    """The key by which Flower's SuperLink knows this site's node."""
    private, public = new_node_key()
    write_secret(folder.node_key, private)
    write_atomically(folder.node_public, public, mode=PUBLIC)


def _write_card(
    folder: SiteFolder, name: str, shape: Sequence[int], classes: int, examples: Mapping[str, int]
) -> KeyCard:
    people = list(folder.identities.values())
    files = read_bytes(folder.request), read_bytes(folder.node_public)
    cards = tuple(one.card() for one in people)
    card = KeyCard(name, cards, *files, tuple(shape), classes, examples)
    write_atomically(folder.key_card, card.encode(people), mode=PUBLIC)
    return card
