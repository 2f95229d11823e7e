// Requests to the routes of one session.

/** A refusal of the server; its message is for the user. */
export class ServerError extends Error {
  constructor(message, { field = 'session', status = 0 } = {}) {
    super(message);
    Object.assign(this, { field, status });
  }
}

const LOST = 'The connection to the server was lost: try again.';

export class SessionApi {
  /** `base` is the address of the session, such as `session/KEY`, relative to the page. */
  constructor(base) {
    this.base = new URL(`${base}/`, document.baseURI).href;
    this.numChanges = 0; // requests in flight that change the session
  }

  url(path) {
    return this.base + path;
  }

  async get(path, { signal } = {}) {
    return (await this.request(path, { signal })).json();
  }

  async post(path, body = {}) {
    return this.changing(async () => (await this.request(path, jsonRequest(body))).json());
  }

  /** Post a question that changes nothing. */
  async query(path, body) {
    return (await this.request(path, jsonRequest(body))).json();
  }

  async postBytes(path, body) {
    return this.changing(async () => (await this.request(path, { method: 'POST', body })).json());
  }

  /** Post, and pass every line of the answer to `onLine`; returns the last line. */
  async stream(path, body, onLine) {
    return this.changing(async () => {
      const response = await this.request(path, jsonRequest(body));
      let last = null;
      for await (const line of linesOf(response.body)) {
        last = JSON.parse(line);
        onLine(last);
      }
      if (last?.state === 'refused') throw new ServerError(last.reason, { field: last.field });
      if (!last || !['done', 'cancelled'].includes(last.state)) throw new ServerError(LOST);
      return last;
    });
  }

  /** Post a file, and pass the fraction that was sent to `onProgress`. */
  upload(path, file, onProgress) {
    // fetch() does not report the progress of a request.
    const request = new XMLHttpRequest();
    const sent = new Promise((resolve, reject) => {
      request.open('POST', this.url(path));
      request.upload.onprogress = (event) => onProgress(event.loaded / event.total);
      request.onload = () => (request.status === 200 ? resolve() : reject(refusal(request.status, request.responseText)));
      request.onerror = () => reject(new ServerError('The upload was interrupted: try again.', { field: 'upload' }));
      request.send(file);
    });
    return this.changing(() => sent);
  }

  async changing(work) {
    this.numChanges += 1;
    try {
      return await work();
    } finally {
      this.numChanges -= 1;
    }
  }

  async request(path, options) {
    let response;
    try {
      response = await fetch(this.url(path), options);
    } catch (error) {
      throw error.name === 'AbortError' ? error : new ServerError(LOST);
    }
    if (!response.ok) throw refusal(response.status, await response.text());
    return response;
  }
}

function jsonRequest(body) {
  return { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) };
}

function refusal(status, text) {
  try {
    const { error, field } = JSON.parse(text);
    if (typeof error === 'string') return new ServerError(error, { field, status });
  } catch {
    // Not from the demo, but from a proxy before it.
  }
  return new ServerError(`The server refused the request (status ${status}).`, { status });
}

async function* linesOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch {
      throw new ServerError(LOST);
    }
    if (part.done) break;
    const lines = (rest + part.value).split('\n');
    rest = lines.pop();
    yield* lines.filter(Boolean);
  }
  if (rest) yield rest;
}
