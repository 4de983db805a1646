/* The plots, by plotly.js. Text and lines of the axes take their colours from the style sheet, so that they follow
   the reader's colour scheme and print; curves have Okabe & Ito's colours, which work on light and dark. */
"use strict";

const colors = {
  model: "#0072B2", point: "#D55E00", other: "#8a8f94",
  series: ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"],
};
const mostBands = 2; /* of ROC curves in one plot: more hide each other */
const dashes = ["solid", "dash", "dot", "dashdot"];

/* Unpack plotly.js from the page and run it. */
async function loadPlotly() {
  const packed = atob(document.getElementById("plotly-gzip").textContent.trim());
  const bytes = new Uint8Array(packed.length);
  for (let i = 0; i < packed.length; i++) bytes[i] = packed.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}

const axis = (title, range) => ({
  title: { text: title, standoff: 8 }, range, fixedrange: true, zeroline: false, automargin: true, nticks: 6,
});

/* Plotly takes tags in names for markup. */
const plain = (name) => name.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

const line = (curve, name, color, more = {}) => ({
  x: curve.x, y: curve.y, name: plain(name), mode: "lines", type: "scatter", line: { color, width: 2.2, ...more },
  hovertemplate: "%{x:.3f}, %{y:.3f}",
});

const dot = (name) => ({
  x: [null], y: [null], name, mode: "markers", type: "scatter",
  marker: { color: colors.point, size: 12, line: { color: "#fff", width: 1.5 } }, hovertemplate: "%{x:.3f}, %{y:.3f}",
});

const guide = (x, y, dash = "dash") => ({
  x, y, mode: "lines", type: "scatter", line: { color: colors.other, width: 1.3, dash }, hoverinfo: "skip",
  showlegend: false,
});

/* Draw traces into the element of an id; with a viewBox the SVG scales in print. */
function draw(id, traces, layout) {
  const element = document.getElementById(id);
  if (!element) return;
  const whole = {
    margin: { l: 52, r: 12, t: 6, b: 46 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12.5 }, dragmode: false, showlegend: false,
    hoverlabel: { bgcolor: "#22262a", bordercolor: "#22262a", font: { color: "#fff" } }, hovermode: "closest",
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, bgcolor: "rgba(0,0,0,0)" }, ...layout,
  };
  Plotly.newPlot(element, traces, whole, { displayModeBar: false, responsive: true });
  const scalable = () => element.querySelectorAll(".main-svg").forEach((svg) => {
    svg.setAttribute("viewBox", `0 0 ${element._fullLayout.width} ${element._fullLayout.height}`);
  });
  element.on("plotly_afterplot", scalable);
  scalable();
}

const shade = ({ band }, color) => ({
  x: band.x, y: band.y, mode: "lines", type: "scatter", fill: "toself", fillcolor: `${color}2b`, line: { width: 0 },
  hoverinfo: "skip", showlegend: false,
});

/* ROC and precision-recall of the first question; `moveDots` places their dots where there is a slider. */
function drawQuestionCurves(curve) {
  const unit = [-0.02, 1.02];
  draw("roc", [guide([0, 1], [0, 1]), line(curve.roc, `AUROC ${curve.auroc.toFixed(3)}`, colors.model), dot("threshold"), shade(curve, colors.model)], {
    xaxis: axis("1 − specificity", unit), yaxis: axis("Sensitivity", unit),
  });
  const stepped = line(curve.precision_recall, `AUPRC ${curve.auprc.toFixed(3)}`, colors.model, { shape: "hv" });
  draw("precision-recall", [guide([0, 1], [curve.prevalence, curve.prevalence]), stepped, dot("threshold")], {
    xaxis: axis("Sensitivity (recall)", unit), yaxis: axis("PPV (precision)", unit),
  });
}

