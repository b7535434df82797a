// The page: one state, turned into requests; pictures as they come back.

import { Connection, ask, post } from "./connection.js";
import { $, GROUPS, element, pad, slider } from "./controls.js";
import { download, exportPicture, fetchResult, follow } from "./jobs.js";
import { Live } from "./live.js";
import { Stage } from "./stage.js";

const DEGREE = Math.PI / 180;
const REST = 220; // ms without a change until the picture sharpens
const LADDER = [0.5, 0.625, 0.75, 0.875, 1]; // rays while things move, of the model's own number
const SLOW = 75; // ms between pictures above which fewer rays are drawn
const QUICK = 45;

const frame = {
  identity: 0,
  truncation: 0.7,
  shape: {},
  arkit: {},
  camera: { yaw: 0, pitch: 0, roll: 0, zoom: 1 },
  view: "picture",
  background: "model",
};
const neck = [0, 0, 0];
const gaze = [0, 0];
const player = { playing: false, time: 0, length: 1, last: 0 };
let mix = 0;
let info = null;
let instance = null;

// --- asking for pictures ---------------------------------------------------------------------------------------------

const connection = new Connection();
const stage = new Stage(frame.camera, () => changed());
const loop = { sent: 0, received: 0, dirty: true, since: 0, sharp: false, step: 2, shown: 0, rate: 0 };

function changed() {
  loop.dirty = true;
  loop.sharp = false;
  loop.since = performance.now();
  document.body.dataset.rest = "false";
}

function request() {
  const other = $("other").value;
  const asked = { ...frame, neck: neck.map((angle) => angle * DEGREE) };
  if (other !== "") Object.assign(asked, { other: identityOf(other), mix });
  const [x, y] = [gaze[0] * 32 * DEGREE, gaze[1] * 28 * DEGREE];
  asked.eyes = [y, x, 0, y, x, 0];
  if ($("clip").value) Object.assign(asked, { clip: $("clip").value, time: player.time });
  return asked;
}

function pump() {
  requestAnimationFrame(pump);
  advance();
  if (!connection.open || !info || loop.sent - loop.received >= 2) return;
  const now = performance.now();
  const resting = now - loop.since > REST && !player.playing && !live.on;
  if (!loop.dirty && !(resting && !loop.sharp)) return;
  const fine = frame.view === "picture" || frame.view === "mesh" ? 1.5 : 2;
  const rays = Math.min(256, Math.round(info.rays * (resting ? fine : LADDER[loop.step])));
  loop.sent += 1;
  loop.dirty = false;
  loop.sharp = resting;
  loop.asked = loop.sent;
  connection.send({
    type: "render",
    id: loop.sent,
    ...request(),
    rays,
    live: live.on,
    pose: $("follow").checked,
    mirror: $("mirror").checked,
    format: frame.background === "transparent" ? "webp" : "jpeg",
    quality: resting ? 95 : 85,
  });
}

connection.on("open", () => {
  loop.received = loop.sent;
  setConnection(true, "connected");
});
connection.on("hello", async (note) => {
  if (instance !== note.instance) {
    instance = note.instance;
    await learn();
  }
  changed();
});
connection.on("close", () => setConnection(false, "server gone, trying again"));
connection.on("error", (note) => {
  if (note.id !== undefined) loop.received = Math.max(loop.received, note.id);
  complain(note.message);
});
connection.on("picture", async ({ header, body }) => {
  loop.received = Math.max(loop.received, header.id);
  await stage.show(header, body);
  const now = performance.now();
  const interval = now - loop.shown;
  loop.shown = now;
  if (loop.sharp) {
    loop.rate = loop.shown = 0; // what moves next is timed afresh
  } else if (interval < 1000) {
    loop.rate = loop.rate ? loop.rate * 0.85 + (1000 / interval) * 0.15 : 1000 / interval;
    if (interval > SLOW && loop.step > 0) loop.step -= 1;
    else if (interval < QUICK && loop.step < LADDER.length - 1 && Math.random() < 0.1) loop.step += 1;
  }
  const age = header.camera === undefined ? null : live.age(header.camera);
  showTimes($("times"), header.seconds);
  if (age !== null) {
    const { queue, encode, camera, ...drawing } = header.seconds;
    const draw = Object.values(drawing).reduce((sum, value) => sum + value, encode);
    Object.assign(liveSeconds, { "wait to draw": queue, draw, "camera to picture": age });
    showTimes($("live-times"), liveSeconds);
  }
  if (loop.rate) $("rate").textContent = loop.rate.toFixed(loop.rate < 10 ? 1 : 0);
  $("size-note").textContent =
    `${header.width} × ${header.height} pixels, ${(body.length / 1024).toFixed(1)} kB, ` +
    `${(1000 * header.cpu).toFixed(0)} ms of processor time, ${info ? info.precision : ""}`;
  document.body.dataset.pictures = Number(document.body.dataset.pictures) + 1;
  document.body.dataset.rest = String(loop.sharp && loop.received === loop.sent);
});

