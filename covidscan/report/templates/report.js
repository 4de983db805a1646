/* The page at work: reads its data, draws, and follows the threshold slider. */
"use strict";

const written = (value) => (value === null ? "not defined" : value.toFixed(3));

function startSlider({ names, yes, score, threshold: frozen, prevalence: own }) {
  const find = (id) => document.getElementById(id);
  const [slider, exact, percent, said] = ["threshold-slider", "threshold-exact", "prevalence", "said"].map(find);
  const state = { threshold: frozen, prevalence: own };
  let waiting = 0, drawing = 0;

  function say(figures) {
    const where = state.threshold === frozen ? "At the frozen threshold" : "At a threshold of";
    const of = state.prevalence === own ? ", the studies’ own" : "";
    said.textContent = `${where} ${Number(state.threshold.toPrecision(4))} and a prevalence of `
      + `${(100 * state.prevalence).toFixed(1)} %${of}: sensitivity ${written(figures.sensitivity)}, specificity `
      + `${written(figures.specificity)}, PPV ${written(figures.ppv)}, NPV ${written(figures.npv)}.`;
  }

  function update() {
    const counts = operating.counts(yes, score, state.threshold);
    const figures = operating.figures(counts, state.prevalence);
    for (const cell of document.querySelectorAll("[data-live]")) {
      const name = cell.dataset.live;
      const value = name in counts ? counts[name] : figures[name];
      if (name in counts) cell.textContent = value;
      else if (name.endsWith("-interval")) cell.textContent = value ? `${written(value[0])} to ${written(value[1])}` : "";
      else cell.textContent = written(value);
    }
    slider.setAttribute("aria-valuetext", `${Number(state.threshold.toPrecision(4))}, called ${names[1]} from here`);
    clearTimeout(waiting); /* a screen reader hears where the slider stops, not each place on its way */
    waiting = setTimeout(say, 300, figures);
    cancelAnimationFrame(drawing);
    drawing = requestAnimationFrame(() => moveDots(figures, counts, state.threshold));
  }

  function read(input, low, high) {
    const value = input.valueAsNumber;
    const right = value >= low && value <= high; /* false of what is not a number */
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
  const { asked } = data; /* without a threshold each fold has its own: nothing can be moved */
  const update = asked && asked.threshold !== null ? startSlider(asked) : () => {};
  await loadPlotly();
  drawAll(data);
  update();
  document.documentElement.dataset.drawn = "yes";
}

start();
