// Search in the texts of all conversations: results with their snippets, as text nodes and <mark> elements.
import { h } from "./markdown.js";
import { api } from "./net.js";

const kEntities = { "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#39;": "'" };
const plain = (html) => html.replace(/&(?:amp|lt|gt|quot|#39);/g, (entity) => kEntities[entity]);

// The snippet is HTML whose only markup is <mark>; it is taken apart here and never parsed as HTML.
export function snippetNodes(html) {
  return html.split(/<mark>(.*?)<\/mark>/s).map((part, at) => (at % 2 ? h("mark", null, plain(part)) : document.createTextNode(plain(part))));
}

// What is being typed finds words that begin so.
function wordsOf(text) {
  const open = (text.match(/"/g) || []).length % 2;
  return !open && /[\p{L}\p{N}]{2}$/u.test(text) ? text + "*" : text;
}

// Fills `list` for what stands in `input`; `open(result)` when one is chosen.
export function searchTexts(input, list, more, open) {
  let asked = 0, timer = null, next = null, text = "";
  const clear = () => { list.replaceChildren(); list.hidden = more.hidden = true; };
  const hint = (words) => list.replaceChildren(h("li", { class: "hint" }, words));
  async function load(cursor) {
    const mine = ++asked;
    try {
      const page = await api("GET", `/v1/search?limit=20&q=${encodeURIComponent(wordsOf(text))}${cursor ? "&cursor=" + encodeURIComponent(cursor) : ""}`);
      if (mine !== asked) return;
      if (!cursor) list.replaceChildren();
      for (const one of page.data) {
        const title = one.title || "New conversation";
        list.append(h("li", null, h("a", { href: "#" + one.conversation_id, onclick: (e) => { e.preventDefault(); open(one); } },
          h("span", { class: "found-title" }, title), h("span", { class: "snippet" }, ...snippetNodes(one.snippet)))));
      }
      if (!list.children.length) hint("No message has that.");
      next = page.next_cursor;
      more.hidden = !next;
    } catch (error) {
      if (mine !== asked) return;
      // A query without a word in it is no fault of anybody's.
      if (error.status === 400) clear(); else hint(error.message);
    }
  }
  input.addEventListener("input", () => {
    clearTimeout(timer);
    text = input.value.trim();
    ++asked;
    if (!text) return clear();
    list.hidden = false;
    timer = setTimeout(() => load(null), 150);
  });
  more.addEventListener("click", () => load(next));
}
