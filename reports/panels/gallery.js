"use strict";
/* The selection as pictures, page by page. */
spray.panel({
  name: "gallery",
  tile: 84,
  page: 0,
  mount(section) {
    for (const part of ["count", "back", "keep", "sort", "previous", "next", "page", "export", "relevance"]) this[`$${part}`] = section.querySelector(`#gallery-${part}`);
    this.tiles = section.querySelector("#gallery");
    this.$sort.addEventListener("change", () => spray.set({ sort: this.$sort.value }));
    spray.options(this.$export, [["", "export…"], ["csv", "table (CSV)"], ["ids", "ids (text)"], ["png", "embedding (PNG)"], ["svg", "embedding (SVG)"]], "");
    this.$export.addEventListener("change", () => {
      spray.exportAs(this.$export.value, this.order);
      this.$export.value = "";
    });
    this.$keep.addEventListener("change", () => spray.set({ keep: this.$keep.value }));
    this.$relevance.addEventListener("change", () => spray.set({ relevance: this.$relevance.value || null }));
    this.$previous.addEventListener("click", () => this.turn(-1));
    this.$next.addEventListener("click", () => this.turn(1));
    this.$back.addEventListener("click", () => spray.set({ selection: spray.state.chunk.members[spray.state.subject.key], origin: "subject", sample: null }));
    this.tiles.addEventListener("keydown", (event) => spray.moveAmong(this.shown(), event));
    // How many tiles fit is measured when that may have changed, not with every selection: it lays out the page.
    const fit = () => {
      const each = this.capacity();
      return this.chunk && this.tiles.clientWidth && this.each !== each ? () => this.fit(each) : null;
    };
    new ResizeObserver(() => spray.looking(fit)).observe(this.tiles);
  },
  update(state, changed) {
    if (!state.chunk) return;
    if (this.chunk !== state.chunk) this.offer(state);
    this.chunk = state.chunk;
    if (["selection", "chunk", "sort", "keep", "verdicts"].some((name) => changed.has(name))) {
      this.order = spray.ordered(state);
      if (!changed.has("verdicts")) this.page = this.pageOf(state.sample) ?? 0;
      this.render(state);
    } else if (changed.has("sample") && (this.pageOf(state.sample) ?? this.page) !== this.page) {
      this.page = this.pageOf(state.sample);
      this.render(state);
    } else if (spray.repaints(changed) || changed.has("subject")) this.paint(state);
    if (changed.has("sample")) this.mark(state);
  },
  /** Orders and filters: what every class has, and its metadata. */
  offer({ chunk, keep, sort, relevance }) {
    const others = [...chunk.others.keys()];
    this.$relevance.closest("label").hidden = !others.length;
    this.choose(this.$relevance, "relevance", relevance ?? "", "", [["", spray.report.relevance], ...others.map((name) => [name, name])]);
    const values = (column) => {
      const found = [...new Set(column)];
      return found.sort(spray.isNumeric(found) ? (a, b) => spray.byNumber([a, b])(0, 1) : undefined);
    };
    const predictions = values(chunk.prediction).map((index) => [`prediction=${index}`, `predicted ${spray.className(index)}`]);
    const labels = values(chunk.label).map((index) => [`label=${index}`, `labelled ${spray.className(index)}`]);
    const columns = Object.entries(chunk.metadata);
    const metadata = columns.flatMap(([name, column]) => {
      const found = values(column);
      if (found.length <= 12) return found.map((value) => [`meta.${name}=${value}`, `${name}: ${value || "–"}`]);
      if (!spray.isNumeric(column)) return [...new Set(spray.byCount(column))].slice(0, 12).map((value) => [`meta.${name}=${value}`, `${name}: ${value || "–"}`]);
      return ["lowest", "low", "high", "highest"].map((word, part) => [`quarter${part}.${name}`, `${name}: ${word} quarter`]);
    });
    this.choose(this.$keep, "keep", keep, "all", [
      ["all", "all"], ["right", "right ones"], ["wrong", "wrong ones"], ["sure", "90 % sure and more"], ["unsure", "less than 90 % sure"],
      ["near", "nearer half to the centre"], ["far", "farthest tenth from the centre"], ...predictions, ...(labels.length > 1 ? labels : []), ...metadata,
    ]);
    this.choose(this.$sort, "sort", sort, "central", [
      ["central", "most central"], ["outer", "least central"], ["sure", "most confident"], ["unsure", "least confident"],
      ["wrong", "wrong first"], ["label", "by label"], ["prediction", "by prediction"], ...columns.map(([name]) => [`meta.${name}`, `by ${name}`]), ["row", "store order"],
    ]);
  },
  /** Fill a drop-down; a choice that this class does not have gives way to the first. */
  choose(select, name, present, first, pairs) {
    const known = pairs.some(([value]) => value === present);
    spray.options(select, pairs, known ? present : first);
    if (!known) spray.set({ [name]: first || null });
  },
  /** How many tiles fit: whole rows of whole tiles. */
  capacity() {
    const across = Math.max(1, Math.floor((this.tiles.clientWidth + 8) / (this.tile + 8)));
    const down = Math.max(1, Math.floor((this.tiles.clientHeight + 8) / (this.tile + 30)));
    return innerWidth < 760 ? 12 : across * down;
  },
  /** The page that has a sample; null where none has. */
  pageOf(sample) {
    const at = this.order.indexOf(sample);
    return at < 0 ? null : Math.floor(at / (this.each ??= this.capacity()));
  },
  /** The tiles of this page. */
  shown() {
    return [...this.tiles.querySelectorAll(".tile")];
  },
  fit(each) {
    this.each = each;
    this.page = this.pageOf(spray.state.sample) ?? this.page;
    this.render(spray.state);
  },
  turn(step) {
    this.page += step;
    this.render(spray.state);
  },
  render(state) {
    const { chunk, selection, subject, origin } = state;
    const each = (this.each ??= this.capacity());
    const pages = Math.max(1, Math.ceil(this.order.length / each));
    this.page = Math.max(0, Math.min(pages - 1, this.page));
    const shown = Array.from(this.order.slice(this.page * each, (this.page + 1) * each));
    const from = origin === "brush" ? "selected by hand" : origin === "subject" && subject ? `of ${spray.subjectName(subject)}` : "";
    const kept = this.order.length === selection.length ? "" : `${spray.count(this.order.length)} kept of `;
    this.$count.textContent = selection.length ? `${kept}${spray.count(selection.length)} ${from}` : "nothing selected";
    this.$page.textContent = `${this.page + 1} / ${spray.count(pages)}`;
    this.$previous.disabled = this.page === 0;
    this.$next.disabled = this.page === pages - 1;
    this.$back.hidden = origin !== "brush" || !subject;
    if (subject) this.$back.textContent = `back to ${spray.subjectName(subject)}`;
    const none = spray.element("p", { class: "empty" }, "Draw a lasso around some dots, or choose a finding.");
    spray.repicture(this.tiles, () => spray.fill(this.tiles, shown.length ? shown.map((position) => this.make(chunk, position)) : none));
    this.paint(state);
    this.mark(state);
  },
  make(chunk, position) {
    const id = chunk.ids[position];
    const words = spray.caption(chunk, position);
    const known = chunk.label[position] >= 0;
    const right = chunk.label[position] === chunk.prediction[position];
    const record = spray.verdicts.ofSample(id);
    const verdict = () => `${record ? `${spray.verdicts.symbols[record.verdict][0]} ` : ""}${known && !right ? "✗ " : ""}`;
    const tile = spray.element(
      "button",
      {
        type: "button",
        class: "tile",
        tabindex: "-1",
        "data-position": position,
        title: words.join("\n"),
        "aria-label": [...words, ...(record ? [spray.verdicts.symbols[record.verdict][1]] : [])].join(", "),
        onclick: () => {
          spray.set({ sample: spray.state.sample === position ? null : position });
          spray.router.tellSample(spray.state);
        },
      },
      spray.canvas(),
      spray.element("span", { class: right || !known ? null : "wrong" }, `${verdict()}${right ? "" : `${spray.className(chunk.prediction[position])} `}${spray.percent(chunk.confidence[position])}`),
    );
    return spray.carded(tile, position);
  },
  paint({ chunk, subject, origin }) {
    const region = origin === "subject" ? subject?.region : null;
    for (const tile of this.tiles.querySelectorAll(".tile")) {
      spray.tiles.paint(tile.firstChild, chunk, Number(tile.dataset.position), { size: this.tile, region });
    }
  },
  mark({ sample }) {
    const tiles = this.shown();
    const isLookedAt = (tile) => Number(tile.dataset.position) === sample;
    for (const tile of tiles) tile.setAttribute("aria-pressed", String(isLookedAt(tile)));
    // One stop of the Tab key for all of them: what has the focus, what is looked at, or the first.
    spray.stopAt(tiles, tiles.find((tile) => tile === document.activeElement) ?? tiles.find(isLookedAt) ?? tiles[0]);
  },
});

