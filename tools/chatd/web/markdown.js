// Markdown as DOM nodes. Text becomes text nodes and nothing else: there is no path from a string to
// markup. Links lead to http, https and mailto only; pictures are shown as links, so that nothing is
// loaded from outside.

export function h(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((c) => c != null));
  return node;
}

const kDepthMax = 12;

function safeUrl(text) {
  try {
    const url = new URL(text);
    return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

function link(url, children) {
  return h("a", { href: url, target: "_blank", rel: "noopener noreferrer nofollow" }, ...children);
}

const kInline = /(`+)([^]*?[^`])\1(?!`)|!?\[([^\[\]]{0,500})\]\(\s*<?([^\s<>()]{1,2000}(?:\([^\s<>()]{0,500}\)[^\s<>()]{0,500})?)>?(?:\s+"[^"]{0,200}")?\s*\)|(\*\*|__)(?=\S)([^]*?\S)\5|(\*|_)(?=\S)([^]*?\S)\7(?![\w*])|~~(?=\S)([^]*?\S)~~|(https?:\/\/[^\s<>"'`]{1,2000}[^\s<>"'`.,;:!?)\]])|\\([\\`*_{}\[\]()#+\-.!~|>])|( {2,}|\\)\n/;

function inline(text, depth = 0) {
  const out = [];
  while (text) {
    const found = depth < kDepthMax ? kInline.exec(text.length > 20000 ? text.slice(0, 20000) : text) : null;
    if (!found) break;
    const before = text.slice(0, found.index);
    // A mark inside a word is no emphasis.
    const inWord = (found[5] === "__" || found[7] === "_") && /\w$/.test(before);
    if (inWord) {
      const upto = found.index + (found[5] || found[7]).length;
      out.push(text.slice(0, upto));
      text = text.slice(upto);
      continue;
    }
    if (before) out.push(before);
    if (found[1]) out.push(h("code", null, found[2].replace(/\n/g, " ").trim() || found[2]));
    else if (found[4] !== undefined) {
      const url = safeUrl(found[4]);
      if (url) out.push(link(url, inline(found[3] || found[4], depth + 1)));
      else out.push(found[0]);
    } else if (found[5]) out.push(h("strong", null, ...inline(found[6], depth + 1)));
    else if (found[7]) out.push(h("em", null, ...inline(found[8], depth + 1)));
    else if (found[9] !== undefined) out.push(h("s", null, ...inline(found[9], depth + 1)));
    else if (found[10]) {
      const url = safeUrl(found[10]);
      out.push(url ? link(url, [found[10]]) : found[10]);
    } else if (found[11]) out.push(found[11]);
    else out.push(h("br"));
    text = text.slice(found.index + found[0].length);
  }
  if (text) out.push(text);
  return out;
}

const kWords = new Set(("abstract and as assert async await auto bool boolean break byte case catch char class const constexpr continue def default " +
  "defer del delete do double elif else end enum except export extends extern false final finally float fn for from func function global go goto if impl implements import " +
  "in include inline int interface is lambda let local long loop match mod mut namespace new nil none None not null nullptr operator or override package pass private protected " +
  "public pub raise return select self short signed sizeof static string struct super switch template then this throw true True False try type typedef typename undefined union " +
  "unsigned use using var virtual void volatile where while with yield echo fi done esac SELECT FROM WHERE INSERT INTO UPDATE DELETE CREATE TABLE JOIN ON AND OR NOT NULL ORDER BY GROUP").split(" "));
const kHash = /^(py|python|sh|bash|zsh|shell|rb|ruby|yaml|yml|toml|perl|r|make|makefile|dockerfile|conf|ini)$/i;

// Colours for code of any language: comments, strings, numbers, common words.
export function highlight(code, language) {
  if (/^(text|txt|plain|output|console|md|markdown)$/i.test(language) || code.length > 100000) return [code];
  const comment = kHash.test(language) ? "#[^\\n]*" : /^(sql|lua|haskell|hs)$/i.test(language) ? "--[^\\n]*" : "\\/\\/[^\\n]*|\\/\\*[^]*?(?:\\*\\/|$)" + (language ? "" : "|#[^\\n]*");
  const token = new RegExp(`(${comment})|("""[^]*?(?:"""|$)|"(?:[^"\\\\\\n]|\\\\.)*"?|'(?:[^'\\\\\\n]|\\\\.)*'?|\`[^\`]*\`?)|\\b(0x[\\da-fA-F_]+|\\d[\\d_]*(?:\\.\\d+)?(?:e[+-]?\\d+)?)\\b|([A-Za-z_]\\w*)`, "g");
  const out = [];
  let at = 0;
  for (const found of code.matchAll(token)) {
    const kind = found[1] ? "com" : found[2] ? "str" : found[3] ? "num" : kWords.has(found[4]) ? "kw" : null;
    if (!kind) continue;
    if (found.index > at) out.push(code.slice(at, found.index));
    out.push(h("span", { class: kind }, found[0]));
    at = found.index + found[0].length;
  }
  if (at < code.length) out.push(code.slice(at));
  return out;
}

function codeBlock(language, code, copy) {
  const label = language.slice(0, 30);
  return h("div", { class: "code" },
    h("div", null, h("span", null, label), h("button", { type: "button", class: "copy-code", onclick: (e) => copy(code, e.currentTarget) }, "Copy code")),
    h("pre", { tabindex: "0" }, h("code", null, ...highlight(code, label))));
}

const kFence = /^ {0,3}(`{3,}|~{3,})\s*([^\s`]*)[^`]*$/;
const kItem = /^( *)([-*+]|\d{1,9}[.)])\s+(.*)$/;

// The source, cut into blocks: each {kind, lines, …} stands for itself, so that of a growing text only
// the last one changes.
export function blocks(text) {
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  const out = [];
  const push = (kind, from, to, more) => out.push({ kind, lines: lines.slice(from, to), source: kind + lines.slice(from, to).join("\n"), ...more });
  let i = 0;
  while (i < lines.length) {
    const line = lines[i];
    const fence = kFence.exec(line);
    if (fence) {
      let end = i + 1;
      const close = new RegExp(`^ {0,3}${fence[1][0]}{${fence[1].length},}\\s*$`);
      while (end < lines.length && !close.test(lines[end])) end++;
      push("code", i, end + 1, { language: fence[2], code: lines.slice(i + 1, end).join("\n") });
      i = end + 1;
    } else if (!line.trim()) i++;
    else if (/^ {0,3}#{1,6}(\s|$)/.test(line)) push("heading", i, ++i);
    else if (/^ {0,3}([-*_])( *\1){2,} *$/.test(line)) push("rule", i, ++i);
    else if (/^ {0,3}>/.test(line)) {
      const from = i;
      while (i < lines.length && /^ {0,3}>/.test(lines[i])) i++;
      push("quote", from, i);
    } else if (kItem.test(line)) {
      const from = i++;
      while (i < lines.length && (kItem.test(lines[i]) || /^\s+\S/.test(lines[i]) || (!lines[i].trim() && i + 1 < lines.length && (kItem.test(lines[i + 1]) || /^\s{2,}\S/.test(lines[i + 1]))))) i++;
      push("list", from, i);
    } else if (line.includes("|") && i + 1 < lines.length && /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/.test(lines[i + 1]) && lines[i + 1].includes("-")) {
      const from = i;
      i += 2;
      while (i < lines.length && lines[i].includes("|") && lines[i].trim()) i++;
      push("table", from, i);
    } else {
      const from = i++;
      while (i < lines.length && lines[i].trim() && !kFence.test(lines[i]) && !/^ {0,3}(#{1,6}\s|>)/.test(lines[i]) && !kItem.test(lines[i])) i++;
      push("text", from, i);
    }
  }
  return out;
}

function list(lines, copy, depth) {
  const items = [];
  const indent = kItem.exec(lines[0])[1].length;
  for (const line of lines) {
    const found = kItem.exec(line);
    if (found && found[1].length <= indent + 1) items.push([found[3]]);
    else items[items.length - 1].push(line);
  }
  const first = kItem.exec(lines[0])[2];
  const ordered = /\d/.test(first);
  return h(ordered ? "ol" : "ul", ordered && parseInt(first) !== 1 ? { start: parseInt(first) } : null,
    ...items.map((item) => {
      const rest = item.slice(1);
      const least = Math.min(...rest.filter((l) => l.trim()).map((l) => /^ */.exec(l)[0].length), 99);
      return h("li", null, ...inline(item[0]), ...(rest.some((l) => l.trim()) ? render(rest.map((l) => l.slice(Math.min(least, 8))).join("\n"), copy, depth + 1) : []));
    }));
}

function cells(line) {
  return line.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((c) => c.trim().replace(/\\\|/g, "|"));
}

export function node(block, copy, depth = 0) {
  const text = block.lines.join("\n");
  switch (block.kind) {
    case "code": return codeBlock(block.language, block.code, copy);
    case "heading": {
      const found = /^ {0,3}(#{1,6})\s*(.*?)\s*#*\s*$/.exec(text);
      return h("h" + Math.min(found[1].length + 1, 6), null, ...inline(found[2]));
    }
    case "rule": return h("hr");
    case "quote": return h("blockquote", null, ...render(block.lines.map((l) => l.replace(/^ {0,3}> ?/, "")).join("\n"), copy, depth + 1));
    case "list": return list(block.lines, copy, depth);
    case "table": {
      const [head, , ...rows] = block.lines.map(cells);
      return h("table", null, h("thead", null, h("tr", null, ...head.map((c) => h("th", { scope: "col" }, ...inline(c))))),
        h("tbody", null, ...rows.map((r) => h("tr", null, ...head.map((_, i) => h("td", null, ...inline(r[i] || "")))))));
    }
    default: return h("p", null, ...inline(text));
  }
}

export function render(text, copy, depth = 0) {
  if (depth > kDepthMax) return [text];
  return blocks(text).map((b) => node(b, copy, depth));
}

// Brings `parent` to show `text`; blocks that are the same as before are left alone.
export function update(parent, text, copy) {
  const fresh = blocks(text);
  const known = parent.shownBlocks || [];
  let same = 0;
  while (same < fresh.length && same < known.length && known[same] === fresh[same].source) same++;
  while (parent.childNodes.length > same) parent.lastChild.remove();
  for (const block of fresh.slice(same)) parent.append(node(block, copy));
  parent.shownBlocks = fresh.map((b) => b.source);
}
