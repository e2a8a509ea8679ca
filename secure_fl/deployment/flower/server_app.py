"""What a SuperLink starts for a run: the server of the folder that `SECURE_FL_SERVER` names."""

from __future__ import annotations

import os
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from secure_fl.deployment.flower.running import run_server
from secure_fl.engines.flower.launching import SERVER_FOLDER

app = ServerApp()


@app.main()  # type: ignore[untyped-decorator]
def main(grid: Grid, context: Context) -> None:
    """Serve until the federation is over; a run that fails raises."""
    run_server(grid, Path(os.environ[SERVER_FOLDER]), str(context.run_id))
