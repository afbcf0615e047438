// The video that is looked at: it plays, says how far it is, and can be cancelled, turned and extended.

import { ApiError, ask, path } from "./api.js";
import { remove, save } from "./keeping.js";
import { Player } from "./player.js";
import { announce, point, ending, facts, prompts, standing } from "./words.js";
import { events } from "./watching.js";

const $ = (id) => document.getElementById(id);
const EMPTY = $("curtain-text").textContent;
const TITLE = document.title;
const ended = ({ status }) => status === "completed" || status === "failed";

export class Stage {
  #id = null;
  #video = null;
  #from = 0;
  #leaving = new AbortController();
  #player = new Player($("video"));
  #listener;

  /**
   * The listener is asked `offer(model)`, and told `changed(video)` (also `pictured`: it has a thumbnail),
   * `begun(video)`, `gone(id)` and `reuse(video)`.
   */
  constructor(listener) {
    this.#listener = listener;
    $("cancel").addEventListener("click", () => this.#attempt(() => this.#cancel()));
    $("turn").addEventListener("submit", (event) => this.#attempt(() => this.#turn(), event));
    $("extend").addEventListener("submit", (event) => this.#attempt(() => this.#extend(), event));
    $("reuse").addEventListener("click", () => listener.reuse(this.#video));
    $("save").addEventListener("click", () => this.#attempt(() => save(this.#video)));
    $("delete").addEventListener("click", () => this.#attempt(() => this.#delete()));
  }

  /** Of the video that is shown, or null. */
  get id() {
    return this.#id;
  }

  /** Shows a video until another one is shown. */
  async show(id) {
    const signal = this.#leave();
    this.#id = id;
    try {
      const video = await ask("GET", path(id), { signal });
      this.#render(video);
      await Promise.all([this.#play(video, signal), this.#follow(video, signal)]);
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 404) this.#listener.gone(id);
      else this.#draw(error.message);
    }
  }

  /** Shows nothing. */
  clear(text = EMPTY) {
    this.#leave();
    this.#id = this.#video = null;
    document.title = TITLE;
    $("about").hidden = true;
    this.#draw(text);
  }

  #leave() {
    this.#leaving.abort();
    this.#leaving = new AbortController();
    $("stage-error").textContent = "";
    $("turn").reset();
    $("extend-prompt").value = "";
    return this.#leaving.signal;
  }

  async #play(video, signal) {
    this.#draw(ended(video) ? "Loading…" : "The video plays here as soon as its first moment is made.");
    const from = this.#from;
    this.#from = 0;
    try {
      const shown = await this.#player.play(video.id, {
        seconds: video.frames / video.fps,
        from,
        signal,
        onStart: () => {
          $("curtain").hidden = true;
          if (!ended(this.#video)) announce("The video has begun to play.");
        },
        onWhole: () => this.#draw("This browser can't play a video while it is made. It plays when it is finished."),
      });
      if (shown) this.#pictured($("video").duration);
      else this.#draw("No moment of it was made.");
    } catch (error) {
      if (signal.aborted || error instanceof ApiError) throw error;
      this.#draw("This browser can't play the video. When it is finished, it can be downloaded.");
    }
  }

  async #follow(video, signal) {
    if (ended(video)) return;
    const lost = () => ($("standing").textContent = "The connection is lost; trying again…");
    for await (const { name, data } of events(video.id, signal, lost)) {
      if (name === "progress") {
        this.#tell(data);
      } else {
        this.#render(data);
        announce(`${ending(data)}.`);
      }
    }
  }

  #tell(event) {
    if (event.status !== this.#video.status) announce("The video is being made.");
    this.#video = { ...this.#video, status: event.status, progress: event.progress };
    $("standing").textContent = standing(event);
    $("progress").value = event.progress;
    document.title = `${event.progress} % – ${TITLE}`;
    this.#listener.changed(this.#video);
    this.#pictured(event.playable_seconds);
  }

  /** The thumbnail is stored behind the first frame and before the second one. */
  #pictured(seconds) {
    if (seconds > 1.5 / this.#video.fps) this.#listener.changed({ ...this.#video, pictured: true });
  }

  #render(video) {
    this.#video = video;
    const running = !ended(video);
    const offer = this.#listener.offer(video.model);
    $("about").hidden = false;
    document.title = running ? TITLE : `${ending(video)} – ${TITLE}`;
    $("screen").style.aspectRatio = video.size.replace("x", "/");
    $("standing").textContent = running ? "Asking how it stands…" : ending(video);
    $("standing").classList.toggle("failed", video.status === "failed" && video.error?.code !== "cancelled");
    $("progress").hidden = $("cancel").hidden = !running;
    $("progress").value = video.progress;
    $("turn").hidden = !(running && offer?.extends);
    $("extend").hidden = !(video.status === "completed" && offer?.extends);
    $("save").hidden = video.status !== "completed";
    $("facts").textContent = `${facts(video)} · seed ${video.seed} · ${video.model}`;
    this.#renderPrompts();
    if (offer) this.#boundExtension(offer);
    this.#listener.changed(video);
  }

  #renderPrompts() {
    const all = prompts(this.#video);
    const items = all.map(({ from_second: second, prompt }) => {
      const item = document.createElement("li");
      if (all.length > 1) item.append(Object.assign(document.createElement("span"), { className: "at", textContent: point(second) }));
      item.append(prompt);
      return item;
    });
    $("prompts").replaceChildren(...items);
  }

  #boundExtension(offer) {
    const seconds = $("extend-seconds");
    seconds.min = seconds.step = Math.min(0.5, offer.max_seconds);
    seconds.max = offer.max_seconds;
    seconds.value ||= Math.min(Math.max(1, Math.round(offer.seconds)), offer.max_seconds);
  }

  async #cancel() {
    this.#render(await ask("POST", path(this.id, "/cancel")));
    announce(`${ending(this.#video)}.`);
  }

  async #turn() {
    const body = { prompt: $("turn-prompt").value };
    const turned = await ask("POST", path(this.id, "/prompt"), { body });
    const [first, ...later] = prompts(this.#video)
      .filter(({ from_second: second }) => second !== turned.from_second)
      .concat(turned)
      .sort((one, other) => one.from_second - other.from_second);
    this.#video = { ...this.#video, prompt: first.prompt, prompt_schedule: later };
    this.#renderPrompts();
    $("turn").reset();
    announce(`From ${point(turned.from_second)} on: ${turned.prompt}`);
  }

  async #extend() {
    const body = { video: { id: this.id }, seconds: Number($("extend-seconds").value) };
    if ($("extend-prompt").value) body.prompt = $("extend-prompt").value;
    const source = this.#video;
    const longer = await ask("POST", "v1/videos/extensions", { body });
    // What is known already is not watched again, but for its end.
    this.#from = Math.max(0, source.frames / source.fps - 1);
    this.#listener.begun(longer);
  }

  async #delete() {
    if (await remove(this.#video)) this.#listener.gone(this.id);
  }

  async #attempt(deed, event) {
    event?.preventDefault();
    $("stage-error").textContent = "";
    try {
      await deed();
    } catch (error) {
      $("stage-error").textContent = error.message;
    }
  }

  #draw(text) {
    $("curtain-text").textContent = text;
    $("curtain").hidden = false;
  }
}
