// A table that sorts by a click on (or Enter in) a heading and keeps the rows that hold every word of a filter.
// rows: [{values: [number | string | null], text: "…", body: <tbody>, elements: () => [<tr>, …]}]

const FEW_ROWS = 8; // are seen at a glance

class SortableTable {
  constructor(table, headings, rows, { page = Infinity, name = "" } = {}) {
    Object.assign(this, { table, headings, rows, page, limit: page, column: null, descending: false, words: [] });
    this.bodies = [...new Set(rows.map((row) => row.body))];
    this.state = el("span", { class: "state", role: "status", "aria-live": "polite" });
    this.more = el("span", { class: "more" });
    const filter = el("input", { type: "search", placeholder: "words that a row must hold", "aria-label": `filter ${name}` });
    filter.addEventListener("input", () => this.filter(filter.value));
    const search = rows.length > FEW_ROWS ? [el("label", {}, "filter ", filter), this.state] : [];
    this.tools = el("div", { class: "tools" }, ...search, this.more);
    headings.forEach((heading, column) => this.addButton(heading, column));
    this.draw();
  }

  addButton(heading, column) {
    const button = el("button", { type: "button", class: "sort", onclick: () => this.sort(column) });
    button.append(...heading.childNodes);
    heading.append(button);
    heading.setAttribute("aria-sort", "none");
  }

  // The good end comes first, then the other, then the order in which the report has the rows.
  sort(column) {
    const first = this.headings[column].dataset.better === "higher";
    if (this.column !== column) [this.column, this.descending] = [column, first];
    else if (this.descending === first) this.descending = !first;
    else this.column = null;
    this.headings.forEach((heading, place) => {
      const direction = this.descending ? "descending" : "ascending";
      heading.setAttribute("aria-sort", place === this.column ? direction : "none");
    });
    this.draw();
  }

  filter(text) {
    this.words = text.toLowerCase().split(/\s+/).filter(Boolean);
    this.limit = this.page;
    this.draw();
  }

  showUpTo(limit) {
    this.limit = limit;
    this.draw();
  }

  kept() {
    const rows = this.rows.filter((row) => this.words.every((word) => row.text.includes(word)));
    return this.column === null ? rows : rows.sort((a, b) => this.compare(a.values[this.column], b.values[this.column]));
  }

  // Empty cells stand last in both directions.
  compare(a, b) {
    const [noA, noB] = [a, b].map((value) => value === null || value === undefined || value === "");
    if (noA || noB) return noA - noB;
    const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
    return this.descending ? -order : order;
  }

  draw() {
    const kept = this.kept();
    for (const body of this.bodies) {
      const rows = kept.filter((row) => row.body === body).slice(0, this.limit);
      body.replaceChildren(...rows.flatMap((row) => row.elements()));
    }
    const shown = Math.min(kept.length, this.limit);
    const among = kept.length === this.rows.length ? "" : ` (of ${count.format(this.rows.length)})`;
    this.state.textContent = `${count.format(shown)} of ${count.format(kept.length)} rows${among}`;
    this.more.replaceChildren();
    if (shown < kept.length) {
      const next = el("button", { type: "button", onclick: () => this.showUpTo(this.limit + this.page) }, `show ${this.page} more`);
      const all = el("button", { type: "button", onclick: () => this.showUpTo(Infinity) }, "show all");
      this.more.append(next, all);
    }
  }
}

// Brings a table that is in the page to life.
const enliven = (section) => {
  const table = section.querySelector("table.sortable");
  const headings = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const rows = [...table.tBodies].flatMap((body) =>
    [...body.rows].map((row) => ({
      body,
      values: [...row.cells].map((cell) => ("value" in cell.dataset ? Number(cell.dataset.value) : readCell(cell))),
      text: row.textContent.toLowerCase(),
      elements: () => [row],
    })),
  );
  const sortable = new SortableTable(table, headings, rows, { name: section.querySelector("h2").textContent });
  if (table.querySelector(".interval")) {
    table.classList.add("no-intervals");
    sortable.tools.append(checkbox("intervals", false, (on) => table.classList.toggle("no-intervals", !on)));
  }
  table.parentElement.before(sortable.tools);
  return sortable;
};

const readCell = (cell) => (cell.querySelector("abbr") ? null : cell.textContent.trim().replace(/^–$/, "") || null);
