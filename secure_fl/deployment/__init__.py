"""A federation of several machines: the folders of its coordinator, its server and its sites.

Public names, each imported when it is used:

- `Coordinator`: Signs who takes part and what is computed, and issues certificates.
- `ServerFolder`: All that the server's machine needs, and nothing of the coordinator's.
- `SiteFolder`: A site's settings, policy, keys, and what it has joined.
- `run_site`: Takes part in the federation that a site has joined.
- `serve`: Runs the server of a folder to the end of its federation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from secure_fl.lazy import lazily

if TYPE_CHECKING:
    from secure_fl.deployment.coordinator import Coordinator as Coordinator
    from secure_fl.deployment.server_folder import ServerFolder as ServerFolder
    from secure_fl.deployment.serving import serve as serve
    from secure_fl.deployment.site.folder import SiteFolder as SiteFolder
    from secure_fl.deployment.site.running import run_site as run_site

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "coordinator": ["Coordinator"],
        "server_folder": ["ServerFolder"],
        "serving": ["serve"],
        "site.folder": ["SiteFolder"],
        "site.running": ["run_site"],
    },
)