function drawScores({ names, positive, score, threshold }) {
  const cut = { type: "line", x0: 0, x1: 0, y0: 0, y1: 1, yref: "paper", line: { color: colors.point, width: 2.5 } };
  const bars = ["0", "1"].map((answer, at) => ({
    x: score.filter((_, i) => positive[i] === answer), type: "histogram", name: plain(names[at]), xbins: { start: 0, end: 1.0001, size: 0.05 },
    marker: { color: [colors.series[4], colors.model][at] }, hovertemplate: "%{y} studies at %{x}",
  }));
  draw("scores", bars, {
    barmode: "stack", bargap: 0.08, showlegend: true, xaxis: axis("Predicted probability", [-0.02, 1.02]), yaxis: axis("Studies"),
    margin: { l: 52, r: 12, t: 28, b: 46 },
    shapes: threshold === null ? [] : [cut],
  });
}

function drawDecision({ threshold, model, treat_all: all, prevalence }) {
  const top = Math.max(prevalence, 0.05);
  draw("decision", [guide(threshold, all), guide([0, 1], [0, 0], "dot"), line({ x: threshold, y: model }, "model", colors.model), dot("threshold")], {
    xaxis: axis("Threshold probability", [-0.02, 1.02]), yaxis: axis("Net benefit", [-0.3 * top, 1.1 * top]),
  });
}

/* Before and after calibration side by side, or one above the other where there is little room. */
function drawReliability(bins) {
  const element = document.getElementById("reliability");
  if (!element) return;
  const across = element.clientWidth > 520, traces = [], layout = { barmode: "overlay", margin: { l: 52, r: 12, t: 24, b: 46 }, annotations: [] };
  if (!across) element.style.height = "38rem";
  for (const [at, [when, color]] of [["before", colors.point], ["after", colors.model]].entries()) {
    const of = bins[when].map((bin) => ({ ...bin, range: [bin.low, bin.high] })), [upper, lower] = [2 * at + 1, 2 * at + 2].map((number) => (number === 1 ? "" : number));
    const spread = (value, ends) => ({
      type: "data", symmetric: false, color, thickness: 1.3, width: 0, array: of.map((bin) => Math.max(0, bin[ends][1] - bin[value])),
      arrayminus: of.map((bin) => Math.max(0, bin[value] - bin[ends][0])),
    });
    const text = of.map((bin) => `${bin.low.toFixed(3)} to ${bin.high.toFixed(3)}: ${bin.count} studies<br>mean ${bin.mean_probability.toFixed(3)}, observed ${bin.observed.toFixed(3)}`);
    traces.push({ ...guide([0, 1], [0, 1]), xaxis: `x${upper}`, yaxis: `y${upper}` }, {
      x: of.map((bin) => bin.mean_probability), y: of.map((bin) => bin.observed), name: when, mode: "markers", type: "scatter",
      marker: { color, size: 7 }, text, hovertemplate: "%{text}<extra></extra>", xaxis: `x${upper}`, yaxis: `y${upper}`,
      error_x: spread("mean_probability", "range"), error_y: spread("observed", "interval"),
    }, {
      x: of.map((bin) => (bin.low + bin.high) / 2), y: of.map((bin) => bin.count), width: of.map((bin) => bin.high - bin.low), type: "bar", name: when,
      text, textposition: "none", hovertemplate: "%{text}<extra></extra>", xaxis: `x${lower}`, yaxis: `y${lower}`, marker: { color: `${color}4d`, line: { color, width: 1.3 } },
    });
    const columns = across ? [[0, 0.47], [0.53, 1]][at] : [0, 1];
    const rows = across ? [[0.3, 1], [0, 0.2]] : [[[0.68, 1], [0.56, 0.63]], [[0.12, 0.44], [0, 0.07]]][at];
    Object.assign(layout, {
      [`xaxis${upper}`]: { ...axis("", [-0.02, 1.02]), domain: columns, anchor: `y${upper}`, showticklabels: false },
      [`yaxis${upper}`]: { ...axis("Observed share", [-0.02, 1.02]), domain: rows[0], anchor: `x${upper}` },
      [`xaxis${lower}`]: { ...axis("Predicted probability", [-0.02, 1.02]), domain: columns, anchor: `y${lower}` },
      [`yaxis${lower}`]: { ...axis("Studies"), domain: rows[1], anchor: `x${lower}`, nticks: 3, rangemode: "tozero" },
    });
    layout.annotations.push({
      text: `${when[0].toUpperCase()}${when.slice(1)} calibration`, showarrow: false, x: columns[0], y: rows[0][1], xref: "paper", yref: "paper", xanchor: "left", yanchor: "bottom",
    });
  }
  draw("reliability", traces, layout);
}

