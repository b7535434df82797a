// The WebSocket: pictures in, requests out; comes back by itself when the server does.

/** A binary message: header length (uint32, little-endian), header as JSON, body. */
export function pack(header, body) {
  const text = new TextEncoder().encode(JSON.stringify(header));
  const length = new Uint8Array(4);
  new DataView(length.buffer).setUint32(0, text.length, true);
  return new Blob([length, text, body]);
}

export function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  return [header, new Uint8Array(buffer, 4 + length)];
}

export class Connection extends EventTarget {
  constructor() {
    super();
    this.open = false;
    this.wait = 250;
    this.connect();
  }

  connect() {
    const address = new URL("ws" + location.search, location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    address.hash = "";
    this.socket = new WebSocket(address);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => {
      this.open = true;
      this.wait = 250;
      this.tell("open");
    };
    this.socket.onmessage = ({ data }) => {
      if (typeof data === "string") {
        const note = JSON.parse(data);
        this.tell(note.type, note);
      } else {
        const [header, body] = unpack(data);
        this.tell("picture", { header, body });
      }
    };
    this.socket.onclose = () => {
      if (this.open) this.tell("close");
      this.open = false;
      setTimeout(() => this.connect(), this.wait);
      this.wait = Math.min(this.wait * 1.5, 2000);
    };
  }

  tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  on(type, listener) {
    this.addEventListener(type, (event) => listener(event.detail));
  }

  send(message) {
    if (this.open && this.socket.readyState === WebSocket.OPEN) {
      this.socket.send(message instanceof Blob ? message : JSON.stringify(message));
      return true;
    }
    return false;
  }
}

/** A request to the HTTP interface; throws an Error with the server's reason. */
export async function ask(path, options = {}) {
  const answer = await fetch(path, options);
  if (!answer.ok) throw new Error(await reason(answer));
  return answer;
}

async function reason(answer) {
  try {
    const { detail } = await answer.json();
    return typeof detail === "string" ? detail : detail.map((each) => `${each.loc.slice(1).join(".")}: ${each.msg}`).join("; ");
  } catch {
    return `the server answered ${answer.status}`;
  }
}

export function post(path, body) {
  return ask(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
}