function setConnection(open, words) {
  document.body.dataset.connected = String(open);
  $("connection").textContent = words;
}

let silence = 0;
function complain(message) {
  const box = $("message");
  box.textContent = message;
  box.hidden = false;
  clearTimeout(silence);
  silence = setTimeout(() => (box.hidden = true), 7000);
}

function showTimes(table, seconds) {
  const most = Math.max(0.05, ...Object.values(seconds));
  const rows = Object.entries(seconds).map(([name, value]) => {
    const meter = element("meter", { min: "0", max: `${most}`, value: `${value}`, "aria-hidden": "true" });
    return element("tr", {}, element("td", {}, name), element("td", {}, meter), element("td", {}, `${(1000 * value).toFixed(1)} ms`));
  });
  table.tBodies[0].replaceChildren(...rows);
}

// --- what the model has ----------------------------------------------------------------------------------------------

async function learn() {
  try {
    info = await (await ask("api/info")).json();
  } catch (error) {
    complain(error.message);
    return;
  }
  $("model").textContent = `${info.model} · ${info.resolution}² · ${info.device}`;
  stage.labels = info.planes;
  fillViews();
  fillClips();
  fillShapes();
  fillExpressions();
  if (info.avatars.length && frame.identity === 0) frame.identity = info.avatars[0];
  if (typeof frame.identity === "string" && !info.avatars.includes(frame.identity)) frame.identity = 0;
  fillGallery();
  $("webcam").disabled = $("video-file").disabled = !info.live;
  if (!info.live) $("live-note").textContent = "Live driving needs MediaPipe: pip install 'next3d[tracking]'";
  if (!info.photos) $("photo-note").textContent = "Photos need MediaPipe: pip install 'next3d[tracking]'. Saved avatars can be dropped here.";
}

function fillViews() {
  const buttons = info.views.map((view) => {
    const input = element("input", { type: "radio", name: "view", value: view });
    input.checked = view === frame.view;
    input.addEventListener("change", () => {
      frame.view = view;
      changed();
    });
    return element("label", {}, input, element("span", {}, view));
  });
  $("views").replaceChildren(...buttons);
}

function fillClips() {
  const now = $("clip").value;
  const options = [element("option", { value: "" }, "none")];
  for (const name of [...Object.keys(info.clips), ...Object.keys(info.motions)]) options.push(element("option", { value: name }, name));
  $("clip").replaceChildren(...options);
  $("clip").value = options.some((option) => option.value === now) ? now : "";
}

const sliders = { arkit: {}, shape: {} };

