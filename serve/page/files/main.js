// The page: a form, the video that is looked at (its id is the address's fragment), and all videos.

import { ask, key } from "./api.js";
import { Gallery } from "./gallery.js";
import { MakeForm } from "./make.js";
import { Stage } from "./stage.js";

const RETRY_MS = 3000;
const $ = (id) => document.getElementById(id);

const form = new MakeForm(begun);
const gallery = new Gallery(gone);
const stage = new Stage({
  offer: (model) => form.offer(model),
  changed: (video) => gallery.put(video),
  reuse: (video) => form.fill(video),
  begun,
  gone,
});

function begun(video) {
  gallery.put(video);
  location.hash = video.id;
}

function gone(id) {
  gallery.remove(id);
  if (stage.id !== id) return;
  stage.clear("This video is gone.");
  history.replaceState(null, "", location.pathname + location.search);
}

function route() {
  const id = location.hash.slice(1);
  gallery.mark(id);
  if (!id) stage.clear();
  else if (id !== stage.id) stage.show(id);
}

async function begin() {
  try {
    form.offers = (await ask("GET", "v1/models")).data;
    $("make-error").textContent = "";
  } catch (error) {
    $("make-error").textContent = error.message;
    if (error.passing) setTimeout(begin, RETRY_MS);
    return;
  }
  await gallery.load();
  const running = gallery.running;
  if (!location.hash && running) history.replaceState(null, "", `#${running.id}`);
  route();
}

function askForKey(why) {
  if ($("key-dialog").open) return;
  if (why) $("key-text").textContent = why;
  $("key").value = key.get();
  $("key-dialog").returnValue = "";
  $("key-dialog").showModal();
}

$("key-open").addEventListener("click", () => askForKey());
document.addEventListener("key-needed", (event) => askForKey(event.detail));
$("key-dialog").addEventListener("close", () => {
  if ($("key-dialog").returnValue !== "save") return;
  key.set($("key").value.trim());
  stage.clear();
  begin();
});
window.addEventListener("hashchange", () => {
  route();
  if (!stage.id) return;
  $("stage").focus({ preventScroll: true });
  $("stage").scrollIntoView({ block: "nearest" });
});
begin();
