// The page: conversations as people know them, on the API of conversations-api alone.
import { h, update } from "./markdown.js";
import { api, stream, events, follow, pause, newKey, setOnLogout, ApiError } from "./net.js";
import { searchTexts } from "./search.js";

const $ = (id) => document.getElementById(id);
const state = {
  me: null,
  list: new Map(),     // conversation id → conversation
  asked: new Map(),    // conversation id → the beginning of its first message, where it was sent here
  cursor: null,
  id: null,            // the open conversation
  messages: new Map(), // of it
  children: new Map(), // parent id or "" → ids, oldest first
  leaf: null,          // the end of the branch that is shown
  older: null,         // cursor of earlier messages
  live: new Map(),     // message id → {stop}: answers that are followed
  pending: null,       // a send whose ids are not known yet
  editing: null,
  models: [],
  opened: 0,           // counts openings, so that a late answer of an earlier one is dropped
};
const base = (id = state.id) => `/v1/conversations/${encodeURIComponent(id)}`;
const textOf = (message) => message.content.map((b) => b.text || "").join("");
const store = {
  get: (key) => { try { return localStorage.getItem(key); } catch { return null; } },
  set: (key, value) => { try { value ? localStorage.setItem(key, value) : localStorage.removeItem(key); } catch { /* private mode */ } },
};

function say(text) { $("status").textContent = text; }
function fail(error) {
  if (error.name === "AbortError") return;
  if (!(error instanceof ApiError)) console.error(error);
  if (error.status !== 401) say(error.message);
}
// An error inside is shown, whoever called.
const guarded = (call) => (...args) => Promise.resolve().then(() => call(...args)).catch(fail);

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const box = h("textarea", { class: "unseen" });
    box.value = text;
    document.body.append(box);
    box.select();
    document.execCommand("copy");
    box.remove();
  }
  const was = button.textContent;
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = was; }, 1200);
}

// ---- dialogs

function ask(title, value, yes) {
  const box = $("ask");
  $("ask-title").textContent = title;
  $("ask-text").hidden = value === null;
  $("ask-text").value = value || "";
  $("ask-yes").textContent = yes;
  box.returnValue = "no";
  box.showModal();
  if (value !== null) $("ask-text").select(); else $("ask-no").focus();
  return new Promise((resolve) => box.addEventListener("close", () => resolve(box.returnValue === "yes" ? $("ask-text").value : null), { once: true }));
}
$("ask-text").addEventListener("keydown", (e) => {
  if (e.key === "Enter") { e.preventDefault(); $("ask").close("yes"); }
});

// ---- the list

// Until the server has made a title: what was asked.
function titleOf(conversation) { return conversation.title || state.asked.get(conversation.id) || "New conversation"; }

function showList() {
  const filter = $("search").value.trim().toLocaleLowerCase();
  const rows = [...state.list.values()]
    .filter((c) => !filter || titleOf(c).toLocaleLowerCase().includes(filter))
    .sort((a, b) => (b.pinned - a.pinned) || (a.updated_at < b.updated_at ? 1 : a.updated_at > b.updated_at ? -1 : 0));
  $("list").replaceChildren(...rows.map((c) => {
    const unread = c.unread_count > 0 && c.id !== state.id;
    return h("li", null, h("a", { href: "#" + c.id, "aria-current": c.id === state.id ? "page" : null },
      h("span", null, titleOf(c)),
      unread ? h("span", { class: "unread", "aria-label": `${c.unread_count} unread` }, String(c.unread_count)) : null));
  }));
  if (filter && !rows.length) $("list").append(h("li", { class: "hint" }, "No title has that."));
  $("more").hidden = !state.cursor;
}

async function loadList(more = false) {
  const page = await api("GET", "/v1/conversations?limit=50" + (more && state.cursor ? "&cursor=" + encodeURIComponent(state.cursor) : ""));
  if (!more) state.list.clear();
  for (const c of page.data) state.list.set(c.id, c);
  state.cursor = page.next_cursor;
  showList();
}

async function refreshConversation(id) {
  try {
    const c = await api("GET", base(id));
    state.list.set(id, c);
    if (id === state.id) showHeader();
  } catch (error) {
    if (error.status !== 404) throw error;
    forget(id);
  }
  showList();
}

function forget(id) {
  state.list.delete(id);
  if (id === state.id) { say("This conversation was deleted."); openConversation(null); }
  showList();
}

// ---- the open conversation

