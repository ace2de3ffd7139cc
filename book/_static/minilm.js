// MiniLM in the page: its tokens, the attention of its heads, and their singular values.
// Its parts are scripts that book/_ext/your_text.py has written; each hands its own to MiniLM.receive.
const MiniLM = (() => {
  const LAYERS = 6, HEADS = 12, WIDTH = 384, HEAD_WIDTH = WIDTH / HEADS, INNER = 4 * WIDTH;
  const VOCABULARY = 30522, MOST_TOKENS = 64, WORDS_PER_FILE = 64, LONGEST_WORD = 100;
  const folder = new URL("minilm/", document.currentScript.src);

  // --- Parts: each is asked for once, and again if it didn't come ---------------------------------------

  const asked = new Map(), received = new Map();

  function load(name) {
    if (!asked.has(name)) asked.set(name, new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = new URL(`${name}.js`, folder);
      script.onload = script.onerror = () => {
        script.remove();
        if (received.has(name)) return resolve(received.get(name));
        asked.delete(name);
        reject(new Error(`${name} did not load`));
      };
      document.head.append(script);
    }));
    return asked.get(name);
  }

  function bytes(text) {
    const characters = atob(text), codes = new Uint8Array(characters.length);
    for (let i = 0; i < codes.length; i++) codes[i] = characters.charCodeAt(i);
    return codes.buffer;
  }

  // Reads what rounded() and linear() of your_text.py wrote, one after the other.
  function reader(text) {
    const buffer = bytes(text);
    let at = 0;
    const take = (Kind, count) => {
      const taken = new Kind(buffer, at, count);
      at += taken.byteLength;
      return taken;
    };
    const matrix = (count, width) => ({
      width, columns: take(Float32Array, width), units: take(Float32Array, count), rows: take(Int16Array, count * width),
    });
    return {
      matrix,
      linear: (count, width) => ({ bias: take(Float32Array, count), ...matrix(count, width) }),
      norm: () => ({ bias: take(Float32Array, WIDTH), gain: take(Float32Array, WIDTH) }),
    };
  }

  function receive(name, text) {
    const read = name === "vocabulary" ? null : reader(text);
    const [kind, number] = name.split("-");
    if (kind === "vocabulary") received.set(name, new Map(text.split("\n").map((word, id) => [word, id])));
    if (kind === "words") received.set(name, read.matrix(Math.min(WORDS_PER_FILE, VOCABULARY - number * WORDS_PER_FILE), WIDTH));
    if (kind === "places") received.set(name, { ...read.matrix(MOST_TOKENS, WIDTH), norm: read.norm() });
    if (kind === "layer") {
      const layer = { query: read.linear(WIDTH, WIDTH), key: read.linear(WIDTH, WIDTH) };
      if (Number(number) < LAYERS - 1) Object.assign(layer, {
        value: read.linear(WIDTH, WIDTH), mixed: read.linear(WIDTH, WIDTH), mixedNorm: read.norm(),
        inner: read.linear(INNER, WIDTH), outer: read.linear(WIDTH, INNER), outerNorm: read.norm(),
      });
      received.set(name, layer);
    }
  }

  // --- Tokens: BERT's, in small letters and without accents ---------------------------------------------

  const SPECIAL = /(\[(?:PAD|UNK|CLS|SEP|MASK)\])/;
  const IDEOGRAPH = /([\u4e00-\u9fff\u3400-\u4dbf\u{20000}-\u{2a6df}\u{2a700}-\u{2b81f}\u{2b920}-\u{2ceaf}\uf900-\ufaff\u{2f800}-\u{2fa1f}])/gu;
  const MARK = /([\p{P}$+<=>^`|~])/gu;

  const words = (text) => text
    .replace(/[\t\n\r]/g, " ")
    .replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cs}\ufffd]/gu, "")
    .replace(IDEOGRAPH, " $1 ")
    .normalize("NFD").replace(/\p{Mn}/gu, "")
    .replace(/./gsu, (letter) => letter.toLowerCase()) // one by one: a final sigma is as any other
    .replace(MARK, " $1 ")
    .split(/\p{Z}+/u).filter(Boolean);

  // The longest piece first that the vocabulary has; a word that can't be pieced together is unknown.
  function pieces(word, vocabulary) {
    if ([...word].length > LONGEST_WORD) return ["[UNK]"];
    const found = [];
    for (let start = 0, end; start < word.length; start = end) {
      const prefix = start ? "##" : "";
      for (end = word.length; end > start && !vocabulary.has(prefix + word.slice(start, end)); end--);
      if (end === start) return ["[UNK]"];
      found.push(prefix + word.slice(start, end));
    }
    return found;
  }

  async function tokenize(text) {
    const vocabulary = await load("vocabulary");
    const all = text.split(SPECIAL).flatMap((part) => (
      SPECIAL.test(part) ? [part] : words(part).flatMap((word) => pieces(word, vocabulary))
    ));
    const tokens = ["[CLS]", ...all.slice(0, MOST_TOKENS - 2), "[SEP]"];
    return { tokens, ids: tokens.map((token) => vocabulary.get(token)), pieces: all.length };
  }

  // --- The encoder: rows are tokens, and their number is a multiple of four ------------------------------

  // X Wᵀ + b; a weight that is read serves four tokens.
  function apply({ bias, columns, units, rows, width }, X) {
    const tokens = X.length / width, outputs = bias.length, Y = new Float64Array(tokens * outputs);
    const scaled = X.map((x, i) => x * columns[i % width]);
    for (let t = 0; t < tokens; t += 4) {
      const [x0, x1, x2, x3] = [0, 1, 2, 3].map((i) => scaled.subarray((t + i) * width, (t + i + 1) * width));
      for (let o = 0; o < outputs; o++) {
        let y0 = 0, y1 = 0, y2 = 0, y3 = 0;
        for (let i = 0, w = o * width; i < width; i++, w++) {
          const weight = rows[w];
          y0 += weight * x0[i];
          y1 += weight * x1[i];
          y2 += weight * x2[i];
          y3 += weight * x3[i];
        }
        let at = t * outputs + o;
        for (const y of [y0, y1, y2, y3]) {
          Y[at] = units[o] * y + bias[o];
          at += outputs;
        }
      }
    }
    return Y;
  }

  // Layer norm of X + Y, row by row.
  function addAndNorm({ gain, bias }, X, Y) {
    for (let start = 0; start < X.length; start += WIDTH) {
      const sum = X.subarray(start, start + WIDTH).map((x, i) => x + Y[start + i]);
      const mean = sum.reduce((a, b) => a + b) / WIDTH;
      const spread = Math.sqrt(sum.reduce((a, b) => a + (b - mean) ** 2, 0) / WIDTH + 1e-12);
      sum.forEach((x, i) => { X[start + i] = (x - mean) / spread * gain[i] + bias[i]; });
    }
  }

  // x Φ(x), with the error function to 1.5e-7 (Abramowitz & Stegun 1964, 7.1.26).
  function gelu(x) {
    const z = Math.abs(x) / Math.SQRT2, t = 1 / (1 + 0.3275911 * z);
    const series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    const tail = series * Math.exp(-z * z) / 2; // Φ(−|x|)
    return x * (x < 0 ? tail : 1 - tail);
  }

  // A = softmax(QKᵀ/√d) of one head, n × n.
  function weights(Q, K, head, n) {
    const A = new Float64Array(n * n);
    for (let i = 0; i < n; i++) {
      let sum = 0;
      const row = A.subarray(i * n, (i + 1) * n), q = i * WIDTH + head * HEAD_WIDTH;
      for (let j = 0; j < n; j++) {
        const k = j * WIDTH + head * HEAD_WIDTH;
        for (let c = 0; c < HEAD_WIDTH; c++) row[j] += Q[q + c] * K[k + c];
      }
      const largest = Math.max(...row);
      for (let j = 0; j < n; j++) sum += row[j] = Math.exp((row[j] - largest) / Math.sqrt(HEAD_WIDTH));
      for (let j = 0; j < n; j++) row[j] /= sum;
    }
    return A;
  }

  // Attention of every head for the tokens' ids. `progress` is awaited with the share that is done, `start` called
  // when everything has come.
  async function attention(ids, progress, start) {
    const n = ids.length, X = new Float64Array(4 * Math.ceil(n / 4) * WIDTH), maps = [];
    const file = (id) => `words-${Math.floor(id / WORDS_PER_FILE)}`;
    const layers = Array.from({ length: LAYERS }, (_, layer) => `layer-${layer}`);
    const names = [...new Set(["places", ...ids.map(file), ...layers])];
    let loaded = 0;
    await Promise.all(names.map((name) => load(name).then(() => progress(0.6 * ++loaded / names.length))));
    start();

    const places = received.get("places");
    const entry = ({ columns, units, rows }, row, c) => rows[row * WIDTH + c] * units[row] * columns[c];
    ids.forEach((id, i) => {
      const words = received.get(file(id));
      for (let c = 0; c < WIDTH; c++) X[i * WIDTH + c] = entry(words, id % WORDS_PER_FILE, c) + entry(places, i, c);
    });
    addAndNorm(places.norm, X, new Float64Array(X.length));
    for (let l = 0; l < LAYERS; l++) {
      const layer = received.get(layers[l]), Q = apply(layer.query, X), K = apply(layer.key, X);
      for (let head = 0; head < HEADS; head++) maps.push(weights(Q, K, head, n));
      await progress(0.6 + 0.2 * (l + 1) / LAYERS);
      if (!layer.value) break;
      const V = apply(layer.value, X), mixed = new Float64Array(X.length);
      for (let head = 0; head < HEADS; head++) {
        const A = maps[l * HEADS + head], first = head * HEAD_WIDTH;
        for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) for (let c = first; c < first + HEAD_WIDTH; c++) {
          mixed[i * WIDTH + c] += A[i * n + j] * V[j * WIDTH + c];
        }
      }
      addAndNorm(layer.mixedNorm, X, apply(layer.mixed, mixed));
      addAndNorm(layer.outerNorm, X, apply(layer.outer, apply(layer.inner, X).map(gelu)));
    }
    return maps;
  }

  // --- Singular values ----------------------------------------------------------------------------------

  // One-sided Jacobi: turns pairs of rows until all are orthogonal. Then row k is σ_k v_kᵀ.
  function decompose(A, n) {
    const rows = Array.from({ length: n }, (_, i) => A.slice(i * n, (i + 1) * n));
    for (let turned = true, sweep = 0; turned && sweep < 40; sweep++) {
      turned = false;
      for (let i = 0; i < n; i++) for (let j = i + 1; j < n; j++) {
        const x = rows[i], y = rows[j];
        let xx = 0, yy = 0, xy = 0;
        for (let c = 0; c < n; c++) {
          xx += x[c] * x[c];
          yy += y[c] * y[c];
          xy += x[c] * y[c];
        }
        if (Math.abs(xy) <= 1e-12 * Math.sqrt(xx * yy)) continue;
        turned = true;
        const z = (yy - xx) / (2 * xy), t = (z < 0 ? -1 : 1) / (Math.abs(z) + Math.sqrt(1 + z * z));
        const cosine = 1 / Math.sqrt(1 + t * t), sine = cosine * t;
        for (let c = 0; c < n; c++) {
          const kept = x[c];
          x[c] = cosine * kept - sine * y[c];
          y[c] = sine * kept + cosine * y[c];
        }
      }
    }
    const pairs = rows.map((row) => ({ row, value: Math.hypot(...row) })).sort((a, b) => b.value - a.value);
    return {
      values: pairs.map(({ value }) => value),
      vectors: pairs.map(({ row, value }) => row.map((x) => (value ? x / value : 0))),
    };
  }

  // A_r = Σ_{k≤r} (A v_k) v_kᵀ.
  function truncate(A, vectors, r) {
    const n = vectors.length, cut = new Float64Array(n * n);
    for (const v of vectors.slice(0, r)) for (let i = 0; i < n; i++) {
      let share = 0;
      for (let j = 0; j < n; j++) share += A[i * n + j] * v[j];
      for (let j = 0; j < n; j++) cut[i * n + j] += share * v[j];
    }
    return cut;
  }

  return { LAYERS, HEADS, receive, tokenize, attention, decompose, truncate };
})();
