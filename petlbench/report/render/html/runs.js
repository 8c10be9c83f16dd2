// The table of all runs. What is known of one is unpacked and shown when it is asked for.

const chunks = new Map();

const detailsOf = async (place) => {
  const packed = detailsOf.packed ??= readJson("details");
  const chunk = Math.floor(place / packed.size);
  if (!chunks.has(chunk)) chunks.set(chunk, unpack(packed.chunks[chunk]).then(JSON.parse));
  return (await chunks.get(chunk))[place % packed.size];
};

const runsTable = ({ columns, rows }) => {
  const headings = columns.map((column) =>
    el("th", { scope: "col", class: column.digits === undefined ? "" : "number", "data-better": column.better }, column.title));
  const body = el("tbody");
  const table = el("table", { class: "sortable runs" }, el("thead", {}, el("tr", {}, ...headings)), body);
  const entries = rows.map((values, place) => ({
    body, values, text: values.filter((value) => value !== null).join(" ").toLowerCase(), elements: () => runElements(entries[place], place, columns),
  }));
  const sortable = new SortableTable(table, headings, entries, { page: 100, name: "runs" });
  return [sortable, el("div", {}, sortable.tools, el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "runs" }, table))];
};

const runElements = (entry, place, columns) => {
  entry.row ??= runRow(entry, place, columns);
  return entry.isOpen ? [entry.row, entry.detail] : [entry.row];
};

const runRow = (entry, place, columns) => {
  const [method, ...rest] = entry.values;
  const button = el("button", { type: "button", class: "expand", "aria-expanded": "false" }, show(method));
  button.addEventListener("click", () => toggleRun(entry, place, button));
  const cells = rest.map((value, column) => {
    const { digits } = columns[column + 1];
    return el("td", { class: digits === undefined ? "" : "number" }, typeof value === "number" && digits ? fixed(value, digits) : show(value));
  });
  return el("tr", { class: `status-${/^\w+$/.test(rest[2]) ? rest[2] : "unknown"}` }, el("th", { scope: "row" }, button), ...cells);
};

const toggleRun = async (entry, place, button) => {
  entry.isOpen = !entry.isOpen;
  button.setAttribute("aria-expanded", String(entry.isOpen));
  if (!entry.isOpen) return entry.detail.remove();
  if (entry.detail) return entry.row.after(entry.detail);
  const inside = el("div", { class: "inside" }, "…");
  entry.detail = el("tr", { class: "detail" }, el("td", { colspan: entry.values.length }, inside));
  entry.row.after(entry.detail);
  return inside.replaceChildren(...runParts(await detailsOf(place)));
};

// Parts that have a form of their own; all else is shown as the tree that it is.
const runParts = (run) => {
  const parts = [];
  if (run.error) parts.push(el("p", { class: "bad" }, [run.error.message, run.error.hint].filter(Boolean).join(" – ")));
  const figures = [runCurve(run), ...runMatrices(run)].filter(Boolean);
  if (figures.length) parts.push(el("div", { class: "grid" }, ...figures.map(present)));
  const trees = Object.entries(run).filter(([name, value]) => !["curve", "error", "schema"].includes(name) && value !== null && typeof value === "object");
  const facts = Object.entries(run).filter(([name, value]) => name !== "schema" && typeof value !== "object");
  parts.push(tree(Object.fromEntries(facts)));
  parts.push(el("div", { class: "trees" }, ...trees.map(([name, value]) => el("details", { open: ["config", "environment"].includes(name) }, el("summary", {}, name), tree(value)))));
  return parts;
};

const runCurve = (run) => {
  const names = Object.keys(run.curve ?? {}).filter((name) => name !== "epoch");
  if (!names.length) return null;
  const axes = [{ key: "epoch", title: "epoch", heading: "epoch", unit: "" }, { key: "value", title: "value", heading: "", unit: "" }];
  const shown = names.filter((name) => /loss|_auc$/.test(name));
  const series = (shown.length ? shown : names).map((name) => ({ key: name, title: name, role: "data", labels: [], values: { epoch: run.curve.epoch, value: run.curve[name] } }));
  return { key: "curve", kind: "lines", title: "curve", axes, x: "epoch", y: "value", series, caption: "", marks: {} };
};

const runMatrices = (run) =>
  Object.entries(run.metrics ?? {}).filter(([, metrics]) => Array.isArray(metrics.confusion_matrix)).map(([split, metrics]) => {
    const values = Object.fromEntries(metrics.confusion_matrix.map((row, place) => [place, row]));
    const labels = run.data?.classes?.length === metrics.confusion_matrix.length ? run.data.classes : [];
    return { kind: "matrix", title: `confusion, ${split}`, series: [{ labels, values }] };
  });

const tree = (value) => {
  if (value === null || typeof value !== "object") return document.createTextNode(show(value));
  if (Array.isArray(value) && value.every((one) => one === null || typeof one !== "object")) return document.createTextNode(value.map(show).join(", ") || "–");
  const entries = Object.entries(value);
  if (!entries.length) return document.createTextNode("–");
  return el("dl", { class: "tree" }, ...entries.map(([name, one]) => el("div", {}, el("dt", {}, name), el("dd", {}, tree(one)))));
};