function showHeader() {
  const c = state.list.get(state.id);
  $("title").textContent = c ? titleOf(c) : "New conversation";
  document.title = c ? `${titleOf(c)} – parley` : "parley";
  $("rename").hidden = $("delete").hidden = !state.id;
  const model = (c && c.model) || store.get("parley.model") || "";
  const names = state.models.map((m) => m.id);
  if (model && !names.includes(model)) names.unshift(model);
  $("model").replaceChildren(...names.map((n) => h("option", { value: n, selected: n === (model || "default") }, n)));
}

function place(message) {
  const known = state.messages.get(message.id);
  state.messages.set(message.id, message);
  if (known) return;
  const key = message.parent_id || "";
  const ids = state.children.get(key) || [];
  if (!ids.includes(message.id)) ids.push(message.id);
  ids.sort();
  state.children.set(key, ids);
}

function newestUnder(id) {
  for (let ids; (ids = state.children.get(id)) && ids.length;) id = ids[ids.length - 1];
  return id;
}

function shownPath() {
  const path = [];
  for (let m = state.messages.get(state.leaf); m; m = state.messages.get(m.parent_id)) path.unshift(m);
  return path;
}

async function openConversation(id) {
  const opened = ++state.opened;
  for (const one of state.live.values()) one.stop.abort();
  state.live.clear();
  state.pending?.stop.abort();
  Object.assign(state, { id, leaf: null, older: null, editing: null, pending: null });
  state.messages.clear();
  state.children.clear();
  $("messages").replaceChildren();
  closeSide();
  if (location.hash.slice(1) !== (id || "")) history.pushState(null, "", id ? "#" + id : location.pathname);
  $("composer-text").value = store.get("parley.draft." + (id || "new")) || "";
  fit();
  showHeader();
  showList();
  showMessages();
  if (!id) { $("older").hidden = true; $("composer-text").focus(); return; }
  await loadMessages(opened);
  if (!state.list.has(id)) await refreshConversation(id);
  if (opened === state.opened) { say(""); markRead(); $("composer-text").focus(); }
}

// The conversation at one of its messages: the branch that it is on, however far back it stands.
async function openMessage(conversation, message) {
  if (conversation !== state.id) await openConversation(conversation);
  const opened = state.opened;
  while (!state.messages.has(message) && state.older && opened === state.opened) await loadMessages(opened, state.older);
  if (opened !== state.opened || !state.messages.has(message)) return;
  if (!shownPath().some((m) => m.id === message)) state.leaf = newestUnder(message);
  while (!shownPath().some((m) => m.id === message) && state.older) await loadMessages(opened, state.older);
  closeSide();
  showMessages(false);
  followRunning();
  const node = $("messages").querySelector(`li[data-id="${CSS.escape(message)}"]`);
  if (!node) return;
  node.scrollIntoView({ block: "center" });
  node.classList.add("sought");
}

async function loadMessages(opened = state.opened, cursor = null) {
  const page = await api("GET", `${base()}/messages?limit=100${cursor ? "&cursor=" + encodeURIComponent(cursor) : ""}`);
  if (opened !== state.opened) return;
  for (const m of page.data) place(m);
  state.older = page.next_cursor;
  if (!cursor && page.data.length) state.leaf = page.data[0].id;
  // The branch that is shown wants its messages, however far back they are; a screen at a time.
  showMessages(!cursor);
  followRunning();
}

// Answers of the shown branch that are being made, or were cut and can go on.
function followRunning() {
  for (const m of shownPath())
    if (m.role === "assistant" && (m.status === "streaming" || (m.status === "interrupted" && m.id === state.leaf))) followAnswer(m.id);
}

const kNotes = {
  cancelled: "Stopped.",
  interrupted: "Interrupted.",
  blocked: "Not answered: the safety filter refused this.",
  failed: "This answer failed.",
};

function noteOf(m, live) {
  if (live) return null;
  if (m.status === "failed" || m.status === "interrupted") return kNotes[m.status] + (m.error?.message ? ` ${m.error.message}` : "");
  if (m.status === "cancelled" || m.status === "blocked") return kNotes[m.status];
  if (m.stop_reason === "refusal") return "The safety filter stopped this answer here.";
  if (m.stop_reason === "max_tokens") return "The answer reached its longest length.";
  return null;
}

