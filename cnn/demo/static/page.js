"use strict";

const by = id => document.getElementById(id);
const canvas = by("canvas"), pen = by("pen"), ink = canvas.getContext("2d");

const LONGEST = 320;       // pixels of the drawing
const STROKE = 1 / 13;     // of its shorter side: the width of the pen
const STEPS = 28;          // of the pen across the shorter side, by keyboard

let about = null;
let picture = { kind: "drawing" };   // or { kind: "file", file }, { kind: "test", number }
let place = null;                    // of the pen: { x, y, down }
let stroke = null;                   // the pointer that draws: { id, x, y }

// What is asked. One request is under way at a time, and the newest picture is always answered.
let version = 0;                     // of the picture
const answered = { look: -1, saliency: -1, occlusion: -1, filters: -1 };
let busy = false;

function changed() {
  version += 1;
  work();
}

function next() {
  if (answered.look < version) return "look";
  if (by("filters").open && answered.filters < 0) return "filters";
  return ["saliency", "occlusion"].find(each => by(each).open && answered[each] < version);
}

async function work() {
  if (busy || !about) return;
  busy = true;
  try {
    for (let what = next(); what; what = next()) {
      answered[what] = version;
      show[what](await ask(what));
    }
  } finally {
    busy = false;
  }
  by("spoken").textContent = by("best").dataset.spoken ?? "";
}

async function ask(what) {
  if (picture.file?.size > about?.most) {
    return { message: `${picture.file.name}: the file is too large: expected at most ${about.most.toLocaleString("en")} bytes` };
  }
  try {
    const response = await fetch(...await request(what));
    const answer = await response.json();
    return response.ok ? answer : { message: answer.error };
  } catch {
    return { message: "The server does not answer: start cnn demo again, and open the address that it prints." };
  }
}

async function request(what) {
  if (what === "about" || what === "filters") return [what];
  if (picture.kind === "test") return [`${what}?test=${picture.number}`, { method: "POST" }];
  if (picture.kind === "file") {
    return [`${what}?name=${encodeURIComponent(picture.file.name)}`, { method: "POST", body: picture.file }];
  }
  const body = await new Promise(resolve => canvas.toBlob(resolve, "image/png"));
  return [`${what}?drawn=1&name=drawing`, { method: "POST", body }];
}

// Answers

const show = {
  look(answer) {
    by("best").classList.toggle("message", Boolean(answer.message));
    by("input").hidden = by("why").hidden = by("activations").hidden = Boolean(answer.message);
    by("bars").replaceChildren(...(answer.top ?? []).map(bar));
    by("others").textContent = answer.others ? `and ${answer.others.toLocaleString("en")} other classes` : "";
    if (answer.message) {
      by("best").textContent = by("best").dataset.spoken = answer.message;
      by("best").classList.remove("long");
      by("truth").textContent = "";
      return;
    }
    const [{ name, text }] = answer.top;
    by("best").textContent = name;
    by("best").classList.toggle("long", name.length > 12);
    by("best").dataset.spoken = `${name}, ${text}`;
    by("truth").textContent = answer.truth && (answer.truth === name ? "right, as labelled" : `wrong: labelled ${answer.truth}`);
    by("input-picture").src = answer.input.src;
    const shown = by("shown");
    if (picture.kind === "test" || (shown.complete && !shown.naturalWidth)) shown.src = answer.input.src;
    by("input-picture").alt = `Input of the network, ${answer.input.caption}`;
    by("input-caption").textContent = answer.input.caption;
    showSheets(by("layers"), answer.layers);
    for (const each of ["saliency", "occlusion"]) by(each).classList.toggle("stale", answered[each] < version);
  },
  saliency: answer => showMap("saliency", answer),
  occlusion: answer => showMap("occlusion", answer),
  filters(answer) {
    by("filters").querySelector("p").textContent = answer.message;
    showSheets(by("filters").querySelector(".columns"), answer.layers ?? []);
  },
};

function bar({ name, share, text }) {
  const item = document.createElement("li");
  const label = document.createElement("span");
  const number = document.createElement("span");
  const progress = document.createElement("progress");
  label.textContent = name;
  number.textContent = text;
  number.className = "share";
  progress.max = 1;
  progress.value = share;
  progress.setAttribute("aria-hidden", "true");
  item.append(label, number, progress);
  return item;
}

function showMap(what, answer) {
  const [image, caption] = by(what).querySelectorAll("img, figcaption");
  by(what).classList.remove("stale");
  image.hidden = !answer.src;
  if (answer.src) image.src = answer.src;
  caption.textContent = answer.caption ?? answer.message;
}

function showSheets(place, sheets) {
  while (place.children.length > sheets.length) place.lastChild.remove();
  sheets.forEach(({ title, src, caption }, number) => {
    const figure = place.children[number] ?? place.appendChild(emptySheet());
    const [heading, image, text] = figure.children;
    heading.textContent = title;
    image.src = src;
    image.alt = `${title}: ${caption}`;
    text.textContent = caption;
  });
}

function emptySheet() {
  const figure = document.createElement("figure");
  const image = document.createElement("img");
  image.className = "sheet";
  figure.append(document.createElement("h3"), image, document.createElement("figcaption"));
  return figure;
}

// Drawing

function clear() {
  ink.fillStyle = about.dark ? "#000" : "#fff";
  ink.fillRect(0, 0, canvas.width, canvas.height);
  lift();
  choose({ kind: "drawing" });
}

function lift() {
  stroke = null;
  if (place) place.down = false;
  pen.classList.remove("down");
}

function line(from, to) {
  ink.strokeStyle = about.colour ? by("colour").value : about.dark ? "#fff" : "#000";
  ink.lineWidth = STROKE * Math.min(canvas.width, canvas.height);
  ink.lineCap = ink.lineJoin = "round";
  ink.beginPath();
  ink.moveTo(from.x, from.y);
  ink.lineTo(to.x, to.y);
  ink.stroke();
  changed();
}

