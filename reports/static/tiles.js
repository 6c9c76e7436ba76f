"use strict";
/* Pictures of samples: image, heatmap or overlay, coloured here from int8 relevance. */
spray.tiles = (() => {
  const tables = new Map();
  const shown = new WeakMap(); // by canvas: what of which sample, and how
  const scratch = document.createElement("canvas");
  const grey = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const sketch = scratch.getContext("2d", { willReadFrequently: true }); // pixels come from the processor

  /** Colour table of a map: 255 RGB entries, that of v at v + 127. */
  function table(name) {
    if (!tables.has(name)) tables.set(name, spray.bytes(spray.report.maps[name].table));
    return tables.get(name);
  }

  /** Fit a canvas to its size on the page, in device pixels; returns its context. */
  function fit(canvas, width, height = width) {
    const ratio = Math.min(3, window.devicePixelRatio || 1);
    const [across, down] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== across || canvas.height !== down) {
      Object.assign(canvas, { width: across, height: down });
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
    }
    return canvas.getContext("2d", { willReadFrequently: true }); // small pictures: no layer of the screen for each
  }

  /** Relevance codes [height × width] over the whole canvas; with ``veil`` weak relevance is see-through. */
  function heat(context, codes, [height, width], { factor = 1, veil = null } = {}) {
    const { map } = spray.state;
    const colours = table(map);
    const pixels = new ImageData(width, height);
    for (let i = 0; i < codes.length; i += 1) {
      const value = Math.max(-127, Math.min(127, Math.round(codes[i] * factor)));
      // Under a veil the hue of full strength is kept: strength shows in the opacity alone.
      const shown = veil === null ? value : Math.sign(value) * Math.round(127 * (0.55 + 0.45 * (Math.abs(value) / 127)));
      const at = 3 * (shown + 127);
      pixels.data[4 * i] = colours[at];
      pixels.data[4 * i + 1] = colours[at + 1];
      pixels.data[4 * i + 2] = colours[at + 2];
      pixels.data[4 * i + 3] = veil === null ? 255 : Math.round(255 * veil * (Math.abs(value) / 127) ** 0.7);
    }
    if (scratch.width !== width || scratch.height !== height) Object.assign(scratch, { width, height });
    sketch.putImageData(pixels, 0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(scratch, 0, 0, context.canvas.width, context.canvas.height);
  }

  function image(context, atlas, position, dim) {
    const { bitmap, columns, stride, size } = atlas;
    const x = (position % columns) * stride[1];
    const y = Math.floor(position / columns) * stride[0];
    const { width, height } = context.canvas;
    context.imageSmoothingEnabled = size[0] > 64;
    if (!dim) {
      context.drawImage(bitmap, x, y, size[1], size[0], 0, 0, width, height);
      return;
    }
    // Made grey at its own size, which most often is the smaller one.
    const [down, across] = size;
    if (grey.canvas.width !== across || grey.canvas.height !== down) Object.assign(grey.canvas, { width: across, height: down });
    grey.filter = "grayscale(1) brightness(0.86)";
    grey.globalCompositeOperation = "copy";
    grey.drawImage(bitmap, x, y, across, down, 0, 0, across, down);
    context.drawImage(grey.canvas, 0, 0, width, height);
  }

  /** A picture that is on its way. */
  function blank(context) {
    context.fillStyle = spray.theme.colour("well");
    context.fillRect(0, 0, context.canvas.width, context.canvas.height);
  }

  /** Draw the outline of a region, dark under light, so that it stands on any ground. */
  function ring(context, region) {
    const edges = spray.outline(region);
    if (!edges) return;
    const { width, height } = context.canvas;
    context.lineCap = "square";
    const thin = Math.max(1, Math.min(width, height) / 120);
    for (const [colour, line] of [["rgba(0,0,0,.75)", 3 * thin], ["#ffe14d", 1.5 * thin]]) {
      context.strokeStyle = colour;
      context.lineWidth = line;
      context.beginPath();
      for (const [x0, y0, x1, y1] of edges) {
        context.moveTo(Math.max(line / 2, Math.min(width - line / 2, x0 * width)), Math.max(line / 2, Math.min(height - line / 2, y0 * height)));
        context.lineTo(Math.max(line / 2, Math.min(width - line / 2, x1 * width)), Math.max(line / 2, Math.min(height - line / 2, y1 * height)));
      }
      context.stroke();
    }
  }

  /** Paint one sample, or a blank until its pictures are there. ``region`` is outlined where given. What a canvas shows
      already is not painted again. */
  function paint(canvas, chunk, position, { view = spray.state.view, size = 72, region = null } = {}) {
    const { map, scaling, opacity, relevance, outline } = spray.state;
    const wanted = [chunk, position, view, size, outline ? region : null, map, scaling, opacity, relevance, window.devicePixelRatio];
    const known = shown.get(canvas);
    if (known && wanted.every((value, at) => value === known[at])) return;
    const context = fit(canvas, size);
    const pictured = spray.pictures(chunk, position);
    const explained = spray.relevance(chunk, position);
    const [atlas, maps] = [pictured?.page.atlas, explained?.page.maps];
    if (!pictured || !explained || (!atlas && !maps)) {
      shown.delete(canvas);
      blank(context);
      return;
    }
    shown.set(canvas, wanted);
    const classScale = chunk.others.get(relevance)?.classScale ?? chunk.classScale;
    const factor = scaling === "class" && classScale > 0 ? (explained.page.scale?.[explained.at] || 0) / classScale : 1;
    const drawn = !atlas ? "heatmap" : !maps ? "image" : view;
    if (drawn !== "heatmap") image(context, atlas, pictured.at, drawn === "overlay");
    if (drawn !== "image") {
      const [height, width] = explained.page.grid;
      const codes = maps.subarray(explained.at * height * width, (explained.at + 1) * height * width);
      heat(context, codes, explained.page.grid, { factor, veil: drawn === "overlay" ? opacity : null });
    }
    if (region && spray.state.outline) ring(context, region);
  }

  /** Paint a mean map [y x] of int8 codes. */
  function average(canvas, codes, shape, { size = 148, region = null } = {}) {
    const context = fit(canvas, size);
    heat(context, codes, shape);
    if (region && spray.state.outline) ring(context, region);
  }

  /** No picture: none there is, or one that is on its way. What was there is gone. */
  const empty = (canvas, { size = 148 } = {}) => {
    shown.delete(canvas);
    blank(fit(canvas, size));
  };

  /** At most so many of many, evenly drawn. */
  const spread = (positions, most = 256) => (positions.length <= most ? positions : Array.from({ length: most }, (_, i) => positions[Math.floor((i * positions.length) / most)]));

  /** Mean of some samples' maps (of 256 of many), each scaled to its own largest |R|, as {codes, shape}; null while pictures are missing. */
  function meanOf(chunk, positions) {
    let sum = null;
    let shape = null;
    let missing = false;
    for (const position of spread(positions)) {
      const place = spray.relevance(chunk, position);
      if (!place?.page.maps) {
        missing = true; // the others are asked for in the same go
        continue;
      }
      shape = place.page.grid;
      const length = shape[0] * shape[1];
      sum ??= new Float64Array(length);
      const from = place.at * length;
      for (let i = 0; i < length; i += 1) sum[i] += place.page.maps[from + i];
    }
    if (!sum || missing) return null;
    const top = sum.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    return { codes: Int8Array.from(sum, (value) => (top > 0 ? Math.round((127 * value) / top) : 0)), shape };
  }

  /** Paint one picture of an atlas as it is; ``region`` is outlined where given. */
  function picture(canvas, atlas, at, { size = 76, region = null } = {}) {
    const context = fit(canvas, size);
    image(context, atlas, at, false);
    if (region && spray.state.outline) ring(context, region);
  }

  /** The colour bar, negative to positive. */
  function bar(canvas) {
    const context = canvas.getContext("2d");
    const colours = table(spray.state.map);
    const { width, height } = canvas;
    for (let x = 0; x < width; x += 1) {
      const at = 3 * Math.round((x / (width - 1)) * 254);
      context.fillStyle = `rgb(${colours[at]},${colours[at + 1]},${colours[at + 2]})`;
      context.fillRect(x, 0, 1, height);
    }
  }

  return { paint, average, empty, picture, meanOf, bar, names: ["view", "map", "opacity", "scaling", "relevance", "outline", "arrived"] };
})();

/** Whether a change alters how pictures are painted. */
spray.repaints = (changed) => spray.tiles.names.some((name) => changed.has(name));
