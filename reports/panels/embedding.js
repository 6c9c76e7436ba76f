"use strict";
/* The embedding: Bokeh draws the dots, this fills and colours them and listens to lasso, box, tap and pointer. */
spray.panel({
  name: "embedding",
  mount(section) {
    Object.assign(this, {
      picture: section.querySelector("#picture"),
      colour: section.querySelector("#colour"),
      legend: section.querySelector("#legend"),
      plot: section.querySelector(".plot"),
      own: false, // true while this panel itself sets the selection
    });
    this.picture.addEventListener("change", () => spray.set({ picture: this.picture.value }));
    this.colour.addEventListener("change", () => spray.set({ colour: this.colour.value }));
    this.view = spray.figures.embedding;
    this.model = this.view.model;
    const find = (name) => this.model.document.get_model_by_name(name);
    for (const name of ["points", "labels", "mark", "dots", "names"]) this[name] = find(name);
    this.points.selected.properties.indices.change.connect(() => this.brushed());
    this.points.inspect.connect(() => this.hovered());
    this.plot.addEventListener("pointermove", (event) => (this.pointer = event), true);
    this.plot.addEventListener("pointerleave", () => spray.card.hide());
  },
  brushed() {
    if (this.own) return;
    const { indices } = this.points.selected;
    if (!indices.length) {
      this.own = true; // Bokeh clears on a click beside the dots: keep what is shown
      this.points.selected.indices = this.places(spray.state.selection);
      this.own = false;
      return;
    }
    const selection = Uint32Array.from(indices, (i) => this.drawn[i]).sort();
    spray.set({ selection, origin: "brush", sample: selection.length === 1 ? selection[0] : null });
  },
  hovered() {
    const [index] = this.points.inspected.indices;
    if (index === undefined || !this.pointer) spray.card.hide();
    else spray.card.show(this.drawn[index], this.pointer.clientX, this.pointer.clientY);
  },
  update(state, changed) {
    if (changed.has("theme")) this.paintTheme();
    if (!state.chunk) return;
    if (changed.has("group") || changed.has("chunk")) this.offer(state);
    if (changed.has("colour")) this.colour.value = state.colour;
    if (["group", "chunk", "picture", "colour", "theme", "subject"].some((name) => changed.has(name))) this.draw(state);
    if (changed.has("selection") || changed.has("chunk")) {
      this.own = true;
      this.points.selected.indices = this.places(state.selection);
      this.own = false;
    }
    if (changed.has("sample") || changed.has("chunk") || changed.has("picture")) this.ring(state);
  },
  offer({ chunk, picture, colour }) {
    const pictures = Object.keys(chunk.pictures);
    spray.options(this.picture, pictures.map((name) => [name, name]), picture);
    this.picture.closest("label").hidden = pictures.length < 2;
    const clusterings = Object.keys(chunk.labels).map((name) => [name, `${name} cluster`]);
    const columns = Object.keys(chunk.metadata).map((name) => [`meta.${name}`, name]);
    const choices = [["findings", "finding"], ...clusterings, ["prediction", "prediction"], ["correct", "right or wrong"], ...columns];
    if (!choices.some(([value]) => value === colour)) spray.set({ colour: "findings" });
    spray.options(this.colour, choices, colour);
  },
  draw(state) {
    const { chunk, group } = state;
    const xy = chunk.pictures[state.picture];
    this.drawn = spray.thinned(xy ? chunk.n : 0);
    const n = this.drawn.length;
    const x = new Float32Array(n);
    const y = new Float32Array(n);
    this.drawn.forEach((position, i) => ([x[i], y[i]] = [xy[2 * position], xy[2 * position + 1]]));
    const { colours, entries } = spray.colouring(state);
    const size = new Float32Array(n).fill(n > 4000 ? 3.5 : n > 1200 ? 5 : n > 300 ? 6.5 : 8);
    this.points.data = { x, y, colour: Array.from(this.drawn, (position) => colours[position]), size };
    this.labels.data = this.names_of(state, xy);
    this.frame(this.model.x_range, x);
    this.frame(this.model.y_range, y);
    spray.fill(
      this.legend,
      entries.map(([colour, text]) => spray.element("span", {}, spray.element("i", { style: { background: colour } }), text)),
      n && n < chunk.n ? spray.element("span", {}, `${spray.count(n)} of ${spray.count(chunk.n)} dots drawn: the lasso takes from these`) : null,
      n ? null : spray.element("span", {}, group.status === "ok" ? "This analysis has no picture." : spray.classNote(group)),
    );
  },
  /** Where selected positions are among the drawn dots. */
  places(selection) {
    if (this.drawn.length === spray.state.chunk.n) return Array.from(selection);
    const inside = new Set(selection);
    const found = [];
    this.drawn.forEach((position, i) => inside.has(position) && found.push(i));
    return found;
  },
  /** Put all dots in sight, with some air; the reset tool comes back to this. */
  frame(range, values) {
    const low = values.length ? values.reduce((a, b) => Math.min(a, b)) : 0;
    const high = values.length ? values.reduce((a, b) => Math.max(a, b)) : 1;
    const air = 0.06 * (high - low || 1);
    Object.assign(range, { start: low - air, end: high + air, reset_start: low - air, reset_end: high + air });
  },
  names_of({ group, chunk, subject }, xy) {
    const shown = group.subjects.filter((entry) => entry.kind === "finding" && (entry.flagged || entry === subject));
    if (subject && !shown.includes(subject) && subject.name !== "noise") shown.push(subject);
    const made = { x: [], y: [], text: [], colour: [] };
    if (!xy) return made;
    const middle = (axis, members) => {
      const sorted = Float32Array.from(members, (i) => xy[2 * i + axis]).sort();
      return sorted[Math.floor(sorted.length / 2)];
    };
    for (const entry of shown) {
      const members = chunk.members[entry.key];
      if (!members.length) continue;
      made.x.push(middle(0, members));
      made.y.push(middle(1, members));
      made.text.push(entry.kind === "finding" ? entry.name : `cluster ${entry.name}`);
      made.colour.push(spray.theme.colour(entry.flagged ? "alarm" : "ink"));
    }
    return made;
  },
  ring({ sample, chunk, picture }) {
    const mark = this.model.document.get_model_by_name("mark");
    const xy = chunk.pictures[picture];
    mark.data = sample === null || !xy ? { x: [], y: [] } : { x: [xy[2 * sample]], y: [xy[2 * sample + 1]] };
  },
  paintTheme() {
    const card = spray.theme.colour("card");
    this.names.glyph.background_fill_color = { value: card };
    this.dots.selection_glyph.line_color = { value: card };
  },
});

