// An agent on the official TypeScript libraries: `typescript.mjs MODULES SURFACE TARGET CONFIG REFERENCE`, in its world.
//
// MODULES is the directory of the libraries. TARGET is a program that speaks MCP on stdin and stdout, or, where CONFIG is
// empty, a file with the URL that holds now. What happens on the way is appended to the file `seen`, one JSON value a line;
// at the end one JSON object is printed.
//
// | SURFACE | library | declares |
// |---|---|---|
// | held | sdk 1 (2025-11-25) | nothing: gets a held result and collects it |
// | progress | sdk 1 | nothing: waits as long as progress comes |
// | url | sdk 1 | elicitation by URL: is asked to send its user to the inbox |
// | rounds | client 2 (2026-07-28) | nothing: comes again with the state it was given |
// | visit | client 2 | elicitation by URL: the same, and its user is sent to the inbox |
// | tasks | client 2 with ext-tasks | Tasks: gets a task and polls it |

import { appendFileSync, readFileSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";

const [modules, surface, target, config, reference] = process.argv.slice(2);
const library = (path) => import(`file://${modules}/@modelcontextprotocol/${path}`);
const seen = (what) => appendFileSync("seen", JSON.stringify(what) + "\n");
const url = () => new URL(readFileSync(target, "utf8").trim());
const payment = { name: "bank__transfer", arguments: { from: "alice", to: "shop", amount: 40, reference } };
const info = { name: `typescript-${surface}`, version: "1" };
const visits = { elicitation: { form: {}, url: {} } };

const visit = async ({ params }) => {
  seen({ mode: params.mode, url: params.url });
  return { action: "accept" };
};

async function legacy() {
  const { Client } = await library("sdk/dist/esm/client/index.js");
  const { ElicitRequestSchema } = await library("sdk/dist/esm/types.js");
  const { StdioClientTransport } = await library("sdk/dist/esm/client/stdio.js");
  const { StreamableHTTPClientTransport } = await library("sdk/dist/esm/client/streamableHttp.js");
  const client = new Client(info, { capabilities: surface === "url" ? visits : {} });
  if (surface === "url") client.setRequestHandler(ElicitRequestSchema, visit);
  const bridge = { command: target, args: ["stdio", "-c", config], cwd: process.cwd(), env: process.env };
  await client.connect(config ? new StdioClientTransport(bridge) : new StreamableHTTPClientTransport(url()));
  const call = (params, options) => client.callTool(params, undefined, { timeout: 60_000, ...options });
  return { client, call, protocol: "2025-11-25" };
}

async function modern() {
  const { Client, StreamableHTTPClientTransport } = await library("client/dist/index.mjs");
  const { StdioClientTransport } = await library("client/dist/stdio.mjs");
  const client = new Client(info, {
    capabilities: surface === "visit" ? visits : {},
    versionNegotiation: { mode: "auto" },
  });
  if (surface === "visit") client.setRequestHandler("elicitation/create", visit);
  const bridge = { command: target, args: ["stdio", "-c", config], cwd: process.cwd(), env: process.env };
  await client.connect(config ? new StdioClientTransport(bridge) : new StreamableHTTPClientTransport(url()));
  const call = (params, options) => client.callTool(params, { timeout: 60_000, ...options });
  return { client, call, protocol: client.getNegotiatedProtocolVersion() };
}

// An agent whose connection broke connects anew and does the same once more: that is all that MCP lets it do.
async function patiently(connect, act) {
  for (;;) {
    let agent;
    try {
      agent = await connect();
      return await act(agent);
    } catch (error) {
      seen({ broke: String(error) });
      await pause(100);
    } finally {
      await agent?.client.close().catch(() => {});
    }
  }
}

async function held() {
  const first = await patiently(legacy, ({ call }) => call(payment));
  seen(first._meta);
  const wait = { name: "holdfast_wait", arguments: { call_id: first._meta["io.holdfast/call"], timeout_s: 50 } };
  return patiently(legacy, async ({ call, protocol }) => {
    seen("waits");
    return { protocol, first, last: await call(wait) };
  });
}

async function progress() {
  const { client, call, protocol } = await legacy();
  const options = { timeout: 20_000, resetTimeoutOnProgress: true, onprogress: (step) => seen(step) };
  const last = await call(payment, options);
  await client.close();
  return { protocol, last };
}

async function plain(connect) {
  const { client, call, protocol } = await connect();
  const last = await call(payment);
  await client.close();
  return { protocol, last };
}

// The library leaves tasks on the wire to its host: one request, again as long as nobody answers.
async function dispatch(request) {
  const { method, params } = request;
  const headers = {
    "content-type": "application/json",
    accept: "application/json, text/event-stream",
    "mcp-protocol-version": "2026-07-28",
    "mcp-method": method,
    "mcp-name": params.name ?? params.taskId,
  };
  const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method, params });
  for (;;) {
    try {
      const text = await (await fetch(url(), { method: "POST", headers, body })).text();
      const data = text.startsWith("{") ? text : text.match(/^data: ?(\{.*\})$/gm).at(-1).replace(/^data: ?/, "");
      const response = JSON.parse(data);
      seen({ method, kind: response.result?.resultType, status: response.result?.status });
      return response;
    } catch (error) {
      seen({ broke: String(error) });
      await pause(100);
    }
  }
}

async function tasks() {
  const { createTaskSessionFromClient, resultFromTaskOutcome } = await library("ext-tasks/dist/client/index.js");
  const { client, protocol } = await modern();
  const session = createTaskSessionFromClient(client, {
    endpointId: "holdfast",
    rawDispatch: dispatch,
    v2RequestFraming: { protocolVersion: protocol, clientInfo: info, clientCapabilities: {} },
  });
  const execution = await session.callTool(payment.name, payment.arguments);
  const { outcome } = await execution.settle();
  const last = resultFromTaskOutcome(outcome);
  await session.close().catch(() => {});
  await client.close().catch(() => {});
  return { protocol, last };
}

const surfaces = { held, progress, tasks, url: () => plain(legacy), rounds: () => plain(modern), visit: () => plain(modern) };
console.log(JSON.stringify(await surfaces[surface]()));
process.exit(0);
