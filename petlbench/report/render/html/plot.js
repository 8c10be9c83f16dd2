// From a figure of the report to what plotly draws.

// Those of petlbench.core.plotting, in its order: a method has one colour and one mark on pages and in files.
const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#A65628", "#9467BD", "#999933"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star", "triangle-left", "triangle-right"];
const DASHES = ["solid", "dash", "dashdot", "dot", "longdash", "longdashdot"];
const PATTERNS = ["", "/", ".", "x", "\\"];

// plotly reads a little markup in names; with these three written out there is none.
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

const legendName = ({ title }) => plain(title.length > 28 ? `${title.slice(0, 27)}…` : title);

const looks = (figure) =>
  figure.series.map((series, number) => {
    if (series.role === "reference") return { colour: "#8a8a8a", symbol: "line-ew-open", dash: "dash", pattern: "" };
    const [colour, symbol, dash, pattern] = [COLOURS, SYMBOLS, DASHES, PATTERNS].map((kind) => kind[(series.place ?? number) % kind.length]);
    return { colour, symbol, dash, pattern };
  });

const axisOf = (figure, key) => figure.axes.find((axis) => axis.key === key);
const valuesOf = (series, key) => series.values[key] ?? [];

const hoverTexts = (figure, series, length) =>
  Array.from({ length }, (_, place) => {
    const lines = [`<b>${plain(series.labels[place] ?? series.title)}</b>`];
    for (const axis of figure.axes) {
      const [value, low, high] = ["", "_low", "_high"].map((end) => valuesOf(series, axis.key + end)[place]);
      const unit = axis.unit ? ` ${axis.unit}` : "";
      const ends = typeof low === "number" && typeof high === "number" ? ` (${show(low)} to ${show(high)})` : "";
      if (value !== undefined) lines.push(plain(`${axis.title}: ${show(value)}${unit}${ends}`));
    }
    return lines.join("<br>");
  });

const whiskers = (series, key, colour) => {
  const [values, low, high] = ["", "_low", "_high"].map((end) => series.values[key + end]);
  if (!values || !low || !high) return undefined;
  const length = (place, ends) => (ends[place] === null || values[place] === null ? 0 : Math.abs(ends[place] - values[place]));
  return {
    type: "data", symmetric: false, color: colour, thickness: 1.2, width: 3,
    array: values.map((_, place) => length(place, high)), arrayminus: values.map((_, place) => length(place, low)),
  };
};

// Positions that no other beats in one direction without losing in the other.
const paretoFront = (points, xBetter, yBetter) => {
  if (!xBetter || !yBetter) return [];
  const [xSign, ySign] = [xBetter, yBetter].map((better) => (better === "higher" ? -1 : 1));
  const ordered = [...points].sort((a, b) => xSign * (a.x - b.x) || ySign * (a.y - b.y));
  const front = [];
  for (const point of ordered) if (!front.length || ySign * (point.y - front.at(-1).y) < 0) front.push(point);
  return front.sort((a, b) => a.x - b.x);
};

const dotSizes = (figure, view) => {
  const axis = axisOf(figure, view.size);
  if (!axis) return () => 11;
  const scaled = (value) => (axis.scale === "log" ? Math.log(value) : value);
  const all = figure.series.flatMap((series) => valuesOf(series, axis.key)).filter((value) => typeof value === "number");
  const values = all.map(scaled).filter(Number.isFinite);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return (value) => {
    const here = typeof value === "number" ? scaled(value) : NaN;
    return Number.isFinite(here) && high > low ? Math.sqrt(36 + 540 * ((here - low) / (high - low))) : 6;
  };
};

// Names stand beside whiskers, and on the other side than the nearest other point; at the left and right end inside.
const nameSides = (figure, view) => {
  const scale = (key, isLog) => {
    const along = (value) => (isLog ? Math.log(value) : value);
    const all = figure.series.flatMap((series) => valuesOf(series, key)).filter((value) => typeof value === "number").map(along).filter(Number.isFinite);
    const [low, high] = [Math.min(...all), Math.max(...all)];
    return (value) => (along(value) - low) / (high - low || 1);
  };
  const [across, up] = [scale(view.x, view.logX), scale(view.y, view.logY)];
  const pairs = figure.series.flatMap((series) => valuesOf(series, view.x).map((x, point) => [x, valuesOf(series, view.y)[point]]));
  const points = pairs.filter((pair) => pair.every((value) => typeof value === "number")).map(([x, y]) => [across(x), up(y)]);
  return (x, y) => {
    const [here, height] = [across(x), up(y)];
    if (here === 0 || here === 1) return here === 0 ? "right" : "left";
    const away = ([left, other]) => (left === here ? Infinity : Math.hypot(left - here, other - height));
    const nearest = points.reduce((best, one) => (away(one) < away(best) ? one : best));
    return nearest[0] > here ? "left" : "right";
  };
};

