"use strict";
// The gallery: pictures with their maps of experts per token, a slider over the moments, and a choice of layer.

const RAMP = [
  [0, 0, 4], [31, 12, 72], [85, 15, 109], [136, 34, 106], [186, 54, 85],
  [227, 89, 51], [249, 140, 10], [249, 201, 50], [252, 255, 164],
];

function colour(share) {
  const place = Math.min(Math.max(share, 0), 1) * (RAMP.length - 1);
  const low = Math.min(Math.floor(place), RAMP.length - 2);
  return RAMP[low].map((value, channel) => value + (place - low) * (RAMP[low + 1][channel] - value));
}

function element(tag, options = {}, ...children) {
  const made = Object.assign(document.createElement(tag), options);
  made.append(...children);
  return made;
}

// Mean experts per token of one picture at one moment (-1: all moments) in one layer (-1: all layers).
function meanMap(report, picture, moment, layer) {
  const maps = report.position.maps;
  const chosen = moment < 0 ? maps.map((_, index) => index) : [moment];
  const layers = layer < 0 ? report.layers.map((_, index) => index) : [Math.min(layer, report.layers.length - 1)];
  const sums = new Float64Array(maps[0][0][0].length);
  let calls = 0;
  for (const index of chosen) {
    calls += report.moments[index].calls;
    for (const at of layers) maps[index][at][picture].forEach((count, token) => { sums[token] += count; });
  }
  return sums.map((sum) => sum / (calls * layers.length));
}

function meanOverPictures(report, moment, layer) {
  const maps = report.pictures.map((_, picture) => meanMap(report, picture, moment, layer));
  return maps[0].map((_, token) => maps.reduce((sum, map) => sum + map[token], 0) / maps.length);
}

// The moment of a report that is nearest to time t; -1 (all moments) for null. Two runs may have different times.
function nearestMoment(report, t) {
  if (t === null) return -1;
  const distances = report.moments.map((moment) => Math.abs(moment.t - t));
  return distances.indexOf(Math.min(...distances));
}

// The highest count of any moment, so that all maps of a layer have one scale. Single outliers do not change it.
function highest(reports, layer) {
  const values = [];
  for (const report of reports) {
    report.moments.forEach((_, moment) =>
      report.pictures.forEach((_, picture) => values.push(...meanMap(report, picture, moment, layer))));
  }
  values.sort((one, other) => one - other);
  return Math.max(values[Math.floor(0.995 * (values.length - 1))], 1e-9);
}

// `grid` is [rows, columns], or one number for a square.
function paint(canvas, map, top, grid) {
  const [rows, columns = rows] = [grid].flat();
  canvas.width = columns;
  canvas.height = rows;
  const image = new ImageData(columns, rows);
  map.forEach((value, token) => image.data.set([...colour(value / top), 255], 4 * token));
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function tile(report, index, image) {
  const picture = report.pictures[index];
  const canvas = element("canvas", { className: "map" });
  const pair = element("div", { className: image ? "pair" : "pair alone" });
  if (image) {
    const large = image.side > 64 ? "large" : "";
    pair.append(element("img", { src: image.source, alt: picture.name || `seed ${picture.seed}`, className: large }));
  }
  pair.append(canvas);
  const value = element("b", { className: "mean" });
  const named = picture.name ? `${picture.name}, seed ${picture.seed}` : `seed ${picture.seed}`;
  const note = element("figcaption", {}, `${named}: `, value);
  return { canvas, value, node: element("figure", { className: "tile" }, pair, note) };
}

function averageTile() {
  const canvas = element("canvas", { className: "map" });
  const value = element("b", { className: "mean" });
  const note = element("figcaption", {}, "mean of all pictures: ", value);
  const pair = element("div", { className: "pair alone" }, canvas);
  return { canvas, value, node: element("figure", { className: "tile" }, pair, note) };
}

function buildGallery(reports, images, dots) {
  const gallery = document.getElementById("gallery");
  const painters = [];
  reports.forEach((report, run) => {
    if (reports.length > 1) {
      const name = element("span", {}, runName(report));
      gallery.append(element("h3", { className: "group" }, dots[run].cloneNode(), name));
    }
    const tiles = element("div", { className: "tiles" });
    report.pictures.forEach((_, index) => {
      const { canvas, value, node } = tile(report, index, images[run][index]);
      tiles.append(node);
      painters.push((t, layer, top) =>
        show(canvas, value, meanMap(report, index, nearestMoment(report, t), layer), top, report.run.grid));
    });
    const { canvas, value, node } = averageTile();
    tiles.append(node);
    painters.push((t, layer, top) =>
      show(canvas, value, meanOverPictures(report, nearestMoment(report, t), layer), top, report.run.grid));
    gallery.append(tiles);
  });
  return painters;
}

function show(canvas, value, map, top, grid) {
  paint(canvas, map, top, grid);
  value.textContent = (map.reduce((sum, count) => sum + count, 0) / map.length).toFixed(2);
}

function nameLayers(reports, select) {
  const deepest = reports.reduce((one, other) => (other.layers.length > one.layers.length ? other : one));
  select.append(element("option", { value: -1 }, "all layers"));
  deepest.layers.forEach((name, index) => select.append(element("option", { value: index }, name)));
}

function wireControls(reports, painters, onLayer) {
  const [slider, select, time, play] = ["moment", "layer", "time", "play"].map((id) => document.getElementById(id));
  const longest = reports.reduce((one, other) => (other.moments.length > one.moments.length ? other : one));
  slider.max = longest.moments.length;
  const tops = new Map();

  function update() {
    const layer = Number(select.value);
    const moment = Number(slider.value) - 1; // the first position of the slider is the mean over all times
    if (!tops.has(layer)) tops.set(layer, highest(reports, layer));
    const top = tops.get(layer);
    const t = moment < 0 ? null : longest.moments[moment].t;
    painters.forEach((painter) => painter(t, layer, top));
    time.textContent = t === null ? "all times" : `t = ${t.toFixed(3)}`;
    document.getElementById("low").textContent = "0";
    document.getElementById("high").textContent = `${top.toPrecision(3)} experts per token`;
  }

  let timer = null;
  play.onclick = () => {
    if (timer) { clearInterval(timer); timer = null; play.textContent = "▶ Play"; return; }
    play.textContent = "❚❚ Pause";
    timer = setInterval(() => {
      slider.value = Number(slider.value) < Number(slider.max) ? Number(slider.value) + 1 : 1;
      update();
    }, 220);
  };
  slider.oninput = update;
  select.onchange = () => { update(); onLayer(Number(select.value)); };
  const ramp = document.getElementById("ramp").getContext("2d");
  for (let x = 0; x < 256; x += 1) {
    ramp.fillStyle = `rgb(${colour(x / 255).map(Math.round).join(",")})`;
    ramp.fillRect(x, 0, 1, 1);
  }
  update();
}