function fillExpressions() {
  if (Object.keys(sliders.arkit).length || !info.arkit.length) return;
  const coefficient = (name, text = name) =>
    slider(text, {
      min: 0,
      max: 1,
      name: text === name ? name : "",
      change: (value) => {
        if (value) frame.arkit[name] = value;
        else delete frame.arkit[name];
        changed();
      },
    });
  const left = new Set(info.arkit);
  for (const [title, pattern] of GROUPS) {
    const names = sidesTogether([...left].filter((name) => pattern.test(name)));
    names.forEach((name) => left.delete(name));
    const inside = element("div", { class: "inside" });
    for (const name of names) {
      sliders.arkit[name] = coefficient(name);
      inside.append(sliders.arkit[name].node);
    }
    $("expression-groups").append(element("details", { class: "group" }, element("summary", {}, title), inside));
  }
  const both = (text, names) =>
    slider(text, { min: 0, max: 1, name: text.toLowerCase(), change: (value) => names.forEach((name) => sliders.arkit[name].set(value)) });
  sliders.quick = [
    both("Jaw", ["jawOpen"]),
    both("Eyelids", ["eyeBlinkLeft", "eyeBlinkRight"]),
    both("Smile", ["mouthSmileLeft", "mouthSmileRight"]),
  ];
  $("quick-sliders").append(...sliders.quick.map((each) => each.node));
  ["nod", "turn", "tilt"].forEach((text, axis) => {
    const limit = [40, 60, 30][axis];
    const made = slider(`Neck: ${text}`, {
      min: -limit,
      max: limit,
      step: 1,
      name: `neck-${text}`,
      show: (value) => `${value}°`,
      change: (value) => {
        neck[axis] = value;
        changed();
      },
    });
    $("pose-sliders").append(made.node);
  });
  const sideways = slider("Jaw: sideways", {
    min: -1,
    max: 1,
    change: (value) => {
      sliders.arkit.jawLeft.set(Math.max(0, value));
      sliders.arkit.jawRight.set(Math.max(0, -value));
    },
  });
  $("pose-sliders").append(sideways.node);
}

/** Left beside right, otherwise as they come. */
function sidesTogether(names) {
  const stem = (name) => name.replace(/(Left|Right)$/, "");
  const first = new Map();
  names.forEach((name, i) => first.has(stem(name)) || first.set(stem(name), i));
  return [...names].sort((a, b) => first.get(stem(a)) - first.get(stem(b)));
}

function fillShapes() {
  if (Object.keys(sliders.shape).length) return;
  for (const name of info.shapes) {
    sliders.shape[name] = slider(name, {
      min: -3,
      max: 3,
      step: 0.05,
      change: (value) => {
        if (value) frame.shape[name] = value;
        else delete frame.shape[name];
        changed();
      },
    });
    $("shape-sliders").append(sliders.shape[name].node);
  }
}

function identityOf(text) {
  return /^\d+$/.test(text) ? Number(text) : text.replace(/^avatar:/, "");
}

let seeds = 8;
const thumbnails = new Map(); // what is on show, by address, so that a longer gallery draws only what is new

function fillGallery() {
  const everyone = [...info.avatars, ...Array.from({ length: seeds }, (_, i) => i)];
  const tiles = everyone.map((who) => {
    const text = typeof who === "number" ? `seed ${who}` : who;
    const picture = element("img", { alt: "" });
    const tile = element("button", { type: "button", "aria-label": text, "aria-pressed": String(who === frame.identity) });
    tile.dataset.who = who;
    tile.append(picture, element("span", {}, typeof who === "number" ? `${who}` : who));
    tile.addEventListener("click", () => choose(who));
    const query = typeof who === "number" ? { seed: who, truncation: frame.truncation } : { avatar: who };
    loadThumbnail(picture, `api/thumbnail?${new URLSearchParams(query)}`);
    return tile;
  });
  $("gallery").replaceChildren(...tiles);
  const now = $("other").value;
  const options = everyone.map((who) =>
    typeof who === "number" ? element("option", { value: `${who}` }, `seed ${who}`) : element("option", { value: `avatar:${who}` }, who),
  );
  $("other").replaceChildren(element("option", { value: "" }, "no one"), ...options);
  $("other").value = now;
}

const waiting = [];
let loading = false;

function loadThumbnail(picture, address) {
  const known = thumbnails.get(instance + address);
  if (known) {
    picture.src = known;
    return;
  }
  waiting.push([picture, address]);
  if (!loading) loadNext();
}

/** One at a time, and only while the picture rests: thumbnails bake identities, which takes a moment each. */
async function loadNext() {
  loading = true;
  while (waiting.length) {
    while (document.body.dataset.rest !== "true") await new Promise((done) => setTimeout(done, 150));
    const [picture, address] = waiting.shift();
    if (!picture.isConnected) continue;
    try {
      const source = URL.createObjectURL(await (await ask(address)).blob());
      thumbnails.set(instance + address, source);
      picture.src = source;
    } catch {
      continue; // the server may be restarting; the next gallery asks again
    }
  }
  loading = false;
}