const scatterTraces = (figure, view) => {
  const [styles, sizeOf] = [looks(figure), dotSizes(figure, view)];
  const sideOf = nameSides(figure, view);
  const traces = figure.series.map((series, place) => {
    const [x, y] = [valuesOf(series, view.x), valuesOf(series, view.y)];
    const { colour, symbol } = styles[place];
    const marker = { color: colour, symbol, opacity: 0.85, line: { width: 1, color: "#808080" } };
    marker.size = x.map((_, point) => sizeOf(valuesOf(series, view.size)[point]));
    return {
      type: "scatter", mode: view.names ? "markers+text" : "markers", name: legendName(series), x, y, marker,
      text: x.map(() => plain(series.title)), textposition: x.map((value, point) => `top ${sideOf(value, y[point])}`), cliponaxis: false,
      hovertext: hoverTexts(figure, series, x.length), hoverinfo: "text",
      error_x: whiskers(series, view.x, colour), error_y: whiskers(series, view.y, colour),
    };
  });
  if (view.front) traces.unshift(...frontTrace(figure, view));
  return traces;
};

const frontTrace = (figure, view) => {
  const points = figure.series.filter((series) => series.role === "data").flatMap((series) =>
    valuesOf(series, view.x).map((x, place) => ({ x, y: valuesOf(series, view.y)[place] })));
  const [x, y] = [axisOf(figure, view.x), axisOf(figure, view.y)];
  const front = paretoFront(points.filter((one) => typeof one.x === "number" && typeof one.y === "number"), x.better, y.better);
  if (front.length < 2) return [];
  const line = { color: "#8a8a8a", dash: "dash", width: 1.5, shape: x.better === "lower" ? "hv" : "vh" };
  return [{ type: "scatter", mode: "lines", name: "Pareto front", line, hoverinfo: "skip", x: front.map((one) => one.x), y: front.map((one) => one.y) }];
};

const lineTraces = (figure, view) => {
  const styles = looks(figure);
  return figure.series.flatMap((series, place) => {
    const { colour, symbol, dash } = styles[place];
    const [x, y] = [valuesOf(series, view.x), valuesOf(series, view.y)];
    const [low, high] = [series.values[`${view.y}_low`], series.values[`${view.y}_high`]];
    const line = {
      type: "scatter", mode: series.role === "reference" ? "lines" : "lines+markers", name: legendName(series), x, y,
      line: { color: colour, dash, width: 2 }, marker: { color: colour, symbol, size: 6, maxdisplayed: 12 },
      legendgroup: String(place), hovertext: hoverTexts(figure, series, x.length), hoverinfo: "text",
    };
    if (!low || !high) return [line];
    const band = {
      type: "scatter", mode: "lines", x: [...x, ...[...x].reverse()], y: [...high, ...[...low].reverse()], fill: "toself",
      fillcolor: `${colour}26`, line: { width: 0 }, legendgroup: String(place), showlegend: false, hoverinfo: "skip",
    };
    return [band, line];
  });
};

const barTraces = (figure, view) => {
  const styles = looks(figure);
  return figure.series.map((series, place) => {
    const y = valuesOf(series, view.y);
    const pattern = { shape: styles[place].pattern, fillmode: "overlay", fgcolor: "#ffffff", fgopacity: 0.8, size: 6 };
    return {
      type: "bar", name: legendName(series), x: (series.labels.length ? series.labels : [series.title]).map(plain), y,
      marker: { color: styles[place].colour, pattern },
      error_y: whiskers(series, view.y, "#8a8a8a"), hovertext: hoverTexts(figure, series, y.length), hoverinfo: "text",
    };
  });
};

const intervalTraces = (figure, view) => {
  const styles = looks(figure);
  return figure.series.map((series, place) => {
    const x = valuesOf(series, view.x);
    const { colour, symbol } = styles[place];
    return {
      type: "scatter", mode: "markers", name: legendName(series), x, y: x.map((_, point) => legendName({ title: String(series.labels[point] ?? series.title) })),
      marker: { color: colour, symbol, size: 9 }, error_x: whiskers(series, view.x, colour), showlegend: false,
      hovertext: hoverTexts(figure, series, x.length), hoverinfo: "text",
    };
  });
};

