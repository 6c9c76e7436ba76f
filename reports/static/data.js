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

/** Decode one class: columns by position, member positions by subject key, the atlas, the int8 maps. */
spray.decode = async (raw) => {
  const chunk = { index: raw.index, n: raw.n, ids: raw.ids, pictures: {}, labels: {}, members: {}, metadata: raw.metadata };
  const jobs = [];
  const put = (target, name, packed) => jobs.push(spray.unpack(packed).then((values) => (target[name] = values)));
  for (const name of ["rows", "label", "prediction", "confidence"]) put(chunk, name, raw[name]);
  for (const [name, packed] of Object.entries(raw.pictures)) put(chunk.pictures, name, packed);
  for (const [name, packed] of Object.entries(raw.labels)) put(chunk.labels, name, packed);
  for (const [name, packed] of Object.entries(raw.members)) put(chunk.members, name, packed);
  if (raw.maps) {
    put(chunk, "maps", raw.maps);
    put(chunk, "scale", raw.scale);
    chunk.grid = raw.maps.shape.slice(1);
  }
  if (raw.atlas) {
    const blob = new Blob([spray.bytes(raw.atlas.data)], { type: "image/webp" });
    chunk.atlas = { ...raw.atlas, data: null };
    jobs.push(createImageBitmap(blob).then((bitmap) => (chunk.atlas.bitmap = bitmap)));
  }
  await Promise.all(jobs);
  if (chunk.scale) {
    const sorted = Float32Array.from(chunk.scale.filter(Number.isFinite)).sort();
    chunk.classScale = sorted.length ? sorted[Math.floor(0.98 * (sorted.length - 1))] : 0;
  }
  return chunk;
};

/** Samples of classes by index, decoded once. The carrier (spray.source) knows where the text comes from. */
spray.chunk = (() => {
  const known = new Map();
  const kept = 12;
  return (index) => {
    let pending = known.get(index);
    if (!pending) pending = spray.source(index).then(spray.decode);
    known.delete(index);
    known.set(index, pending); // the latest last: the oldest is let go first
    if (known.size > kept) known.delete(known.keys().next().value);
    return pending;
  };
})();

/** The carrier of the single file: each class is a block of text in the page. */
spray.source = async (index) => JSON.parse(document.getElementById(`chunk-${index}`).textContent);

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
