// The page comes to life: tables, figures, runs, colours and print.

const data = readJson("data");
const tables = [...document.querySelectorAll("section.table")].map(enliven);

data.figures.forEach((figure, place) => {
  const stand = byId(`figure-${place}`);
  if (figure.kind === "matrix") stand.append(matrixOf(figure, figure.caption));
  else if (figure.kind !== "ranks") stand.append(present(figure));
});

const fill = (id, elements) => {
  if (elements.length) byId(id).append(...elements);
  byId(id).hidden = !elements.length;
};

// One figure of several, with a choice among them.
const oneOf = (label, figures) => {
  if (!figures.length) return [];
  const stand = el("div");
  const choose = (place) => stand.replaceChildren(present(figures[place]));
  choose(0);
  const options = figures.map((figure, place) => [String(place), figure.title]);
  return figures.length > 1 ? [el("div", { class: "controls" }, chooser(label, options, "0", choose)), stand] : [stand];
};

const byDataset = (figures) => {
  const datasets = [...new Set(figures.map((figure) => figure.key))];
  return datasets.map((dataset) =>
    el("div", {}, el("h3", {}, dataset), el("div", { class: "grid" }, ...figures.filter((one) => one.key === dataset).map(present))));
};

fill("explore", oneOf("runs", data.explore));
fill("details-figures", oneOf("curve", data.details));
fill("curves", data.curves.map((figure) => el("div", {}, el("h3", {}, figure.title), present(figure))));
fill("confusion", byDataset(data.confusion));
if (data.runs.rows.length) {
  const [sortable, element] = runsTable(data.runs);
  byId("runs").append(element);
  tables.push(sortable);
}

const setTheme = (theme) => {
  document.documentElement.dataset.theme = theme;
};
byId("page-tools").append(
  chooser("colours", [["auto", "as the system"], ["light", "light"], ["dark", "dark"]], "auto", setTheme),
  el("button", { type: "button", onclick: () => window.print() }, "print"),
);

// What was opened for printing is closed again.
const opened = [];

// On paper every row and every figure is there, as wide as the page.
window.addEventListener("beforeprint", () => {
  for (const table of tables) table.showUpTo(Infinity);
  for (const details of document.querySelectorAll("details:not([open], .numbers)")) {
    details.open = true;
    opened.push(details);
  }
  if (!window.Plotly) return;
  for (const { panel } of document.querySelectorAll("figure.panel")) {
    if (!panel.isDrawn) panel.drawWith(window.Plotly);
    window.Plotly.relayout(panel.plot, { autosize: false, width: PRINT_WIDTH });
  }
});
window.addEventListener("afterprint", () => {
  for (const table of tables) table.showUpTo(table.page);
  for (const details of opened.splice(0)) details.open = false;
  for (const { panel } of document.querySelectorAll("figure.panel")) if (panel.isDrawn) panel.draw();
});

loadPlotly().catch(() => document.body.prepend(el("p", { class: "bad" }, "This browser cannot unpack the plots; the tables are complete.")));
