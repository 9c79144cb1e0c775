// The page of all routes: reads openapi.json, shows each operation, and sends requests with the key that was typed in.
// The key stays in the memory of this page. Texts enter the page as text, never as HTML.
"use strict";

const METHODS = ["get", "post", "put", "patch", "delete"];
let spec;

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// A text with `code` and **bold** parts, in paragraphs and lists.
function prose(text) {
  const box = make("div");
  for (const block of (text || "").trim().split(/\n\s*\n/)) {
    const items = block.split(/^\* /m).filter((item) => item.trim());
    const listed = block.trimStart().startsWith("* ");
    const parts = listed ? items.map((item) => make("li", {}, ...inline(item))) : [make("p", {}, ...inline(block))];
    box.append(listed ? make("ul", {}, ...parts) : parts[0]);
  }
  return box;
}

function inline(text) {
  return text.split(/(`[^`]+`|\*\*[^*]+\*\*)/).map((part) =>
    part.startsWith("`") ? make("code", { textContent: part.slice(1, -1) })
      : part.startsWith("**") ? make("b", { textContent: part.slice(2, -2) })
        : part);
}

function resolved(value) {
  let found = value;
  while (found && found.$ref) {
    found = found.$ref.slice(2).split("/").reduce((place, key) => place[key.replaceAll("~1", "/").replaceAll("~0", "~")], spec);
  }
  return found;
}

// --- schemas ---

function nameOf(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  const choices = schema.anyOf || schema.oneOf;
  if (choices && !schema.properties) return choices.map(nameOf).join(" | ");
  if (schema.type === "array") return `${schema.items ? nameOf(schema.items) : "any"}[]`;
  if (Array.isArray(schema.type)) return schema.type.join(" | ");
  return (schema.type || "any") + (schema.format ? ` (${schema.format})` : "");
}

// The objects inside a schema, to be opened one by one.
function objectsIn(schema) {
  if (schema.$ref || schema.properties) return [schema];
  const inside = schema.anyOf || schema.oneOf || (schema.items ? [schema.items] : []);
  const values = typeof schema.additionalProperties === "object" ? [schema.additionalProperties] : [];
  return [...inside, ...values].flatMap(objectsIn);
}

function shape(schema) {
  const box = make("div", { className: "schema" }, make("code", { textContent: nameOf(schema) }));
  const list = make("ul");
  const whole = resolved(schema);
  for (const [name, property] of Object.entries(whole.properties || {})) {
    const needed = (whole.required || []).includes(name) ? "" : "?";
    const line = make("li", {}, make("code", { textContent: `${name}${needed}: ${nameOf(property)}` }));
    const bounds = ["minimum", "maximum", "exclusiveMinimum", "minLength", "maxLength", "minItems", "maxItems", "pattern", "default"]
      .filter((key) => property[key] !== undefined).map((key) => `${key} ${JSON.stringify(property[key])}`);
    const about = [property.description, bounds.join(", ")].filter(Boolean).join("; ");
    if (about) line.append(make("span", { className: "note", textContent: ` ${about}` }));
    for (const inner of objectsIn(property)) line.append(later(nameOf(inner), () => shape(inner)));
    list.append(line);
  }
  if (!whole.properties) for (const inner of objectsIn(whole)) list.append(make("li", {}, later(nameOf(inner), () => shape(inner))));
  if (list.children.length) box.append(list);
  return box;
}

// Details that are made when they are opened: schemas may refer to themselves.
function later(title, content) {
  const details = make("details", {}, make("summary", { textContent: title }));
  details.addEventListener("toggle", () => details.open && details.children.length === 1 && details.append(content()), { once: false });
  return details;
}

// --- operations ---

function operation(method, path, about) {
  const head = make("summary", {},
    make("span", { className: "method", textContent: method.toUpperCase() }),
    make("span", { className: "path", textContent: path }),
    make("span", { className: "note", textContent: about.summary }));
  const details = make("details", { className: "operation" }, head);
  details.dataset.text = `${method} ${path} ${about.summary} ${(about.tags || []).join(" ")}`.toLowerCase();
  details.addEventListener("toggle", () => details.open && details.children.length === 1 && details.append(body(method, path, about)));
  return details;
}

