// Renders openapi/openapi.yaml and openapi/asyncapi.yaml into static/reference.html, which every node serves at /reference:
//
//   node scripts/reference.mjs
//
// The page has no script, and asks for nothing from elsewhere. npm brings `yaml`, which reads the documents, on first use.

import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const YAML = "yaml@2.9.1";
const path = (relative) => fileURLToPath(new URL(`../${relative}`, import.meta.url));
export const PAGE = path("static/reference.html");

/** Brings a package of npm's into a folder of target/, kept between runs; throws where it cannot be had. */
export function bring(folder, wanted) {
  const home = path(`target/${folder}`);
  const name = wanted.slice(0, wanted.lastIndexOf("@"));
  const require = createRequire(`${home}/`);
  const there = () => existsSync(`${home}/node_modules/${name}/package.json`) &&
    JSON.parse(readFileSync(`${home}/node_modules/${name}/package.json`, "utf8")).version === wanted.slice(name.length + 1);
  if (!there()) {
    mkdirSync(home, { recursive: true });
    const flags = ["install", "--prefix", home, "--no-save", "--no-audit", "--no-fund", "--ignore-scripts", wanted];
    const { error, stderr } = spawnSync("npm", flags, { encoding: "utf8", timeout: 120_000 });
    if (!there()) throw new Error(`npm does not bring ${wanted}: ${error ?? stderr}`);
  }
  return require(name);
}

const ESCAPES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const text = (value) => String(value).replace(/[&<>"']/g, (sign) => ESCAPES[sign]);
const code = (value) => `<code>${text(value)}</code>`;
const slug = (value) => String(value).replace(/[^A-Za-z0-9_-]+/g, "-").replace(/^-|-$/g, "");

/** The little Markdown that the documents use, within a line. */
function words(value) {
  const link = (_, name, to) => `<a href="${/^(openapi|asyncapi)\.yaml$/.test(to) ? "/" : ""}${to}">${name}</a>`;
  return text(value).split(/(`[^`]*`)/).map((part) =>
    part.length > 1 && part.startsWith("`") ? `<code>${part.slice(1, -1)}</code>`
      : part.replace(/\*\*([^*]+)\*\*/g, "<strong>$1</strong>").replace(/\[([^\]]+)\]\(([^)\s]+)\)/g, link)).join("");
}
const prose = (value) => (value ?? "").trim().split(/\n\s*\n/).filter(Boolean).map((part) => `<p>${words(part)}</p>`).join("\n");

/** Whether a schema is a list of words, each explained. */
const isWords = (schema) => Boolean(schema.oneOf?.every((one) => "const" in one));

/** A document, and where its parts are on the page. */
class Document {
  constructor(source, prefix) {
    this.source = source;
    this.prefix = prefix;
  }

  /** What a value refers to, references followed. */
  at(value) {
    if (value?.$ref === undefined) return value;
    const [file, pointer] = value.$ref.split("#");
    const document = file ? this.other : this;
    const steps = pointer.split("/").slice(1).map((step) => step.replaceAll("~1", "/").replaceAll("~0", "~"));
    const found = steps.reduce((place, step) => place?.[step], document.source);
    if (found === undefined) throw new Error(`nothing at ${value.$ref}`);
    return document.at(found);
  }

  /** A link to a schema that is described by itself. */
  link(ref) {
    const [file, pointer] = ref.split("#");
    const name = /^\/components\/schemas\/(\w+)$/.exec(pointer)[1];
    return `<a href="#${(file ? this.other : this).prefix}-${name}">${name}</a>`;
  }

