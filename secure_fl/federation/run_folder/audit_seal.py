"""What holds an audit's document together, and to the record that it is of.

`audit.json` names the digest of the whole record that was audited; its seal is a digest over all of
the document, that one included. `secure-fl verify`, the page and the card compare it.

**Guarantee**: a document that was changed without making the seal anew is noticed; one whose seal
was noted elsewhere when the audit ended, or was given by another way, is noticed whatever was done.
**Not covered**: whoever makes the seal anew, where nobody kept it: there is no secret in it, and no
signature. It says nothing of who audited, or that checks were run at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

AUDIT, SEAL = "audit.json", "seal"
"""The document, and the field in it."""
_DOMAIN = b"secure-fl audit seal 1|"


def seal_of(document: Mapping[str, Any]) -> str:
    """SHA-256 over a document's JSON values, all but its seal; hex."""
    rest = {name: value for name, value in document.items() if name != SEAL}
    data = json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(_DOMAIN + data).hexdigest()


def is_sealed(document: Mapping[str, Any]) -> bool:
    """Whether a document's seal is its own."""
    return document.get(SEAL) == seal_of(document)
