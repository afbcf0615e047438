// All videos, newest first. Those that are being made are looked after.

import { ask, path, pause, send } from "./api.js";
import { remove, save } from "./keeping.js";
import { badge, facts } from "./words.js";

const $ = (id) => document.getElementById(id);
const PAGE = 24;
const LOOK_MS = 4000;
const running = ({ status }) => status === "queued" || status === "in_progress";

export class Gallery {
  #cards = new Map();
  #onGone;

  /** `onGone(id)` is called when a video was deleted. */
  constructor(onGone) {
    this.#onGone = onGone;
    $("more").addEventListener("click", () => this.#attempt(() => this.#older()));
    this.#lookAfter();
  }

  /** Shows the newest videos. */
  async load() {
    for (const id of this.#cards.keys()) this.remove(id);
    await this.#attempt(() => this.#older());
  }

  /** The newest video that is being made, if there is one. */
  get running() {
    return [...this.#cards.values()].map(({ video }) => video).find(running);
  }

  /** Marks the one that is looked at. */
  mark(id) {
    for (const [each, { link }] of this.#cards) {
      if (each === id) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }

  /** Shows how a video is now; a new one comes first. */
  put(video, { last = false } = {}) {
    let card = this.#cards.get(video.id);
    if (!card) {
      card = this.#newCard(video);
      this.#cards = last ? this.#cards.set(video.id, card) : new Map([[video.id, card], ...this.#cards]);
      $("cards")[last ? "append" : "prepend"](card.item);
    }
    card.video = video;
    card.link.href = `#${video.id}`;
    card.prompt.textContent = video.prompt;
    card.facts.textContent = facts(video);
    card.badge.textContent = badge(video);
    card.save.hidden = video.status !== "completed";
    card.save.setAttribute("aria-label", `Download “${video.prompt}”`);
    card.delete.setAttribute("aria-label", `Delete “${video.prompt}”`);
    if (video.pictured || video.status === "completed") this.#picture(card);
    $("gallery-empty").hidden = true;
  }

  /** Takes a video away. */
  remove(id) {
    const card = this.#cards.get(id);
    if (!card) return;
    if (card.picture.src) URL.revokeObjectURL(card.picture.src);
    const next = card.item.nextElementSibling ?? card.item.previousElementSibling;
    if (card.item.contains(document.activeElement)) (next?.querySelector("a") ?? $("prompt")).focus();
    card.item.remove();
    this.#cards.delete(id);
    $("gallery-empty").hidden = this.#cards.size > 0;
  }

  #newCard(video) {
    const item = $("card").content.firstElementChild.cloneNode(true);
    const part = (selector) => item.querySelector(selector);
    const card = {
      video,
      item,
      link: part("a"),
      picture: part("img"),
      badge: part(".badge"),
      prompt: part(".card-prompt"),
      facts: part(".card-facts"),
      save: part(".save"),
      delete: part(".delete"),
    };
    card.save.addEventListener("click", () => this.#attempt(() => save(card.video)));
    card.delete.addEventListener("click", () => this.#attempt(async () => {
      if (await remove(card.video)) this.#onGone(video.id);
    }));
    return card;
  }

  async #picture(card) {
    if (card.asked) return;
    card.asked = true;
    try {
      // Streamed, since the page's policy lets it follow no redirection to a store.
      const response = await send("GET", path(card.video.id, "/content?variant=thumbnail&stream=1"));
      card.picture.src = URL.createObjectURL(await response.blob());
      card.picture.hidden = false;
    } catch {
      // Without it the card is still of use.
      card.asked = false;
    }
  }

  async #older() {
    const last = [...this.#cards.keys()].at(-1);
    const page = await ask("GET", `v1/videos?limit=${PAGE}${last ? `&after=${last}` : ""}`);
    for (const video of page.data) this.put(video, { last: true });
    $("more").hidden = !page.has_more;
    $("gallery-empty").hidden = this.#cards.size > 0;
  }

  async #lookAfter() {
    for (;;) {
      await pause(LOOK_MS);
      const unfinished = [...this.#cards.values()].map(({ video }) => video).filter(running);
      if (document.hidden) continue;
      for (const { id } of unfinished) {
        await ask("GET", path(id)).then(
          (video) => this.#cards.has(id) && this.put(video),
          (error) => error.status === 404 && this.remove(id),
        );
      }
    }
  }

  async #attempt(deed) {
    $("gallery-error").textContent = "";
    try {
      await deed();
    } catch (error) {
      $("gallery-error").textContent = error.message;
    }
  }
}
