"""What a site's app does with a message of the server: it takes it to the site's process.

Guarantee: whatever goes wrong here, the server is told a word of it, and no text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from secure_fl.engines.flower.door import ABSENT, Answer, Question, ask
from secure_fl.engines.flower.packing import pack, unpack
from secure_fl.errors import SecureFLError

UNEXPECTED = "unexpected"


def answer(content: Any, site: str) -> Any:
    """Content of the answer to a message; `absent` where no process runs the site.

    Args:
        content: of the message.
        site: the site's folder.
    """
    try:
        question, frames = unpack(content, Question)
        return pack(*(ask(Path(site), question, frames) or (Answer(ABSENT), [])))
    except SecureFLError as error:
        return pack(Answer(error.code))
    except Exception:  # a text or a traceback could hold anything of the site
        return pack(Answer(UNEXPECTED))