  /** What kind of value a schema means, in a few words. */
  kind(schema) {
    if (schema.$ref) return this.link(schema.$ref);
    if ("const" in schema) return code(JSON.stringify(schema.const));
    if (schema.enum) return schema.enum.map((value) => code(JSON.stringify(value))).join(" or ");
    if (isWords(schema)) return "one of these";
    const some = schema.oneOf ?? schema.anyOf;
    if (some && !schema.properties) return some.map((one) => this.kind(one)).join(" or ");
    if (schema.allOf && !schema.properties) return schema.allOf.map((one) => this.kind(one)).join(" and ");
    if (schema.type === "array") return `array of ${schema.items ? this.kind(schema.items) : "anything"}`;
    if (schema.contentMediaType) return `bytes, ${code(schema.contentMediaType)}`;
    if (schema.type === undefined) return schema.properties ? "object" : "anything";
    return [schema.type].flat().map(text).join(" or ") + (schema.format ? `, ${text(schema.format)}` : "");
  }

  /** What a schema demands beyond the kind. */
  limits(schema) {
    const limits = [];
    const say = (name, write) => schema[name] !== undefined && limits.push(write(schema[name]));
    say("minimum", (value) => `from ${text(value)}`);
    say("maximum", (value) => `to ${text(value)}`);
    say("minLength", (value) => `at least ${text(value)} characters`);
    say("maxLength", (value) => `at most ${text(value)} characters`);
    say("minItems", (value) => `at least ${text(value)} of them`);
    say("maxItems", (value) => `at most ${text(value)} of them`);
    if (schema.maxProperties === 0) limits.push("empty");
    say("pattern", (value) => `matches ${code(value)}`);
    say("default", (value) => `${code(JSON.stringify(value))} if left out`);
    return limits.length ? ` <span class="limits">${limits.join(", ")}</span>` : "";
  }

  /** The parts of a schema, as a list of fields; nothing for one that has none. */
  fields(schema) {
    if (schema.$ref) return "";
    const parts = [];
    const properties = Object.entries(schema.properties ?? {});
    if (properties.length) {
      const rows = properties.map(([name, property]) => {
        const must = schema.required?.includes(name) ? ' <span class="must">required</span>' : "";
        return `<dt>${code(name)} <span class="kind">${this.kind(property)}</span>${must}${this.limits(property)}</dt>\n` +
          `<dd>${prose(property.description)}${this.fields(property)}</dd>`;
      });
      parts.push(`<dl class="fields">\n${rows.join("\n")}\n</dl>`);
    }
    const also = schema.properties && (schema.allOf ?? []).filter((one) => one.$ref).map((one) => this.link(one.$ref));
    if (also?.length) parts.push(`<p class="also">And what is in ${also.join(", ")}.</p>`);
    const extra = (schema.required ?? []).filter((name) => !schema.properties?.[name]);
    if (extra.length) parts.push(`<p class="also">Required: ${extra.map(code).join(", ")}.</p>`);
    if (isWords(schema)) {
      const rows = schema.oneOf.map((one) => `<dt>${code(one.const)}</dt>\n<dd>${prose(one.description)}</dd>`);
      return `<dl class="fields">\n${rows.join("\n")}\n</dl>`;
    }
    for (const one of schema.oneOf ?? []) if (!one.$ref) parts.push(this.fields(one));
    if (schema.items) parts.push(this.fields(schema.items));
    if (typeof schema.additionalProperties === "object") {
      const key = schema.propertyNames ? `Each key is ${this.kind(schema.propertyNames)}, each` : "Each";
      parts.push(`<p class="also">${key} value ${this.kind(schema.additionalProperties)}${this.limits(schema.additionalProperties)}.</p>`);
    }
    return parts.join("\n");
  }

  /** A schema where it is used. */
  schema(schema) {
    return `<p class="type">${this.kind(schema)}${schema.$ref ? "" : this.limits(schema)}</p>` +
      (schema.$ref ? "" : prose(schema.description) + this.fields(schema));
  }
}

function example(value, name, summary) {
  const shown = typeof value === "string" ? value.trimEnd() : JSON.stringify(value, null, 2);
  const caption = summary ?? (name ? `Example: ${name}` : "Example");
  return `<figure class="example"><figcaption>${words(caption)}</figcaption><pre tabindex="0"><code>${text(shown)}</code></pre></figure>`;
}