/** Positions that are drawn: all, or every so many-th where there are more than a canvas moves smoothly. */
spray.thinned = (n) => {
  const step = Math.max(1, n / spray.mostDots);
  return Uint32Array.from({ length: Math.min(n, spray.mostDots) }, (_, i) => Math.floor(i * step));
};
spray.mostDots = 20_000;

/** Colours by position and what they mean: [[colour, text]…], for the chosen colouring. */
spray.colouring = ({ colour, chunk, group }) => {
  const { palette } = spray.report;
  const grey = spray.theme.colour("dot");
  const colours = new Array(chunk.n).fill(grey);
  const entries = [];
  const paint = (members, hue, text) => {
    for (const i of members) colours[i] = hue;
    entries.push([hue, text]);
  };
  if (colour === "findings" || chunk.labels[colour]) {
    const subjects = group.subjects.filter((entry) => entry.clustering === colour && entry.name !== "noise");
    for (const entry of [...subjects].reverse()) for (const i of chunk.members[entry.key]) colours[i] = spray.subjectColour(group, entry);
    for (const entry of subjects.slice(0, 8)) entries.push([spray.subjectColour(group, entry), `${spray.subjectName(entry)} (${spray.count(entry.n)})`]);
    if (colours.includes(grey)) entries.push([grey, colour === "findings" ? "in no finding" : subjects.length > 8 ? "noise and smaller clusters" : "noise"]);
    return { colours, entries };
  }
  if (colour === "correct") {
    const wrong = spray.theme.colour("alarm-fill");
    chunk.label.forEach((label, i) => (colours[i] = label < 0 ? grey : label === chunk.prediction[i] ? palette[0] : wrong));
    return { colours, entries: [[palette[0], "right"], [wrong, "wrong"]] };
  }
  const values = colour === "prediction" ? Array.from(chunk.prediction, spray.className) : chunk.metadata[colour.slice(5)];
  const counts = new Map();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  [...counts].sort((a, b) => b[1] - a[1]).slice(0, 7).forEach(([value, count], place) => {
    const members = [];
    values.forEach((entry, i) => entry === value && members.push(i));
    paint(members, palette[place], `${value || "–"} (${spray.count(count)})`);
  });
  if (counts.size > 7) entries.push([grey, `${counts.size - 7} more`]);
  return { colours, entries };
};

/** Flagged findings alone are vermilion; the others take the palette in their order, grey beyond it. */
spray.subjectColour = (group, subject) => {
  if (subject.flagged) return spray.theme.colour("alarm-fill");
  const peers = group.subjects.filter((entry) => entry.clustering === subject.clustering && !entry.flagged && entry.name !== "noise");
  const place = peers.indexOf(subject);
  return place >= 0 && place < spray.report.palette.length ? spray.report.palette[place] : spray.theme.colour("dot");
};
