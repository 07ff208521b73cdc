"""A python agent that sends its user to the inbox: `surface.py MODE TARGET CONFIG REFERENCE`, run in its world.

TARGET is a URL (then CONFIG is not looked at), or a program that speaks MCP on stdin and stdout. Each address that the
user would be sent to goes into the file `visits`. Prints one JSON object.
"""

import asyncio
import json
import os
import sys

from mcp import Client, StdioServerParameters
from mcp_types import ElicitResult


async def visit(context, params):
    with open("visits", "a") as file:
        file.write(json.dumps({"mode": params.mode, "url": getattr(params, "url", None)}) + "\n")
    return ElicitResult(action="accept")


async def main(mode, target, config, reference):
    server = target if target.startswith("http") else StdioServerParameters(
        command=target, args=["stdio", "-c", config], cwd=os.getcwd()
    )
    arguments = {"from": "alice", "to": "shop", "amount": 40, "reference": reference}
    async with Client(server, mode=mode, elicitation_callback=visit) as client:
        result = await client.call_tool("bank__transfer", arguments)
        told = {"error": result.is_error, "text": result.content[0].text, "meta": result.meta or {}}
        print(json.dumps({"protocol": client.protocol_version, **told}))


asyncio.run(main(*sys.argv[1:]))
