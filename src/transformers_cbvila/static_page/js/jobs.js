// Jobs of the worker: each is started with what is asked, and told what comes of it until it ends.

const worker = new Worker(new URL('worker.js', import.meta.url), { type: 'module' });
const running = new Map(); // handlers of a job by its id
let last = 0;
let broken = '';
let onLoading = () => {};
let onLoaded = () => {};

// `handle` is called with each message of the job; one with `error` is a sentence for people.
export function start(task, asked, handle) {
  last += 1;
  for (const [id, job] of running) if (job.task === task) running.delete(id); // this one takes its place
  if (broken) return handle({ error: broken });
  running.set(last, { task, handle });
  return worker.postMessage({ id: last, task, ...asked });
}

// `report` is called with the numbers of bytes that are there and in all, of everything that is loaded so far, and
// `end` when the model answers.
export function whileLoading(report, end) {
  onLoaded = end;
  const files = new Map();
  onLoading = ({ name, loaded, total }) => {
    files.set(name, { loaded, total });
    const sum = (key) => [...files.values()].reduce((all, file) => all + file[key], 0);
    report(sum('loaded'), sum('total'));
  };
}

worker.onmessage = ({ data }) => {
  if (data.loading) return onLoading(data.loading);
  onLoaded();
  return running.get(data.id)?.handle(data);
};

// A module of the worker that is not there or cannot be read: nothing will run.
worker.onerror = (event) => {
  event.preventDefault();
  const reason = event.message || 'a file of this page is missing';
  broken = `The model cannot be run here (${reason}). Reload the page, or try another browser.`;
  running.forEach(({ handle }) => handle({ error: broken }));
};
