// What the page carries: JSON as it is, or base64 of gzip.

const readJson = (id) => JSON.parse(byId(id).textContent);

const unpack = async (packed) => {
  const bytes = Uint8Array.from(atob(packed), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
};

let plotly = null;

// plotly's code is run when it is first needed, and once.
const loadPlotly = () => {
  plotly ??= unpack(byId("plotly").textContent).then((code) => {
    document.head.append(el("script", {}, code));
    return window.Plotly;
  });
  return plotly;
};
