/* The page: read its data, draw the plots, follow the threshold slider. */
"use strict";

const written = (value) => (value === null ? "not defined" : value.toFixed(3));

function startSlider({ names, table, threshold: frozen, prevalence: own }) {
  const find = (id) => document.getElementById(id);
  const [slider, exact, percent, announced] = ["threshold-slider", "threshold-exact", "prevalence", "announced"].map(find);
  const state = { threshold: frozen, prevalence: own };
  let waiting = 0, drawing = 0;

  function announce(metrics) {
    const where = state.threshold === frozen ? "At the frozen threshold" : "At a threshold of";
    const of = state.prevalence === own ? ", the studies’ own" : "";
    announced.textContent = `${where} ${Number(state.threshold.toPrecision(4))} and a prevalence of `
      + `${(100 * state.prevalence).toFixed(1)} %${of}: sensitivity ${written(metrics.sensitivity)}, specificity `
      + `${written(metrics.specificity)}, PPV ${written(metrics.ppv)}, NPV ${written(metrics.npv)}.`;
  }

  function update() {
    const row = operating.at(table, state.threshold);
    const metrics = { ...row, ...operating.predictiveValues(row, state.prevalence) };
    for (const cell of document.querySelectorAll("[data-live]")) {
      const name = cell.dataset.live;
      const value = metrics[name];
      if (["tp", "fp", "fn", "tn"].includes(name)) cell.textContent = value;
      else if (name.endsWith("-interval")) cell.textContent = value ? `${written(value[0])} to ${written(value[1])}` : "";
      else cell.textContent = written(value);
    }
    slider.setAttribute("aria-valuetext", `${Number(state.threshold.toPrecision(4))}, predicted ${names[1]} from here`);
    clearTimeout(waiting); /* a screen reader reads where the slider stops, not each step */
    waiting = setTimeout(announce, 300, metrics);
    cancelAnimationFrame(drawing);
    drawing = requestAnimationFrame(() => moveDots(row, state.threshold));
  }

  function read(input, low, high) {
    const value = input.valueAsNumber;
    const right = value >= low && value <= high; /* false for NaN */
    input.setAttribute("aria-invalid", String(!right));
    return right ? value : null;
  }

  slider.addEventListener("input", () => {
    state.threshold = slider.valueAsNumber;
    exact.value = slider.value;
    exact.removeAttribute("aria-invalid");
    update();
  });
  exact.addEventListener("input", () => {
    state.threshold = read(exact, 0, 1) ?? state.threshold;
    slider.value = state.threshold;
    update();
  });
  percent.addEventListener("input", () => {
    const value = read(percent, 0, 100);
    state.prevalence = value === null ? state.prevalence : value / 100;
    update();
  });
  find("explorer-form").addEventListener("reset", () => {
    Object.assign(state, { threshold: frozen, prevalence: own });
    for (const input of [exact, percent]) input.removeAttribute("aria-invalid");
    update();
  });
  find("explorer-form").addEventListener("submit", (event) => event.preventDefault());
  update();
  return update;
}

async function start() {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  startViewers();
  const { explorer } = data; /* no threshold: each fold has its own, and there is no slider */
  const update = explorer && explorer.threshold !== null ? startSlider(explorer) : () => {};
  for (const link of document.querySelectorAll("a.save")) link.href = link.parentElement.querySelector("img").src;
  await loadPlotly();
  const page = document.documentElement;
  page.dataset.drawn = "no"; /* plots need room to be drawn in, and replace the drawings */
  try {
    drawAll(data);
  } catch (error) {
    delete page.dataset.drawn;
    throw error;
  }
  update();
  page.dataset.drawn = "yes";
}

start();
