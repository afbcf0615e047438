// Plays a video while it is made, by Media Source Extensions. A browser without them, or that can't decode the video
// piece by piece, plays it when it is complete.

import { bytes } from "./watching.js";

// Safari on the iPhone has only the managed one.
const Source = window.MediaSource ?? window.ManagedMediaSource;
const KEPT_BEHIND_S = 10;
const QUIETLY = ["waiting", "playing", "pause", "loadeddata", "pointerenter", "pointerleave", "focus", "blur"];

/** Whether anything may move that the user did not set in motion. */
const moves = () => !matchMedia("(prefers-reduced-motion: reduce)").matches;

export class Player {
  #video;
  #url = null;
  #live = false;

  constructor(video) {
    this.#video = video;
    for (const name of QUIETLY) video.addEventListener(name, () => this.#quieten());
  }

  /**
   * Plays the video with this id, until the signal aborts; resolves when all of it is loaded, to
   * whether there is anything.
   *
   * `seconds` is its whole length, `from` where to begin, `onStart` is called when the first frame is there and
   * `onWhole` when it can't be played before it is complete.
   */
  async play(id, { seconds, from, signal, onStart, onWhole }) {
    signal.addEventListener("abort", () => this.#clear());
    this.#video.loop = false;
    this.#video.addEventListener("loadeddata", onStart, { once: true, signal });
    const stream = bytes(id, signal);
    const { head, type } = await begin(stream);
    if (!type) return false;
    if (Source?.isTypeSupported(type)) {
      await this.#playLive(stream, head, type, seconds, from, signal);
    } else {
      onWhole();
      await this.#playWhole(stream, head, from, signal);
    }
    return true;
  }

  async #playLive(stream, head, type, seconds, from, signal) {
    const source = new Source();
    // The managed source opens only without AirPlay, which could not play it.
    this.#video.disableRemotePlayback = true;
    this.#show(source);
    await happens(source, "sourceopen", signal);
    const buffer = source.addSourceBuffer(type);
    source.duration = seconds;
    this.#video.currentTime = from;
    this.#start();
    this.#live = true;
    for (let piece = head; piece; piece = (await stream.next()).value) {
      await this.#append(buffer, piece, signal);
    }
    this.#live = false;
    this.#video.loop = moves();
    source.endOfStream();
    this.#quieten();
  }

  async #playWhole(stream, head, from, signal) {
    const parts = [head];
    for await (const piece of stream) parts.push(piece);
    signal.throwIfAborted();
    this.#video.loop = moves();
    this.#show(new Blob(parts, { type: "video/mp4" }));
    this.#video.currentTime = from;
    this.#start();
  }

  async #append(buffer, piece, signal) {
    for (;;) {
      try {
        buffer.appendBuffer(piece);
        return await happens(buffer, "updateend", signal);
      } catch (error) {
        if (error.name !== "QuotaExceededError") throw error;
      }
      // The browser's memory for it is full: forget what was played long ago.
      const end = this.#video.currentTime - KEPT_BEHIND_S;
      if (buffer.buffered.length && buffer.buffered.start(0) < end) {
        buffer.remove(0, end);
        await happens(buffer, "updateend", signal);
      } else {
        await happens(this.#video, "timeupdate", signal);
      }
    }
  }

  #show(media) {
    this.#clear();
    this.#url = URL.createObjectURL(media);
    this.#video.src = this.#url;
  }

  #start() {
    if (!moves()) return;
    // A browser may not let it begin by itself; then the button is there.
    this.#video.play().catch(() => {});
  }

  /** Waiting for the next moment is no trouble that the controls should show, unless somebody is about to use them. */
  #quieten() {
    const waits = this.#live && this.#video.readyState < HTMLMediaElement.HAVE_FUTURE_DATA;
    this.#video.controls = !waits || this.#video.matches(":hover, :focus");
  }

  #clear() {
    this.#live = false;
    if (!this.#url) return;
    URL.revokeObjectURL(this.#url);
    this.#url = null;
    this.#video.removeAttribute("src");
    this.#video.load();
  }
}

/** Reads until the codec is known; no `type` if the stream ends before. */
async function begin(stream) {
  let head = new Uint8Array();
  for (;;) {
    const { done, value } = await stream.next();
    if (done) return {};
    head = joined(head, value);
    const type = typeOf(head);
    if (type) return { head, type };
  }
}

/** What MediaSource calls the video whose file begins so, such as `video/mp4; codecs="avc1.64000d"`. */
function typeOf(head) {
  // Behind the name of the box avcC stand a version byte, then profile, constraints and level.
  const at = new TextDecoder("latin1").decode(head).indexOf("avcC");
  if (at < 0 || head.length < at + 8) return null;
  const codec = Array.from(head.subarray(at + 5, at + 8), (byte) => byte.toString(16).padStart(2, "0")).join("");
  return `video/mp4; codecs="avc1.${codec}"`;
}

function joined(first, second) {
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}

/** Resolves at the next such event; rejects when the signal aborts. */
function happens(target, name, signal) {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    target.addEventListener(name, resolve, { once: true, signal });
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}
