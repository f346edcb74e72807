// Requests to the server that sent this page.

// A Failure is an answer that is not what was asked for, in words for people.
export class Failure extends Error {}

const storedKey = "cyclecap-key";
let key = sessionStorage.getItem(storedKey) ?? "";
let asking; // the promise of a key, while somebody is asked for it

export const hasKey = () => key !== "";

// ask sends a request and returns the JSON of the answer. While the server is busy it waits for
// as long as the server says, and calls waiting with the seconds, most times at the most. needKey is called if the
// server wants an API key, and must return a promise of one.
export async function ask(path, { body, signal, waiting = () => {}, most = 30, needKey } = {}) {
  for (let tries = 1; ; tries++) {
    const used = key;
    let answer;
    try {
      answer = await fetch(path, { method: body ? "POST" : "GET", body, signal, headers: used ? { Authorization: "Bearer " + used } : {} });
    } catch (e) {
      if (e.name === "AbortError") throw e;
      throw new Failure("The server cannot be reached: " + (navigator.onLine ? "is it running?" : "this device is offline."));
    }
    if (answer.ok) return answer.json();
    const text = await message(answer);
    if (answer.status === 401 && needKey) {
      // Another request may have got a new key in the meantime.
      if (used === key) {
        asking ??= needKey(used !== "").finally(() => (asking = undefined));
        key = await asking;
        sessionStorage.setItem(storedKey, key);
      }
      signal?.throwIfAborted();
      continue;
    }
    const seconds = Number(answer.headers.get("Retry-After"));
    if ((answer.status === 429 || answer.status === 503) && seconds > 0 && tries < most) {
      await pause(seconds, signal, waiting);
      continue;
    }
    throw new Failure(sentence(text));
  }
}

// message returns what an answer says is wrong.
async function message(answer) {
  try {
    return (await answer.json()).error.message;
  } catch {
    return `the server answered ${answer.status} ${answer.statusText}`;
  }
}

const sentence = (text) => text.replace(/^(body|images\[0\]): /, "").replace(/^\p{Ll}/u, (c) => c.toUpperCase()).replace(/([^.?!])$/, "$1.");

// pause waits, second by second.
async function pause(seconds, signal, waiting) {
  for (let left = Math.ceil(seconds); left > 0; left--) {
    waiting(left);
    await new Promise((done, gone) => {
      const timer = setTimeout(done, 1000);
      signal?.addEventListener("abort", () => {
        clearTimeout(timer);
        gone(signal.reason);
      }, { once: true });
    });
  }
}
