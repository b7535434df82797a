// The picture: drawn as it comes, turned by mouse, touch and keys.

import { $ } from "./controls.js";

const canvas = $("picture");
const PITCH = 1.2;
const FREE = new Set(["planes", "texture"]); // views without a camera

export class Stage {
  /** `camera` is changed in place; `turned` is called after each change. */
  constructor(camera, turned) {
    this.camera = camera;
    this.turned = turned;
    this.labels = null;
    this.bitmap = null;
    new ResizeObserver(() => this.paint()).observe(canvas);
    this.listen();
  }

  async show(header, body) {
    const bitmap = await createImageBitmap(new Blob([body], { type: `image/${header.format}` }));
    if (this.bitmap) this.bitmap.close();
    this.bitmap = bitmap;
    this.view = header.view;
    $("hint").hidden = FREE.has(header.view);
    this.paint();
  }

  paint() {
    const scale = Math.min(window.devicePixelRatio || 1, 2);
    const size = Math.max(64, Math.round(canvas.clientWidth * scale));
    if (canvas.width !== size || canvas.height !== size) [canvas.width, canvas.height] = [size, size];
    if (!this.bitmap) return;
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, size, size);
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    const fit = Math.min(size / this.bitmap.width, size / this.bitmap.height);
    const [width, height] = [this.bitmap.width * fit, this.bitmap.height * fit];
    const [left, top] = [(size - width) / 2, (size - height) / 2];
    context.drawImage(this.bitmap, left, top, width, height);
    if (this.view === "planes" && this.labels) this.label(context, left, top, width, height, scale);
  }

  label(context, left, top, width, height, scale) {
    const { rows, axes } = this.labels;
    context.font = `${Math.round(Math.max(11 * scale, width / 52))}px system-ui, sans-serif`;
    context.textBaseline = "top";
    rows.forEach((row, i) =>
      axes.forEach((pair, j) => {
        const text = `${row} ${pair}`;
        const [x, y] = [left + (width * j) / axes.length + 8 * scale, top + (height * i) / rows.length + 7 * scale];
        context.fillStyle = "rgb(0 0 0 / 55%)";
        context.fillRect(x - 4 * scale, y - 2 * scale, context.measureText(text).width + 8 * scale, parseInt(context.font, 10) + 5 * scale);
        context.fillStyle = "#fff";
        context.fillText(text, x, y);
      }),
    );
  }

  turn(yaw, pitch, zoom = 1) {
    const camera = this.camera;
    camera.yaw = wrap(camera.yaw + yaw);
    camera.pitch = Math.min(PITCH, Math.max(-PITCH, camera.pitch + pitch));
    camera.zoom = Math.min(3, Math.max(0.4, camera.zoom * zoom));
    $("hint").classList.add("gone");
    this.turned();
  }

  face() {
    Object.assign(this.camera, { yaw: 0, pitch: 0, zoom: 1 });
    this.turned();
  }

  listen() {
    const pointers = new Map();
    let spread = 0;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, [event.clientX, event.clientY]);
      spread = 0;
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before || FREE.has(this.view)) return;
      pointers.set(event.pointerId, [event.clientX, event.clientY]);
      if (pointers.size === 2) {
        const [a, b] = [...pointers.values()];
        const now = Math.hypot(a[0] - b[0], a[1] - b[1]);
        if (spread) this.turn(0, 0, now / spread);
        spread = now;
        return;
      }
      const pace = 2.4 / canvas.clientWidth;
      this.turn(-(event.clientX - before[0]) * pace, (event.clientY - before[1]) * pace);
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => pointers.delete(event.pointerId));
    canvas.addEventListener("dblclick", () => this.face());
    canvas.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        this.turn(0, 0, Math.exp(-event.deltaY * 0.0012));
      },
      { passive: false },
    );
    canvas.addEventListener("keydown", (event) => {
      const step = event.shiftKey ? 0.3 : 0.08;
      const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
      if (moves[event.key]) this.turn(...moves[event.key]);
      else if (event.key === "+" || event.key === "=") this.turn(0, 0, 1.1);
      else if (event.key === "-") this.turn(0, 0, 1 / 1.1);
      else if (event.key === "0" || event.key === "Home") this.face();
      else if (event.key === " ") $("play").click();
      else return;
      event.preventDefault();
    });
  }
}

function wrap(angle) {
  return angle > Math.PI ? angle - 2 * Math.PI : angle < -Math.PI ? angle + 2 * Math.PI : angle;
}