const TRACES = { scatter: scatterTraces, lines: lineTraces, bars: barTraces, intervals: intervalTraces };

// 1, 2 and 5 of each power of ten, written out; over more than three powers 1 alone.
const logTicks = (figure, key, isNarrow) => {
  const values = figure.series.flatMap((series) => valuesOf(series, key)).filter((value) => value > 0);
  const [low, high] = [Math.min(...values), Math.max(...values)].map(Math.log10);
  const ticks = [];
  for (let power = Math.floor(low) - 1; power <= Math.ceil(high); power += 1) {
    for (const step of isNarrow || high - low > 3 ? [1] : [1, 2, 5]) ticks.push(step * 10 ** power);
  }
  return { tickmode: "array", tickvals: ticks, ticktext: ticks.map((tick) => short.format(tick)) };
};

const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

// A title in lines that a narrow screen has room for.
const inLines = (title, most) =>
  title.split(" ").reduce((lines, word) => {
    const longer = `${lines.at(-1)} ${word}`.trim();
    return longer.length <= most || !lines.at(-1) ? [...lines.slice(0, -1), longer] : [...lines, word];
  }, [""]);

const layoutAxis = (figure, key, log, isNarrow) => ({
  title: { text: inLines(axisOf(figure, key)?.heading ?? "", isNarrow ? 36 : 90).map(plain).join("<br>"), standoff: 8 }, automargin: true, zeroline: false, gridcolor: "#80808040",
  ...(log ? { type: "log", ...logTicks(figure, key, isNarrow) } : {}),
});

const WIDEST_BAR = 0.14; // share of a plot's width

const CATEGORIES = { type: "category", automargin: true, gridcolor: "#80808040" };

// Beside the plot a legend leaves no room on a narrow screen; there it stands below.
const BELOW = { orientation: "h", yref: "container", yanchor: "bottom", y: 0, x: 0 };

const layoutOf = (figure, view, isNarrow) => {
  const layout = {
    autosize: true, height: 440, margin: { l: 50, r: 16, t: 34, b: 44 }, modebar: { bgcolor: "transparent", color: "#808080", activecolor: "#0072B2" }, paper_bgcolor: "transparent", plot_bgcolor: "transparent",
    font: { family: "system-ui, sans-serif", size: 13 }, hovermode: "closest", hoverlabel: { align: "left", bgcolor: "#202428", font: { color: "#ffffff" } },
    xaxis: layoutAxis(figure, view.x, view.logX, isNarrow), yaxis: layoutAxis(figure, view.y, view.logY, isNarrow),
    legend: { font: { size: 12 }, itemsizing: "constant", ...(isNarrow ? BELOW : {}) },
  };
  const steps = figure.kind === "lines" ? figure.series.flatMap((series) => valuesOf(series, view.x)) : [];
  if (steps.length && steps.every(Number.isInteger) && Math.max(...steps) - Math.min(...steps) < 12) layout.xaxis.dtick = 1;
  if (figure.kind === "bars") {
    const places = new Set(figure.series.flatMap((series) => (series.labels.length ? series.labels : [series.title])));
    const bargap = Math.max(0.2, 1 - WIDEST_BAR * places.size);
    Object.assign(layout, { barmode: figure.marks.stacked ? "stack" : "group", xaxis: CATEGORIES, bargap });
  }
  if (figure.kind === "intervals") {
    layout.yaxis = { ...CATEGORIES, autorange: "reversed" };
    layout.height = 110 + 26 * figure.series.length;
  }
  if (typeof figure.marks.line === "number") {
    const [along, across] = figure.kind === "intervals" ? ["x", "y"] : ["y", "x"];
    const ends = { [`${across}ref`]: "paper", [`${across}0`]: 0, [`${across}1`]: 1, [`${along}0`]: figure.marks.line, [`${along}1`]: figure.marks.line };
    layout.shapes = [{ type: "line", ...ends, line: { color: "#8a8a8a", dash: "dash", width: 1 } }];
  }
  if (figure.marks.from_zero) layout[figure.kind === "intervals" ? "xaxis" : "yaxis"].rangemode = "tozero";
  if (figure.marks.square) {
    Object.assign(layout.xaxis, { constrain: "domain" });
    Object.assign(layout.yaxis, { scaleanchor: "x", scaleratio: 1, constrain: "domain" });
  }
  return layout;
};
