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
    if (window.matchMedia("(pointer: coarse)").matches) {
      // A finger that moves over the plot scrolls the page, until a tool is chosen.
      const { toolbar } = this.model;
      for (const tool of [toolbar.active_drag, toolbar.active_scroll]) if (tool?.active !== undefined) tool.active = false;
      toolbar.active_drag = null;
      toolbar.active_scroll = null;
      this.model.toolbar_location = "above"; // tools as large as fingers do not stand below each other
    }
    spray.named(this.plot, "Embedding: one dot per sample. Findings and clusters can be chosen in the table, samples in the gallery.");
    const find = (name) => this.model.document.get_model_by_name(name);
    for (const name of ["points", "labels", "mark", "dots", "names"]) this[name] = find(name);
    this.points.selected.properties.indices.change.connect(() => this.brushed());
    this.model.on_event("selectiongeometry", ({ geometry, final }) => final && this.surrounded(geometry));
    this.model.on_event("tap", () => this.tapped()); // also where the tap selects what is selected already
    this.points.inspect.connect(() => this.hovered());
    this.plot.addEventListener("pointerdown", (event) => Object.assign(this, { pointer: event, down: event }), true);
    this.plot.addEventListener("pointermove", (event) => {
      this.pointer = event;
      if (this.down && event.buttons && Math.hypot(event.clientX - this.down.clientX, event.clientY - this.down.clientY) > 4) this.down = null; // a drag
    }, true);
    this.plot.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && spray.card.hide());
    spray.pressed(this.plot, (event) => {
      this.pointer = event;
      this.show(this.under());
    });
  },
  brushed() {
    if (this.own) return;
    const { indices } = this.points.selected;
    if (this.down && this.tapped()) return;
    if (!indices.length) {
      this.own = true; // Bokeh clears on a click beside the dots: keep what is shown
      this.points.selected.indices = this.places(spray.state.selection);
      this.own = false;
      return;
    }
    if (this.isThinned() && indices.length > 1) return; // surrounded() takes those that are not drawn, too
    this.select(Uint32Array.from(indices, (i) => this.drawn[i]));
  },
  /** Of dots that overlap, a tap takes the one whose card is shown; gives whether there is one. */
  tapped() {
    const index = spray.state.chunk && this.pointer && !this.pointer.shiftKey ? this.under() : undefined;
    if (index === undefined) return false;
    this.select(Uint32Array.of(this.drawn[index]));
    if (this.pointer.pointerType === "touch") this.show(index); // the gallery is out of a phone's sight
    return true;
  },
  /** A lasso or box around some of many dots: all samples inside, drawn or not. */
  surrounded(geometry) {
    const { chunk, picture, selection } = spray.state;
    if (!this.isThinned() || !["rect", "poly"].includes(geometry.type)) return;
    const inside = spray.inside(geometry, chunk.pictures[picture]);
    const more = this.pointer?.shiftKey ? [...selection] : []; // shift adds, as Bokeh does with the drawn ones
    if (inside.length) this.select(Uint32Array.from(new Set([...more, ...inside])));
  },
  select(found) {
    const selection = found.sort();
    spray.set({ selection, origin: "brush", sample: selection.length === 1 ? selection[0] : null });
    spray.router.tellSample(spray.state);
  },
  isThinned() {
    return this.drawn.length < spray.state.chunk.n;
  },
  /** The drawn dot under the pointer, or within reach of a finger: of several the one whose centre is nearest. */
  under() {
    const { left, top } = this.view.canvas_view.el.getBoundingClientRect();
    const { x_scale: across, y_scale: up } = this.view.frame;
    const { x, y } = this.points.data;
    const distance = (i) => Math.hypot(left + across.compute(x[i]) - this.pointer.clientX, top + up.compute(y[i]) - this.pointer.clientY);
    let [best, reach] = [undefined, this.pointer.pointerType === "touch" ? 22 : this.dots.glyph.size.value / 2 + 1];
    for (let i = 0; i < x.length; i += 1) {
      const apart = distance(i);
      if (apart < reach) [best, reach] = [i, apart];
    }
    return best;
  },
  hovered() {
    if (this.pointer?.pointerType === "touch") return; // a finger taps, or stays
    this.show(this.pointer && this.points.inspected.indices.length ? this.under() : undefined);
  },
  /** The card of a drawn dot; none of undefined. */
  show(index) {
    if (index === undefined) spray.card.hide();
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
    this.drawn = xy ? spray.thinned(state) : new Uint32Array(0);
    const n = this.drawn.length;
    const { hues, codes, entries, scale } = spray.colouring(state);
    const shades = hues.map(spray.rgba);
    const Colours = this.points.data.colour.constructor; // Bokeh's array of packed colours: no text to parse for each dot
    this.points.data = {
      x: Float32Array.from(this.drawn, (position) => xy[2 * position]),
      y: Float32Array.from(this.drawn, (position) => xy[2 * position + 1]),
      colour: new Colours(Array.from(this.drawn, (position) => shades[codes[position]])),
    };
    const size = { value: n > 4000 ? 3.5 : n > 1200 ? 5 : n > 300 ? 6.5 : 8 };
    for (const name of ["glyph", "selection_glyph", "nonselection_glyph"]) if (this.dots[name].size.value !== size.value) this.dots[name].size = size;
    const dim = scale ? 0.55 : 0.28; // a scale is read off the dots around, too
    if (this.dots.nonselection_glyph.fill_alpha.value !== dim) this.dots.nonselection_glyph.fill_alpha = { value: dim };
    this.frame(this.model.x_range, xy ?? [], 0);
    this.frame(this.model.y_range, xy ?? [], 1);
    this.labels.data = this.names_of(state, xy);
    spray.fill(
      this.legend,
      scale ? spray.scaleBar(scale) : null,
      entries.map(([colour, text]) => spray.element("span", {}, spray.element("i", { style: { background: colour } }), text)),
      n && n < chunk.n ? spray.element("span", {}, `${spray.count(n)} of ${spray.count(chunk.n)} dots drawn; lasso and box take all`) : null,
      n ? null : spray.element("span", {}, group.status === "ok" ? "This analysis has no picture." : spray.classNote(group)),
    );
  },
  /** Where selected positions are among the drawn dots. */
  places(selection) {
    if (!this.isThinned()) return Array.from(selection);
    const inside = new Uint8Array(spray.state.chunk.n);
    for (const position of selection) inside[position] = 1;
    const found = [];
    this.drawn.forEach((position, i) => inside[position] && found.push(i));
    return found;
  },
  /** Put all dots in sight, with some air; the reset tool comes back to this. */
  frame(range, xy, axis) {
    let [low, high] = [Infinity, -Infinity];
    for (let i = axis; i < xy.length; i += 2) {
      low = Math.min(low, xy[i]);
      high = Math.max(high, xy[i]);
    }
    if (!(low <= high)) [low, high] = [0, 1];
    const air = 0.06 * (high - low || 1);
    Object.assign(range, { start: low - air, end: high + air, reset_start: low - air, reset_end: high + air });
  },
  names_of({ group, chunk, subject }, xy) {
    const shown = group.subjects.filter((entry) => entry.kind === "finding" && (entry.flagged || entry === subject));
    if (subject && !shown.includes(subject) && subject.name !== "noise") shown.push(subject);
    const made = { x: [], y: [], text: [], colour: [], lift: [] };
    if (!xy) return made;
    const along = (axis, members) => Float32Array.from(members, (i) => xy[2 * i + axis]).sort();
    const ranges = [this.model.x_range, this.model.y_range];
    const narrow = (sorted, axis) => sorted.at(-1) - sorted[0] < 0.07 * (ranges[axis].end - ranges[axis].start);
    for (const entry of shown) {
      const members = chunk.members[entry.key];
      if (!members.length) continue;
      const places = [along(0, members), along(1, members)];
      const [x, y] = places.map((sorted) => sorted[Math.floor(sorted.length / 2)]);
      made.x.push(x);
      made.y.push(y);
      made.text.push(entry.kind === "finding" ? entry.name : `cluster ${entry.name}`);
      made.colour.push(spray.theme.colour(entry.flagged ? "alarm" : "ink"));
      // In the midst of few dots, or of dots that lie close together, it would cover them: there it stands above.
      made.lift.push(members.length < 4 || places.every(narrow) ? -22 : 0);
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

/** Positions that are drawn, ascending: all, or, of more than a canvas moves smoothly, every so many-th, and more of
    those in flagged findings. */
spray.thinned = ({ chunk, group }) => {
  const most = spray.mostDots;
  if (chunk.n <= most) return Uint32Array.from({ length: chunk.n }, (_, i) => i);
  const drawn = new Uint8Array(chunk.n);
  const draw = (positions, count) => {
    const step = Math.max(1, positions.length / count);
    for (let i = 0; i < Math.min(count, positions.length); i += 1) drawn[positions[Math.floor(i * step)]] = 1;
  };
  const flagged = group.subjects.filter((entry) => entry.flagged);
  for (const entry of flagged) draw(chunk.members[entry.key], Math.floor(most / 4 / flagged.length));
  const step = chunk.n / (flagged.length ? (3 * most) / 4 : most);
  for (let at = 0; at < chunk.n; at += step) drawn[Math.floor(at)] = 1;
  const positions = [];
  drawn.forEach((yes, position) => yes && positions.push(position));
  return Uint32Array.from(positions);
};
spray.mostDots = 4000;

/** Positions whose dots lie in a box or polygon, given in the picture's coordinates. */
spray.inside = (geometry, xy) => {
  const box = geometry.type === "rect";
  const across = box ? [geometry.x0, geometry.x1] : geometry.x;
  const up = box ? [geometry.y0, geometry.y1] : geometry.y;
  const [left, right, low, high] = [Math.min(...across), Math.max(...across), Math.min(...up), Math.max(...up)];
  const found = [];
  for (let i = 0; 2 * i < xy.length; i += 1) {
    const [x, y] = [xy[2 * i], xy[2 * i + 1]];
    if (x < left || x > right || y < low || y > high) continue;
    if (box || spray.within(x, y, across, up)) found.push(i);
  }
  return found;
};

/** Whether a point lies in a polygon: a ray from it crosses the border an odd number of times. */
spray.within = (x, y, across, up) => {
  let odd = false;
  for (let i = 0, j = across.length - 1; i < across.length; j = i, i += 1) {
    if (up[i] > y !== up[j] > y && x < ((across[j] - across[i]) * (y - up[i])) / (up[j] - up[i]) + across[i]) odd = !odd;
  }
  return odd;
};
