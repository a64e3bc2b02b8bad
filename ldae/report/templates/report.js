"use strict";
// Tables that can be copied and saved, charts with values to point at, volumes to walk through. Without scripts the page
// shows the same figures as plain pictures.

function cellsOf(table) {
  // Spreadsheets read a hyphen as a minus, and a minus as text.
  const plain = (text) => text.trim().replace(/\u2212(?=\d)/g, "-");
  return [...table.rows].map((row) => [...row.cells].map((cell) => plain(cell.textContent)));
}

function asCsv(rows) {
  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  return rows.map((row) => row.map(quoted).join(",")).join("\r\n") + "\r\n";
}

async function copyText(text, button) {
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Pages opened from a file have no clipboard in some browsers; a selected text field can still be copied.
    const field = document.createElement("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    done = document.execCommand("copy");
    field.remove();
  }
  const before = button.textContent;
  button.textContent = done ? "Copied" : "Select and copy by hand";
  setTimeout(() => { button.textContent = before; }, 1500);
}

function button(label, action) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = label;
  made.addEventListener("click", () => action(made));
  return made;
}

function equipTable(table) {
  const bar = document.createElement("div");
  bar.className = "tools";
  const name = table.dataset.name + ".csv";
  bar.append(
    button("Copy table", (self) => copyText(cellsOf(table).map((row) => row.join("\t")).join("\n"), self)),
    button("Save as CSV", () => {
      const link = document.createElement("a");
      // The mark in front lets spreadsheets read it as UTF-8.
      link.href = URL.createObjectURL(new Blob(["\ufeff", asCsv(cellsOf(table))], { type: "text/csv" }));
      link.download = name;
      link.click();
      URL.revokeObjectURL(link.href);
    }),
  );
  table.closest(".scroll").after(bar);
}

function equipListing(listing) {
  const bar = document.createElement("div");
  bar.className = "tools";
  bar.append(button("Copy", (self) => copyText(listing.querySelector("pre").textContent, self)));
  listing.append(bar);
}

function drawChart(place) {
  const chart = JSON.parse(place.querySelector("script").textContent);
  const still = place.querySelector("img");
  const canvas = document.createElement("div");
  canvas.className = "canvas";
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", still.alt);
  still.replaceWith(canvas);
  Plotly.newPlot(canvas, chart.data, chart.layout, {
    responsive: true,
    displaylogo: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d"],
    toImageButtonOptions: { format: "svg", filename: place.dataset.name },
  });
}

// --- Volumes ---------------------------------------------------------------------------------------------------------

const DARKER = { R: [247, 67, 5], G: [247, 147, 48], B: [247, 195, 97], A: [0, 190, 230], I: [0, 128, 255] };
const BRIGHTER = { R: [247, 214, 103], G: [247, 96, 0], B: [247, 77, 31], A: [0, 190, 230], I: [0, 128, 255] };

async function pane(canvas) {
  const view = new niivue.Niivue({
    isRadiologicalConvention: true,
    sagittalNoseLeft: true,
    backColor: [0, 0, 0, 1],
    crosshairColor: [1, 0.82, 0.4, 0.9],
    crosshairWidth: 0.7,
    crosshairWidthUnit: "mm",
    multiplanarShowRender: niivue.SHOW_RENDER.NEVER,
    multiplanarPadPixels: canvas.clientWidth > 600 ? 24 : 0, // the letters of neighbouring planes stay apart
    showAllOrientationMarkers: true,
    fontColor: [1, 1, 1, 1],
    fontMinPx: 15,
    loadingText: "",
    dragAndDropEnabled: false,
    logLevel: "error",
  });
  await view.attachToCanvas(canvas);
  view.addColormap("ldae-darker", DARKER);
  view.addColormap("ldae-brighter", BRIGHTER);
  view.setSliceType(view.sliceTypeMultiplanar);
  view.setMultiplanarLayout(niivue.MULTIPLANAR_TYPE.ROW);
  return view;
}

