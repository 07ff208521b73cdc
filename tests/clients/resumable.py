"""A server on the official SDK that keeps its events: `resumable.py DIRECTORY`.

Its one tool writes a line to DIRECTORY/effects, and says so 1.5 s later.
"""

import asyncio
import itertools
import socket
import sys
from pathlib import Path

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.streamable_http import EventMessage, EventStore

server = MCPServer("resumable")


@server.tool()
async def effect(reference: str) -> str:
    """Does something that must not be done twice."""
    with open(Path(sys.argv[1]) / "effects", "a") as effects:
        effects.write(reference + "\n")
    await asyncio.sleep(1.5)
    return "done: " + reference


class Events(EventStore):
    """All events of all streams, in order."""

    def __init__(self):
        self.events = []
        self.numbers = itertools.count(1)

    async def store_event(self, stream_id, message):
        event_id = str(next(self.numbers))
        self.events.append((event_id, stream_id, message))
        return event_id

    async def replay_events_after(self, last_event_id, send_callback):
        known = next((event for event in self.events if event[0] == last_event_id), None)
        if known is None:
            return None
        for event_id, stream_id, message in self.events[self.events.index(known) + 1 :]:
            if stream_id == known[1] and message is not None:
                await send_callback(EventMessage(message, event_id))
        return known[1]


door = socket.create_server(("127.0.0.1", 0))
print(f"resumable http://127.0.0.1:{door.getsockname()[1]}/mcp", flush=True)
app = server.streamable_http_app(event_store=Events())
uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[door])