function where(event) {
  const box = canvas.getBoundingClientRect();
  return {
    x: (event.clientX - box.left) * canvas.width / box.width,
    y: (event.clientY - box.top) * canvas.height / box.height,
  };
}

canvas.addEventListener("pointerdown", event => {
  if (!about || stroke || event.button) return;
  canvas.setPointerCapture(event.pointerId);
  pen.hidden = true;
  stroke = { id: event.pointerId, ...where(event) };
  line(stroke, stroke);
});

canvas.addEventListener("pointermove", event => {
  if (stroke?.id !== event.pointerId) return;
  const moves = event.getCoalescedEvents?.() ?? [];
  for (const each of moves.length ? moves : [event]) {
    const to = where(each);
    line(stroke, to);
    Object.assign(stroke, to);
  }
});

for (const kind of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(kind, event => {
    if (stroke?.id === event.pointerId) stroke = null;
  });
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

canvas.addEventListener("keydown", event => {
  if (!about || event.ctrlKey || event.metaKey || event.altKey) return;
  if (["Delete", "Backspace"].includes(event.key)) {
    clear();
  } else if (event.key in ARROWS || event.key === " ") {
    place ??= { x: canvas.width / 2, y: canvas.height / 4, down: false };
    const from = { ...place };
    if (event.key === " ") {
      place.down = !place.down;
    } else {
      const step = Math.min(canvas.width, canvas.height) / STEPS, [right, below] = ARROWS[event.key];
      place.x = Math.min(Math.max(place.x + right * step, 0), canvas.width);
      place.y = Math.min(Math.max(place.y + below * step, 0), canvas.height);
    }
    if (place.down) line(from, place);
    showPen();
  } else {
    return;
  }
  event.preventDefault();
  event.stopPropagation();
});

function showPen() {
  pen.hidden = false;
  pen.classList.toggle("down", place.down);
  pen.style.left = `${100 * place.x / canvas.width}%`;
  pen.style.top = `${100 * place.y / canvas.height}%`;
}

canvas.addEventListener("focus", () => {
  if (about && canvas.matches(":focus-visible")) {
    place ??= { x: canvas.width / 2, y: canvas.height / 4, down: false };
    showPen();
  }
});

canvas.addEventListener("blur", () => {
  lift();
  pen.hidden = true;
});

by("clear").addEventListener("click", clear);

// Pictures and test images

function choose(chosen) {
  const image = by("shown");
  if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
  picture = chosen;
  canvas.hidden = chosen.kind !== "drawing";
  image.hidden = !canvas.hidden;
  pen.hidden = true;
  image.classList.toggle("smooth", chosen.kind === "file");
  if (chosen.kind === "file") {
    image.src = URL.createObjectURL(chosen.file);
    image.alt = chosen.file.name;
  } else if (chosen.kind === "test") {
    image.alt = `Test image ${chosen.number + 1}`;
  }
  by("colour").hidden = chosen.kind !== "drawing" || !about.colour;
  by("clear").textContent = chosen.kind === "drawing" ? "Clear" : "Draw";
  changed();
}

by("shown").addEventListener("error", event => event.target.removeAttribute("src"));   // leaves the name

function open(files) {
  if (about && files?.length) choose({ kind: "file", file: files[0] });
}

by("file").addEventListener("change", event => {
  open(event.target.files);
  event.target.value = "";   // so that the same file can be chosen again
});

document.addEventListener("paste", event => open(event.clipboardData?.files));

document.addEventListener("dragover", event => {
  event.preventDefault();
  document.body.classList.add("dropping");
});

document.addEventListener("dragleave", event => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});

document.addEventListener("drop", event => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  open(event.dataTransfer.files);
});

function chooseTest(number) {
  if (!about?.tests) return;
  const count = about.tests;
  by("number").value = ((number % count) + count) % count + 1;
  choose({ kind: "test", number: by("number").valueAsNumber - 1 });
}

const step = by_ => chooseTest(picture.kind === "test" ? picture.number + by_ : (by("number").valueAsNumber || 1) - 1);

by("previous").addEventListener("click", () => step(-1));
by("next").addEventListener("click", () => step(1));
by("random").addEventListener("click", () => chooseTest(Math.floor(Math.random() * about.tests)));
by("number").addEventListener("input", event => {
  const number = event.target.valueAsNumber;
  if (Number.isInteger(number) && number >= 1 && number <= about.tests) chooseTest(number - 1);
});

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
  const inside = event.target === document.body || by("tests").contains(event.target);
  if (!inside || event.target === by("number") || !["ArrowLeft", "ArrowRight"].includes(event.key)) return;
  step(event.key === "ArrowLeft" ? -1 : 1);
  event.preventDefault();
});

for (const each of ["saliency", "occlusion", "filters"]) by(each).addEventListener("toggle", work);

// The beginning

async function start() {
  const found = await ask("about");
  if (found.message) return show.look(found);
  about = found;
  document.title = `${about.title}: cnn demo`;
  by("title").textContent = about.title;
  by("subtitle").textContent = about.subtitle;
  const scale = LONGEST / Math.max(about.width, about.height);
  canvas.width = Math.max(1, Math.round(about.width * scale));
  canvas.height = Math.max(1, Math.round(about.height * scale));
  by("test-tools").hidden = !about.tests;
  by("number").max = about.tests;
  by("test-text").textContent = about.tests ? `1 to ${about.tests.toLocaleString("en")}; the left and right keys step through them.` : about.without;
  clear();
  if (about.colour) chooseTest(0);   // a photograph says more than a drawing
}

start();
