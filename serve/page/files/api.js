// The HTTP API. An API key is kept for as long as the tab lives, and sent with every request.

const KEY = "rayramid-key";

/** An answer of the server that is no success, or (status 0) none at all. */
export class ApiError extends Error {
  constructor(status, message, param = null) {
    super(message);
    this.status = status;
    this.param = param;
  }

  /** Whether the same request may succeed in a moment. */
  get passing() {
    return this.status === 0 || this.status >= 500;
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

/** Sends a request; `body` is form data, or an object that goes as JSON. Resolves to the response, rejects with ApiError. */
export async function send(method, path, { body, signal } = {}) {
  const headers = key.get() ? { Authorization: `Bearer ${key.get()}` } : {};
  if (body && !(body instanceof FormData)) {
    headers["Content-Type"] = "application/json";
    body = JSON.stringify(body);
  }
  const response = await reached(fetch(path, { method, headers, body, signal }));
  if (response.ok) return response;
  const error = (await response.json().catch(() => ({}))).error ?? {};
  const message = error.message ?? `The server answered with status ${response.status}.`;
  if (response.status === 401 || error.code === "api_key_revoked") {
    document.dispatchEvent(new CustomEvent("key-needed", { detail: message }));
  }
  throw new ApiError(response.status, message, error.param);
}

export async function ask(method, path, options) {
  return reached((await send(method, path, options)).json());
}

/** The pieces of a response's body as they come. (Safari can't iterate over streams.) */
export async function* pieces(response) {
  const reader = response.body.getReader();
  try {
    for (;;) {
      const { done, value } = await reached(reader.read());
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function reached(promise) {
  try {
    return await promise;
  } catch (error) {
    if (error instanceof TypeError) throw new ApiError(0, "The server can't be reached. Is it still running?");
    throw error;
  }
}

/** Resolves after a while; rejects when the signal aborts. */
export function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

export const path = (id, rest = "") => `v1/videos/${encodeURIComponent(id)}${rest}`;
