/* The slice viewer: a range input moves the sheet of slices behind its window. */
"use strict";

function startViewers() {
  for (const viewer of document.querySelectorAll(".viewer")) {
    const { count, columns } = viewer.dataset;
    const slider = viewer.querySelector("input"), sheets = viewer.querySelectorAll("img");
    const place = viewer.querySelector(".place");
    const show = () => {
      const number = Number(slider.value) - 1;
      for (const { style } of sheets) {
        style.left = `${-100 * (number % columns)}%`;
        style.top = `${-100 * Math.floor(number / columns)}%`;
      }
      place.textContent = `${number + 1}/${count}`;
      slider.setAttribute("aria-valuetext", `slice ${number + 1} of ${count}`);
    };
    slider.addEventListener("input", show);
    /* A tap on the picture gives it the arrow keys. */
    sheets[0].addEventListener("click", () => slider.focus());
    show();
  }
}
