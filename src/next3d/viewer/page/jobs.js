// Exports and photos: started, followed, cancelled, downloaded.

import { ask, post } from "./connection.js";
import { $, element } from "./controls.js";

export function download(blob, name) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Start a job and follow it in a list; resolves to its last status. */
export async function follow(title, starting, list = $("jobs")) {
  const words = element("p", { role: "status" }, title);
  const bar = element("progress", { max: "1", value: "0", "aria-label": title });
  const cancel = element("button", { type: "button" }, "Cancel");
  const picture = element("img", { alt: "How it looks so far", width: "64", height: "64", hidden: true });
  const node = element("div", { class: "job" }, picture, words, cancel, bar);
  list.prepend(node);
  node.scrollIntoView({ block: "nearest" });
  let status;
  try {
    status = await (await starting).json();
    cancel.onclick = () => {
      cancel.disabled = true;
      ask(`api/jobs/${status.id}`, { method: "DELETE" }).catch(() => {}); // the next look at the job tells
    };
    while (status.state === "waiting" || status.state === "running") {
      await new Promise((done) => setTimeout(done, 300));
      status = await (await ask(`api/jobs/${status.id}`)).json();
      bar.value = status.progress;
      picture.hidden = !status.pictures;
      if (status.pictures) picture.src = `api/jobs/${status.id}/picture?${status.pictures}`;
      words.textContent = [title, status.message].filter(Boolean).join(": ");
    }
  } catch (error) {
    status = { state: "failed", message: error.message };
  }
  cancel.textContent = "Dismiss";
  cancel.disabled = false;
  cancel.onclick = () => node.remove();
  bar.remove();
  words.textContent = status.state === "done" ? `${title}: done` : `${title}: ${status.message || status.state}`;
  node.dataset.state = status.state;
  return status;
}

export async function fetchResult(status, name) {
  if (status.state !== "done" || !status.result) return;
  download(await (await ask(status.result.replace(/^\//, ""))).blob(), name);
}

export async function exportPicture(frame, size) {
  const body = { ...frame, format: "png", size, background: "transparent" };
  download(await (await post("api/render", body)).blob(), "head.png");
}
