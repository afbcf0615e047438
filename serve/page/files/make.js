// The form for a new video. It offers what the server says the model can do.

import { ask } from "./api.js";
import { announce, duration } from "./words.js";

const $ = (id) => document.getElementById(id);
const FIELDS = { prompt: "prompt", size: "size", seconds: "seconds", seed: "seed", input_reference: "picture" };
const OWN_SIZE = "own";

export class MakeForm {
  #offers = [];
  #onNew;
  #busy = false;

  /** `onNew(video)` is called with each video that was begun. */
  constructor(onNew) {
    this.#onNew = onNew;
    $("make").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    $("prompt").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("make").requestSubmit();
    });
    $("model").addEventListener("change", () => this.#fit());
    $("size").addEventListener("change", () => this.#askOwnSize());
    $("seconds").addEventListener("input", () => this.#tellSeconds());
    new Picture($("make"));
  }

  /** The models that are served, as `GET /v1/models` has them. */
  set offers(offers) {
    this.#offers = offers;
    $("model").replaceChildren(...offers.map(({ id }) => new Option(id)));
    $("model-field").hidden = offers.length < 2;
    this.#fit();
  }

  /** What the model with this name can do. */
  offer(name = $("model").value) {
    return this.#offers.find(({ id }) => id === name) ?? this.#offers[0];
  }

  /** Fills the form with what another video was made with. */
  fill({ prompt, model, size, seconds, seed }) {
    if (this.#offers.some(({ id }) => id === model)) $("model").value = model;
    this.#fit();
    $("prompt").value = prompt;
    $("seed").value = seed;
    $("seconds").value = seconds;
    this.#tellSeconds();
    const offered = this.offer()?.sizes.includes(size);
    $("size").value = offered ? size : OWN_SIZE;
    if (!offered) [$("width").value, $("height").value] = size.split("x");
    this.#askOwnSize();
    $("prompt").focus();
  }

  #fit() {
    const offer = this.offer();
    if (!offer) return;
    $("size").replaceChildren(
      ...offer.sizes.map((size) => new Option(size.replace("x", " × "), size)),
      new Option("Own size…", OWN_SIZE),
    );
    [$("width").value, $("height").value] = offer.sizes[0].split("x");
    for (const side of [$("width"), $("height")]) {
      side.min = offer.min_side;
      side.step = 2;
      side.required = false;
    }
    for (const prompt of ["prompt", "turn-prompt", "extend-prompt"]) $(prompt).maxLength = offer.max_prompt_characters;
    const seconds = $("seconds");
    seconds.max = offer.max_seconds;
    seconds.step = offer.max_seconds > 20 ? 1 : 0.5;
    seconds.min = Math.min(seconds.step, offer.max_seconds);
    seconds.value = offer.seconds;
    $("picture-field").hidden = !offer.image_to_video;
    this.#tellSeconds();
    this.#askOwnSize();
  }

  #tellSeconds() {
    $("seconds-text").value = duration(Number($("seconds").value));
  }

  #askOwnSize() {
    const own = $("size").value === OWN_SIZE;
    $("own-size").hidden = !own;
    $("own-size").disabled = !own;
    $("width").required = $("height").required = own;
  }

  async #submit() {
    if (this.#busy) return;
    this.#complain();
    const picture = this.offer()?.image_to_video ? $("picture").files[0] : undefined;
    if (picture?.size > this.offer().max_upload_bytes) {
      this.#complain(`The picture is larger than the ${megabytes(this.offer().max_upload_bytes)} that are allowed.`, "input_reference");
      return;
    }
    this.#busy = true;
    $("submit").setAttribute("aria-disabled", "true");
    try {
      this.#onNew(await ask("POST", "v1/videos", { body: this.#body(picture) }));
    } catch (error) {
      this.#complain(error.message, error.param);
    } finally {
      this.#busy = false;
      $("submit").removeAttribute("aria-disabled");
    }
  }

  #body(picture) {
    const body = new FormData();
    body.set("prompt", $("prompt").value);
    body.set("seconds", $("seconds").value);
    const size = $("size").value;
    body.set("size", size === OWN_SIZE ? `${$("width").value}x${$("height").value}` : size);
    if ($("seed").value) body.set("seed", $("seed").value);
    if (this.#offers.length > 1) body.set("model", $("model").value);
    if (picture) body.set("input_reference", picture);
    return body;
  }

  /** Says what is wrong, at its field if it has one; without a message takes back what was said. */
  #complain(message = "", param = null) {
    for (const field of Object.values(FIELDS)) {
      const mine = FIELDS[param] === field;
      $(`${field}-error`).textContent = mine ? message : "";
      $(field).toggleAttribute("aria-invalid", mine);
    }
    $("make-error").textContent = FIELDS[param] ? "" : message;
    if (message && FIELDS[param]) $(FIELDS[param]).focus();
  }
}

/** The picture that a video begins with: chosen, dropped or pasted anywhere on the form. */
class Picture {
  #url = null;

  constructor(form) {
    $("picture").addEventListener("change", () => this.#show());
    $("picture-remove").addEventListener("click", () => {
      $("picture").value = "";
      this.#show();
      $("picture").focus();
    });
    form.addEventListener("dragover", (event) => {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      $("drop").classList.add("over");
    });
    form.addEventListener("dragleave", (event) => {
      if (!form.contains(event.relatedTarget)) $("drop").classList.remove("over");
    });
    form.addEventListener("drop", (event) => {
      $("drop").classList.remove("over");
      if (this.#take(event.dataTransfer)) event.preventDefault();
    });
    form.addEventListener("paste", (event) => {
      if (this.#take(event.clipboardData)) event.preventDefault();
    });
  }

  #take({ files }) {
    const picture = [...files].find(({ type }) => type.startsWith("image/"));
    if (!picture || $("picture-field").hidden) return files.length > 0;
    const chosen = new DataTransfer();
    chosen.items.add(picture);
    $("picture").files = chosen.files;
    this.#show();
    return true;
  }

  #show() {
    const file = $("picture").files[0];
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = file ? URL.createObjectURL(file) : null;
    const preview = $("picture-preview");
    if (file) preview.src = this.#url;
    else preview.removeAttribute("src");
    preview.hidden = $("picture-remove").hidden = !file;
    $("picture-text").hidden = Boolean(file);
    preview.alt = file ? `First picture: ${file.name}` : "";
    $("picture-error").textContent = "";
    if (file) announce(`The video will begin with ${file.name}.`);
  }
}

const megabytes = (bytes) => `${Math.floor(bytes / 2 ** 20)} MB`;
