// The graphs of an exported model in ONNX Runtime Web, each loaded when it is first run.

import * as ort from '../onnxruntime-web/ort.wasm.bundle.min.mjs';
import { fetched } from './files.js';

const BINARY = 'onnxruntime-web/ort-wasm-simd-threaded.wasm';

export class Graphs {
  // `description` is the content of export.json, `report` what files.js reports to.
  constructor(description, report) {
    this.description = description;
    this.report = report;
    this.sessions = new Map();
  }

  has(name) {
    return name in this.description.graphs;
  }

  // Outputs by name, as { data, dims }. `inputs` are { type, data, dims }; more than the graph takes are left out.
  async run(name, inputs) {
    const graph = this.description.graphs[name];
    const session = await this.session(name);
    const tensor = ({ type, data, dims }) => new ort.Tensor(type, data, dims);
    return session.run(Object.fromEntries(Object.keys(graph.inputs).map((key) => [key, tensor(inputs[key])])));
  }

  session(name) {
    if (!this.sessions.has(name)) {
      const made = this.make(name);
      made.catch(() => this.sessions.delete(name)); // may be tried again
      this.sessions.set(name, made);
    }
    return this.sessions.get(name);
  }

  async make(name) {
    ort.env.wasm.numThreads = 1; // more need headers of HTTP that a page cannot set for itself
    ort.env.wasm.wasmBinary ??= await fetched(BINARY, this.report);
    const graph = await fetched(`model/${this.description.graphs[name].file}`, this.report);
    return ort.InferenceSession.create(graph, { executionProviders: ['wasm'] });
  }
}
