# A scripted MCP server for tests: the first argument says how it begins, the tool's name how it answers.
import json, os, subprocess, sys, time

mode = sys.argv[1]
if mode == "reopening":
    # As `tee /dev/stdout` does, and as SDKs do to read and write without blocking.
    sys.stdin, sys.stdout = open("/dev/stdin"), open("/dev/stdout", "w")
held = {}
tools = ["echo", "odd"]


def out(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def say(**message):
    out(json.dumps({"jsonrpc": "2.0", **message}))


def text(words, **more):
    return {"content": [{"type": "text", "text": words}], **more}


def call(id, params, line):
    name, token = params["name"], params["_meta"]["progressToken"]
    if name == "echo":
        say(id=id, result=text(line))
    elif name == "odd":
        out('{"jsonrpc":"2.0", "id":%d, "result":{ "z":1.50, "n":123456789012345678901234567890,"content":[{"type":"hologram"}],"isError" : true}}' % id)
    elif name == "as_text":
        say(id=str(id), result=text("the id came back as text"))
    elif name == "progress":
        for step in range(50):
            say(method="notifications/progress", params={"progressToken": token, "progress": step})
        say(id=id, result=text("done"))
    elif name == "twice":
        say(id=id, result=text("first"))
        say(id=id, result=text("second"))
    elif name == "garbage":
        out("Listening on port 3000 ...")
        sys.stdout.buffer.write(b"\xff\xfe\n")
        out('{"jsonrpc":"2.0","id":')
        out("")
        out('{"jsonrpc":"2.0","id":987654321,"result":{}}')
        say(method="notifications/of_tomorrow", params={"x": 1})
        say(id="s1", method="ping")
        say(id="s2", method="sampling/createMessage", params={})
        held[name] = id
    elif name == "refuse":
        say(id=id, error={"code": -32602, "message": "no", "data": {"deep": [1]}})
    elif name == "hold":
        held[name] = id
    elif name == "release":
        say(id=held.pop("hold"), result=text("released"))
        say(id=id, result=text("done"))
    elif name == "die":
        print("something broke", file=sys.stderr, flush=True)
        say(id=id, result=text("x" * 200000))
        os._exit(3)
    elif name == "deaf":
        while not os.path.exists(params["arguments"]["until"]):
            time.sleep(0.01)
        os._exit(4)
    elif name == "heir":
        alive, until_its_end = os.pipe()
        if os.fork() == 0:
            os.close(until_its_end)
            os.read(alive, 1)
            say(id=id, result=text("from the heir"))
            time.sleep(1000)
        os._exit(0)
    elif name == "pid":
        say(id=id, result=text(str(os.getpid())))
    elif name == "fork":
        child = subprocess.Popen(["sh", "-c", "trap '' TERM INT HUP; while :; do sleep 1; done"])
        say(id=id, result=text(str(child.pid)))
    elif name == "grow":
        tools.append("grown")
        say(method="notifications/tools/list_changed")
        say(id=id, result=text("done"))
    elif name == "big":
        say(id=id, result=text("x" * (65 * 1024 * 1024)))


if mode == "broken":
    print("cannot find my database", file=sys.stderr, flush=True)
    sys.exit(7)

answers = []
for line in sys.stdin:
    line = line.rstrip("\n")
    message = json.loads(line)
    method, id, params = message.get("method"), message.get("id"), message.get("params", {})
    if mode == "mute":
        print("thinking", file=sys.stderr, flush=True)
    elif method == "initialize":
        if mode in ("modern", "fragile"):
            say(id=id, error={"code": -32022, "message": "unsupported", "data": {"supported": ["2026-07-28"]}})
            if mode == "fragile":
                sys.exit(0)
        else:
            say(id=id, result={"protocolVersion": "2025-06-18", "capabilities": {"tools": {"listChanged": True}},
                               "serverInfo": {"name": "fake", "version": "1"}})
    elif method == "server/discover":
        if mode in ("modern", "fragile"):
            say(id=id, result={"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}},
                               "ttlMs": 0, "cacheScope": "private"})
        else:
            say(id=id, error={"code": -32601, "message": "what?"})
    elif method == "tools/list":
        at = int(params.get("cursor", 0))
        page = {"tools": [{"name": tools[at], "inputSchema": {"type": "object"}, "x-vendor": [1.0],
                           "annotations": {"readOnlyHint": True}}]}
        if at + 1 < len(tools):
            page["nextCursor"] = str(at + 1)
        say(id=id, result=page)
    elif method == "notifications/cancelled":
        say(id=params["requestId"], result=text("too late: " + params["reason"]))
    elif method == "tools/call":
        call(id, params, line)
    elif method is None:
        answers.append(message)
        if len(answers) == 2:
            say(id=held.pop("garbage"), result=text(json.dumps(answers)))