function choose(who) {
  frame.identity = who;
  if (typeof who === "number") $("seed").value = who;
  for (const tile of $("gallery").children) tile.setAttribute("aria-pressed", String(tile.dataset.who === String(who)));
  changed();
}

// --- controls --------------------------------------------------------------------------------------------------------

$("seed").addEventListener("change", () => {
  const seed = Math.min(2147483647, Math.max(0, Math.round(Number($("seed").value) || 0)));
  $("seed").value = seed;
  choose(seed);
});
$("random-seed").addEventListener("click", () => choose(Math.floor(Math.random() * 100000)));
$("more").addEventListener("click", () => {
  seeds += 8;
  fillGallery();
});
let redraw = 0;
const truncation = slider("Truncation", {
  min: 0,
  max: 1.2,
  value: 0.7,
  step: 0.05,
  name: "truncation",
  change: (value) => {
    frame.truncation = value;
    changed();
    clearTimeout(redraw);
    redraw = setTimeout(() => info && fillGallery(), 800);
  },
});
const blend = slider("Blend", {
  min: 0,
  max: 1,
  step: 0.02,
  name: "mix",
  change: (value) => {
    mix = value;
    changed();
  },
});
$("identity-sliders").append(truncation.node);
$("other").parentElement.parentElement.after(blend.node);
blend.node.hidden = true;
$("other").addEventListener("change", () => {
  blend.node.hidden = $("other").value === "";
  if (!blend.node.hidden && blend.get() === 0) blend.set(0.5);
  changed();
});

const look = pad($("gaze"), [32, 28], (x, y) => {
  [gaze[0], gaze[1]] = [x, y];
  changed();
});

$("reset-expression").addEventListener("click", () => {
  for (const each of [...Object.values(sliders.arkit), ...(sliders.quick ?? [])]) each.reset();
  look.set(0, 0);
});
$("random-expression").addEventListener("click", () => {
  $("reset-expression").click();
  const names = Object.keys(sliders.arkit).filter((name) => !/^eyeLook|tongue|^eyeBlink/.test(name));
  for (let i = 0; i < 6; i += 1) {
    const name = names[Math.floor(Math.random() * names.length)];
    const amount = 0.25 + 0.6 * Math.random();
    sliders.arkit[name].set(amount);
    const twin = name.includes("Left") ? name.replace("Left", "Right") : name.replace("Right", "Left");
    if (twin !== name && !/^(jaw|mouth)(Left|Right)$/.test(name)) sliders.arkit[twin]?.set(amount * (0.8 + 0.2 * Math.random()));
  }
});
$("reset-shape").addEventListener("click", () => Object.values(sliders.shape).forEach((each) => each.reset()));
$("find-shape").addEventListener("input", () => {
  const words = $("find-shape").value.trim().toLowerCase();
  for (const [name, each] of Object.entries(sliders.shape)) each.node.hidden = !name.toLowerCase().includes(words);
});

function setBackground() {
  const kind = document.querySelector('input[name="background"]:checked').value;
  frame.background = kind === "colour" ? $("colour").value : kind;
  $("picture").classList.toggle("clear", kind === "transparent");
  changed();
}
for (const radio of document.querySelectorAll('input[name="background"]')) radio.addEventListener("change", setBackground);
$("colour").addEventListener("input", () => {
  document.querySelector('input[name="background"][value="colour"]').checked = true;
  setBackground();
});

$("toggle").addEventListener("click", () => {
  const wide = document.body.classList.toggle("wide");
  $("toggle").setAttribute("aria-expanded", String(!wide));
});

// --- clips -----------------------------------------------------------------------------------------------------------

const lengths = {};

async function clipLength(name) {
  if (!(name in lengths)) lengths[name] = info.motions[name] ?? (await (await ask(`api/clips/${encodeURIComponent(name)}`)).json()).seconds;
  return lengths[name];
}

function setPlaying(playing) {
  player.playing = playing;
  player.last = performance.now();
  $("play").setAttribute("aria-pressed", String(playing));
  $("play").setAttribute("aria-label", playing ? "Pause" : "Play");
  changed();
}

async function setClip() {
  player.time = 0;
  try {
    if ($("clip").value) player.length = await clipLength($("clip").value);
  } catch (error) {
    complain(error.message);
  }
  showClock();
  changed();
}

