/* The viewer: unpacks NiiVue, lays the maps over the study, follows the controls. */
"use strict";

const WINDOWS = { lung: [-1350, 150], soft: [-160, 240] };
const find = (id) => document.getElementById(id);

function giveUp(reason) {
  document.body.classList.add("without-viewer");
  const line = find("missing");
  line.textContent = `The viewer cannot run here (${reason}); the picture below shows the slices with most evidence.`;
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

async function load(nv, { study, maps, peak }) {
  const add = async (base64, options) => {
    const volume = await niivue.NVImage.loadFromBase64({ base64, trustCalMinMax: true, colorbarVisible: false, ...options });
    if (options.opacity === 0) volume.colormapType = 1; /* fades out from cal_min to 0 */
    nv.addVolume(volume);
  };
  const [low, high] = WINDOWS.lung;
  await add(study, { name: "study.nii.gz", colormap: "gray", cal_min: low, cal_max: high });
  for (const [number, base64] of maps.entries()) {
    await add(base64, { name: `map${number}.nii.gz`, colormap: "inferno", cal_min: 0.45, cal_max: 1, opacity: 0 });
  }
  const [slice, row, column] = peak; /* from feet, front and the patient's right; NiiVue counts from left and back */
  nv.scene.crosshairPos = [1 - column, 1 - row, slice];
}

function connect(nv, count) {
  const [map, opacity, slice, place] = ["map", "opacity", "slice", "place"].map(find);
  const number = () => Math.round(nv.scene.crosshairPos[2] * count - 0.5);
  const tell = () => {
    slice.value = number() + 1;
    place.textContent = `${slice.value}/${count}`;
    slice.setAttribute("aria-valuetext", `slice ${slice.value} of ${count}`);
  };
  const overlay = () => {
    for (let k = 1; k < nv.volumes.length; k++) {
      nv.setOpacity(k, k - 1 === Number(map.value) ? opacity.value / 100 : 0);
    }
    opacity.setAttribute("aria-valuetext", `${opacity.value} %`);
  };
  const goTo = (wanted) => {
    nv.scene.crosshairPos = [nv.scene.crosshairPos[0], nv.scene.crosshairPos[1], (wanted + 0.5) / count];
    nv.drawScene();
    tell();
  };
  const chosen = (name) => document.querySelector(`input[name=${name}]:checked`).value;
  map.addEventListener("change", overlay);
  opacity.addEventListener("input", overlay);
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
  nv.onLocationChange = tell;
  tell();
  overlay();
}

async function start() {
  if (!document.createElement("canvas").getContext("webgl2")) return giveUp("this browser has no WebGL2");
  if (!("DecompressionStream" in window)) return giveUp("this browser cannot unpack it");
  try {
    await unpack("niivue-gzip");
    const nv = new niivue.Niivue({
      isRadiologicalConvention: true, backColor: [0, 0, 0, 1], crosshairWidth: 0.5, crosshairColor: [0.6, 0.7, 0.8, 0.6],
      dragAndDropEnabled: false, show3Dcrosshair: false, isOrientCube: false, logLevel: "error",
    });
    await nv.attachToCanvas(find("viewer"));
    await load(nv, JSON.parse(find("volumes").textContent));
    nv.setSliceType(nv.sliceTypeAxial);
    connect(nv, nv.volumes[0].dimsRAS[3]);
    window.viewer = nv;
    document.documentElement.dataset.drawn = "yes";
  } catch (error) {
    giveUp(error.message);
  }
}

start();
