// SPDX-License-Identifier: Apache-2.0
// Loads and generates from folders in Node.js: node try_node.mjs MODULES node|transformers.js FOLDER ...
// MODULES is the folder with node_modules. Prints one line for each folder: its name, then "ok" or what went wrong.
import { createRequire } from 'node:module';
import { existsSync, readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const [modules, client, ...folders] = process.argv.slice(2);
const TOKENS = 6;
const PROMPT = [1, 5, 9, 20];
const find = createRequire(path.join(path.resolve(modules), 'index.js'));

/** The model of a folder: in onnx/, or beside the other files. */
function modelIn(folder) {
    const inner = path.join(folder, 'onnx');
    const place = existsSync(inner) ? inner : folder;
    return path.join(place, readdirSync(place).find((name) => name.endsWith('.onnx')));
}

/** An empty tensor with 0 for the length of the past, and 1 for every other open extent. */
function empty(ort, meta) {
    const shape = meta.shape.map((extent, axis) => (typeof extent === 'number' ? extent : axis === 0 ? 1 : 0));
    const half = meta.type === 'float16';
    const size = shape.reduce((all, each) => all * each, 1);
    return new ort.Tensor(meta.type, half ? new Uint16Array(size) : new Float32Array(size), shape);
}

/** Greedy steps with the cache, as a program without any library would do them. */
async function withRuntime(folder) {
    const ort = find('onnxruntime-node');
    const session = await ort.InferenceSession.create(modelIn(folder));
    const longs = (values) => new ort.Tensor('int64', BigInt64Array.from(values.map(BigInt)), [1, values.length]);
    const caches = {};
    for (const meta of session.inputMetadata) {
        if (meta.shape.length === 4) {
            caches[meta.name] = empty(ort, meta);
        }
    }
    let next = PROMPT;
    let length = 0;
    for (let step = 0; step < TOKENS; step++) {
        const positions = next.map((_, i) => length + i);
        length += next.length;
        const all = { input_ids: longs(next), attention_mask: longs(Array(length).fill(1)), position_ids: longs(positions), ...caches };
        if (session.inputNames.includes('use_cache_branch')) {
            all.use_cache_branch = new ort.Tensor('bool', [step > 0], [1]);
        }
        const feeds = Object.fromEntries(session.inputNames.map((name) => [name, all[name]]));
        const results = await session.run(feeds);
        const logits = results.logits;
        const width = logits.dims.at(-1);
        const row = Array.from(logits.data.slice(-width));
        if (!row.every(Number.isFinite)) {
            throw new Error('logits are not finite');
        }
        next = [row.indexOf(Math.max(...row))];
        for (const name of Object.keys(caches)) {
            caches[name] = results[name.replace('past_key_values', 'present')];
        }
    }
    return TOKENS;
}

/** As a page or a server would do it. A folder in the layout of hubs is loaded with no option at all. */
async function withTransformers(folder) {
    const file = find.resolve('@huggingface/transformers');
    const { AutoModelForCausalLM, AutoTokenizer, Tensor, env } = await import(pathToFileURL(file));
    env.allowRemoteModels = false;
    env.localModelPath = path.dirname(path.resolve(folder)) + path.sep;
    const name = path.basename(folder);
    const options = existsSync(path.join(folder, 'onnx')) ? {} : { subfolder: '', model_file_name: path.basename(modelIn(folder), '.onnx') };
    const tokenizer = await AutoTokenizer.from_pretrained(name);
    const model = await AutoModelForCausalLM.from_pretrained(name, options);
    // A test model may know fewer tokens than its tokenizer, so the prompt is not a text.
    if ((await tokenizer('Once upon a time')).input_ids.size === 0) {
        throw new Error('the tokenizer gives no tokens');
    }
    const longs = (values) => new Tensor('int64', BigInt64Array.from(values.map(BigInt)), [1, values.length]);
    const inputs = { input_ids: longs(PROMPT), attention_mask: longs(PROMPT.map(() => 1)) };
    const output = await model.generate({ ...inputs, max_new_tokens: TOKENS, min_new_tokens: TOKENS, do_sample: false });
    return output.dims.at(-1) - PROMPT.length;
}

let failed = 0;
for (const folder of folders) {
    let result = 'ok';
    try {
        const made = await (client === 'node' ? withRuntime(folder) : withTransformers(folder));
        if (made !== TOKENS) {
            result = `made ${made} tokens instead of ${TOKENS}`;
        }
    } catch (error) {
        result = String(error.message ?? error).split('\n')[0];
    }
    failed += result === 'ok' ? 0 : 1;
    console.log(`${path.basename(folder)}\t${result}`);
}
process.exitCode = failed > 0 ? 1 : 0;
