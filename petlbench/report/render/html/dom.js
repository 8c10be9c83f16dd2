// Elements. Texts become text nodes only: no name of a user is ever read as markup.

const el = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, String(value));
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
};

const byId = (id) => document.getElementById(id);

const number = new Intl.NumberFormat("en", { maximumSignificantDigits: 5 });
const count = new Intl.NumberFormat("en");

const fixed = (value, digits) => value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

const show = (value) => {
  if (value === null || value === undefined || value === "") return "–";
  if (typeof value === "number") return Number.isInteger(value) && Math.abs(value) < 1e6 ? String(value) : number.format(value);
  return typeof value === "object" ? JSON.stringify(value) : String(value);
};

let lastId = 0;

// A labelled <select>; `choose` is told the value that was chosen.
const chooser = (label, options, chosen, choose) => {
  const id = `choice-${(lastId += 1)}`;
  const select = el("select", { id, onchange: () => choose(select.value) });
  for (const [value, text] of options) select.append(el("option", { value, selected: value === chosen }, text));
  return el("span", { class: "control" }, el("label", { for: id }, label), select);
};

const checkbox = (label, checked, choose) => {
  const box = el("input", { type: "checkbox", checked, onchange: () => choose(box.checked) });
  return el("label", { class: "control" }, box, label);
};
