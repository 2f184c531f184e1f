"use strict";

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// One route: what it is for, an example to change, and its answer.
function drawRoute(path, method, route, schemas) {
  const reference = route.requestBody?.content["application/json"].schema.$ref;
  const schema = reference && schemas[reference.split("/").pop()];
  const answer = element("pre", { hidden: true });
  answer.setAttribute("role", "status");
  const example = JSON.stringify(schema?.example, null, 1)?.replace(/\[[^[\]{}]*\]/g, (list) => list.replace(/\s+/g, " "));
  const text = schema && element("textarea", { value: example, rows: 8 });
  text?.setAttribute("aria-label", `Body of ${path}`);
  const parameters = route.parameters || [];
  const query = parameters.filter((p) => p.example !== undefined).map((p) => `?${p.name}=${encodeURIComponent(p.example)}`);
  const where = element("input", { value: path + query.join(""), size: 20, hidden: !parameters.length });
  where.setAttribute("aria-label", `Address of ${path}`);
  const send = element("button", { type: "button", textContent: `Send ${method.toUpperCase()} ${path}` });
  send.onclick = async () => {
    const token = document.getElementById("token").value;
    const headers = { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }) };
    const got = await fetch(where.value.slice(1), { method: method.toUpperCase(), headers, body: text?.value });
    const body = await got.text();
    answer.textContent = `${got.status}\n${body}`;
    answer.hidden = false;
  };
  const named = [...Object.entries(schema?.properties || {}), ...parameters.map((p) => [p.name, p])];
  const fields = named.filter(([, field]) => field.description)
    .map(([name, field]) => element("li", {}, element("b", { textContent: name }), `: ${field.description}`,
      field["x-columns"] ? ` Columns: ${field["x-columns"].join(", ")}.` : ""));
  return element("section", {}, element("h2", { textContent: `${method.toUpperCase()} ${path}` }),
    element("p", { textContent: route.summary }), element("ul", {}, ...fields), ...(text ? [text] : []), where, send, answer);
}

async function draw() {
  const token = document.getElementById("token").value;
  const answer = await fetch("openapi.json", token ? { headers: { Authorization: `Bearer ${token}` } } : {});
  document.getElementById("routes").replaceChildren();
  if (!answer.ok) return;
  const described = await answer.json();
  for (const [path, methods] of Object.entries(described.paths)) {
    for (const [method, route] of Object.entries(methods)) {
      document.getElementById("routes").append(drawRoute(path, method, route, described.components.schemas));
    }
  }
}

document.getElementById("token").onchange = draw;
draw();