/** The selection, filtered and sorted. Members of a subject come most central first; others are measured here. */
spray.ordered = ({ chunk, selection, origin, sort, keep }) => {
  const right = (i) => chunk.label[i] === chunk.prediction[i];
  const byDistance = ["central", "outer"].includes(sort) || ["near", "far"].includes(keep);
  let kept = Array.from(selection);
  if (origin === "brush" && byDistance) {
    const distance = spray.distances(chunk, selection);
    kept.sort((a, b) => distance.get(a) - distance.get(b));
  }
  // Members of a subject lie in this order already.
  if (keep === "near") kept = kept.slice(0, Math.ceil(kept.length / 2));
  else if (keep === "far") kept = kept.slice(-Math.ceil(kept.length / 10));
  else kept = kept.filter(spray.filter(chunk, keep));
  const by = {
    central: null,
    outer: () => kept.reverse(),
    sure: () => kept.sort((a, b) => chunk.confidence[b] - chunk.confidence[a]),
    unsure: () => kept.sort((a, b) => chunk.confidence[a] - chunk.confidence[b]),
    wrong: () => kept.sort((a, b) => right(a) - right(b)),
    label: () => kept.sort((a, b) => chunk.label[a] - chunk.label[b]),
    prediction: () => kept.sort((a, b) => chunk.prediction[a] - chunk.prediction[b]),
    row: () => kept.sort((a, b) => a - b),
  }[sort];
  const column = sort.startsWith("meta.") ? chunk.metadata[sort.slice(5)] : null;
  if (column) kept.sort(spray.isNumeric(column) ? spray.byNumber(column) : (a, b) => (column[a] < column[b] ? -1 : Number(column[a] > column[b])));
  by?.();
  return kept;
};