function messageNode(m) {
  const live = state.live.get(m.id);
  const mine = m.role === "user";
  const li = h("li", { class: mine ? "user" : "assistant", "data-id": m.id, "aria-label": mine ? "You" : "Assistant" });
  if (state.editing === m.id) {
    const box = h("textarea", { "aria-label": "Edit the message" });
    box.value = textOf(m);
    box.addEventListener("keydown", (e) => {
      if (e.key === "Escape") { e.stopPropagation(); state.editing = null; showMessages(); }
      if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) saveEdit(m, box.value);
    });
    li.append(h("div", { class: "edit" }, box, h("div", { class: "buttons" },
      h("button", { type: "button", onclick: () => { state.editing = null; showMessages(); } }, "Cancel"),
      h("button", { type: "button", class: "save-edit", onclick: () => saveEdit(m, box.value) }, "Send"))));
    queueMicrotask(() => box.focus());
    return li;
  }
  const body = h("div", { class: "body" });
  li.append(body);
  if (mine) body.textContent = textOf(m);
  else {
    update(body, live?.answer ? live.answer.text : textOf(m), copy);
    if (live) body.classList.add("wait");
  }
  const note = noteOf(m, live);
  if (note) li.append(h("p", { class: "note" + (m.status === "failed" || m.status === "blocked" ? " error" : "") }, note));
  const acts = h("div", { class: "acts" });
  const siblings = state.children.get(m.parent_id || "") || [];
  if (siblings.length > 1) {
    const at = siblings.indexOf(m.id);
    const go = (to) => { state.leaf = newestUnder(siblings[to]); showMessages(); followRunning(); };
    acts.append(
      h("button", { type: "button", class: "previous", "aria-label": "Previous version", disabled: at === 0, onclick: () => go(at - 1) }, "‹"),
      h("span", { class: "version" }, `${at + 1} / ${siblings.length}`),
      h("button", { type: "button", class: "next", "aria-label": "Next version", disabled: at === siblings.length - 1, onclick: () => go(at + 1) }, "›"));
  }
  if (!live) {
    acts.append(h("button", { type: "button", class: "copy", onclick: (e) => copy(textOf(m), e.currentTarget) }, "Copy"));
    if (mine) acts.append(h("button", { type: "button", class: "edit-message", onclick: () => { state.editing = m.id; showMessages(); } }, "Edit"));
    else acts.append(h("button", { type: "button", class: "regenerate", onclick: guarded(() => regenerate(m)) }, "Regenerate"));
  }
  li.append(acts);
  return li;
}

function atEnd() {
  const box = $("messages");
  return box.scrollHeight - box.scrollTop - box.clientHeight < 60;
}
function toEnd() { $("messages").scrollTop = $("messages").scrollHeight; }

function showMessages(scroll = atEnd()) {
  const path = shownPath();
  const nodes = path.map(messageNode);
  if (state.pending) {
    const p = state.pending;
    if (p.text !== null) nodes.push(h("li", { class: "user", "aria-label": "You" }, h("div", { class: "body" }, p.text)));
    nodes.push(h("li", { class: "assistant", "aria-label": "Assistant" }, h("div", { class: "body wait" })));
  }
  $("messages").replaceChildren(...nodes);
  $("older").hidden = !(state.older && (!path.length || path[0].parent_id));
  const running = state.pending || path.some((m) => state.live.has(m.id));
  $("stop").hidden = !running;
  $("send").hidden = !!running;
  if (scroll) toEnd();
}

let drawing = false;
function draw(id) {
  // At most once a frame, however fast the pieces come.
  const live = state.live.get(id);
  if (live) live.dirty = true;
  if (drawing) return;
  drawing = true;
  const paint = () => {
    drawing = false;
    const end = atEnd();
    for (const [mid, one] of state.live) {
      if (!one.dirty) continue;
      one.dirty = false;
      const body = $("messages").querySelector(`li[data-id="${CSS.escape(mid)}"] .body`);
      if (body && one.answer) update(body, one.answer.text, copy);
    }
    if (end) toEnd();
  };
  // A hidden tab gets no frames, and its text shall be whole when it is looked at.
  document.hidden ? setTimeout(paint, 200) : requestAnimationFrame(paint);
}

// ---- answers

