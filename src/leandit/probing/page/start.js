"use strict";
// Decompresses the data in the page and builds the page from it.

async function unpack(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

function runName(report) { return `${report.run.folder} (step ${report.run.step})`; }

function describe(report, dot) {
  const { run } = report;
  const facts = [
    run.model, `${run.strategy.replace("_", " ")}, ${run.k}-in-${run.num_experts}`, `${run.depth} blocks, ${report.layers.length} with experts`,
    run.sharing === "none" ? null : `shared: ${run.sharing}`, `${run.sampler}, ${run.steps} steps`, `guidance ${run.guidance}`,
    `${report.pictures.length} pictures`,
  ].filter(Boolean);
  return element("div", { className: "run" }, dot, element("strong", {}, runName(report)),
    ...facts.map((fact) => element("span", { className: "chip" }, fact)));
}

const SIGNS = { good: "\u2713", watch: "!", bad: "\u2717" };

function verdicts(reports, dots) {
  for (const [run, { verdict }] of reports.entries()) {
    if (!verdict) continue;
    const head = element("p", { className: "sentence" }, element("span", { className: "sign" }, SIGNS[verdict.level]), verdict.sentence);
    const rows = verdict.checks.map((check) => element("tr", { className: check.level },
      element("td", { className: "sign" }, SIGNS[check.level]), element("th", { scope: "row" }, check.name),
      element("td", { className: "value" }, check.value), element("td", { className: "normal" }, `normal: ${check.normal}`)));
    const advice = verdict.checks.filter((check) => check.advice)
      .map((check) => element("li", {}, element("b", {}, `${check.name}: `), check.advice));
    document.getElementById("verdict").append(element("div", { className: `verdict ${verdict.level}` },
      ...(reports.length > 1 ? [element("div", { className: "group" }, dots[run].cloneNode(), runName(reports[run]))] : []),
      head, element("table", {}, element("tbody", {}, ...rows)), ...(advice.length ? [element("ul", {}, ...advice)] : [])));
  }
}

function mainNumbers(reports) {
  const shown = [
    ["pairs of token and expert", (r) => r.pairs.total.toLocaleString("en")],
    ["experts per token, of budget k", (r) => `${r.pairs.experts_per_token.toFixed(2)} / ${r.run.k}`],
    ["MaxVio, mean of the layers", (r) => r.layer && mean(r.layer.max_violation).toFixed(2)],
    ["Comb, mean of the layers", (r) => r.layer && `${mean(r.layer.combination_usage).toFixed(0)} %`],
    ["largest share of a layer's experts for one token", (r) => r.layer && `${(100 * Math.max(...r.layer.largest_share_of_experts)).toFixed(0)} %`],
    ["GFLOPs per picture and step", (r) => r.timestep && (r.timestep.flops.per_picture_and_step / 1e9).toPrecision(3)],
  ];
  for (const [name, valueOf] of shown) {
    const values = reports.map(valueOf);
    if (values.some((value) => !value)) continue;
    const bold = values.map((value, run) => element("b", { style: reports.length > 1 ? `color:${RUN_COLOURS[run]}` : "" }, value));
    document.getElementById("numbers").append(element("div", { className: "number" }, ...bold, element("span", {}, name)));
  }
}

async function start() {
  const status = document.getElementById("status");
  if (typeof DecompressionStream === "undefined") {
    status.textContent = "This browser is too old to show the report. The numbers are in report.json, in the same folder.";
    return;
  }
  const { reports, images } = JSON.parse(await unpack("payload"));
  const dots = reports.map((_, run) => element("span", { className: "dot", style: `background:${RUN_COLOURS[run]}` }));
  reports.forEach((report, run) => document.getElementById("runs").append(describe(report, dots[run])));
  verdicts(reports, dots);
  mainNumbers(reports);
  status.remove();
  let onLayer = () => {};
  const maps = reports.every((report) => report.position);
  const select = document.getElementById("layer");
  nameLayers(reports, select);
  if (maps) {
    document.getElementById("position").hidden = false;
    wireControls(reports, buildGallery(reports, images, dots), (layer) => onLayer(layer));
  } else {
    select.onchange = () => onLayer(Number(select.value));
    document.getElementById("plots").before(element("p", {}, "Layer ", select));
  }
  document.head.append(element("script", { textContent: await unpack("plotly") }));
  if (reports.every((report) => report.timestep)) drawTimestep(reports);
  if (reports.every((report) => report.layer)) drawLayer(reports);
  onLayer = layerPlots(reports);
  onLayer(-1);
  // The first plots were drawn before the grid had all of its columns.
  await Promise.all([...document.querySelectorAll(".plot")].map((plot) => Plotly.Plots.resize(plot)));
  document.body.dataset.ready = "true";
}

start();
