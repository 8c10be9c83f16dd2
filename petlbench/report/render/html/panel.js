// A figure with what can be chosen of it, drawn when it comes into sight, and its numbers as a table.

const PLOTLY_SETTINGS = {
  responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  toImageButtonOptions: { format: "svg", filename: "figure" },
};
const NARROW = 560; // pixels
const MOST_NAMES = 12; // beside points
const DARK = 0.85; // share of a row whose shade takes white type
const PRINT_WIDTH = 680; // pixels, of a portrait page

class Panel {
  constructor(figure) {
    this.figure = figure;
    this.view = {
      x: figure.x, y: figure.y, size: figure.size ?? "", front: true, names: figure.series.length <= MOST_NAMES,
      logX: axisOf(figure, figure.x)?.scale === "log", logY: axisOf(figure, figure.y)?.scale === "log",
    };
    this.plot = el("div", { class: figure.marks.square ? "plot square" : "plot", role: "img", "aria-label": `${figure.title}; the numbers stand below` });
    this.controls = el("div", { class: "controls" });
    this.addControls();
    const numbers = el("details", { class: "numbers" }, el("summary", {}, "numbers of this figure"));
    numbers.addEventListener("toggle", () => numbers.open && numbers.childElementCount === 1 && numbers.append(numbersOf(figure)));
    const caption = figure.caption ? el("figcaption", {}, figure.caption) : null;
    this.element = el("figure", { class: "panel" }, this.controls, this.plot, caption, numbers);
    this.element.panel = this;
    sight.observe(this.element);
  }

  addControls() {
    const { figure, view } = this;
    const axes = figure.axes.map((axis) => [axis.key, axis.title]);
    const choose = (key) => (value) => this.change({ [key]: value });
    const scaled = (key, log) => (value) => this.change({ [key]: value, [log]: axisOf(figure, value).scale === "log" });
    if (figure.kind === "scatter") {
      this.logX = checkbox("log x", view.logX, choose("logX"));
      this.logY = checkbox("log y", view.logY, choose("logY"));
      this.controls.append(
        chooser("x", axes, view.x, scaled("x", "logX")), this.logX, chooser("y", axes, view.y, scaled("y", "logY")), this.logY,
        chooser("size", [["", "equal"], ...axes], view.size, choose("size")),
        checkbox("Pareto front", view.front, choose("front")), checkbox("names", view.names, choose("names")),
      );
    } else if (figure.kind === "lines" && axes.length > 2) {
      this.controls.append(chooser("show", axes.filter(([key]) => key !== figure.x), view.y, scaled("y", "logY")));
    }
  }

  change(wanted) {
    Object.assign(this.view, wanted);
    if (this.logX) [this.logX.firstChild.checked, this.logY.firstChild.checked] = [this.view.logX, this.view.logY];
    this.draw();
  }

  async draw() {
    this.isWanted = true;
    this.drawWith(await loadPlotly());
  }

  drawWith(Plotly) {
    this.isDrawn = true;
    const layout = layoutOf(this.figure, this.view, this.plot.clientWidth < NARROW);
    Plotly.react(this.plot, TRACES[this.figure.kind](this.figure, this.view), layout, PLOTLY_SETTINGS);
  }
}

const sight = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) if (isIntersecting && !target.panel.isWanted) target.panel.draw();
}, { rootMargin: "400px" });

const numbersOf = (figure) => {
  const headings = ["series", "point", ...figure.axes.map((axis) => axis.heading)];
  const body = el("tbody");
  for (const series of figure.series) {
    const length = Math.max(...figure.axes.map((axis) => valuesOf(series, axis.key).length));
    for (let place = 0; place < length; place += 1) {
      const cells = figure.axes.map((axis) => el("td", { class: "number" }, show(valuesOf(series, axis.key)[place])));
      body.append(el("tr", {}, el("th", { scope: "row" }, series.title), el("td", {}, show(series.labels[place])), ...cells));
    }
  }
  const head = el("thead", {}, el("tr", {}, ...headings.map((heading) => el("th", { scope: "col" }, heading))));
  return el("div", { class: "scroll", tabindex: 0 }, el("table", {}, head, body));
};

// A confusion matrix needs no plotly: counts on shades of their share of the row.
const matrixOf = (figure, caption = figure.title) => {
  const [series] = figure.series;
  const rows = Object.keys(series.values).sort((a, b) => a - b).map((key) => series.values[key]);
  const labels = series.labels.length ? series.labels : rows.map((_, place) => place);
  const body = rows.map((counts, place) => {
    const total = counts.reduce((sum, one) => sum + one, 0) || 1;
    const cells = counts.map((one) => {
      const share = one / total;
      const style = `background: rgba(0, 114, 178, ${share.toFixed(3)})${share > DARK ? "; color: #fff" : ""}`;
      return el("td", { class: "number", style, title: `${(100 * share).toFixed(1)} % of the row` }, show(one));
    });
    return el("tr", {}, el("th", { scope: "row" }, labels[place]), ...cells);
  });
  const head = el("tr", {}, el("td", { class: "corner" }, "true \\ predicted"), ...labels.map((label) => el("th", { scope: "col" }, label)));
  return el("figure", { class: "matrix" }, el("figcaption", {}, caption), el("table", {}, el("thead", {}, head), el("tbody", {}, ...body)));
};

const present = (figure) => (figure.kind === "matrix" ? matrixOf(figure) : new Panel(figure).element);
