"""What a site's SuperNode starts for a message: it takes it to the site's process, by its door."""

from __future__ import annotations

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from secure_fl.engines.flower.client import answer

app = ClientApp()


@app.query()  # type: ignore[untyped-decorator]
def query(message: Message, context: Context) -> Message:
    """Answer a message; the site's folder is `site` in the node's configuration."""
    return Message(answer(message.content, str(context.node_config["site"])), reply_to=message)
