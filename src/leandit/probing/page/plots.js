"use strict";
// The plots. Each card explains what the plot shows, and names the figure in a paper that shows the same.

const RUN_COLOURS = ["#3454d1", "#e8590c"];
const FONT = { family: "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", size: 12, color: "#1c2430" };
const CONFIG = { responsive: true, displayModeBar: false };

// Plotly reads some HTML in texts; names of classes and prompts are taken literally.
const literal = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const short = (text) => literal(text.length > 22 ? `${text.slice(0, 21)}…` : text);

function layout(x, y, more = {}) {
  const axis = { gridcolor: "#e9edf3", zeroline: false, automargin: true };
  return {
    font: FONT, margin: { l: 56, r: 14, t: 12, b: 46 }, paper_bgcolor: "#ffffff", plot_bgcolor: "#ffffff",
    hovermode: "closest", legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: 11 } },
    ...more,
    xaxis: { ...axis, title: { text: x }, ...more.xaxis }, yaxis: { ...axis, title: { text: y }, ...more.yaxis },
  };
}

function card(title, see, source, places, tall = false) {
  const plots = Array.from({ length: places }, () => element("div", { className: tall ? "plot tall" : "plot" }));
  const body = places > 1 ? element("div", { className: "side" }, ...plots) : plots[0];
  const node = element("article", { className: "card" }, element("h2", {}, title), element("p", { className: "see" }, see),
    body, element("p", { className: "source" }, source));
  document.getElementById("plots").append(node);
  return plots;
}

function depthColour(index, count) {
  const at = count > 1 ? index / (count - 1) : 0;
  return `hsl(${Math.round(265 - 225 * at)}, 65%, ${Math.round(42 + 10 * at)}%)`;
}

// One line per layer. If two runs are compared, these lines are faint, and a thick line is the mean over the layers.
function layerLines(reports, valuesOf, xOf, meanToo = true) {
  return reports.flatMap((report, run) => {
    const rows = valuesOf(report);
    const single = reports.length === 1;
    const lines = rows.map((y, index) => ({
      x: xOf(report, y), y, mode: "lines", name: literal(report.layers[index] ?? `block ${index}`),
      opacity: single ? 0.75 : 0.25, showlegend: single && rows.length <= 8,
      line: { width: 1.4, color: single ? depthColour(index, rows.length) : RUN_COLOURS[run] },
    }));
    if (!meanToo) return lines;
    const mean = rows[0].map((_, at) => rows.reduce((sum, row) => sum + row[at], 0) / rows.length);
    const name = single ? "mean" : `${runName(report)}: mean`;
    const line = { width: 3, color: single ? "#1c2430" : RUN_COLOURS[run] };
    return [...lines, { x: xOf(report, mean), y: mean, mode: "lines", name: literal(name), line }];
  });
}

function heat(z, x, y, options = {}) {
  const { title = "", centre = null, top = null, scale = "Viridis" } = options;
  const flat = z.flat();
  const trace = { type: "heatmap", z, x, y, colorscale: scale, colorbar: { thickness: 10, title: { text: title, side: "right" } } };
  if (centre !== null) {
    const reach = top ?? Math.max(...flat.map((value) => Math.abs(value - centre)), 0.25);
    Object.assign(trace, { zmin: centre - reach, zmax: centre + reach, colorscale: [[0, "#2b6cb0"], [0.5, "#ffffff"], [1, "#c53030"]] });
  }
  return [trace];
}

const names = (count, prefix = "") => Array.from({ length: count }, (_, index) => `${prefix}${index}`);
const transpose = (rows) => rows[0].map((_, at) => rows.map((row) => row[at]));
const times = (report) => report.moments.map((moment) => moment.t);
const backwards = { xaxis: { autorange: "reversed" } };

function draw(plot, traces, options) { Plotly.react(plot, traces, options, CONFIG); }

function perRun(reports, plots, paint) {
  reports.forEach((report, run) => {
    const [traces, options] = paint(report);
    if (reports.length > 1) {
      options.title = { text: literal(runName(report)), font: { size: 12, color: RUN_COLOURS[run] }, y: 0.98 };
      options.margin = { ...options.margin, t: 30 };
    }
    draw(plots[run], traces, options);
  });
}

