// The OpenAPI description as a page, without anything from elsewhere; every GET and JSON request can be tried.

const $ = (id) => document.getElementById(id);

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Words in which ``names`` are marked as code. */
function prose(text) {
  const words = element("span");
  text.split("``").forEach((part, i) => words.append(i % 2 ? element("code", {}, part) : part));
  return words;
}

function kind(schema) {
  if (!schema) return "";
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    return element("a", { href: `#schema-${name}` }, name);
  }
  const any = schema.anyOf ?? schema.oneOf;
  const words = element("span");
  if (any) any.forEach((each, i) => words.append(i ? " or " : "", kind(each)));
  else if (schema.enum) words.append(schema.enum.map((each) => JSON.stringify(each)).join(" | "));
  else if (schema.const !== undefined) words.append(JSON.stringify(schema.const));
  else if (schema.type === "array") words.append("list of ", kind(schema.items) || "values");
  else words.append(schema.type ?? "any");
  const bounds = [
    [schema.minimum, "≥"],
    [schema.maximum, "≤"],
    [schema.exclusiveMaximum, "<"],
    [schema.exclusiveMinimum, ">"],
  ];
  for (const [bound, sign] of bounds) if (bound !== undefined) words.append(` ${sign} ${bound}`);
  return words;
}

function operation(path, verb, described) {
  const id = described.operationId;
  const section = element("section", { id }, element("h3", {}, element("span", { class: "verb" }, verb.toUpperCase()), element("code", {}, path)));
  section.append(element("p", {}, prose(described.description ?? described.summary ?? "")));
  for (const parameter of described.parameters ?? []) {
    section.append(element("p", { class: "soft" }, element("code", {}, parameter.name), ` (${parameter.in}) `, kind(parameter.schema)));
  }
  const json = described.requestBody?.content?.["application/json"]?.schema;
  if (json) section.append(element("p", { class: "soft" }, "Body: ", kind(json)));
  else if (described.requestBody) section.append(element("p", { class: "soft" }, "Body: the file's bytes"));
  if (!path.includes("{") && (json || verb === "get")) section.append(trial(path, verb, Boolean(json)));
  return section;
}

function trial(path, verb, takesBody) {
  const box = element("details", {}, element("summary", {}, "Try it"));
  const input = element("textarea", { "aria-label": takesBody ? "Body as JSON" : "Query" });
  input.value = takesBody ? "{}" : "";
  const result = element("div");
  const send = element("button", { type: "button" }, "Send");
  send.addEventListener("click", async () => {
    const options = takesBody ? { method: verb.toUpperCase(), headers: { "content-type": "application/json" }, body: input.value } : {};
    const answer = await fetch(takesBody || !input.value ? path : `${path}?${input.value}`, options);
    if (answer.headers.get("content-type")?.startsWith("image/")) {
      result.replaceChildren(element("img", { alt: "The picture", src: URL.createObjectURL(await answer.blob()) }));
    } else {
      const text = await answer.text();
      result.replaceChildren(element("pre", { tabindex: "0" }, `${answer.status}\n${text.slice(0, 4000)}`));
    }
  });
  box.append(input, send, result);
  return box;
}

const api = await (await fetch("/openapi.json")).json();
$("about").textContent = `${api.info.title} ${api.info.version}. ${api.info.summary ?? ""}`;
for (const [path, verbs] of Object.entries(api.paths)) {
  for (const [verb, described] of Object.entries(verbs)) $("paths").append(operation(path, verb, described));
}
for (const [name, schema] of Object.entries(api.components.schemas)) {
  const rows = Object.entries(schema.properties ?? {}).map(([field, described]) =>
    element(
      "tr",
      {},
      element("td", {}, element("code", {}, field)),
      element("td", {}, kind(described), described.default === undefined ? "" : ` = ${JSON.stringify(described.default)}`),
      element("td", { class: "soft" }, prose(described.description ?? "")),
    ),
  );
  $("schemas").append(element("section", { id: `schema-${name}` }, element("h3", {}, name), element("p", {}, prose(schema.description ?? "")), element("table", {}, element("tbody", {}, ...rows))));
}
