"""An agent of Pydantic AI, whose model is a script: `framework.py URL REFERENCE`. Prints one JSON object."""

import asyncio
import json
import sys

from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import FunctionModel


async def main(url, reference):
    told = {"returned": []}

    def model(messages, info):
        """Pays once, and then says what it was told."""
        told["tools"] = sorted(tool.name for tool in info.function_tools)
        returned = [part for part in messages[-1].parts if isinstance(part, ToolReturnPart)]
        if not returned:
            payment = {"from": "alice", "to": "shop", "amount": 40, "reference": reference}
            return ModelResponse(parts=[ToolCallPart("bank__transfer", payment)])
        told["returned"] += [part.model_response_object() for part in returned]
        return ModelResponse(parts=[TextPart(f"paid {reference}")])

    agent = Agent(FunctionModel(model), toolsets=[MCPToolset(url)])
    async with agent:
        told["said"] = (await agent.run(f"Please pay {reference}.")).output
    print(json.dumps(told, default=str))


asyncio.run(main(*sys.argv[1:]))
