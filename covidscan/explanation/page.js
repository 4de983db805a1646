/* Viewer: unpacks NiiVue, shows the maps over the study, responds to the controls. */
"use strict";

const WINDOWS = { lung: [-1350, 150], soft: [-160, 240] };
const find = (id) => document.getElementById(id);

function giveUp(reason) {
  document.body.classList.add("without-viewer");
  const line = find("unavailable");
  line.textContent = `The viewer cannot run here (${reason}); the picture below shows the slices with the highest Grad-CAM in the lungs.`;
  line.hidden = false;
  document.documentElement.dataset.drawn = "no";
}

async function unpack(id) {
  const bytes = Uint8Array.from(atob(find(id).textContent.trim()), (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}

async function add(nv, base64, options) {
  const volume = await niivue.NVImage.loadFromBase64({ base64, trustCalMinMax: true, colorbarVisible: false, ...options });
  if (options.opacity !== undefined) volume.colormapType = 1; /* transparent towards 0, from cal_min down */
  nv.addVolume(volume);
}

async function showStudy(nv, { study, peak }) {
  const [low, high] = WINDOWS.lung;
  await add(nv, study, { name: "study.nii.gz", colormap: "gray", cal_min: low, cal_max: high });
  const [slice, row, column] = peak; /* from feet, front and right; NiiVue counts from left and back */
  nv.scene.crosshairPos = [1 - column, 1 - row, slice];
}

/* One map at a time: each takes as much memory as the study. */
async function showMap(nv, base64, opacity) {
  if (nv.volumes.length > 1) nv.removeVolumeByIndex(1);
  await add(nv, base64, { name: "map.nii.gz", colormap: "inferno", cal_min: 0.3, cal_max: 1, opacity });
}

async function connect(nv, { maps }) {
  const count = nv.volumes[0].dimsRAS[3];
  const [map, opacity, slice, position] = ["map", "opacity", "slice", "position"].map(find);
  const number = () => Math.round(nv.scene.crosshairPos[2] * count - 0.5);
  const update = () => {
    slice.value = number() + 1;
    position.textContent = `${slice.value}/${count}`;
    slice.setAttribute("aria-valuetext", `slice ${slice.value} of ${count}`);
  };
  let shown = Promise.resolve();
  const show = () => (shown = shown.then(() => showMap(nv, maps[map.value], opacity.value / 100)).then(fade));
  const fade = () => {
    if (nv.volumes.length > 1) nv.setOpacity(1, opacity.value / 100); /* not while another map is loading */
    opacity.setAttribute("aria-valuetext", `${opacity.value} %`);
  };
  const goTo = (wanted) => {
    nv.scene.crosshairPos = [nv.scene.crosshairPos[0], nv.scene.crosshairPos[1], (wanted + 0.5) / count];
    nv.drawScene();
    update();
  };
  const chosen = (name) => document.querySelector(`input[name=${name}]:checked`).value;
  map.addEventListener("change", show);
  opacity.addEventListener("input", fade);
  slice.addEventListener("input", () => goTo(slice.valueAsNumber - 1));
  find("controls").addEventListener("submit", (event) => event.preventDefault());
  find("controls").addEventListener("change", (event) => {
    if (event.target.name === "window") {
      [nv.volumes[0].cal_min, nv.volumes[0].cal_max] = WINDOWS[chosen("window")];
      nv.updateGLVolume();
    } else if (event.target.name === "view") {
      nv.setSliceType(chosen("view") === "axial" ? nv.sliceTypeAxial : nv.sliceTypeMultiplanar);
    }
  });
  nv.onLocationChange = update;
  update();
  await show();
}

async function start() {
  if (!document.createElement("canvas").getContext("webgl2")) return giveUp("this browser has no WebGL2");
  if (!("DecompressionStream" in window)) return giveUp("this browser has no DecompressionStream");
  try {
    await unpack("niivue-gzip");
    const nv = new niivue.Niivue({
      isRadiologicalConvention: true, backColor: [0, 0, 0, 1], crosshairWidth: 0.5, crosshairColor: [0.6, 0.7, 0.8, 0.6],
      dragAndDropEnabled: false, show3Dcrosshair: false, isOrientCube: false, logLevel: "error",
    });
    await nv.attachToCanvas(find("viewer"));
    nv.setSliceType(nv.sliceTypeAxial);
    const volumes = JSON.parse(find("volumes").textContent);
    await showStudy(nv, volumes);
    await connect(nv, volumes);
    document.documentElement.dataset.drawn = "yes";
  } catch (error) {
    giveUp(error.message);
  }
}

start();