/* The curves of every question of a task with several labels. */
function drawEvery(curves) {
  const style = (at) => [colors.series[at % 6], { dash: dashes[Math.floor(at / 6) % 4] }];
  const shades = curves.length > mostBands ? [] : curves.map((curve, at) => shade(curve, style(at)[0]));
  const unit = [-0.02, 1.02], many = { showlegend: true, margin: { l: 52, r: 12, t: 40, b: 46 } };
  draw("every-roc", [guide([0, 1], [0, 1]), ...curves.map((curve, at) => line(curve.roc, curve.name, ...style(at))), ...shades], {
    xaxis: axis("1 − specificity", unit), yaxis: axis("Sensitivity", unit), ...many,
  });
  const stepped = (curve, at) => {
    const [color, more] = style(at);
    return line(curve.precision_recall, curve.name, color, { ...more, shape: "hv" });
  };
  draw("every-precision-recall", curves.map(stepped), {
    xaxis: axis("Sensitivity (recall)", unit), yaxis: axis("PPV (precision)", unit), ...many,
    shapes: curves.map(({ prevalence: y }, at) => ({ type: "line", x0: 0, x1: 1, y0: y, y1: y, line: { color: style(at)[0], width: 1.3, dash: "dash" } })),
  });
}

/* Against the epoch, or the step where the steps of an epoch are not known. */
function drawLearning(learning, checkpoint, perEpoch) {
  const styles = { train: colors.other, validation: colors.model }, per = perEpoch || 1;
  const put = ({ x, y }) => ({
    x: x.map((step) => step / per), y, customdata: x, hovertemplate: `${perEpoch ? "step %{customdata}: " : ""}%{y:.4~g}`,
  });
  for (const [name, title] of [["loss", learning.mae ? "Loss" : "Loss (nats)"], ["auroc", "AUROC"], ["mae", "Mean absolute error"], ["learning_rate", "Learning rate"]]) {
    const of = learning[name] || {};
    const traces = Object.keys(styles).filter((split) => of[split]).map((split) => ({
      ...line(of[split], split, styles[split]), mode: of[split].x.length < 40 ? "lines+markers" : "lines", ...put(of[split]),
    }));
    const at = ["auroc", "mae"].includes(name) && of.validation ? of.validation.x.indexOf(checkpoint) : -1;
    if (at >= 0) traces.push({ ...dot(`step ${checkpoint}`), ...put({ x: [checkpoint], y: [of.validation.y[at]] }) });
    draw(`learning-${name}`, traces, {
      xaxis: { ...axis(perEpoch ? "Epoch" : "Step"), fixedrange: false, hoverformat: ".4~g" }, yaxis: axis(title), showlegend: true, hovermode: "x unified",
      dragmode: matchMedia("(pointer: fine)").matches ? "zoom" : false,
      margin: { l: 52, r: 12, t: 28, b: 46 }, hoverlabel: { bgcolor: "#22262a", font: { color: "#fff" } },
    });
  }
}

function drawAll({ explorer, curves, decision, reliability, learning, checkpoint, steps_per_epoch: perEpoch }) {
  if (explorer && curves.length) drawQuestionCurves(curves[0]);
  if (explorer) drawScores(explorer);
  if (explorer && decision) drawDecision(decision);
  if (reliability) drawReliability(reliability);
  drawEvery(curves);
  drawLearning(learning, checkpoint, perEpoch);
}

/* Move the dots of the curves, and the line through the scores, to an operating point. */
function moveDots(row, threshold) {
  const put = (id, at, x, y) => {
    const element = document.getElementById(id);
    if (element && element.data) Plotly.restyle(element, { x: [[x]], y: [[y]] }, [at]);
  };
  put("roc", 2, row.specificity === null ? null : 1 - row.specificity, row.sensitivity);
  put("precision-recall", 2, row.sensitivity, row.ppv);
  put("decision", 3, threshold, operating.netBenefit(row, threshold));
  const scores = document.getElementById("scores");
  if (scores && scores.data) Plotly.relayout(scores, { "shapes[0].x0": threshold, "shapes[0].x1": threshold });
}
