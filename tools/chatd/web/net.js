// What goes over the wire: calls, event streams, and answers that are followed over lost connections.

export class ApiError extends Error {
  constructor(status, type, message) {
    super(message);
    this.status = status;
    this.type = type;
  }
  // The same again, later, may work.
  get passing() {
    return this.status === 0 || this.status === 408 || this.status === 429 || this.status >= 500;
  }
}

let onLogout = () => {};
export function setOnLogout(call) { onLogout = call; }

async function request(method, path, body, options = {}) {
  let response;
  try {
    response = await fetch(path, {
      method, credentials: "same-origin", cache: "no-store", signal: options.signal,
      headers: { ...(body === undefined ? {} : { "content-type": "application/json" }), ...options.headers },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "network", "no connection to the server");
  }
  if (response.ok) return response;
  let said = {};
  try { said = (await response.json()).error || {}; } catch { /* no JSON: the status says it */ }
  if (response.status === 401 && !options.quiet) onLogout();
  throw new ApiError(response.status, said.type || "error", said.message || `the server answers ${response.status}`);
}

export async function api(method, path, body, options) {
  const response = await request(method, path, body, options);
  try {
    return await response.json();
  } catch {
    throw new ApiError(0, "network", "the connection was lost");
  }
}

export function stream(method, path, body, options) {
  return request(method, path, body, options);
}

// The events of a response, as {id, name, data}. Throws when the connection breaks; a silence of
// more than `silenceMs` (the server pings) counts as a broken one.
export async function* events(response, silenceMs = 30000) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  let event = { id: null, name: "message", data: "" };
  try {
    for (;;) {
      let timer;
      const silent = new Promise((_, reject) => { timer = setTimeout(() => reject(new ApiError(0, "network", "the server is silent")), silenceMs); });
      let piece;
      try {
        piece = await Promise.race([reader.read(), silent]);
      } catch (error) {
        if (error.name === "AbortError" || error instanceof ApiError) throw error;
        throw new ApiError(0, "network", "the connection was lost");
      } finally {
        clearTimeout(timer);
      }
      if (piece.done) return;
      rest += decoder.decode(piece.value, { stream: true });
      const lines = rest.split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (event.data) yield { id: event.id, name: event.name, data: JSON.parse(event.data) };
          event = { id: null, name: "message", data: "" };
        } else if (line.startsWith("id: ")) event.id = line.slice(4);
        else if (line.startsWith("event: ")) event.name = line.slice(7);
        else if (line.startsWith("data: ")) event.data += line.slice(6);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

export function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(done, ms);
    function done() { clearTimeout(timer); removeEventListener("online", done); resolve(); }
    addEventListener("online", done);
    signal?.addEventListener("abort", done);
  });
}

const bytes = new TextEncoder();

// The text of one answer while it comes: exactly the server's, whatever is lost and sent twice.
export class Answer {
  constructor() {
    this.blocks = [];  // {text, size in bytes}
    this.last = null;  // id of the last event that counted
    this.over = false;
    this.stopReason = undefined;
    this.row = null;   // the newest message object seen
  }
  get text() { return this.blocks.map((b) => (b ? b.text : "")).join(""); }
  // False: a hole. What is here must be dropped and read anew.
  take({ id, data }) {
    switch (data.type) {
      case "message_accepted": this.row = data.message; break;
      case "snapshot":
        this.row = data.message;
        this.blocks = data.message.content.map((b) => ({ text: b.text || "", size: bytes.encode(b.text || "").length }));
        break;
      case "content_block_start": this.blocks[data.index] = { text: "", size: 0 }; break;
      case "content_block_delta": {
        const block = (this.blocks[data.index] ||= { text: "", size: 0 });
        const text = data.delta.text || "";
        const offset = data.offset ?? block.size;
        const size = bytes.encode(text).length;
        if (offset > block.size) return false;
        if (offset === block.size) { block.text += text; block.size += size; }
        // Else it is here already: a piece comes whole or not at all.
        break;
      }
      case "message_delta": this.stopReason = data.delta.stop_reason; this.usage = data.usage; break;
      case "message_stop": this.over = true; break;
    }
    if (id) this.last = id;
    return true;
  }
}

// Follows an answer to its end. Without an id yet, `send` asks for it, as often as it takes: it must be
// the same to the server each time (an idempotency key). Calls
// `changed(answer)` after each event, `waiting(text or "")` when the connection is lost and when it is
// back. Returns the answer; throws what cannot be helped.
export async function follow(base, id, send, { changed, waiting, signal }) {
  let answer = new Answer();
  let response = null;
  let tries = 0;
  for (;;) {
    let trouble = null;
    try {
      response = !id ? await send() : await stream("GET", `${base}/${id}/stream`, undefined, { signal, headers: answer.last ? { "last-event-id": answer.last } : {} });
      for await (const event of events(response)) {
        if (event.data.type === "ping") continue;
        if (event.data.type === "error") {
          const passing = ["overloaded_error", "api_error", "rate_limit_error"].includes(event.data.error.type);
          trouble = new ApiError(passing ? 503 : 400, event.data.error.type, event.data.error.message);
          break;
        }
        if (!answer.take(event)) { answer = new Answer(); break; }
        if (event.data.type === "message_accepted") id = event.data.message.id;
        tries = 0;
        waiting("");
        changed(answer, event);
        if (answer.over) return answer;
      }
    } catch (error) {
      if (error.name === "AbortError") throw error;
      trouble = error instanceof ApiError ? error : new ApiError(0, "network", String(error.message));
    }
    response = null;
    if (signal?.aborted) throw new DOMException("", "AbortError");
    if (trouble && !trouble.passing) throw trouble;
    if (++tries > 60) throw trouble || new ApiError(0, "network", "the answer cannot be reached");
    if (trouble) waiting(trouble.status === 0 ? "Connection lost: trying again. Nothing is lost." : `The server is busy (${trouble.message}): trying again.`);
    await pause(Math.min(250 * 2 ** Math.min(tries, 5), 5000), signal);
  }
}

export function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, "0")).join("");
}
