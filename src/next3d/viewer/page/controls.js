// Sliders, groups of sliders, and the gaze pad.

export const $ = (id) => document.getElementById(id);

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in made && typeof value !== "string") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

let count = 0;

/** A labelled slider; double-click or Delete resets it. Returns {node, set, get}. */
export function slider(text, { min, max, step = 0.01, value = 0, show = (v) => v.toFixed(2), change, name = "" }) {
  const id = `slider-${name || ++count}`;
  const input = element("input", { type: "range", id, min: `${min}`, max: `${max}`, step: `${step}` });
  input.value = value;
  const output = element("output", { for: id, class: "number" });
  const node = element("div", { class: "slider" }, element("label", { for: id, title: text }, text), output, input);
  const paint = () => {
    output.textContent = show(Number(input.value));
    node.classList.toggle("changed", Math.abs(Number(input.value) - value) > 1e-9);
  };
  const set = (to, tell = true) => {
    input.value = to;
    paint();
    if (tell) change(Number(input.value));
  };
  input.addEventListener("input", () => set(input.value));
  input.addEventListener("dblclick", () => set(value));
  input.addEventListener("keydown", (event) => {
    if (event.key === "Delete" || event.key === "Backspace") set(value);
  });
  paint();
  return { node, set, get: () => Number(input.value), reset: () => set(value) };
}

/** Which of ARKit's names belong together. */
export const GROUPS = [
  ["Brows", /^brow/],
  ["Eyes", /^eye(Blink|Squint|Wide)/],
  ["Gaze by name", /^eyeLook/],
  ["Jaw and tongue", /^(jaw|tongue)/],
  ["Mouth", /^mouth(Close|Funnel|Pucker|Left|Right|Smile|Frown|Dimple)/],
  ["Lips", /^mouth/],
  ["Cheeks and nose", /^(cheek|nose)/],
];

/** A pad: drag or arrow keys move a point in [−1, 1]². */
export function pad(node, limits, change) {
  const knob = node.querySelector(".knob");
  let x = 0;
  let y = 0;
  const set = (newX, newY, tell = true) => {
    const far = Math.max(1, Math.hypot(newX, newY));
    [x, y] = [newX / far, newY / far];
    knob.style.left = `${50 + 42 * x}%`;
    knob.style.top = `${50 + 42 * y}%`;
    const [side, up] = [Math.round(x * limits[0]), Math.round(-y * limits[1])];
    node.setAttribute("aria-valuenow", side);
    const words = [];
    if (side) words.push(`${Math.abs(side)}° ${side > 0 ? "right" : "left"}`);
    if (up) words.push(`${Math.abs(up)}° ${up > 0 ? "up" : "down"}`);
    node.setAttribute("aria-valuetext", words.join(", ") || "straight ahead");
    if (tell) change(x, y);
  };
  const follow = (event) => {
    const box = node.getBoundingClientRect();
    set((2 * (event.clientX - box.left)) / box.width - 1, (2 * (event.clientY - box.top)) / box.height - 1);
  };
  node.addEventListener("pointerdown", (event) => {
    node.setPointerCapture(event.pointerId);
    follow(event);
  });
  node.addEventListener("pointermove", (event) => node.hasPointerCapture(event.pointerId) && follow(event));
  node.addEventListener("dblclick", () => set(0, 0));
  node.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] }[event.key];
    if (step) set(x + step[0], y + step[1]);
    else if (event.key === "Home" || event.key === "Delete") set(0, 0);
    else return;
    event.preventDefault();
  });
  return { set };
}
