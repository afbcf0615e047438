// What the page says.

const counted = (count, unit) => `${count}\u00a0${unit}`;

/** Seconds as people say them: `8 s`, `2.1 s`, `3 min 20 s`, `2 h 5 min`. */
export function duration(seconds) {
  if (seconds < 10) return counted(Math.round(seconds * 10) / 10, "s");
  const whole = Math.round(seconds);
  if (whole < 60) return counted(whole, "s");
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return counted(minutes, "min") + (whole % 60 ? ` ${counted(whole % 60, "s")}` : "");
  return counted(Math.floor(minutes / 60), "h") + (minutes % 60 ? ` ${counted(minutes % 60, "min")}` : "");
}

/** A point in a video. */
export const point = (seconds) => `${seconds.toFixed(1)} s`;

/** How an unfinished video stands, from an event about it. */
export function standing({ status, queue_position: place, estimated_seconds: left, progress }) {
  const rest = left === null ? "" : `, about ${duration(Math.max(1, Math.round(left)))} to go`;
  if (status === "queued" || place) return `Waiting${place ? `: ${place === 1 ? "next" : `number ${place}`} in line` : ""}${rest}`;
  return `Being made: ${progress} %${rest}`;
}

/** How a video has ended. */
export function ending({ status, error }) {
  if (status === "completed") return "Finished";
  return error?.code === "cancelled" ? "Cancelled" : `Failed: ${error?.message ?? "the server does not say why"}`;
}

/** One or two words for a card. */
export function badge({ status, error, progress }) {
  if (status === "queued") return "waiting";
  if (status === "in_progress") return `${progress} %`;
  if (status === "completed") return "";
  return error?.code === "cancelled" ? "cancelled" : "failed";
}

/** Size and length. */
export const facts = ({ size, seconds }) => `${size.replace("x", " × ")} · ${duration(Number(seconds))}`;

/** All prompts of a video with the second from which each holds. */
export const prompts = ({ prompt, prompt_schedule: later }) => [{ from_second: 0, prompt }, ...later];

/** Says something to screen readers. */
export function announce(text) {
  document.getElementById("live").textContent = text;
}
