// Live driving: camera pictures go out one at a time, landmarks come back.

import { pack } from "./connection.js";
import { $ } from "./controls.js";

const WIDTH = 480; // of the pictures that are sent
const IRIS = 468; // landmarks from here on are the irises'

export class Live {
  constructor(connection, changed, complain, timed) {
    Object.assign(this, { connection, changed, complain, timed, id: 0, busy: false, on: false, grabbed: new Map() });
    this.video = document.createElement("video");
    Object.assign(this.video, { muted: true, playsInline: true, loop: true });
    this.grab = document.createElement("canvas");
    $("webcam").addEventListener("click", () => this.webcam());
    $("video-file").addEventListener("change", (event) => this.file(event.target.files[0]));
    $("stop-live").addEventListener("click", () => this.stop());
    $("calibrate").addEventListener("click", () => connection.send({ type: "calibrate" }));
    for (const id of ["follow", "mirror"]) $(id).addEventListener("change", changed);
    connection.on("tracked", (note) => this.tracked(note));
    connection.on("calibrated", () => ($("camera-caption").textContent = "Calibrated: this face is neutral now"));
    connection.on("close", () => (this.busy = false));
    connection.on("error", (note) => {
      if (note.camera !== undefined) this.busy = false;
    });
  }

  async webcam() {
    if (!navigator.mediaDevices) {
      this.complain("The browser gives the camera only to pages on localhost or https.");
      return;
    }
    try {
      this.stop();
      this.video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480, facingMode: "user" } });
      this.begin("Camera");
    } catch (error) {
      this.complain(`The camera cannot be used: ${error.message}`);
    }
  }

  file(chosen) {
    if (!chosen) return;
    this.stop();
    this.video.src = URL.createObjectURL(chosen);
    this.begin(chosen.name);
  }

  async begin(caption) {
    this.on = true;
    this.busy = false;
    this.shown = performance.now();
    $("camera-caption").textContent = caption;
    $("camera-figure").hidden = false;
    document.querySelector(".screens").classList.add("pair");
    $("calibrate").disabled = $("stop-live").disabled = false;
    try {
      await this.video.play();
    } catch (error) {
      this.complain(`This video cannot be played: ${error.message}`);
      this.stop();
      return;
    }
    this.changed();
    this.loop();
  }

  stop() {
    if (!this.on) return;
    this.on = false;
    const stream = this.video.srcObject;
    if (stream) for (const track of stream.getTracks()) track.stop();
    if (this.video.src) URL.revokeObjectURL(this.video.src);
    this.video.srcObject = null;
    this.video.removeAttribute("src");
    this.connection.send({ type: "stop" });
    $("camera-figure").hidden = true;
    document.querySelector(".screens").classList.remove("pair");
    $("calibrate").disabled = $("stop-live").disabled = true;
    this.changed();
  }

  loop() {
    if (!this.on) return;
    const again = () => this.loop();
    if (this.video.requestVideoFrameCallback) this.video.requestVideoFrameCallback(again);
    else requestAnimationFrame(again);
    if (!this.busy && this.connection.open && this.video.videoWidth) this.capture();
  }

  capture() {
    const scale = Math.min(1, WIDTH / this.video.videoWidth);
    this.grab.width = Math.round(this.video.videoWidth * scale);
    this.grab.height = Math.round(this.video.videoHeight * scale);
    this.grab.getContext("2d").drawImage(this.video, 0, 0, this.grab.width, this.grab.height);
    this.busy = true;
    const [id, since] = [++this.id, performance.now()];
    this.grab.toBlob(
      (blob) => {
        if (!blob || !this.on || !this.connection.send(pack({ type: "camera", id }, blob))) {
          this.busy = false;
          return;
        }
        this.grabbed.set(id, since);
        for (const old of this.grabbed.keys()) if (old < id - 30) this.grabbed.delete(old);
      },
      "image/jpeg",
      0.85,
    );
  }

  tracked({ id, points, seconds, confidence }) {
    this.busy = false;
    if (!this.on) return;
    const canvas = $("camera");
    [canvas.width, canvas.height] = [this.grab.width, this.grab.height];
    const context = canvas.getContext("2d");
    const mirror = $("mirror").checked;
    context.setTransform(mirror ? -1 : 1, 0, 0, 1, mirror ? canvas.width : 0, 0);
    context.drawImage(this.grab, 0, 0);
    for (let i = 0; i < points.length; i += 2) {
      context.fillStyle = i / 2 >= IRIS ? "#ffd23c" : "#5fe3cf";
      context.fillRect((points[i] / 10000) * canvas.width - 0.75, (points[i + 1] / 10000) * canvas.height - 0.75, 1.5, 1.5);
    }
    document.body.dataset.landmarks = points.length / 2;
    if (!points.length) $("camera-caption").textContent = "No face in sight";
    else if ($("camera-caption").textContent === "No face in sight") $("camera-caption").textContent = "Camera";
    const now = performance.now();
    this.timed({ ...seconds, "page to landmarks": (now - this.grabbed.get(id)) / 1000 }, 1000 / (now - this.shown), confidence);
    this.shown = now;
  }

  /** Seconds since the camera picture that a drawn picture shows was taken. */
  age(id) {
    return this.grabbed.has(id) ? (performance.now() - this.grabbed.get(id)) / 1000 : null;
  }
}