function contents(document, content) {
  return Object.entries(content ?? {}).map(([kind, media]) => {
    const named = Object.entries(media.examples ?? {}).map(([name, one]) => example(one.value, name, one.summary));
    const own = media.example === undefined ? [] : [example(media.example)];
    return `<div class="media"><p class="media-type">${code(kind)}</p>${document.schema(media.schema ?? {})}${[...own, ...named].join("\n")}</div>`;
  }).join("\n");
}

function table(label, heads, rows) {
  if (!rows.length) return "";
  const cell = (inner, n) => `<td data-label="${text(heads[n])}"><div>${inner}</div></td>`;
  return `<div class="scroll"><table><caption class="visually-hidden">${text(label)}</caption><thead><tr>` +
    `${heads.map((head) => `<th scope="col">${text(head)}</th>`).join("")}</tr></thead>\n<tbody>\n` +
    `${rows.map((row) => `<tr>${row.map(cell).join("")}</tr>`).join("\n")}\n</tbody></table></div>`;
}

function headers(document, headers) {
  return table("Headers", ["Header", "Kind", "What it says"], Object.entries(headers ?? {}).map(([name, one]) => {
    const header = document.at(one);
    return [code(name), document.kind(header.schema), words(header.description ?? "")];
  }));
}

function response(document, answer) {
  return `${prose(answer.description)}${headers(document, answer.headers)}${contents(document, answer.content)}`;
}

const sharedName = (ref) => /^#\/components\/responses\/(\w+)$/.exec(ref)?.[1];

function answers(document, responses, id) {
  return Object.entries(responses).map(([status, answer]) => {
    const shared = answer.$ref && sharedName(answer.$ref);
    const title = `<span class="status status-${status[0]}">${text(status)}</span>`;
    if (shared) {
      const brief = document.at(answer).description.trim().split(/(?<=[.;])\s/)[0].replace(/;$/, ".");
      return `<div class="answer"><h5 id="${id}-${status}">${title} <a href="#answer-${shared}">${shared}</a></h5><p>${words(brief)}</p></div>`;
    }
    return `<div class="answer"><h5 id="${id}-${status}">${title}</h5>${response(document, answer)}</div>`;
  }).join("\n");
}

function security(document, needs) {
  if (!needs.length) return "<p>Without a token.</p>";
  const ways = needs.map((need) => {
    if (!Object.keys(need).length) return "without a token in <code>Authorization</code>";
    const scopes = Object.values(need).flat();
    return scopes.length ? `with a token that has the scope ${scopes.map(code).join(", ")}` : "with any good token";
  });
  const said = ways.join(", or ");
  return `<p>${said[0].toUpperCase()}${said.slice(1)}.</p>`;
}

function operation(document, method, where, one) {
  const id = `op-${one.operationId}`;
  const parameters = (one.parameters ?? []).map((parameter) => document.at(parameter)).map((parameter) => [
    `${code(parameter.name)}${parameter.required ? ' <span class="must">required</span>' : ""}`,
    text(parameter.in),
    `${document.kind(parameter.schema)}${document.limits(parameter.schema)}`,
    words(parameter.description ?? "") + (parameter.example === undefined ? ""
      : ` <span class="limits">Example: ${code([parameter.example].flat().join(", "))}</span>`),
  ]);
  const body = one.requestBody;
  return `<section class="card operation" id="${id}" aria-labelledby="${id}-title">
<h4 id="${id}-title"><a class="anchor" href="#${id}"><span class="method">${method.toUpperCase()}</span> <code>${text(where)}</code></a> <span class="summary">${words(one.summary)}</span></h4>
${prose(one.description)}
${security(document, one.security ?? document.source.security)}
${parameters.length ? `<h5>Parameters</h5>${table("Parameters", ["Name", "In", "Kind", "What it says"], parameters)}` : ""}
${body ? `<h5>Body</h5>${prose(body.description)}${contents(document, body.content)}` : ""}
<h5 class="visually-hidden">Answers</h5>
${answers(document, one.responses, id)}
</section>`;
}

