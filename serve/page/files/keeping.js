// Taking finished videos away, and deleting them.

import { ask, key, path, send } from "./api.js";
import { announce } from "./words.js";

const $ = (id) => document.getElementById(id);

/** Downloads a video. */
export async function save(video) {
  if (video.url) return follow(video.url, video.id, "_blank");
  if (!key.get()) return follow(path(video.id, "/content"), video.id);
  // A link can't send the API key.
  const url = URL.createObjectURL(await (await send("GET", path(video.id, "/content"))).blob());
  follow(url, video.id);
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

function follow(href, name, target = "") {
  Object.assign(document.createElement("a"), { href, target, download: `${name}.mp4`, rel: "noopener" }).click();
}

/** Deletes a video if the user confirms it; resolves to whether it is gone. */
export async function remove(video) {
  const dialog = $("delete-dialog");
  $("delete-text").textContent = `“${video.prompt}”`;
  dialog.returnValue = "keep";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  if (dialog.returnValue !== "delete") return false;
  await ask("DELETE", path(video.id)).catch((error) => {
    if (error.status !== 404) throw error;
  });
  announce("The video is deleted.");
  return true;
}
