"""Lets the conformance suite judge Holdfast as an OAuth client: `signed_in.py HOLDFAST URL`, with the suite's variables.

Starts a Holdfast whose one server is at URL, signs in where that is wanted as an operator's browser would, and calls the
server's tools; signs in again where Holdfast says that somebody has to.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from upstream import CONFIG, PATIENCE, Agent

SCENARIO = os.environ["MCP_CONFORMANCE_SCENARIO"]
CONTEXT = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))


def oauth():
    """What the operator was told beforehand."""
    lines = []
    if "cimd" in SCENARIO:
        lines.append('client_id = "https://conformance-test.local/client-metadata.json"')
    if "client_id" in CONTEXT:
        lines.append(f'client_id = "{CONTEXT["client_id"]}"')
    if "client_secret" in CONTEXT:
        lines.append(f'client_secret = "{CONTEXT["client_secret"]}"')
    if "client-credentials" in SCENARIO:
        lines.append('grant = "client_credentials"')
    return "\n".join(["[servers.judge.oauth]", *lines, ""]) if lines else ""


class Stay(urllib.request.HTTPRedirectHandler):
    """The browser of somebody who looks where they are sent."""

    def redirect_request(self, *_):
        return None


def location(url):
    """Where this address sends its visitor."""
    try:
        urllib.request.build_opener(Stay).open(url, timeout=PATIENCE).close()
    except urllib.error.HTTPError as redirect:
        return redirect.headers.get("Location")
    return None


class Inbox:
    """The operator's API."""

    def __init__(self, address, token):
        self.address = address
        self.headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + "api/v1/" + path, data, self.headers)
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return json.load(response)

    def server(self):
        [server] = self.ask("servers")["servers"]
        return server

    def until(self, fits):
        """Waits until the server's state fits; False where it never does."""
        end = time.monotonic() + PATIENCE
        while not fits(self.server()):
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True

    def sign_in(self):
        """True where the authorization server was satisfied, and we with its answer."""
        try:
            url = self.ask("servers/sign-in", {"server": "judge"})["url"]
        except urllib.error.HTTPError as error:
            print("no sign-in:", error.read().decode(), file=sys.stderr)
            return False
        back = location(url)
        print("sent back to", back, file=sys.stderr)
        if back is None:
            return False
        try:
            urllib.request.urlopen(back, timeout=PATIENCE).close()
        except urllib.error.HTTPError as error:
            print("refused:", error.read().decode(), file=sys.stderr)
            return False
        return True


def wants_somebody(server):
    return server.get("oauth") == "needed" or "holdfast login" in server.get("last_error", "")


def use(agent, inbox):
    """Calls every tool. True where somebody has to sign in first."""
    tools = (agent.request("tools/list") or {}).get("tools", [])
    names = [tool["name"] for tool in tools if not tool["name"].startswith(("holdfast_", "judge__"))]
    answers = [json.dumps(agent.request("tools/call", {"name": name, "arguments": {}})) for name in names]
    return any("holdfast login" in answer for answer in answers) or not names and wants_somebody(inbox.server())


def work(program, directory, inbox):
    inbox.until(lambda server: server["state"] in ("up", "down") or wants_somebody(server))
    if wants_somebody(inbox.server()) and not inbox.sign_in():
        return
    inbox.until(lambda server: server["state"] == "up" or wants_somebody(server))
    agent = Agent(program, directory, "2026-07-28")
    try:
        # Nobody signs in for ever.
        for _ in range(3):
            if not use(agent, inbox) or not inbox.sign_in():
                return
            inbox.until(lambda server: server["state"] == "up")
    finally:
        agent.bridge.stdin.close()
        agent.bridge.wait(PATIENCE)


def main(program, url):
    with tempfile.TemporaryDirectory(prefix="holdfast-") as directory:
        with open(os.path.join(directory, "holdfast.toml"), "w") as file:
            file.write(CONFIG.format(url=url) + "retry = { attempts = 1 }\n" + oauth())
        serve = subprocess.Popen([program, "serve"], cwd=directory, stdout=subprocess.PIPE, text=True)
        try:
            _, address = serve.stdout.readline(), serve.stdout.readline().split()[1]
            with open(os.path.join(directory, "holdfast.redb.operator-token")) as file:
                inbox = Inbox(address, file.read().strip())
            work(program, directory, inbox)
        finally:
            serve.terminate()
            serve.wait(PATIENCE)


main(*sys.argv[1:])