function body(method, path, about) {
  const box = make("div");
  if (about.description) box.append(prose(about.description));
  if (about["x-action"]) box.append(prose(`Action: \`${about["x-action"]}\``));
  const inputs = (about.parameters || []).map(resolved).map((parameter) => ({ parameter, field: fieldOf(parameter) }));
  if (inputs.length) {
    box.append(make("h3", { textContent: "Parameters" }), make("table", {}, ...inputs.map(({ parameter, field }) => make("tr", {},
      make("td", {}, make("code", { textContent: parameter.name }), parameter.required ? " *" : ""),
      make("td", { className: "note", textContent: `${parameter.in}, ${nameOf(parameter.schema)}` }),
      make("td", {}, field),
      make("td", { className: "note" }, ...inline(parameter.description || ""))))));
  }
  const media = about.requestBody && about.requestBody.content["application/json"];
  let text = null;
  if (media) {
    const examples = Object.values(media.examples || {}).map((example) => JSON.stringify(example.value, null, 2));
    text = make("textarea", { value: examples[0] || "{}", spellcheck: false });
    const choice = make("select", { hidden: examples.length < 2 }, ...examples.map((_, i) => make("option", { value: i, textContent: `Example ${i + 1}` })));
    choice.addEventListener("change", () => { text.value = examples[choice.value]; });
    box.append(make("h3", { textContent: "Body" }), shape(media.schema), choice, text);
  }
  const media_types = [...new Set(Object.entries(about.responses).filter(([status]) => status < "300")
    .flatMap(([, answer]) => Object.keys(resolved(answer).content || {})))];
  const accept = make("select", { hidden: media_types.length < 2 }, ...media_types.map((kind) => make("option", { textContent: kind })));
  const result = make("div");
  const send = make("button", { textContent: "Send" });
  send.addEventListener("click", () => request(method, path, inputs, text, accept.value, result, send));
  box.append(make("p", {}, accept, " ", send), result, make("h3", { textContent: "Answers" }));
  for (const [status, found] of Object.entries(about.responses)) {
    const answer = resolved(found);
    box.append(later(`${status}  ${found.description || answer.description || ""}`, () => make("div", {},
      ...Object.entries(answer.headers || {}).map(([name, header]) => make("div", { className: "note" }, make("code", { textContent: name }), " ", ...inline(header.description || ""))),
      ...Object.entries(answer.content || {}).map(([kind, content]) => make("div", {}, make("code", { textContent: kind }), shape(content.schema || {}))))));
  }
  return box;
}

function fieldOf(parameter) {
  const whole = parameter.schema;
  const choices = whole.enum || ((whole.anyOf || []).find((choice) => choice.enum) || {}).enum;
  if (choices) return make("select", {}, make("option", { value: "" }), ...choices.map((value) => make("option", { textContent: value })));
  return make("input", { placeholder: whole.default === undefined || whole.default === null ? "" : String(whole.default) });
}

async function request(method, path, inputs, text, accept, result, send) {
  let target = path;
  const query = new URLSearchParams();
  const headers = { Accept: accept || "*/*" };
  for (const { parameter, field } of inputs) {
    if (parameter.in === "path") target = target.replace(`{${parameter.name}}`, encodeURIComponent(field.value));
    else if (!field.value) continue;
    else if (parameter.in === "query") query.append(parameter.name, field.value);
    else headers[parameter.name] = field.value;
  }
  const key = document.getElementById("key").value.trim();
  if (key) headers.Authorization = `Bearer ${key}`;
  if (text) headers["Content-Type"] = "application/json";
  const address = target.slice(1) + (query.size ? `?${query}` : "");
  const stopping = new AbortController();
  const stop = make("button", { textContent: "Stop" });
  stop.addEventListener("click", () => stopping.abort());
  const status = make("b"), shown = make("pre");
  result.replaceChildren(make("p", {}, status, " ", stop), shown);
  send.disabled = true;
  try {
    const answer = await fetch(address || ".", { method: method.toUpperCase(), headers, body: text ? text.value : undefined, signal: stopping.signal, credentials: "omit" });
    status.textContent = `${answer.status} ${answer.statusText}`;
    status.className = answer.ok ? "" : "wrong";
    shown.textContent = [...answer.headers].map(([name, value]) => `${name}: ${value}`).join("\n") + "\n\n";
    await read(answer, shown);
  } catch (error) {
    shown.append(stopping.signal.aborted ? "\n(stopped)" : `\n${error}`);
  }
  stop.remove();
  send.disabled = false;
}

// Shows JSON at its end, indented, and a stream while it comes.
async function read(answer, shown) {
  const kind = answer.headers.get("content-type") || "";
  if (!kind.includes("event-stream")) {
    const content = await answer.text();
    shown.append(kind.includes("json") && content.length < 200000 && fits(content) ? JSON.stringify(JSON.parse(content), null, 2) : content);
    return;
  }
  const decoder = new TextDecoder();
  for (const reader = answer.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) return;
    shown.append(decoder.decode(value, { stream: true }));
  }
}

// Whether reading and writing keeps each number: JavaScript rounds integers beyond 2^53.
function fits(content) {
  return !/\d{16,}/.test(content.replace(/"(?:[^"\\]|\\.)*"/g, '""'));
}

async function begin() {
  const page = document.getElementById("routes");
  try {
    const answer = await fetch("openapi.json", { credentials: "omit" });
    if (!answer.ok) throw new Error(`openapi.json: ${answer.status}`);
    spec = await answer.json();
  } catch (error) {
    page.replaceChildren(make("p", { className: "wrong", textContent: `The routes cannot be read: ${error.message}` }));
    return;
  }
  const groups = new Map();
  for (const [path, item] of Object.entries(spec.paths)) {
    for (const method of METHODS.filter((name) => item[name])) {
      const tag = (item[method].tags || ["other"])[0];
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(operation(method, path, item[method]));
    }
  }
  page.replaceChildren(
    later(`${spec.info.title} ${spec.info.version}: the rules of all routes`, () => prose(spec.info.description)),
    ...[...groups].map(([tag, found]) => make("section", {}, make("h2", { textContent: tag }), ...found)));
  document.getElementById("filter").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase().split(/\s+/);
    for (const section of page.querySelectorAll("section")) {
      const found = [...section.querySelectorAll(".operation")];
      for (const details of found) details.hidden = !wanted.every((word) => details.dataset.text.includes(word));
      section.hidden = found.every((details) => details.hidden);
    }
  });
}

begin();