async function followAnswer(id, send = null, onAccepted = null) {
  if (id && state.live.has(id)) return;
  const opened = state.opened;
  const conversation = state.id;
  const one = { stop: new AbortController(), answer: null, dirty: false };
  if (id) { state.live.set(id, one); showMessages(); }
  else state.pending.stop = one.stop;
  try {
    const answer = await follow(`${base(conversation)}/messages`, id, send, {
      signal: one.stop.signal,
      waiting: (text) => { if (opened === state.opened) say(text); },
      changed: (now, event) => {
        if (opened !== state.opened) return;
        one.answer = now;
        if (event.data.type === "message_accepted") {
          id = event.data.message.id;
          place(event.data.user_message);
          place(event.data.message);
          state.pending = null;
          state.leaf = id;
          state.live.set(id, one);
          if (event.data.truncated_messages) say(`The oldest ${event.data.truncated_messages} messages did not fit the model and were left out.`);
          onAccepted?.(event.data);
          showMessages();
        } else if (event.data.type === "snapshot" && state.messages.has(id)) {
          place(event.data.message);
          draw(id);
        } else draw(id);
      },
    });
    if (opened === state.opened) $("spoken").textContent = answer.text.slice(0, 2000);
  } catch (error) {
    if (error.name !== "AbortError" && opened === state.opened) {
      if (state.pending?.stop === one.stop) {
        // It was never taken: the text goes back to where it can be sent again.
        const text = state.pending.text;
        if (text !== null && state.pending.composer && !$("composer-text").value) { $("composer-text").value = text; keepDraft(); fit(); }
        state.pending = null;
      }
      say(error.message);
    }
  } finally {
    state.live.delete(id);
    if (opened === state.opened) {
      if (id) await reloadMessage(id).catch(fail);
      if (state.pending?.stop === one.stop) state.pending = null;
      showMessages();
      markRead();
    }
  }
}

async function reloadMessage(id) {
  const opened = state.opened;
  const m = await api("GET", `${base()}/messages/${id}`);
  if (opened !== state.opened) return;
  place(m);
  // A refused question is marked by the store as well.
  if (m.status === "blocked" && m.parent_id) place(await api("GET", `${base()}/messages/${m.parent_id}`));
}

async function begin(path, body, text, composer) {
  if (state.pending) return;
  state.pending = { text, composer, stop: null };
  const key = newKey();
  showMessages(true);
  await followAnswer(null, () => stream("POST", path, body, { headers: { "idempotency-key": key } }), () => {
    if (composer) store.set("parley.draft." + (state.id || "new"), "");
  });
}

const send = guarded(async () => {
  const text = $("composer-text").value.trim();
  if (!text || state.pending || shownPath().some((m) => state.live.has(m.id))) return;
  say("");
  let created = false;
  if (!state.id) {
    const c = await api("POST", "/v1/conversations", { model: $("model").value || undefined });
    state.asked.set(c.id, text.split("\n")[0].slice(0, 60));
    state.list.set(c.id, c);
    store.set("parley.draft.new", "");
    state.id = c.id;
    created = true;
    history.pushState(null, "", "#" + c.id);
    showHeader();
    showList();
  }
  $("composer-text").value = "";
  store.set("parley.draft." + state.id, text);
  fit();
  const body = { content: text };
  if (state.leaf) body.parent_id = state.leaf;
  else if (!created && !state.messages.size) body.parent_id = null;
  await begin(`${base()}/messages`, body, text, true);
});

async function saveEdit(m, text) {
  text = text.trim();
  if (!text) return;
  state.editing = null;
  const id = m.parent_id;
  state.leaf = id;
  await begin(`${base()}/messages`, { content: text, parent_id: id }, text, false).catch(fail);
  if (!state.leaf || state.leaf === id) { state.leaf = newestUnder(m.id); showMessages(); }
}

async function regenerate(m) {
  if (state.pending) return;
  say("");
  const was = state.leaf;
  state.leaf = m.parent_id;
  await begin(`${base()}/messages/${m.id}/regenerate`, {}, null, false);
  if (state.leaf === m.parent_id) { state.leaf = was; showMessages(); }
}

const stop = guarded(async () => {
  if (state.pending) { state.pending.stop?.abort(); state.pending = null; showMessages(); return; }
  for (const m of shownPath())
    if (state.live.has(m.id)) await api("POST", `${base()}/messages/${m.id}/cancel`);
});

// ---- read marks and the live feed

let marked = "";
function markRead() {
  if (document.hidden || !state.id || !state.leaf) return;
  const newest = [...state.messages.keys()].sort().pop();
  if (!newest || marked === newest || state.live.has(newest)) return;
  const id = state.id;
  marked = newest;
  api("POST", `${base(id)}/read`, { message_id: newest }).then((said) => {
    const c = state.list.get(id);
    if (c) { c.unread_count = said.unread_count; showList(); }
  }).catch(() => { marked = ""; });
}

