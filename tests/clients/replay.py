"""A python agent whose connection breaks: `replay.py MODE URL REFERENCE`.

Calls with a limit that is too short, then calls again, as an agent does that knows nothing of idempotency.
"""

import asyncio
import json
import os
import sys

from mcp import Client


async def main(mode, url, reference):
    arguments = {"from": "alice", "to": "shop", "amount": 40, "reference": reference}
    async with Client(url, mode=mode) as client:
        await client.list_tools()
        with open("faults.new", "w") as file:
            file.write("slow=3s once")
        os.rename("faults.new", "faults")
        try:
            await client.call_tool("bank__transfer", arguments, read_timeout_seconds=0.3)
            raise AssertionError("the call was not slow")
        except AssertionError:
            raise
        except Exception as error:
            timeout = str(error)
        result = await client.call_tool("bank__transfer", arguments)
        print(json.dumps({"timeout": timeout, "error": result.is_error, "text": result.content[0].text}))


asyncio.run(main(*sys.argv[1:]))