function showClock() {
  $("time").value = player.time / player.length;
  $("clock").textContent = `${player.time.toFixed(1)} s`;
}

function advance() {
  if (!player.playing) return;
  const now = performance.now();
  player.time += ((now - player.last) / 1000) * Number($("speed").value);
  player.last = now;
  if (player.time >= player.length) {
    player.time = $("loop").checked ? player.time % player.length : player.length - 1e-3;
    if (!$("loop").checked) setPlaying(false);
  }
  showClock();
  changed();
}

$("clip").addEventListener("change", async () => {
  await setClip();
  setPlaying($("clip").value !== "");
});
$("play").addEventListener("click", async () => {
  if (!$("clip").value && $("clip").options.length > 1) {
    $("clip").selectedIndex = 1;
    await setClip();
  }
  if ($("clip").value) {
    if (!player.playing && player.time >= player.length - 0.01) player.time = 0;
    setPlaying(!player.playing);
  }
});
$("time").addEventListener("input", () => {
  player.time = Number($("time").value) * player.length;
  showClock();
  changed();
});

// --- live ------------------------------------------------------------------------------------------------------------

const liveSeconds = {};
const live = new Live(connection, changed, complain, (seconds, rate) => {
  Object.assign(liveSeconds, seconds);
  showTimes($("live-times"), liveSeconds);
  $("live-times").caption.textContent = `Live stages, ${rate.toFixed(rate < 10 ? 1 : 0)} pictures a second`;
});

// --- export and files ------------------------------------------------------------------------------------------------

const guarded = (action) => async () => {
  try {
    await action();
  } catch (error) {
    complain(error.message);
  }
};
const still = () => ({ ...request(), rays: Math.min(256, Math.round(info.rays * 1.5)) });

$("export-png").addEventListener("click", guarded(() => exportPicture(still(), Number($("export-size").value))));
$("export-mp4").addEventListener("click", guarded(async () => {
  const asked = request();
  if (!asked.clip) throw new Error("Choose a clip below the picture first.");
  const body = { frame: { ...asked, time: 0 }, size: Number($("export-size").value) };
  await fetchResult(await follow(`Video of ${asked.clip}`, post("api/videos", body)), `${asked.clip}.mp4`);
}));
$("export-glb").addEventListener("click", guarded(async () => {
  const body = { frame: request(), kind: $("mesh-kind").value };
  await fetchResult(await follow(`Mesh (${$("mesh-kind").selectedOptions[0].text})`, post("api/meshes", body)), "head.glb");
}));
$("export-avatar").addEventListener("click", guarded(async () => {
  download(await (await post("api/avatars/save", request())).blob(), "head.avatar");
}));

async function upload(path, file) {
  return ask(path, { method: "POST", headers: { "content-type": "application/octet-stream" }, body: file });
}

async function take(file) {
  if (!file) return;
  if (/\.avatar$/i.test(file.name)) {
    const { name } = await (await upload("api/avatars", file)).json();
    await learn();
    choose(name);
  } else if (/\.(npz|csv)$/i.test(file.name)) {
    const { name } = await (await upload(`api/motions?${new URLSearchParams({ name: file.name })}`, file)).json();
    delete lengths[name];
    await learn();
    $("clip").value = name;
    await setClip();
    setPlaying(true);
  } else if (/^video\//.test(file.type)) {
    live.file(file);
  } else {
    const name = file.name.replace(/\.[^.]*$/, "").slice(0, 40) || "photo";
    $("photo-jobs").closest("details").open = true;
    const starting = upload(`api/photos?${new URLSearchParams({ name })}`, file);
    const status = await follow(`Avatar of ${name}`, starting, $("photo-jobs"));
    if (status.state === "done") {
      await learn();
      choose(status.result);
    }
  }
}

for (const id of ["motion", "photo"]) {
  $(id).addEventListener("change", (event) => {
    const [file] = event.target.files;
    event.target.value = ""; // so that the same file can be chosen again
    guarded(() => take(file))();
  });
}
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
addEventListener("dragleave", (event) => event.relatedTarget === null && document.body.classList.remove("dragging"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  guarded(() => take(event.dataTransfer.files[0]))();
});

requestAnimationFrame(pump);
