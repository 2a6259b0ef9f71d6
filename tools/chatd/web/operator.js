// The operator's page: GET /v1/operator every two seconds, as tables.
import { h } from "./markdown.js";
import { api, pause } from "./net.js";

const $ = (id) => document.getElementById(id);
const theme = (() => { try { return localStorage.getItem("parley.theme"); } catch { return null; } })();
if (theme) document.documentElement.dataset.theme = theme;

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const fine = (digits) => new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const two = fine(2), three = fine(3);
const ms = (value) => (value >= 100 ? whole.format(value) : fine(1).format(value)) + " ms";
const short = (id) => (id.length > 18 ? id.slice(0, 8) + "…" + id.slice(-6) : id);

// columns: [heading, value of a row, is a number]
function table(id, columns, rows, none) {
  const head = h("thead", null, h("tr", null, ...columns.map(([name, , number]) => h("th", { scope: "col", class: number ? "number" : null }, name))));
  const body = h("tbody", null, ...rows.map((row) => h("tr", null, ...columns.map(([, value, number]) => h("td", { class: number ? "number" : null }, String(value(row)))))));
  if (!rows.length) body.append(h("tr", null, h("td", { colspan: String(columns.length) }, none)));
  $(id).replaceChildren(head, body);
}

function show(view) {
  const names = new Map(view.usage.orgs.map((org) => [org.org_id, org.org]));
  const { server, router } = view;
  const tile = (name, value, bad) => [h("dt", null, name), h("dd", { class: bad ? "error" : null }, value)];
  $("tiles").replaceChildren(...[
    tile("Ready", server.ready ? "yes" : server.not_ready, !server.ready),
    tile("Answers running", whole.format(server.answers)),
    tile("First token p50", server.ttft_ms.count ? ms(server.ttft_ms.p50) : "–"),
    tile("First token p99", server.ttft_ms.count ? ms(server.ttft_ms.p99) : "–"),
    tile("Filters", whole.format(server.filters_up), !server.filters_up),
    ...(router ? [
      tile("Waiting", `${whole.format(router.waiting)} (${two.format(router.waiting_s)} s)`),
      tile("Admission level", whole.format(router.admission.level), router.admission.level > 0),
      tile("Refused", whole.format(router.counters.refused)),
    ] : [tile("Router", view.router_error || "no answer", true)]),
  ].map((pair) => h("div", null, ...pair)));
  table("usage", [
    ["Organisation", (r) => r.org],
    ["Requests", (r) => whole.format(r.requests), true],
    ["Tokens in", (r) => whole.format(r.input_tokens), true],
    ["Tokens out", (r) => whole.format(r.output_tokens), true],
    ["Compute s", (r) => two.format(r.compute_seconds), true],
    ["Cost", (r) => fine(4).format(r.cost), true],
    ["Models", (r) => Object.keys(r.models).join(", ")],
  ], view.usage.orgs, "No organisation yet.");
  table("flows", [
    ["Organisation", (r) => names.get(r.org) || short(r.org)],
    ["Class", (r) => r.level],
    ["Weight", (r) => r.weight, true],
    ["Waiting", (r) => whole.format(r.waiting), true],
    ["Running", (r) => whole.format(r.running), true],
    ["In flight s", (r) => three.format(r.flight_s), true],
    ["Used s", (r) => three.format(r.used_s), true],
  ], router ? router.flows : [], "Nothing waits or runs.");
  table("workers", [
    ["Worker", (r) => r.name],
    ["Zone", (r) => r.zone || "–"],
    ["Running", (r) => `${whole.format(r.running)} of ${whole.format(r.slots)}`, true],
    ["Load s", (r) => three.format(r.load_s), true],
    ["KV pages free", (r) => `${whole.format(r.kv_free)} of ${whole.format(r.kv_total)}`, true],
    ["Longest turn", (r) => ms(r.longest_ms), true],
    ["Served", (r) => whole.format(r.served), true],
    ["State", (r) => (r.draining ? "draining" : "serving")],
  ], router ? router.workers : [], router ? "No worker has joined." : "The router does not answer.");
}

for (;;) {
  try {
    show(await api("GET", "/v1/operator?days=" + $("days").value));
    $("status").textContent = "";
  } catch (error) {
    if (error.status === 401) { location.assign("/"); break; }
    $("status").textContent = error.message;
    if (error.status === 403) break;
  }
  await new Promise((resolve) => {
    $("days").onchange = resolve;
    pause(document.hidden ? 10000 : 2000).then(resolve);
  });
}
