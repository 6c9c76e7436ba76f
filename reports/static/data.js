"use strict";
/* From packed text to typed arrays, and the samples of one class at a time. */
spray.types = {
  int8: Int8Array,
  uint8: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  float32: Float32Array,
};

spray.bytes = (base64) => {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
  return bytes;
};

/** A packed array as a typed array with its shape. */
spray.unpack = async (packed) => {
  let bytes = spray.bytes(packed.data);
  if (packed.gzip) {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  }
  const values = new spray.types[packed.dtype](bytes.buffer, bytes.byteOffset, packed.shape.reduce((a, b) => a * b, 1));
  return Object.assign(values, { shape: packed.shape });
};

/** Decode one class: columns by position, member positions by subject key, mean maps of clusters. */
spray.decode = async (raw) => {
  const { index, n, ids, metadata, pages } = raw;
  const chunk = { index, n, ids, metadata, classScale: raw.class_scale, pictures: {}, labels: {}, members: {}, means: {} };
  chunk.pages = { size: pages.size, names: pages.names, loaded: new Map(), asked: new Map() };
  const jobs = [];
  const put = (target, name, packed) => jobs.push(spray.unpack(packed).then((values) => (target[name] = values)));
  for (const name of ["rows", "label", "prediction", "confidence", "vectors"]) put(chunk, name, raw[name]);
  for (const columns of ["pictures", "labels", "members", "means"]) {
    for (const [name, packed] of Object.entries(raw[columns])) put(chunk[columns], name, packed);
  }
  await Promise.all(jobs);
  return chunk;
};

/** Decode one page of pictures: the atlas as a bitmap, the int8 maps with their scales. */
spray.decodePage = async ({ maps, scale, atlas }) => {
  const page = { maps: null, scale: null, grid: null, atlas: null };
  const jobs = [];
  if (maps) {
    page.grid = maps.shape.slice(1);
    jobs.push(spray.unpack(maps).then((values) => (page.maps = values)));
    jobs.push(spray.unpack(scale).then((values) => (page.scale = values)));
  }
  if (atlas) {
    const blob = new Blob([spray.bytes(atlas.data)], { type: "image/webp" });
    page.atlas = { columns: atlas.columns, stride: atlas.stride, size: atlas.size };
    jobs.push(createImageBitmap(blob).then((bitmap) => (page.atlas.bitmap = bitmap)));
  }
  await Promise.all(jobs);
  return page;
};

/** Keep the latest results of an asynchronous function of one name. */
spray.remember = (kept, work) => {
  const known = new Map();
  return (name) => {
    const pending = known.get(name) ?? work(name);
    known.delete(name);
    known.set(name, pending); // the latest last: the oldest is let go first
    if (known.size > kept) known.delete(known.keys().next().value);
    pending.catch(() => known.delete(name)); // ask again next time
    return pending;
  };
};

/** Samples of a class of the analysis that is shown. */
spray.chunk = (index) => spray.chunkOf(`chunk-${spray.report.analysis}-${index}`);
spray.chunkOf = spray.remember(12, (name) => spray.source(name).then(spray.decode));
spray.pageOf = spray.remember(24, (name) => spray.source(name).then(spray.decodePage));

/** The page of pictures that holds a position; null while it is on its way (state.arrived tells when it is there). */
spray.pictures = (chunk, position) => {
  const { size, names, loaded, asked } = chunk.pages;
  const at = Math.floor(position / size);
  if (!loaded.has(at) && !asked.has(at)) {
    const coming = spray.pageOf(names[at]).then((page) => {
      loaded.set(at, page);
      asked.delete(at);
      if (chunk === spray.state.chunk) spray.set({ arrived: spray.state.arrived + 1 });
    });
    coming.catch((error) => spray.trouble(`Pictures are missing: ${error.message}`));
    asked.set(at, coming);
  }
  return loaded.get(at) ?? null;
};

/** Wait for the pictures of some positions. */
spray.awaitPictures = async (chunk, positions) => {
  for (const position of positions) spray.pictures(chunk, position);
  await Promise.all(chunk.pages.asked.values());
};

/** Where blocks come from: the carrier's only difference. */
spray.source = (() => {
  const waiting = new Map();
  spray.block = (name, content) => waiting.get(name)?.(content);
  const carriers = {
    file: async (name) => JSON.parse(document.getElementById(name).textContent),
    folder: (name) =>
      new Promise((resolve, reject) => {
        const missing = () => reject(new Error(`${name}.js is missing: keep the page and its folder together.`));
        const script = spray.element("script", { src: `${spray.report.carrier.folder}/${name}.js`, onerror: missing });
        waiting.set(name, (content) => {
          waiting.delete(name);
          script.remove();
          resolve(content);
        });
        document.head.append(script);
      }),
    served: async (name) => {
      const answer = await fetch(`data/${name}`);
      if (!answer.ok) throw new Error(`The server answered ${answer.status} for ${name}.`);
      return answer.json();
    },
  };
  return (name) => carriers[spray.report.carrier.kind](name);
})();

/** Edge list of a region on its grid, as unit segments [x0, y0, x1, y1]: for outlines at any size. */
spray.outline = (region) => {
  if (!region) return null;
  if (region.edges) return region.edges;
  const [height, width] = region.shape;
  const bits = spray.bytes(region.data);
  const inside = (y, x) => y >= 0 && x >= 0 && y < height && x < width && bits[y * width + x] > 0;
  const edges = [];
  for (let y = 0; y <= height; y += 1) {
    for (let x = 0; x <= width; x += 1) {
      if (inside(y, x) !== inside(y - 1, x)) edges.push([x / width, y / height, (x + 1) / width, y / height]);
      if (inside(y, x) !== inside(y, x - 1)) edges.push([x / width, y / height, x / width, (y + 1) / height]);
    }
  }
  region.edges = edges;
  return edges;
};