async function unpacked(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function loadLibrary(name) {
  const packed = document.getElementById(name);
  if (!packed) return;
  const script = document.createElement("script");
  script.textContent = new TextDecoder().decode(await unpacked(packed.textContent));
  packed.replaceWith(script);
}

// Volumes of a scan, each stored as its change since the one before (of steady steps, as the change of that), after a header.
async function unpackScan(base64, steady) {
  const bytes = await unpacked(base64), header = bytes.slice(0, 352);
  const count = new DataView(header.buffer).getInt16(48, true), size = (bytes.length - 352) / count;
  const frames = Array.from({ length: count }, (_, at) => bytes.subarray(352 + at * size, 352 + (at + 1) * size));
  for (const start of steady ? [3, 1] : [1]) {
    for (let at = start; at < count; at++) frames[at].forEach((each, i) => { frames[at][i] = each + frames[at - 1][i]; });
  }
  return { header, frames };
}

// One volume with that header; its voxels are filled in later. Signed ones hold differences.
async function emptyVolume(header, size, signed, options) {
  const file = new Uint8Array(352 + size * (signed ? 2 : 1)), view = new DataView(file.buffer);
  file.set(header);
  for (const [place, value] of [[40, 3], [48, 1], [70, signed ? 4 : 2], [72, signed ? 16 : 8]]) view.setInt16(place, value, true);
  const volume = await niivue.NVImage.loadFromFile({ file: new File([file], "volume.nii"), name: "volume.nii", ...options });
  return Object.assign(volume, { cal_min: options.cal_min, cal_max: options.cal_max }); // no range is found in empty voxels
}

async function openViewer(figure) {
  const facts = JSON.parse(figure.querySelector("script").textContent);
  const find = (selector) => figure.querySelector(selector);
  let frames = null; // null while a scan is opened
  let flickering = null;
  const failed = (error) => { find(".where").textContent = `The viewer failed: ${error.message}`; };
  const [left, right] = [await pane(find(".original canvas")), await pane(find(".synthetic canvas"))];
  const views = [left, right];
  left.broadcastTo([right], { "2d": true, "3d": false });
  right.broadcastTo([left], { "2d": true, "3d": false });
  const [scan, choice, overlay, blend, flicker] =
    ["select.scan", ".choice", "input.overlay", "input.blend", "input.flicker"].map(find);
  const told = (number) => number.toFixed(3).replace(/^-(0\.0+)$/, "$1"); // no minus before a zero
  const read = () => {
    if (!frames) return;
    const mm = left.frac2mm(left.scene.crosshairPos), [, nx, ny] = left.volumes[0].hdr.dims;
    const [i, j, k] = left.volumes[0].mm2vox(mm.slice(0, 3));
    const value = (frame) => frames[frame][i + nx * (j + ny * k)] / 254;
    const [x, y, z] = [mm[0], mm[1], mm[2]].map((each) => each.toFixed(0));
    const frame = Number(choice.value) + 1;
    find(".where").textContent =
      `At ${x}, ${y}, ${z} mm (right, anterior, superior): original ${told(value(0))}, ` +
      `synthetic ${told(value(frame))}, ${facts.change} ${told(value(frame) - value(facts.reference))}`;
  };
  const show = () => {
    if (!frames) return; // a scan is being opened, and will be shown then
    const frame = Number(choice.value), chosen = facts.scans[Number(scan.value)], share = Number(blend.value);
    const [grey, change] = right.volumes, [original, made, reference] = [frames[0], frames[frame + 1], frames[facts.reference]];
    for (let i = 0; i < made.length; i++) {
      grey.img[i] = Math.round(share * made[i] + (1 - share) * original[i]);
      change.img[i] = made[i] - reference[i];
    }
    right.setOpacity(1, overlay.checked ? 1 : 0);
    right.updateGLVolume();
    find(".kind").textContent = share === 1 ? "SYNTHETIC" : share === 0 ? "ORIGINAL" : `${Math.round(100 * share)} % SYNTHETIC`;
    find(".chosen").textContent = share === 0 ? "" : chosen.captions[frame];
    choice.setAttribute("aria-valuetext", chosen.captions[frame]);
    read();
  };
  const load = async () => {
    frames = null;
    const scanned = await unpackScan(facts.scans[Number(scan.value)].frames, facts.slider), size = scanned.frames[0].length;
    const former = views.map((view) => [...view.volumes]);
    const grey = { colormap: "gray", cal_min: 0, cal_max: 1 };
    const original = await emptyVolume(scanned.header, size, false, grey);
    original.img.set(scanned.frames[0]);
    left.addVolume(original);
    right.addVolume(await emptyVolume(scanned.header, size, false, grey));
    right.addVolume(await emptyVolume(scanned.header, size, true, {
      colormap: "ldae-brighter", colormapNegative: "ldae-darker", cal_min: facts.limit / 10, cal_max: facts.limit,
    }));
    // The former go last: a view without any volume has no place to report.
    views.forEach((view, index) => former[index].forEach((volume) => view.removeVolume(volume)));
    frames = scanned.frames;
    show();
  };
  // One scan is opened at a time: a quick hand would otherwise mix the volumes of several.
  let opening = load();
  scan.addEventListener("change", () => { opening = opening.then(load).catch(failed); });
  for (const control of [choice, blend]) control.addEventListener("input", show);
  overlay.addEventListener("change", show);
  flicker.addEventListener("change", () => {
    clearInterval(flickering);
    blend.value = 1;
    if (flicker.checked) flickering = setInterval(() => { blend.value = 1 - Math.round(blend.value); show(); }, 700);
    show();
  });
  find("select.plane").addEventListener("change", ({ target }) => {
    const mosaic = target.value === "mosaic";
    for (const view of views) {
      view.setSliceMosaicString(mosaic ? "A L+ -30 -10 10 30 50; C L+ -60 -40 -20 0 20" : "");
      if (!mosaic) view.setSliceType(Number(target.value));
    }
  });
  stepByHand(find(".panes"), views, { f: flicker, d: overlay });
  left.onLocationChange = read;
  right.onLocationChange = read;
  if (innerWidth < 700) { // three planes side by side are too small there
    find("select.plane").value = "0";
    views.forEach((view) => view.setSliceType(0));
  }
  await opening;
  figure.classList.add("ready");
}

const STEPS = {
  ArrowLeft: [1, 0, 0], ArrowRight: [-1, 0, 0], ArrowUp: [0, 0, 1], ArrowDown: [0, 0, -1], PageUp: [0, 1, 0], PageDown: [0, -1, 0],
};

// The wheel and a finger belong to the page until a scan is clicked, and again when the hand goes elsewhere.
function stepByHand(panes, views, switches) {
  let held = false;
  for (const kind of ["wheel", "touchstart", "touchmove", "touchend"]) {
    panes.addEventListener(kind, (event) => { if (!held) event.stopPropagation(); }, { capture: true, passive: true });
  }
  panes.addEventListener("click", () => { held = true; });
  panes.addEventListener("mouseleave", () => { held = false; });
  document.addEventListener("pointerdown", (event) => { if (!panes.contains(event.target)) held = false; });
  panes.addEventListener("keydown", (event) => {
    const step = STEPS[event.key], toggle = switches[event.key.toLowerCase()];
    if (event.key !== "Tab") event.stopPropagation();
    if (step) for (const view of views) view.moveCrosshairInVox(...step);
    if (toggle) toggle.click();
    if (step || toggle) event.preventDefault();
  }, { capture: true });
}

function watchViewer(figure) {
  if (!document.createElement("canvas").getContext("webgl2")) {
    figure.querySelector(".stage").textContent = "This browser offers no WebGL 2, so volumes cannot be shown; the sections below can.";
    return;
  }
  // Browsers allow few drawing contexts: a viewer opens when it is scrolled to.
  const watch = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    watch.disconnect();
    openViewer(figure).catch((error) => {
      figure.querySelector(".where").textContent = `The viewer could not start: ${error.message}`;
    });
  }, { rootMargin: "200px" });
  watch.observe(figure);
}

document.querySelectorAll("main table").forEach(equipTable);
document.querySelectorAll("main details").forEach(equipListing);
if (innerWidth < 700) document.querySelector("nav details").open = false;
if (window.DecompressionStream) {
  document.documentElement.classList.add("scripted");
  loadLibrary("plotly").then(() => document.querySelectorAll(".chart").forEach(drawChart));
  loadLibrary("niivue").then(() => document.querySelectorAll(".viewer").forEach(watchViewer));
}
const folded = () => [...document.querySelectorAll("main details:not([open])")];
let opened = [];
window.addEventListener("beforeprint", () => { opened = folded(); opened.forEach((each) => { each.open = true; }); });
window.addEventListener("afterprint", () => { opened.forEach((each) => { each.open = false; }); });
