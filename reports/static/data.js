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

/** A stranger's name as part of a sentence: its direction of writing ends with it. Characters that turn the direction
    of what follows are shown as �, as one of them could end the isolation. */
spray.isolated = (name) => {
  const tame = name.replace(/[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
  return /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/.test(tame) ? `\u2068${tame}\u2069` : tame;
};
spray.plainClasses = spray.report.classes;
spray.report.classes = Array.isArray(spray.plainClasses) ? spray.plainClasses.map(spray.isolated) : Object.fromEntries(Object.entries(spray.plainClasses).map(([index, name]) => [index, spray.isolated(name)]));
for (const { groups } of spray.report.analyses) {
  for (const group of groups) {
    group.name = spray.isolated(group.name);
    for (const subject of group.subjects) if (subject.summary) subject.summary = subject.summary.replace(/[\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
  }
}

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
  const { index, n, ids } = raw;
  const chunk = { index, n, ids, classScale: raw.class_scale };
  // Names come from strangers: in an object without a prototype "__proto__" is a name like any other.
  for (const columns of ["pictures", "labels", "members", "means", "metadata"]) chunk[columns] = Object.create(null);
  const jobs = [];
  const put = (target, name, packed) => jobs.push(spray.unpack(packed).then((values) => (target[name] = values)));
  for (const name of ["rows", "label", "prediction", "confidence", "vectors"]) put(chunk, name, raw[name]);
  for (const columns of ["pictures", "labels", "members", "means"]) {
    for (const [name, packed] of Object.entries(raw[columns])) put(chunk[columns], name, packed);
  }
  for (const [name, column] of Object.entries(raw.metadata)) {
    if (!column.codes) chunk.metadata[name] = column.values;
    else jobs.push(spray.unpack(column.codes).then((codes) => (chunk.metadata[name] = Array.from(codes, (code) => column.values[code]))));
  }
  jobs.push(spray.albumOf(raw).then((album) => (chunk.album = album)));
  chunk.others = new Map(); // other relevance of the same samples, by name
  for (const other of raw.others) jobs.push(spray.albumOf(other).then((album) => chunk.others.set(other.name, { album, classScale: other.class_scale })));
  await Promise.all(jobs);
  return chunk;
};

spray.albumOf = async ({ pages, front }) => {
  if (!front) return spray.album(pages, null);
  const [positions, page] = await Promise.all([spray.unpack(front.positions), spray.decodePage(front.page)]);
  return spray.album(pages, { positions, page });
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
  if (atlas) jobs.push(spray.decodeAtlas(atlas).then((decoded) => (page.atlas = decoded)));
  await Promise.all(jobs);
  return page;
};

/** Many small pictures in one: its bitmap, and where each is in it. */
spray.decodeAtlas = async ({ columns, stride, size, data }) => {
  const bitmap = await createImageBitmap(new Blob([spray.bytes(data)], { type: "image/webp" }));
  return { columns, stride, size, bitmap };
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
/** Pictures of interventions of a finding: {members, removed, hosts, pasted}, each {count, atlas}. */
spray.proofOf = spray.remember(12, async (name) => {
  const sets = Object.entries(await spray.source(name));
  const decoded = await Promise.all(sets.map(async ([kind, { count, atlas }]) => [kind, { count, atlas: await spray.decodeAtlas(atlas) }]));
  return Object.fromEntries(decoded);
});

/** The pictures of a class, fetched when they are first asked for: whole pages of consecutive positions, or, where
    ``pages.picked`` names them, exactly those asked for, together. ``front`` has those that are looked at first. */
spray.album = ({ size, names, picked }, front) => {
  const most = 128; // positions in one request
  const kept = 16; // pages of one class that are held
  const places = new Map(front ? Array.from(front.positions, (position, at) => [position, { page: front.page, at }]) : []);
  const pages = new Map(); // by number, the latest used last
  const coming = new Map(); // by name
  const wanted = new Set();

  function fetched(name, take) {
    if (coming.has(name)) return;
    const job = spray.pageOf(name).then((page) => {
      take(page);
      coming.delete(name);
      spray.arrived();
    });
    job.catch((error) => {
      coming.delete(name);
      spray.trouble(`Pictures are missing: ${error.message}`);
    });
    coming.set(name, job);
  }

  function send() {
    const positions = [...wanted].sort((a, b) => a - b);
    wanted.clear();
    for (let start = 0; start < positions.length; start += most) {
      const part = positions.slice(start, start + most);
      fetched(`${picked}-${part.join(".")}`, (page) => part.forEach((position, at) => places.set(position, { page, at })));
    }
  }

  /** Where the picture of a position is, as {page, at}; null while it is on its way (state.arrived tells when it is there). */
  function find(position) {
    const place = places.get(position);
    if (place) return place;
    if (picked) {
      if (!wanted.size) queueMicrotask(send);
      wanted.add(position);
      return null;
    }
    const number = Math.floor(position / size);
    const page = pages.get(number);
    if (page) {
      pages.delete(number);
      pages.set(number, page);
      return { page, at: position % size };
    }
    fetched(names[number], (arrived) => {
      pages.set(number, arrived);
      if (pages.size > kept) pages.delete(pages.keys().next().value);
    });
    return null;
  }

  /** Wait for the pictures of some positions. */
  async function settled(positions) {
    for (const position of positions) find(position);
    await null; // what is asked for together leaves after this
    await Promise.all(coming.values());
  }

  return { find, settled, single: names?.length === 1 };
};

spray.pictures = (chunk, position) => chunk.album.find(position);
/** Where the relevance of a position is: that of the analysis, or another that was chosen. */
spray.relevance = (chunk, position) => {
  const other = chunk.others.get(spray.state.relevance);
  return (other?.album ?? chunk.album).find(position);
};
spray.awaitPictures = (chunk, positions) => chunk.album.settled(positions);

/** Tell the panels, once per frame, that pictures came in. */
spray.arrived = () => {
  if (spray.arriving) return;
  spray.arriving = true;
  requestAnimationFrame(() => {
    spray.arriving = false;
    spray.set({ arrived: spray.state.arrived + 1 });
  });
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