function drawTimestep(reports) {
  const [curve] = card("Over the sampling time",
    "Experts per token, averaged over all pictures and tokens. If a curve is not flat, the model spends more compute at "
    + "some times than at others. The dashed line is the budget k, which is the mean in training.",
    "Expert Race, Figure 6: more experts at low timesteps, near the picture.", 1);
  const budget = [...new Set(reports.map((report) => report.run.k))].map((k) => (
    { type: "line", xref: "paper", x0: 0, x1: 1, y0: k, y1: k, line: { dash: "dash", color: "#8a94a6", width: 1.4 } }));
  draw(curve, layerLines(reports, (report) => transpose(report.timestep.experts_per_token), times),
    layout("t (1 = noise, 0 = picture)", "experts per token", { ...backwards, shapes: budget, yaxis: { rangemode: "tozero" } }));

  const [flops] = card("FLOPs",
    "The FLOPs of one evaluation of the network for one picture, from its actual pairs. The dashed line is the cost of k "
    + "experts for every token. If the curve is below it, the routers save compute.",
    "Counted as in leandit.models.cost; guidance counts both passes.", 1);
  const lines = reports.flatMap((report, run) => [["spent", "per_call", "solid"], ["at k", "per_call_at_budget", "dash"]]
    .map(([name, key, dash]) => ({
      x: times(report), y: report.timestep.flops[key].map((value) => value / 1e6), mode: "lines",
      name: literal(reports.length > 1 ? `${runName(report)}: ${name}` : name), line: { dash, color: RUN_COLOURS[run], width: 2 },
    })));
  draw(flops, lines, layout("t (1 = noise, 0 = picture)", "MFLOPs per picture", { ...backwards, yaxis: { rangemode: "tozero" } }));
}

function drawLayer(reports) {
  const load = card("Load of the experts",
    "Pairs of each expert, divided by the fair share in its layer. In a row of one colour the experts share the work "
    + "equally. A dark cell is an expert with almost no work.", "Expert Race, Table 2.", reports.length);
  perRun(reports, load, (report) => {
    const z = report.layer.load.map((row) => { const sum = row.reduce((one, other) => one + other, 0) || 1; return row.map((value) => value * row.length / sum); });
    return [heat(z, names(z[0].length), report.layers.map(literal), { title: "fair shares" }), layout("expert", "", { yaxis: { autorange: "reversed" }, xaxis: { type: "category" } })];
  });

  const [balance] = card("Balance by layer",
    "MaxVio is the busiest expert's excess over its fair share. 0 is perfect balance; (number of experts - 1) means that "
    + "one expert does all the work.", "Expert Race, Table 2 (0.85 with the router similarity loss, 6.38 without any constraint, at 4-in-32).", 1);
  draw(balance, reports.map((report, run) => ({ type: "bar", x: report.layers.map(literal), y: report.layer.max_violation, name: literal(runName(report)), marker: { color: RUN_COLOURS[run] } })),
    layout("", "MaxVio", { showlegend: reports.length > 1, xaxis: { type: "category" } }));

  const [curve] = card("Use of combinations",
    "The share of all co-selections that belongs to the most used pairs of experts. A diagonal means that all pairs are "
    + "used equally. A steep start means that a few pairs are chosen again and again. A curve reaches 95 % at Comb.",
    `Expert Race, Figures 7 and 13. Mean Comb: ${reports.map((report) => `${mean(report.layer.combination_usage).toFixed(1)} %`).join(" and ")}.`, 1);
  draw(curve, layerLines(reports, (report) => report.layer.combination_curve.map((row) => row.map((value) => 100 * value)), (_, y) => y.map((_, at) => at)),
    layout("% of expert pairs, most used first", "% of co-selections", {
      shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: 95, y1: 95, line: { dash: "dash", color: "#8a94a6", width: 1.2 } }] }));

  const [norms] = card("Norms of the blocks",
    "Mean norm of a token after each block, and of the block's contribution to it. If the norm grows steeply with depth, "
    + "early layers have little effect on the result. Per-layer regularisation counteracts this; compare a run without it.",
    `Expert Race, Figure 5. Weight of per-layer regularisation: ${reports.map((report) => report.run.per_layer_regularisation).join(" and ")}.`, 1);
  draw(norms, reports.flatMap((report, run) => [["stream", "solid"], ["added", "dot"]].map(([key, dash]) => ({
    x: report.layer.block_norms[key].map((_, at) => at), y: report.layer.block_norms[key], mode: "lines+markers",
    name: literal((reports.length > 1 ? `${runName(report)}: ` : "") + (key === "stream" ? "after the block" : "added by it")), line: { dash, color: RUN_COLOURS[run] } }))),
    layout("block", "L2 norm per token", { yaxis: { rangemode: "tozero" }, xaxis: { dtick: reports.some((report) => report.run.depth > 12) ? 4 : 1 } }));

  const [top] = card("Share of the busiest tokens",
    "The share of a layer's pairs that goes to the tokens with the most experts of each picture. On the diagonal all "
    + "tokens get the same number of experts. A higher curve means a less equal distribution.",
    `EC-DiT: up to 44 % of a layer's compute for one token, interpreted as the share of the layer's experts; here at most ${reports.map((report) => `${(100 * Math.max(...report.layer.largest_share_of_experts)).toFixed(0)} %`).join(" and ")}.`, 1);
  const fractions = (report) => report.layer.top_shares.fractions.map((value) => 100 * value);
  draw(top, [...layerLines(reports, (report) => report.layer.top_shares.shares.map((row) => row.map((value) => 100 * value)), fractions),
    { x: [0, 100], y: [0, 100], mode: "lines", name: "all equal", line: { dash: "dash", color: "#8a94a6", width: 1.2 } }],
    layout("% of tokens, busiest first", "% of pairs"));
}

