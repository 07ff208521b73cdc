# A server whose tools tell in a file that they ran: `pay` answers, `slow` when the file `go` is there, `fail` breaks off.
import json, os, sys, time

directory = sys.argv[1]


def say(**message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


for line in sys.stdin:
    message = json.loads(line)
    id, params = message.get("id"), message.get("params", {})
    if message["method"] == "initialize":
        say(id=id, result={"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "test", "version": "1"}})
    elif message["method"] == "tools/list":
        say(id=id, result={"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in ["pay", "slow", "fail"]]})
    elif message["method"] == "tools/call":
        with open(os.path.join(directory, "ran"), "a") as ran:
            ran.write(params["name"] + "\n")
        if params["name"] == "fail":
            say(id=id, error={"code": -32603, "message": "no"})
            continue
        while params["name"] == "slow" and not os.path.exists(os.path.join(directory, "go")):
            time.sleep(0.005)
        say(id=id, result={"content": [{"type": "text", "text": "done"}]})
    elif id is not None:
        say(id=id, result={})
