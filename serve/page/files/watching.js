// A video while it is made: its bytes, and what is told about it. What breaks is taken up again.

import { ApiError, ask, path, pause, pieces, send } from "./api.js";

const RETRY_MS = 1500;

/** The video as fragmented MP4: what exists, then the rest as it comes. Ends when the video does. */
export async function* bytes(id, signal) {
  let received = 0;
  for (;;) {
    try {
      // A segment's bytes are always the same, so a new connection goes on where the last one broke.
      let skip = received;
      for await (const piece of pieces(await send("GET", path(id, "/content?stream=1"), { signal }))) {
        const fresh = piece.subarray(Math.min(skip, piece.length));
        skip -= piece.length - fresh.length;
        received += fresh.length;
        if (fresh.length) yield fresh;
      }
      return;
    } catch (error) {
      await again(error, signal);
    }
  }
}

/** Server-sent events `{name, data}`, the last one `completed` or `failed`. `onBreak` is told of a lost connection. */
export async function* events(id, signal, onBreak) {
  for (;;) {
    try {
      // EventSource can't send an API key.
      for await (const event of parsed(await send("GET", path(id, "/events"), { signal }))) {
        yield event;
        if (event.name !== "progress") return;
      }
      // A video that was deleted ends without a word; then this fails with 404.
      await ask("GET", path(id), { signal });
    } catch (error) {
      if (error instanceof ApiError && error.passing) onBreak();
      await again(error, signal);
    }
  }
}

async function* parsed(response) {
  const decoder = new TextDecoder();
  let text = "";
  for await (const piece of pieces(response)) {
    text += decoder.decode(piece, { stream: true });
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/s)));
      if (fields.data) yield { name: fields.event, data: JSON.parse(fields.data) };
    }
  }
}

async function again(error, signal) {
  if (!(error instanceof ApiError && error.passing)) throw error;
  await pause(RETRY_MS, signal);
}
