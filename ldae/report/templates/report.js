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

async function place(view, base64, options) {
  view.addVolume(await niivue.NVImage.loadFromBase64({ base64, name: "volume.nii.gz", ...options }));
}

async function openViewer(figure) {
  const facts = JSON.parse(figure.querySelector("script").textContent);
  const find = (selector) => figure.querySelector(selector);
  let busy = true;
  const failed = (error) => { find(".where").textContent = `The viewer failed: ${error.message}`; };
  const [left, right] = [await pane(find(".original canvas")), await pane(find(".synthetic canvas"))];
  left.broadcastTo([right], { "2d": true, "3d": false });
  right.broadcastTo([left], { "2d": true, "3d": false });
  const scan = find("select.scan"), choice = find(".choice"), overlay = find("input.overlay");
  const value = (view, index) => {
    const volume = view.volumes[index];
    const at = volume.mm2vox(view.frac2mm(view.scene.crosshairPos).slice(0, 3));
    return volume.getValue(at[0], at[1], at[2], volume.frame4D);
  };
  const told = (number) => number.toFixed(3).replace(/^-(0\.0+)$/, "$1"); // no minus before a zero
  const read = () => {
    if (busy) return;
    const mm = left.frac2mm(left.scene.crosshairPos);
    const [x, y, z] = [mm[0], mm[1], mm[2]].map((each) => each.toFixed(0));
    find(".where").textContent =
      `At ${x}, ${y}, ${z} mm (right, anterior, superior): original ${told(value(left, 0))}, ` +
      `synthetic ${told(value(right, 0))}, ${facts.change} ${told(value(right, 1))}`;
  };
  const show = () => {
    if (busy) return; // a scan is being opened, and will be shown then
    const frame = Number(choice.value), chosen = facts.scans[Number(scan.value)];
    for (const volume of right.volumes) right.setFrame4D(volume.id, frame);
    right.setOpacity(1, overlay.checked ? 1 : 0);
    find(".chosen").textContent = chosen.captions[frame];
    choice.setAttribute("aria-valuetext", chosen.captions[frame]);
    read();
  };
  const load = async () => {
    busy = true;
    const chosen = facts.scans[Number(scan.value)];
    const former = [left, right].map((view) => [...view.volumes]);
    const grey = { colormap: "gray", cal_min: 0, cal_max: 1, trustCalMinMax: false };
    await place(left, chosen.original, grey);
    await place(right, chosen.synthetic, grey);
    await place(right, chosen.change, {
      colormap: "ldae-brighter", colormapNegative: "ldae-darker", cal_min: facts.limit / 10, cal_max: facts.limit,
    });
    // The former go last: a view without any volume has no place to report.
    [left, right].forEach((view, index) => former[index].forEach((volume) => view.removeVolume(volume)));
    busy = false;
    show();
  };
  // One scan is opened at a time: a quick hand would otherwise mix the volumes of several.
  let opening = load();
  scan.addEventListener("change", () => { opening = opening.then(load).catch(failed); });
  choice.addEventListener("input", show);
  overlay.addEventListener("change", show);
  find("select.plane").addEventListener("change", (event) => {
    for (const view of [left, right]) view.setSliceType(Number(event.target.value));
  });
  left.onLocationChange = read;
  right.onLocationChange = read;
  await opening;
  figure.classList.add("ready");
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

document.documentElement.classList.add("scripted");
document.querySelectorAll("main table").forEach(equipTable);
document.querySelectorAll("main details").forEach(equipListing);
document.querySelectorAll(".chart").forEach(drawChart);
document.querySelectorAll(".viewer").forEach(watchViewer);
const folded = () => [...document.querySelectorAll("details:not([open])")];
let opened = [];
window.addEventListener("beforeprint", () => { opened = folded(); opened.forEach((each) => { each.open = true; }); });
window.addEventListener("afterprint", () => { opened.forEach((each) => { each.open = false; }); });