function schemas(document) {
  return Object.entries(document.source.components.schemas).map(([name, schema]) => {
    const id = `${document.prefix}-${name}`;
    const shown = (schema.examples ?? []).map((one) => example(one)).join("\n");
    const errors = (schema["x-errors"] ?? []).map((row) => [code(row.code), code(row.name), words(row.words), row.temporary ? "yes" : "no"]);
    const rows = table("Errors", ["Code", "Name", "Reason", "Temporary"], errors);
    return `<section class="card schema" id="${id}" aria-labelledby="${id}-title"><h4 id="${id}-title"><a class="anchor" href="#${id}">${name}</a></h4>
<p class="type">${document.kind(schema)}${document.limits(schema)}</p>${prose(schema.description)}${document.fields(schema)}${rows}${shown}</section>`;
  }).join("\n");
}

/** Who says each message of a channel: by the operations, seen from the server; all of a channel where none are named. */
function directions(document, channel) {
  const said = new Map();
  for (const one of Object.values(document.source.operations)) {
    if (document.at(one.channel) !== channel) continue;
    const note = (names, action) => names.forEach((ref) => {
      const name = ref.$ref.split("/").pop();
      said.set(name, new Set([...(said.get(name) ?? []), action]));
    });
    note(one.messages ?? Object.keys(channel.messages).map((name) => ({ $ref: `/${name}` })), one.action);
    note(one.reply?.messages ?? [], one.action === "receive" ? "send" : "receive");
  }
  return said;
}

function message(document, id, name, one, said) {
  const who = [said.has("receive") && "client to node", said.has("send") && "node to client"].filter(Boolean).join(", ");
  const fields = Object.entries(one.headers?.properties ?? {}).map(([header, schema]) =>
    [code(header), document.kind(schema), schema.const === undefined ? "The position of the event." : "The name of the event."]);
  const shown = (one.examples ?? []).map((each) => example(each.payload, each.name, each.summary)).join("\n");
  return `<section class="card" id="${id}" aria-labelledby="${id}-title"><h4 id="${id}-title"><a class="anchor" href="#${id}"><code>${text(name)}</code></a> <span class="who">${who}</span></h4>
<p><strong>${words(one.summary)}</strong></p>${prose(one.description)}
${fields.length ? table("Fields of the stream's event", ["Field", "Kind", "What it says"], fields) : ""}
${document.schema(one.payload)}
${shown}
</section>`;
}

function channel(document, name, one) {
  const said = directions(document, one);
  const parts = Object.entries(one.messages).map(([key, ref]) =>
    message(document, `msg-${name}-${key}`, key, document.at(ref), said.get(key) ?? new Set()));
  const codes = (one["x-close-codes"] ?? []).map((row) =>
    [`<span id="close-${row.code}">${code(row.code)}</span>`, code(row.name), words(row.reason), row.reconnect ? "yes" : "no"]);
  return `<section aria-labelledby="channel-${name}"><h3 id="channel-${name}">${words(one.title)} <code>${text(one.address)}</code></h3>
${prose(one.description)}
${codes.length ? `<div class="card"><h4 id="close-codes">Why the node closes</h4>${table("Close codes", ["Code", "Name", "Reason", "Come back"], codes)}</div>` : ""}
${parts.join("\n")}
</section>`;
}

