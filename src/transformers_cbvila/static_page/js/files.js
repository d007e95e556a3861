// Files of the page, with a report of how much of them has come.

const PAGE = new URL('../', import.meta.url);

// The content of a file; `report` is called with the name and the numbers of bytes that are there and in all.
export async function fetched(name, report = () => {}) {
  const answer = await fetch(new URL(name, PAGE)).catch((error) => fail(name, error.message));
  if (!answer.ok) fail(name, `${answer.status} ${answer.statusText}`);
  const total = Number(answer.headers.get('Content-Length')); // of a compressed file fewer than come
  const parts = [];
  let loaded = 0;
  for (const reader = answer.body.getReader(); ; ) {
    const { done, value } = await reader.read().catch((error) => fail(name, error.message));
    if (done) break;
    parts.push(value);
    loaded += value.length;
    report(name, loaded, Math.max(loaded, total));
  }
  return new Blob(parts).arrayBuffer();
}

export async function fetchedJson(name) {
  return JSON.parse(new TextDecoder().decode(await fetched(name)));
}

function fail(name, reason) {
  throw new Error(`The file ${name} of this page cannot be loaded (${reason}). Reload the page to try again.`);
}
