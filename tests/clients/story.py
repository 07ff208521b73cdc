"""A python agent with the official SDK: `story.py MODE TARGET [CONFIG]`, run in the directory of its world.

MODE is auto or legacy; TARGET is a URL, or a program that speaks MCP on stdin and stdout. Prints one JSON object.
"""

import asyncio
import json
import os
import sys

from mcp import Client, StdioServerParameters


def payment(reference, amount=40):
    return {"from": "alice", "to": "shop", "amount": amount, "reference": reference}


def fault(line):
    with open("faults.new", "w") as file:
        file.write(line)
    os.rename("faults.new", "faults")


async def until(done):
    for _ in range(2000):
        if done():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError("waited in vain")


def seen(result):
    return {
        "error": result.is_error,
        "text": result.content[0].text,
        "data": result.structured_content,
        "meta": result.meta or {},
    }


async def story(client, name):
    told = {"protocol": client.protocol_version}
    told["tools"] = [tool.name for tool in (await client.list_tools()).tools]
    told["paid"] = seen(await client.call_tool("bank__transfer", payment(f"{name}-1")))
    told["declined"] = seen(await client.call_tool("bank__transfer", payment(f"{name}-2", 10**6)))

    progress = []

    async def note(done, total, message):
        progress.append([done, total])

    fault("slow=250ms progress=5 once")
    told["slow"] = seen(await client.call_tool("bank__transfer", payment(f"{name}-3"), progress_callback=note))
    told["progress"] = progress

    key = {"io.holdfast/idempotency-key": name}
    told["keyed"] = [
        seen(await client.call_tool("bank__transfer", payment(f"{name}-4"), meta=key)) for _ in range(2)
    ]

    fault("slow=3s once")
    cancelled = asyncio.create_task(client.call_tool("bank__transfer", payment(f"{name}-5")))
    await until(lambda: not os.path.exists("faults"))
    cancelled.cancel()
    try:
        await cancelled
    except asyncio.CancelledError:
        pass
    fault("slow=3s once")
    told["after"] = seen(await client.call_tool("bank__transfer", payment(f"{name}-6")))
    return told


async def main(mode, target, config=None):
    server = target if target.startswith("http") else StdioServerParameters(
        command=target, args=["stdio", "-c", config], cwd=os.getcwd()
    )
    async with Client(server, mode=mode) as client:
        print(json.dumps(await story(client, f"{mode}-{'http' if config is None else 'stdio'}")))


asyncio.run(main(*sys.argv[1:]))