/** The page, as text. */
export function render() {
  const { parse } = bring("reference", YAML);
  const read = (file) => parse(readFileSync(path(`openapi/${file}`), "utf8"), { maxAliasCount: -1 });
  const openapi = new Document(read("openapi.yaml"), "schema");
  const asyncapi = new Document(read("asyncapi.yaml"), "wire");
  openapi.other = asyncapi;
  asyncapi.other = openapi;
  const { info, tags, paths, components } = openapi.source;
  const all = Object.entries(paths).flatMap(([where, methods]) =>
    Object.entries(methods).map(([method, one]) => ({ where, method, one })));
  const tagged = tags.map((tag) => ({ ...tag, operations: all.filter(({ one }) => one.tags.includes(tag.name)) }));
  const channels = Object.entries(asyncapi.source.channels);
  const item = (id, name) => `<li><a href="#${id}">${name}</a></li>`;
  const group = (id, name, items) => `<li><a href="#${id}">${name}</a><ul>${items.join("\n")}</ul></li>`;
  const toc = [
    ...tagged.map((tag) => group(`tag-${slug(tag.name)}`, text(tag.name), tag.operations.map(({ where, method, one }) =>
      item(`op-${one.operationId}`, `<span class="method">${method.toUpperCase()}</span> ${text(where)}`)))),
    item("answers", "Answers that many give"),
    ...channels.map(([name, one]) => group(`channel-${name}`, words(one.title), [
      ...(one["x-close-codes"] ? [item("close-codes", "Why the node closes")] : []),
      ...Object.keys(one.messages).map((key) => item(`msg-${name}-${key}`, text(key)))])),
    group("schemas", "Schemas", Object.keys(components.schemas).map((name) => item(`schema-${name}`, name))),
    group("wire-schemas", "Schemas of messages", Object.keys(asyncapi.source.components.schemas).map((name) => item(`wire-${name}`, name))),
  ];
  const bearer = components.securitySchemes.bearer;
  const scopes = Object.entries(bearer["x-scopes"]).map(([name, what]) => [code(name), words(what)]);
  return `<!doctype html>
<!-- Made by scripts/reference.mjs; edit the documents it is made of. -->
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>mailpush: reference</title>
<link rel="icon" href="/favicon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/page.css">
<link rel="stylesheet" href="/reference.css">
</head>
<body class="reference">
<a class="skip" href="#main">Skip to the content</a>
<header><div class="bar"><a class="brand" href="/"><img src="/favicon.svg" alt="" width="28" height="28"> mailpush</a> <span>Reference, version ${text(info.version)}</span></div></header>
<div class="layout">
<nav class="toc" aria-label="Contents"><details open><summary>Contents</summary><ul>
<li><a href="#main">About</a></li>
${toc.join("\n")}
</ul></details></nav>
<main id="main" tabindex="-1">
<h1>${text(info.title)}: reference</h1>
<p>For programs: <a href="/openapi.yaml">openapi.yaml</a> (HTTP), <a href="/asyncapi.yaml">asyncapi.yaml</a> (the WebSocket and the streams), <a href="/mailpush.js">mailpush.js</a> (a client for web pages). This page is made of the first two.</p>
<h2 id="http">HTTP</h2>
${prose(info.description)}
<h3 id="tokens">Tokens</h3>
${prose(bearer.description)}
${table("Scopes", ["Scope", "What it allows"], scopes)}
${tagged.map((tag) => `<section aria-labelledby="tag-${slug(tag.name)}"><h3 id="tag-${slug(tag.name)}" class="tag">${text(tag.name)}</h3>
${prose(tag.description)}
${tag.operations.map(({ where, method, one }) => operation(openapi, method, where, one)).join("\n")}
</section>`).join("\n")}
<section aria-labelledby="answers"><h3 id="answers">Answers that many give</h3>
${Object.entries(components.responses).map(([name, one]) => `<section class="card" id="answer-${name}" aria-labelledby="answer-${name}-title"><h4 id="answer-${name}-title"><a class="anchor" href="#answer-${name}">${name}</a></h4>${response(openapi, one)}</section>`).join("\n")}
</section>
<h2 id="messages">The WebSocket and the streams</h2>
${prose(asyncapi.source.info.description)}
${channels.map(([name, one]) => channel(asyncapi, name, one)).join("\n")}
<h2 id="schemas">Schemas</h2>
${schemas(openapi)}
<h2 id="wire-schemas">Schemas of messages</h2>
${schemas(asyncapi)}
</main>
</div>
</body>
</html>
`.replace(/\n{2,}(?=<)/g, "\n");
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(PAGE, render());
