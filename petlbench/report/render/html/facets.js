// Choosers of what the tables are of, where they say so: the others are hidden.

const faceted = [...document.querySelectorAll("section[data-facets]")].map((section) => ({ section, facets: JSON.parse(section.dataset.facets) }));

if (faceted.length) {
  const chosen = {};
  const state = el("span", { class: "state", role: "status", "aria-live": "polite" });
  const draw = () => {
    const fits = ({ facets }) => Object.entries(chosen).every(([facet, value]) => !value || facets[facet] === value);
    for (const each of faceted) each.section.hidden = !fits(each);
    state.textContent = `${count.format(faceted.filter(fits).length)} of ${count.format(faceted.length)} tables`;
  };
  const choosers = [...new Set(faceted.flatMap(({ facets }) => Object.keys(facets)))].map((facet) => {
    const values = [...new Set(faceted.map(({ facets }) => facets[facet]).filter((value) => value !== undefined))].sort();
    const choose = (value) => {
      chosen[facet] = value;
      draw();
    };
    return chooser(facet, [["", "all"], ...values.map((value) => [value, value])], "", choose);
  });
  faceted[0].section.before(el("div", { class: "controls" }, ...choosers, state));
  draw();
}