// Plots of one layer, drawn again when another layer is chosen. For all layers they show the first layer.
function layerPlots(reports) {
  const painters = [];
  const at = (rows, layer) => rows[Math.min(Math.max(layer, 0), rows.length - 1)];
  const square = { xaxis: { type: "category", constrain: "domain" }, yaxis: { type: "category", autorange: "reversed", scaleanchor: "x", constrain: "domain" } };
  if (reports.every((report) => report.layer)) {
    const together = card("Experts chosen together",
      "The share of the row expert's tokens that the column expert also gets, in the layer chosen above (the first layer "
      + "for all layers). Bright squares off the diagonal are experts that act as one.",
      "Expert Race, Figure 7 and eqs. 9-11.", reports.length);
    const similar = card("Similarity of the experts",
      "Cosine between the experts' rows in the router, in the layer chosen above. Near 1 two experts select the same tokens, "
      + "near -1 opposite tokens. report.json also contains the cosines of their weights.",
      "Expert Race's router similarity loss keeps these rows apart (eqs. 9-11).", reports.length);
    painters.push((layer) => perRun(reports, together, (report) => {
      const counts = at(report.layer.co_selection, layer);
      const z = counts.map((row, expert) => row.map((value, other) => (other === expert || !row[expert] ? null : value / row[expert])));
      return [heat(z, names(z.length), names(z.length), { title: "share" }), layout("expert", "expert", square)];
    }));
    painters.push((layer) => perRun(reports, similar, (report) => {
      const z = at(report.layer.similarity.router, layer).map((row, expert) => row.map((value, other) => (other === expert ? null : value)));
      return [heat(z, names(z.length), names(z.length), { title: "cosine", centre: 0, top: 1 }), layout("expert", "expert", square)];
    }));
  }
  if (reports.every((report) => report.timestep)) {
    const moments = card("Which experts serve which times",
      "Pairs of each expert per evaluation, in the layer chosen above (the first layer for all layers). A band that is "
      + "bright on one side only is an expert for noise or for detail.", "The papers do not show this figure; Expert Race, Figure 6 shows the number of experts over time.", reports.length);
    painters.push((layer) => perRun(reports, moments, (report) => {
      const rows = report.timestep.load.map((table, index) => at(table, layer).map((value) => value / report.moments[index].calls));
      return [heat(transpose(rows), times(report), names(rows[0].length), { title: "pairs" }), layout("t", "expert", { ...backwards, yaxis: { type: "category" } })];
    }));
  }
  const served = (kind, table, title, see) => {
    const chosen = reports.filter((report) => table(report)?.names.length); // prompts may contain no word
    if (!chosen.length) return;
    const plots = card(title, see, "1 is an expert's share over all pictures; red is more, blue is less.", chosen.length, true);
    painters.push((layer) => perRun(chosen, plots, (report) => {
      const { names: groups, lift } = table(report);
      const z = lift.map((rows) => at(rows, layer));
      const y = groups.map((name, index) => `${index + 1} ${short(name)}`);
      return [heat(z, names(z[0].length), y, { centre: 1 }), layout("expert", "", { yaxis: { type: "category", autorange: "reversed" }, xaxis: { type: "category" } })];
    }));
  };
  served("class", (report) => report.class, "Which classes an expert serves",
    "A class's use of each expert, relative to all pictures, in the layer chosen above (the first layer for all layers).");
  served("caption", (report) => report.caption?.words, "Which words an expert serves",
    "The use of each expert in pictures with the word in their prompt, relative to all pictures, in the layer chosen "
    + "above. Words that are in every prompt are white.");
  served("caption", (report) => report.caption?.prompts, "Which prompts an expert serves",
    "The same for whole prompts.");
  return (layer) => painters.forEach((painter) => painter(layer));
}
