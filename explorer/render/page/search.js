// Search over names, operations, modules and source lines; every word must be found.

const SHOWN = 40;
const search = {field: byId("search"), list: byId("found"), hits: [], at: -1};

function haystack(node) {
  if (!node.hay) {
    node.hay = [node.label, node.name, ...node.names, node.module, node.operation, node.role, `n${node.id}`,
      node.source ? `${node.source.file}:${node.source.line} ${codeAt(node.source)}` : "", node.outputs[0] ? sizes(node.outputs[0].shape) : ""].join("\n").toLowerCase();
  }
  return node.hay;
}

/** Nodes that hold every word of the query, exact names first. */
function hitsFor(query) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return [];
  const hits = stage.report.nodes.filter((node) => words.every((word) => haystack(node).includes(word)));
  const exactly = (node) => (node.label.toLowerCase() === words[0] || `n${node.id}` === words[0] ? 0 : node.label.toLowerCase().startsWith(words[0]) ? 1 : 2);
  return hits.sort((one, other) => exactly(one) - exactly(other) || one.id - other.id);
}

function lookUp() {
  search.hits = hitsFor(search.field.value);
  search.at = search.hits.length ? 0 : -1;
  if (!search.field.value.trim()) { closeSearch(); light(); return; }
  const options = search.hits.slice(0, SHOWN).map((node, number) => make("div", {role: "option", id: `ae-hit-${number}`, "data-node": node.id,
    onpointerdown: (event) => { event.preventDefault(); takeHit(number); }},
    theirs(node.label), make("small", {}, theirs([brief(stage.report, node), node.module, node.source && place(node.source)].filter(Boolean).join(" · ")))));
  const said = search.hits.length ? `${count(search.hits.length)} found` : "nothing found";
  search.list.replaceChildren(make("p", {}, search.hits.length > SHOWN ? `${said}, the first ${SHOWN} shown` : said), ...options);
  search.list.hidden = false;
  tell(said);
  unlight();
  if (search.hits.length) lightNodes(search.hits.map(({id}) => id));
  markHit();
}

function markHit() {
  search.list.querySelectorAll("[role=option]").forEach((option, number) => {
    option.setAttribute("aria-selected", String(number === search.at));
    if (number === search.at) option.scrollIntoView({block: "nearest"});
  });
  if (search.at >= 0) search.field.setAttribute("aria-activedescendant", `ae-hit-${search.at}`);
  else search.field.removeAttribute("aria-activedescendant");
}

function closeSearch() {
  search.list.hidden = true;
  search.field.removeAttribute("aria-activedescendant");
}

function takeHit(number) {
  const node = search.hits[number];
  if (!node) return;
  closeSearch();
  stage.host.focus({preventScroll: true});
  choose(node.id, {reveal: true});
}

function listenToSearch() {
  search.field.addEventListener("input", lookUp);
  search.field.addEventListener("focus", () => { if (search.field.value.trim()) lookUp(); });
  search.field.addEventListener("blur", closeSearch);
  search.field.addEventListener("keydown", (event) => {
    const most = Math.min(search.hits.length, SHOWN);
    if (event.key === "ArrowDown" && most) search.at = (search.at + 1) % most;
    else if (event.key === "ArrowUp" && most) search.at = (search.at + most - 1) % most;
    else if (event.key === "Enter") { takeHit(search.at); return; }
    else if (event.key === "Escape") { search.field.value = ""; closeSearch(); light(); stage.host.focus(); event.stopPropagation(); return; }
    else return;
    event.preventDefault();
    markHit();
  });
}