/** A cell of metadata as a number; NaN where it holds none. */
spray.numberOf = (value) => (String(value).trim() === "" ? NaN : Number(value));

/** Whether a column of text holds numbers, and beside them nothing but cells without a value. */
spray.isNumeric = (column) => {
  const empty = /^\s*(nan|none|null|n\/?a)?\s*$/i;
  return column.some((value) => Number.isFinite(spray.numberOf(value))) && column.every((value) => Number.isFinite(spray.numberOf(value)) || empty.test(value));
};

/** Positions by the number in a column, those without one last. */
spray.byNumber = (column) => (a, b) => {
  const [one, other] = [spray.numberOf(column[a]), spray.numberOf(column[b])];
  if (!Number.isFinite(one) || !Number.isFinite(other)) return Number.isFinite(other) - Number.isFinite(one);
  return one - other;
};

/** The values of a column, the most frequent first. */
spray.byCount = (column) => {
  const counts = new Map();
  for (const value of column) counts.set(value, (counts.get(value) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).map(([value]) => value);
};

/** A filter by its name in the drop-down. */
spray.filter = (chunk, keep) => {
  const known = (i) => chunk.label[i] >= 0;
  const right = (i) => chunk.label[i] === chunk.prediction[i];
  if (keep === "right") return (i) => known(i) && right(i);
  if (keep === "wrong") return (i) => known(i) && !right(i);
  if (keep === "sure") return (i) => chunk.confidence[i] >= 0.9;
  if (keep === "unsure") return (i) => chunk.confidence[i] < 0.9;
  if (keep.startsWith("prediction=")) return (i) => String(chunk.prediction[i]) === keep.slice(11);
  if (keep.startsWith("label=")) return (i) => String(chunk.label[i]) === keep.slice(6);
  if (/^quarter[0-3]\./.test(keep)) {
    // By rank, so that ties leave four quarters of one size: equal values fall in the order of the store.
    const column = chunk.metadata[keep.slice(9)];
    const measured = Array.from(column, (_, i) => i).filter((i) => Number.isFinite(spray.numberOf(column[i])));
    measured.sort((a, b) => spray.byNumber(column)(a, b) || a - b);
    const [low, high] = [0, 1].map((next) => Math.round(((Number(keep[7]) + next) / 4) * measured.length));
    const kept = new Set(measured.slice(low, high));
    return (i) => kept.has(i);
  }
  const name = Object.keys(chunk.metadata).find((entry) => keep.startsWith(`meta.${entry}=`));
  return name === undefined ? () => true : (i) => `meta.${name}=${chunk.metadata[name][i]}` === keep;
};

/** Distance of each selected sample to their mean in the spectral embedding. */
spray.distances = (chunk, selection) => {
  const { vectors } = chunk;
  const width = vectors.shape[1];
  const middle = new Float64Array(width);
  for (const i of selection) for (let d = 0; d < width; d += 1) middle[d] += vectors[i * width + d] / selection.length;
  const far = (i) => middle.reduce((sum, value, d) => sum + (vectors[i * width + d] - value) ** 2, 0);
  return new Map(Array.from(selection, (i) => [i, far(i)]));
};

/** Offer the selection as a file, or the embedding as a picture. */
spray.exportAs = async (kind, order) => {
  const { chunk, group, subject, origin } = spray.state;
  const name = origin === "subject" && subject ? subject.key : `c${group.index}.selection`;
  if (kind === "ids") spray.save(`${name}.txt`, order.map((i) => `${chunk.ids[i]}\n`).join(""), "text/plain");
  if (kind === "csv") spray.save(`${name}.csv`, `\ufeff${spray.table(chunk, order)}`, "text/csv"); // the mark tells spreadsheets that it is UTF-8
  if (kind === "png" || kind === "svg") await spray.exportPlot(spray.figures.embedding, kind, `${name}.embedding.${kind}`);
};

/** Samples as CSV (RFC 4180). A cell that a spreadsheet would run as a formula is led by an apostrophe. */
spray.table = (chunk, order) => {
  const columns = Object.keys(chunk.metadata);
  const cell = (value) => {
    const text = /^[=+\-@\t\r]/.test(String(value)) && !Number.isFinite(Number(value)) ? `'${value}` : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const named = (index) => (index < 0 ? "unknown" : (spray.plainClasses[index] ?? String(index)));
  const row = (i) => [chunk.rows[i], chunk.ids[i], named(chunk.label[i]), named(chunk.prediction[i]), chunk.confidence[i].toFixed(4), ...columns.map((name) => chunk.metadata[name][i])];
  return [["row", "id", "label", "prediction", "confidence", ...columns], ...order.map(row)].map((line) => `${line.map(cell).join(",")}\r\n`).join("");
};

/** A Bokeh plot as a file, on the card's colour, with what its colours mean below it. */
spray.exportPlot = async (view, kind, name) => {
  const layer = view.export(kind);
  const [card, ink] = ["card", "ink"].map(spray.theme.colour);
  const { width, height } = view.canvas_view.el.getBoundingClientRect();
  const legend = spray.legendBelow(spray.state, width);
  if (kind === "svg") {
    const drawing = new DOMParser().parseFromString(layer.ctx.get_serialized_svg(true), "image/svg+xml").documentElement;
    drawing.setAttribute("height", height + legend.height);
    drawing.removeAttribute("viewBox");
    drawing.prepend(spray.element("svg:rect", { width: "100%", height: "100%", fill: card }));
    drawing.append(
      ...legend.items.flatMap(({ x, y, text, hue, shades }) => [
        ...(hue ? [spray.element("svg:circle", { cx: x + 5, cy: height + y, r: 5, fill: hue })] : []),
        ...(shades ?? []).map((shade, at) => spray.element("svg:rect", { x: x + (120 * at) / shades.length, y: height + y - 5, width: 120 / shades.length + 0.5, height: 10, fill: shade })),
        ...(text ? [spray.element("svg:text", { x: x + (hue ? 14 : 0), y: height + y + 4, fill: ink, style: { font: spray.legendFont } }, text)] : []),
      ]),
    );
    spray.save(name, new XMLSerializer().serializeToString(drawing), "image/svg+xml");
    return;
  }
  const { canvas } = layer;
  const ratio = canvas.width / width;
  const sheet = spray.element("canvas", { width: canvas.width, height: canvas.height + Math.ceil(ratio * legend.height) });
  const context = sheet.getContext("2d");
  context.fillStyle = card;
  context.fillRect(0, 0, sheet.width, sheet.height);
  context.drawImage(canvas, 0, 0);
  context.setTransform(ratio, 0, 0, ratio, 0, canvas.height);
  context.font = spray.legendFont;
  context.textBaseline = "middle";
  for (const { x, y, text, hue, shades } of legend.items) {
    if (hue) {
      context.fillStyle = hue;
      context.beginPath();
      context.arc(x + 5, y, 5, 0, 2 * Math.PI);
      context.fill();
    }
    (shades ?? []).forEach((shade, at) => {
      context.fillStyle = shade;
      context.fillRect(x + (120 * at) / shades.length, y - 5, 120 / shades.length + 0.5, 10);
    });
    context.fillStyle = ink;
    if (text) context.fillText(text, x + (hue ? 14 : 0), y);
  }
  spray.save(name, await new Promise((resolve) => sheet.toBlob(resolve, "image/png")), "image/png");
};

spray.legendFont = "12px Helvetica Neue, Segoe UI, Liberation Sans, Arial, sans-serif";

/** What stands below an exported embedding: of what it is, and its colours, in rows of a width: {items, height}. */
spray.legendBelow = (state, width) => {
  const { entries, scale } = spray.colouring(state);
  const about = { text: `${state.group.name}, ${state.picture}:` };
  const bar = scale ? [{ text: `${spray.isolated(scale.name)} ${spray.scaleEnds(scale)[0]}` }, { shades: scale.shades }, { text: spray.scaleEnds(scale)[1] }] : [];
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = spray.legendFont;
  let [x, y] = [12, 14];
  const items = [about, ...bar, ...entries.map(([hue, text]) => ({ hue, text }))].map((item) => {
    const wide = item.shades ? 120 : pen.measureText(item.text).width + (item.hue ? 14 : 0);
    if (x > 12 && x + wide > width - 12) [x, y] = [12, y + 20];
    const placed = { ...item, x, y };
    x += wide + (item.shades || (bar.length && !item.hue) ? 7 : 16);
    return placed;
  });
  return { items, height: y + 14 };
};