const onEvent = guarded(async (event) => {
  const id = event.conversation_id;
  switch (event.type) {
    case "resync":
      await loadList();
      if (state.id) await loadMessages();
      return;
    case "conversation.deleted": return forget(id);
    case "conversation.created":
    case "conversation.updated":
    case "conversation.read": return refreshConversation(id);
    case "message.created":
    case "message.updated":
    case "message.finished": {
      refreshConversation(id).catch(fail);
      if (id !== state.id || state.pending || state.live.has(event.message_id)) return;
      const atLeaf = !state.leaf || state.leaf === newestUnder(state.leaf);
      if (event.user_message_id && !state.messages.has(event.user_message_id))
        place(await api("GET", `${base()}/messages/${event.user_message_id}`));
      if (id !== state.id) return;
      await reloadMessage(event.message_id);
      if (id !== state.id || !state.messages.has(event.message_id)) return;
      // A window that shows the end goes along; one that looks at an older branch is left alone.
      if (event.type === "message.created" && atLeaf) state.leaf = event.message_id;
      showMessages();
      followRunning();
      markRead();
    }
  }
});

async function readFeed(give) {
  let since = null;
  for (let tries = 0; state.me; ++tries) {
    try {
      const response = await stream("GET", "/v1/events", undefined, { headers: since ? { "last-event-id": since } : {} });
      for await (const { id, data } of events(response)) {
        if (id) since = id;
        tries = 0;
        if (data.type !== "ping" && data.type !== "hello") give(data);
      }
    } catch { /* as below */ }
    await pause(Math.min(500 * 2 ** Math.min(tries, 5), 10000));
  }
}

// A browser opens few connections to one host: its windows share one feed where they can.
let feeding = false;
function startFeed() {
  if (feeding) return;
  feeding = true;
  if (!navigator.locks || !window.BroadcastChannel) { readFeed(onEvent); return; }
  const channel = new BroadcastChannel("parley-events");
  channel.onmessage = (e) => { if (e.data?.user === state.me?.user_id) onEvent(e.data.event); };
  navigator.locks.request("parley-events", () => readFeed((event) => {
    channel.postMessage({ user: state.me?.user_id, event });
    onEvent(event);
  }));
}

// ---- login

function showLogin(text = "") {
  state.me = null;
  $("app").hidden = true;
  $("login").hidden = false;
  $("login-error").textContent = text;
  $("login-user").focus();
}
setOnLogout(() => { if (state.me) { openConversation(null); showLogin("You are logged out. Log in to go on."); } });

$("login-form").addEventListener("submit", async (e) => {
  e.preventDefault();
  $("login-error").textContent = "";
  try {
    await api("POST", "/v1/sessions", { user: $("login-user").value, password: $("login-password").value, org: $("login-org").value || undefined }, { quiet: true });
    $("login-password").value = "";
    await start();
  } catch (error) {
    $("login-error").textContent = error.message;
  }
});

async function start() {
  const secret = /^#login=([\w-]+)$/.exec(location.hash);
  let refused = "";
  if (secret) {
    history.replaceState(null, "", location.pathname);
    try {
      await api("POST", "/v1/sessions", { link: secret[1] }, { quiet: true });
    } catch (error) { refused = error.message; }
  }
  try {
    state.me = await api("GET", "/v1/me", undefined, { quiet: true });
  } catch (error) {
    if (error.status === 401) return showLogin(refused);
    showLogin(error.message);
    await pause(2000);
    return start();
  }
  $("login").hidden = true;
  $("app").hidden = false;
  $("who").textContent = state.me.org ? `${state.me.user} · ${state.me.org}` : state.me.user;
  $("operator").hidden = !state.me.operator;
  $("logout").hidden = $("logout-all").hidden = state.me.auth !== "session";
  await Promise.all([
    api("GET", "/v1/models?limit=100").then((m) => { state.models = m.data; }).catch(fail),
    loadList().catch(fail),
  ]);
  startFeed();
  await openConversation(/^#conv_\w+$/.test(location.hash) ? location.hash.slice(1) : null).catch((error) => {
    if (error.status === 404) { openConversation(null); say("There is no such conversation."); } else fail(error);
  });
}

// The cookie is renewed now and then.
setInterval(() => { if (state.me) api("GET", "/v1/me").catch(() => {}); }, 15 * 60000);

// ---- the rest of the page

