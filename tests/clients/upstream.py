"""Lets the conformance suite judge Holdfast as a client: `upstream.py HOLDFAST URL`, with the suite's variables.

Starts a Holdfast whose one server is at URL, and does through it what a curious agent would: lists everything, calls
every tool, reads every resource, gets every prompt, answers whatever it is asked.
"""

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading

PATIENCE = 25
META = "io.modelcontextprotocol/"
CONFIG = """version = 1
[listen]
mcp = "127.0.0.1:0"
inbox = "127.0.0.1:0"
[servers.judge]
url = "{url}"
prefix = false
[defaults]
effect = "allow"
"""


class Agent:
    """Speaks to Holdfast through its bridge."""

    def __init__(self, program, directory, version):
        self.modern = version >= "2026"
        self.version = version
        self.number = 0
        self.bridge = subprocess.Popen(
            [program, "stdio"], cwd=directory, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.lines = queue.Queue()
        threading.Thread(target=self.listen, daemon=True).start()
        self.capabilities = {"elicitation": {"form": {}}, "sampling": {}, "roots": {}}
        if not self.modern:
            info = {"name": "upstream.py", "version": "1"}
            hello = {"protocolVersion": version, "capabilities": self.capabilities, "clientInfo": info}
            self.request("initialize", hello)
            self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def listen(self):
        for line in self.bridge.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def send(self, message):
        self.bridge.stdin.write(json.dumps(message) + "\n")
        self.bridge.stdin.flush()

    def request(self, method, params=None):
        """The answer's result, or None where it is an error. Whatever is asked meanwhile is answered."""
        params = dict(params or {})
        for _ in range(5):
            self.number += 1
            if self.modern:
                params["_meta"] = {
                    META + "protocolVersion": self.version,
                    META + "clientCapabilities": self.capabilities,
                    META + "clientInfo": {"name": "upstream.py", "version": "1"},
                }
            self.send({"jsonrpc": "2.0", "id": self.number, "method": method, "params": params})
            answer = self.answer(self.number)
            print(method, params.get("name", ""), json.dumps(answer), file=sys.stderr)
            result = answer.get("result")
            if not result or result.get("resultType") != "input_required":
                return result
            asked = result.get("inputRequests", {})
            params["inputResponses"] = {name: reply(question) for name, question in asked.items()}
            params.pop("requestState", None)
            if "requestState" in result:
                params["requestState"] = result["requestState"]
        return None

    def answer(self, number):
        while True:
            line = self.lines.get(timeout=PATIENCE)
            if line is None:
                raise EOFError("the bridge ended")
            message = json.loads(line)
            if message.get("id") == number and "method" not in message:
                return message
            if "method" in message and "id" in message:
                self.send({"jsonrpc": "2.0", "id": message["id"], "result": reply(message)})


def reply(question):
    """What a friendly user, model or client says."""
    method = question["method"]
    if method == "roots/list":
        return {"roots": []}
    if method == "sampling/createMessage":
        text = {"type": "text", "text": "Paris"}
        return {"role": "assistant", "content": text, "model": "none", "stopReason": "endTurn"}
    properties = question.get("params", {}).get("requestedSchema", {}).get("properties", {})
    content = {name: schema.get("default", sample(schema)) for name, schema in properties.items()}
    return {"action": "accept", "content": content}


def sample(schema):
    """A value that fits."""
    kinds = {"integer": 5, "number": 5, "boolean": True, "object": {}, "array": [], "null": None}
    return kinds.get(schema.get("type"), "text")


def explore(agent, context):
    tools = (agent.request("tools/list") or {}).get("tools", [])
    calls = context.get("toolCalls")
    if calls is None:
        schemas = {tool["name"]: tool["inputSchema"] for tool in tools}
        calls = []
        for name, schema in schemas.items():
            properties = schema.get("properties", {})
            arguments = {key: sample(properties.get(key, {})) for key in properties}
            if name == "json_schema_echo":
                arguments = {"schema": schemas["json_schema_2020_12_tool"]}
            if not name.startswith("holdfast_"):
                calls.append({"name": name, "arguments": arguments})
    for call in calls:
        agent.request("tools/call", call)
    for resource in (agent.request("resources/list") or {}).get("resources", []):
        agent.request("resources/read", {"uri": resource["uri"]})
    for prompt in (agent.request("prompts/list") or {}).get("prompts", []):
        agent.request("prompts/get", {"name": prompt["name"], "arguments": {}})


def main(program, url):
    version = os.environ["MCP_CONFORMANCE_PROTOCOL_VERSION"]
    context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))
    with tempfile.TemporaryDirectory(prefix="holdfast-") as directory:
        with open(os.path.join(directory, "holdfast.toml"), "w") as file:
            file.write(CONFIG.format(url=url))
        serve = subprocess.Popen([program, "serve"], cwd=directory, stdout=subprocess.PIPE, text=True)
        try:
            serve.stdout.readline(), serve.stdout.readline()
            agent = Agent(program, directory, version)
            try:
                explore(agent, context)
            finally:
                agent.bridge.stdin.close()
                agent.bridge.wait(PATIENCE)
        finally:
            serve.terminate()
            serve.wait(PATIENCE)


if __name__ == "__main__":
    main(*sys.argv[1:])