function fit() {
  const box = $("composer-text");
  box.style.height = "auto";
  box.style.height = Math.min(box.scrollHeight + 2, innerHeight * 0.4) + "px";
}
function keepDraft() { store.set("parley.draft." + (state.id || "new"), $("composer-text").value); }
$("composer-text").addEventListener("input", () => { fit(); keepDraft(); });
$("composer-text").addEventListener("keydown", (e) => {
  if (e.key === "Enter" && !e.shiftKey && !e.isComposing) { e.preventDefault(); send(); }
  if (e.key === "ArrowUp" && !e.target.value) {
    const last = shownPath().filter((m) => m.role === "user").pop();
    if (last) { e.preventDefault(); state.editing = last.id; showMessages(); }
  }
});
$("composer").addEventListener("submit", (e) => { e.preventDefault(); send(); });
$("stop").addEventListener("click", stop);
$("new").addEventListener("click", guarded(() => openConversation(null)));
$("search").addEventListener("input", showList);
searchTexts($("search"), $("found"), $("more-found"), guarded((one) => openMessage(one.conversation_id, one.message_id)));
$("more").addEventListener("click", guarded(() => loadList(true)));
$("older").addEventListener("click", guarded(() => loadMessages(state.opened, state.older)));
$("open-side").addEventListener("click", () => {
  const open = $("side").classList.toggle("open");
  $("open-side").setAttribute("aria-expanded", String(open));
  if (open) $("search").focus();
});
function closeSide() {
  $("side").classList.remove("open");
  $("open-side").setAttribute("aria-expanded", "false");
}
$("messages").addEventListener("click", closeSide);
$("list").addEventListener("click", closeSide);
$("rename").addEventListener("click", guarded(async () => {
  const id = state.id;
  const title = await ask("Rename the conversation", titleOf(state.list.get(id) || {}), "Rename");
  if (title === null || !title.trim()) return;
  state.list.set(id, await api("PATCH", base(id), { title: title.trim() }));
  showHeader();
  showList();
}));
$("delete").addEventListener("click", guarded(async () => {
  const id = state.id;
  if (await ask(`Delete “${titleOf(state.list.get(id) || {})}” with all its messages?`, null, "Delete") === null) return;
  await api("DELETE", base(id));
  state.list.delete(id);
  if (state.id === id) await openConversation(null);
  showList();
}));
$("model").addEventListener("change", guarded(async () => {
  store.set("parley.model", $("model").value);
  if (state.id) state.list.set(state.id, await api("PATCH", base(), { model: $("model").value }));
}));
const kThemes = { "": "Theme: system", light: "Theme: light", dark: "Theme: dark" };
function showTheme() {
  const theme = store.get("parley.theme") || "";
  if (theme) document.documentElement.dataset.theme = theme; else delete document.documentElement.dataset.theme;
  $("theme").textContent = kThemes[theme] || kThemes[""];
}
$("theme").addEventListener("click", () => {
  store.set("parley.theme", { "": "light", light: "dark", dark: "" }[store.get("parley.theme") || ""]);
  showTheme();
});
showTheme();
$("logout").addEventListener("click", guarded(async () => { await api("DELETE", "/v1/sessions/current"); await openConversation(null); showLogin(); }));
$("logout-all").addEventListener("click", guarded(async () => { await api("DELETE", "/v1/sessions/all"); await openConversation(null); showLogin(); }));
addEventListener("keydown", (e) => {
  if ((e.ctrlKey || e.metaKey) && e.key.toLowerCase() === "k") { e.preventDefault(); $("side").classList.add("open"); $("search").focus(); }
  if ((e.ctrlKey || e.metaKey) && e.shiftKey && e.key.toLowerCase() === "o") { e.preventDefault(); $("new").click(); }
  if (e.key === "Escape" && !$("stop").hidden && !$("ask").open) stop();
});
addEventListener("hashchange", guarded(() => {
  const id = location.hash.slice(1) || null;
  if (/^login=/.test(id || "")) return start();
  if (state.me && id !== state.id) return openConversation(id);
}));
addEventListener("popstate", guarded(() => {
  const id = location.hash.slice(1) || null;
  if (state.me && id !== state.id && !/^login=/.test(id || "")) return openConversation(id);
}));
addEventListener("offline", () => say("No network. What is being answered goes on, and is shown when the network is back."));
addEventListener("online", () => say(""));
document.addEventListener("visibilitychange", markRead);
start().catch(fail);
